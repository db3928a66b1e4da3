//! User data: values beside the log, on this machine alone.

use crate::core::change::Change;
use crate::core::encryption::check_user_data_key;
use crate::core::handle::Hypercore;
use crate::core::session::Session;
use crate::oplog::MAX_USER_DATA;
use crate::{Error, Result};

/// User data.
impl Hypercore {
    /// Stores a value beside the log, on this machine alone; an empty value deletes it. Blocks for the commit, as the
    /// durability says. Names that begin with `hypercore-blocking/` are the library's own, and refused as
    /// [`BadArgument`](crate::ErrorKind::BadArgument).
    #[doc(alias = "setUserData")]
    pub fn set_user_data(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.session.set_user_data(key, value.as_ref())
    }

    /// A value stored by [`Hypercore::set_user_data`].
    #[doc(alias = "getUserData")]
    pub fn user_data(&self, key: &str) -> Option<Vec<u8>> {
        let state = self.session.shared.state.read();
        state.user_data.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone())
    }
}

impl Session {
    /// Sets or, with an empty value, deletes user data.
    pub(crate) fn set_user_data(&self, key: &str, value: &[u8]) -> Result<()> {
        self.check_open()?;
        check_user_data_key(key)?;
        let shared = &*self.shared;
        let mut writer = shared.writer()?;
        {
            let state = shared.state.read();
            let old = state.user_data.iter().find(|(k, _)| k == key);
            if old.map_or(value.is_empty(), |(_, old)| old == value) {
                return Ok(());
            }
            // All values stand in one header, which has to be read again.
            let others = state.user_data.iter().filter(|(k, _)| k != key).map(|(k, value)| k.len() + value.len());
            let total = others.sum::<usize>().saturating_add(key.len()).saturating_add(value.len()) as u64;
            if total > MAX_USER_DATA {
                return Err(Error::bad_argument(format!(
                    "user data of {total} bytes in all is more than the {MAX_USER_DATA} that a core can keep: append it as blocks"
                )));
            }
        }
        let change = Change { user_data: Some((key.to_owned(), value.to_vec())), ..Change::default() };
        shared.commit(&mut writer, &[], vec![change])
    }
}
