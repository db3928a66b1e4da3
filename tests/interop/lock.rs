//! The lock file: a core that is open on one side cannot be opened on the other.

use hypercore::{ErrorKind, Hypercore};
use serde_json::json;
use tempfile::tempdir;

use crate::js::Js;
use crate::model::{copy_files, text};

#[test]
fn open_of_core_locked_by_javascript_fails() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    js.call("open", json!({"dir": dir.path()}));
    js.call("append", json!({"text": ["theirs"]}));

    let refusal = Hypercore::open(dir.path()).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Locked, "{refusal}");
    assert!(refusal.to_string().contains(&*dir.path().to_string_lossy()), "{refusal}");
    // The refusals have touched no file.
    js.call("append", json!({"text": ["still"]}));
    assert_eq!(Hypercore::options().overwrite(true).open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    js.call("append", json!({"text": ["theirs"]}));
    js.call("check", json!({"random": {"seed": 1}, "end": 0}));

    // A read-only open without the lock is allowed.
    let onlooker = Hypercore::options().read_only(true).lock(false).open(dir.path()).unwrap();
    assert_eq!((onlooker.len(), onlooker.get(2).unwrap()), (3, b"theirs".to_vec()));
    drop(onlooker);

    js.call("close", json!({}));
    assert_eq!(Hypercore::open(dir.path()).unwrap().len(), 3);
}

#[test]
fn lock_of_killed_javascript_process_is_free() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    js.call("open", json!({"dir": dir.path()}));
    js.call("append", json!({"text": ["theirs"]}));
    js.die(json!({}));
    assert_eq!(Hypercore::open(dir.path()).unwrap().get(0).unwrap(), b"theirs");
}

#[test]
fn javascript_open_of_core_locked_here_fails() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let core = Hypercore::open(dir.path()).unwrap();
    text(&["ours"]).by_us(&core);
    for version in ["10", "10.4.1", "10.0.0"] {
        let refusal = js.try_call("open", json!({"dir": dir.path(), "version": version})).unwrap_err();
        assert_eq!(refusal.code.as_deref(), Some("ELOCKED"), "{version}: {}", refusal.message);
    }
    text(&["still ours"]).by_us(&core);
    core.close().unwrap();
    assert_eq!(js.call("open", json!({"dir": dir.path()}))["length"], 2);
}

/// A core that is open without the lock refuses no other open.
#[test]
fn javascript_open_of_core_opened_without_lock_succeeds() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let place = dir.path().join("core");
    let core = Hypercore::options().lock(false).open(&place).unwrap();
    text(&["ours"]).by_us(&core);
    core.flush().unwrap();
    copy_files(&place, &dir.path().join("copy"));
    assert_eq!(js.call("open", json!({"dir": dir.path().join("copy")}))["length"], 1);
    assert_eq!(js.call("open", json!({"core": "same", "dir": place, "createIfMissing": false}))["length"], 1);
}
