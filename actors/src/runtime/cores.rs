//! On which cores threads run.

/// The cores that this thread may use, by number. `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub fn cores_of_this_thread() -> Option<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// From now on this thread, and those that it starts, use these cores only.
///
/// # Errors
/// When the process may use none of them.
#[cfg(target_os = "linux")]
pub(super) fn stay_on(cores: &[usize]) -> std::io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores that this thread may use, by number. `None` where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn cores_of_this_thread() -> Option<Vec<usize>> {
    None
}

/// From now on this thread, and those that it starts, use these cores only.
///
/// # Errors
/// Always: it is not known how, on this system.
#[cfg(not(target_os = "linux"))]
pub(super) fn stay_on(_cores: &[usize]) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
