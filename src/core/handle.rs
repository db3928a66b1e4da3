//! The handle `Hypercore`. Its methods are in `core/methods.rs` and, where they have a subject of their own,
//! in that file.

use std::sync::Arc;

use crate::core::session::Session;

/// A Hypercore: a signed, append-only log, open on this machine.
///
/// Cheap to clone. Clones are the same session, which closes when its last clone is dropped or by
/// [`Hypercore::close`]. All methods may be called from any thread and from the core's own callbacks.
///
/// ```
/// use hypercore::Hypercore;
///
/// # let tmp = tempfile::tempdir()?;
/// # let dir = tmp.path();
/// let core = Hypercore::open(dir)?;
/// core.append(b"hello")?;
/// core.append_batch(["brave", "new", "world"])?;
/// assert_eq!(core.len(), 4);
/// assert_eq!(core.get(1)?, b"brave");
/// println!("give others this id: {}", core.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Hypercore {
    pub(crate) session: Arc<Session>,
}
