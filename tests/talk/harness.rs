//! Guards of tests with real threads. Each guard holds a watchdog and says what else may run at the same time.

use std::env;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::common::machine::{limit, program};
use crate::common::watchdog::Watchdog;

/// The watchdog's limit on a busy machine.
const LIMIT: Duration = limit(120);

/// Tests that count threads or measure memory take it exclusively, all others with connections share it.
static CONNECTIONS: RwLock<()> = RwLock::new(());

/// The name of the test that expands it, as the test harness spells it: `announce::peer_without_key_is_refused`.
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        path.strip_suffix("::here").and_then(|path| path.split_once("::")).unwrap().1
    }};
}

/// The guard of a test that may run in parallel with others.
macro_rules! parallel_test {
    () => {
        crate::harness::ParallelTest::new(crate::harness::test_name!())
    };
}

/// The guard of a test that must be the only one with connections in its process.
macro_rules! exclusive_test {
    () => {
        crate::harness::ExclusiveTest::new(crate::harness::test_name!())
    };
}

/// The guard of a test that measures the memory of its process, and so needs a process of its own. In any other process
/// it runs the test in a child, fails if the child does, and is `None`: the test is done then.
macro_rules! isolated_test {
    () => {
        crate::harness::ExclusiveTest::in_own_process(crate::harness::test_name!())
    };
}

pub(crate) use {exclusive_test, isolated_test, parallel_test, test_name};

pub struct ParallelTest {
    _connections: RwLockReadGuard<'static, ()>,
    _watchdog: Watchdog,
}

impl ParallelTest {
    pub fn new(name: &'static str) -> Self {
        let guard = CONNECTIONS.read().unwrap_or_else(PoisonError::into_inner);
        ParallelTest { _connections: guard, _watchdog: Watchdog::new(name, LIMIT) }
    }
}

pub struct ExclusiveTest {
    _connections: RwLockWriteGuard<'static, ()>,
    _watchdog: Watchdog,
}

impl ExclusiveTest {
    pub fn new(name: &'static str) -> Self {
        let guard = CONNECTIONS.write().unwrap_or_else(PoisonError::into_inner);
        ExclusiveTest { _connections: guard, _watchdog: Watchdog::new(name, LIMIT) }
    }

    pub fn in_own_process(name: &'static str) -> Option<Self> {
        const CHILD: &str = "HYPERCORE_TEST_ISOLATED";
        if env::var_os(CHILD).is_some() {
            return Some(ExclusiveTest::new(name));
        }
        let child = program(env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        let passed = child.status.success() && said.contains("1 passed");
        assert!(passed, "{said}{}", String::from_utf8_lossy(&child.stderr));
        None
    }
}
