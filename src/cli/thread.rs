//! The threads of the command.

/// Threads of the command call nothing deep.
const THREAD_STACK: usize = 512 * 1024;

/// A thread to be spawned, on a stack that is small also where addresses are few.
pub fn thread(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.into()).stack_size(THREAD_STACK)
}
