//! One encrypted, multiplexed connection, as a state machine over bytes.
//!
//! ```text
//! socket   frame          length prefix
//!          noise          the handshake, with Diffie-Hellman from edwards
//!          secretstream   encryption of each frame after it
//!          noise_stream   these four together: bytes in, messages out, and the reverse
//!          batch          the messages inside a frame
//!          mux            channels: which message belongs to which protocol and id
//! ```
//!
//! No socket, clock or lock is used here.

pub mod batch;
pub mod edwards;
pub mod frame;
pub mod mux;
pub mod noise;
pub mod noise_stream;
pub mod secretstream;
