//! Manifests: who may sign a log.
