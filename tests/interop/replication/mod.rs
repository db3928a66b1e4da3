//! Replication over TCP with JavaScript of version 10.38.2 and 11.37.1, with either side listening. Each test copies a log
//! of JavaScript, "theirs", and a log of ours, "mine", at the same time.

use hypercore::Download;
use serde_json::{Value, json};

use crate::model::{LIMIT, Op, Seen, assert_sound};
use crate::testbed::{Pair, Testbed};

/// Makes four tests of each function, one for each version and for either side listening.
macro_rules! replication_tests {
    ($($test:ident,)*) => {
        replication_tests!(js10_listens, "10", true, $($test,)*);
        replication_tests!(js10_connects, "10", false, $($test,)*);
        replication_tests!(js11_listens, "11", true, $($test,)*);
        replication_tests!(js11_connects, "11", false, $($test,)*);
    };
    ($module:ident, $version:literal, $js_listens:literal, $($test:ident,)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                let setting = crate::testbed::Setting { version: $version, js_listens: $js_listens };
                let name = concat!(stringify!($module), "::", stringify!($test));
                if let Some(testbed) = crate::testbed::Testbed::new(setting, name) {
                    super::$test(testbed);
                }
            })*
        }
    };
}

mod connections;
mod copying;

/// Downloads all `length` blocks to both copies.
#[track_caller]
pub fn fetch_all(testbed: &mut Testbed, pair: &Pair, length: u64) {
    pair.copy.download(Download::range(0..length)).unwrap().wait_timeout(LIMIT).unwrap();
    testbed.js.call("download", json!({"core": "mine", "as": "all", "start": 0, "end": length}));
    testbed.js.call("downloaded", json!({"as": "all"}));
    testbed.js.call("until", json!({"core": "mine", "contiguous": length}));
}

/// Fails if JavaScript reports an error of the protocol. An error of its socket is allowed, because its last writes
/// may meet a closed socket.
pub fn assert_closed(disconnect: &Value) {
    let of_the_socket = ["ECONNRESET", "EPIPE"].iter().any(|code| disconnect["code"] == *code);
    assert!(disconnect["error"].is_null() || of_the_socket, "{disconnect}");
}

#[track_caller]
pub fn assert_copied(testbed: &mut Testbed, pair: &Pair) {
    assert_eq!(Seen::by_us(&pair.copy), Seen::by_js(&mut testbed.js, "theirs"));
    assert_eq!(Seen::by_js(&mut testbed.js, "mine"), Seen::by_us(&pair.mine));
    assert_sound(&pair.copy);
    for core in ["mine", "theirs"] {
        assert_eq!(testbed.js.call("verifyHead", json!({"core": core}))["valid"], true);
    }
}

/// Applies an operation to the logs of both sides.
pub fn change_both(testbed: &mut Testbed, pair: &Pair, op: &Op) {
    op.by_js(&mut testbed.js, "theirs");
    op.by_us(&pair.mine);
}
