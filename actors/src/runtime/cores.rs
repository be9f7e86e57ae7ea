//! On which cores threads run.

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::{CpuSet, sched_setaffinity};
    use std::io;

    pub(super) fn stay_on(cores: &[usize]) -> io::Result<()> {
        let mut set = CpuSet::new();
        cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    pub(super) fn stay_on(_: &[usize]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// The first of these cores on which no thread of this process can run. Asks on a thread of its
/// own: where the caller's thread may run does not matter.
///
/// # Errors
/// When there is no thread to ask on.
pub fn first_unusable(cores: &[usize]) -> std::io::Result<Option<usize>> {
    let cores = cores.to_vec();
    let asked = std::thread::Builder::new()
        .name("sluice-cores".to_owned())
        .spawn(move || cores.into_iter().find(|&core| linux::stay_on(&[core]).is_err()))?;
    Ok(asked.join().expect("it only asks the system"))
}

/// From now on this thread, and those that it starts, use these cores only; any, if there are none.
pub(super) fn stay_on(cores: &[usize]) {
    if !cores.is_empty()
        && let Err(error) = linux::stay_on(cores)
    {
        tracing::warn!(%error, ?cores, "an engine thread runs on other cores");
    }
}
