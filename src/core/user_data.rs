//! User data: values stored beside the log, on this machine only.

use crate::core::change::Change;
use crate::core::encryption::check_user_data_key;
use crate::core::handle::Hypercore;
use crate::core::session::Session;
use crate::oplog::MAX_USER_DATA;
use crate::{Error, Result};

/// User data.
impl Hypercore {
    /// Stores `value` under the name `key` beside the log, on this machine only. An empty value deletes it.
    ///
    /// Blocks for the commit, as the durability says; an unchanged value costs no write. Fails with
    /// [`BadArgument`](crate::ErrorKind::BadArgument) for names that begin with `hypercore-blocking/`, which are
    /// the library's own, and if all values together are too large for the header.
    ///
    /// ```
    /// # use hypercore::Hypercore;
    /// let core = Hypercore::in_memory()?;
    /// core.set_user_data("name", "metrics")?;
    /// assert_eq!(core.user_data("name").as_deref(), Some(&b"metrics"[..]));
    /// # Ok::<(), hypercore::Error>(())
    /// ```
    #[doc(alias = "setUserData")]
    pub fn set_user_data(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.session.set_user_data(key, value.as_ref())
    }

    /// Returns the value that [`Hypercore::set_user_data`] stored under `key`, or `None`.
    #[doc(alias = "getUserData")]
    pub fn user_data(&self, key: &str) -> Option<Vec<u8>> {
        let state = self.session.shared.state.read();
        state.user_data.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone())
    }
}

impl Session {
    /// See [`Hypercore::set_user_data`].
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
            // One header holds all values, and opening reads it into memory whole.
            let others = state.user_data.iter().filter(|(k, _)| k != key).map(|(k, value)| k.len() + value.len());
            let total = others.sum::<usize>().saturating_add(key.len()).saturating_add(value.len()) as u64;
            if total > MAX_USER_DATA {
                return Err(Error::bad_argument(format!(
                    "user data of {total} bytes in all is more than the {MAX_USER_DATA} that a core can keep: append it as \
                     blocks"
                )));
            }
        }
        let change = Change { user_data: Some((key.to_owned(), value.to_vec())), ..Change::default() };
        shared.commit(&mut writer, &[], vec![change])
    }
}
