//! Who does the work: the kernel, the five actors and their supervisor.

pub mod kernel;
