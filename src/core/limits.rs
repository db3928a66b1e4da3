//! The largest block, and checks of blocks and block ranges against the limits.

use std::ops::{Bound, Range, RangeBounds};

use crate::{Error, Result};

/// The largest block that can be appended, in bytes: 15 MiB, so that it fits one frame of the wire.
#[doc(alias = "MAX_SUGGESTED_BLOCK_SIZE")]
pub const MAX_BLOCK_SIZE: usize = 15 * 1024 * 1024;

/// The largest stored block, in bytes. It leaves room for the padding of encryption, and for what other
/// implementations may have accepted.
pub(crate) const MAX_STORED_BLOCK: u64 = 16 * 1024 * 1024;

pub(crate) fn check_block(block: &[u8]) -> Result<()> {
    if block.len() > MAX_BLOCK_SIZE {
        return Err(Error::bad_argument(format!(
            "a block of {} bytes is larger than the {MAX_BLOCK_SIZE} bytes that fit in one message: split it",
            block.len()
        )));
    }
    Ok(())
}

pub(crate) fn check_range(range: &Range<u64>) -> Result<()> {
    if range.start > range.end {
        return Err(Error::bad_argument(format!("the range {}..{} ends before it starts", range.start, range.end)));
    }
    if range.end > crate::codec::MAX_SAFE_INTEGER / 2 {
        return Err(Error::bad_argument(format!("block {} is beyond the longest possible log", range.end)));
    }
    Ok(())
}

/// The blocks that a caller's range names. A range without an end ends at the length of the log.
pub(crate) fn range_of(range: impl RangeBounds<u64>, length: impl FnOnce() -> u64) -> Result<Range<u64>> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => length().max(start),
    };
    check_range(&(start..end))?;
    Ok(start..end)
}
