//! A thread builder with a small stack.

/// The stack of a thread in bytes. The threads of the command have shallow call chains.
const THREAD_STACK: usize = 512 * 1024;

/// A builder of a thread whose stack is small, for machines with a small address space.
pub fn thread(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.into()).stack_size(THREAD_STACK)
}
