//! The type `Hypercore`. `core/methods.rs` has its general methods; the others are in the file of their subject.

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
