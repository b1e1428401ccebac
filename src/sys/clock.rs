//! The time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By the system call: for one look at the clock the C library would read through the kernel's page of such functions
/// first, which is three page faults and longer than the call.
pub fn now() -> SystemTime {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut ask = || {
        // SAFETY: the call writes the one structure, whose fields are the kernel's where pointers have 64 bits.
        unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut time) }
    };
    let done = match cfg!(target_pointer_width = "64") {
        true => ask(),
        false => -1,
    };
    match (
        done,
        u64::try_from(time.tv_sec),
        u32::try_from(time.tv_nsec),
    ) {
        (0, Ok(seconds), Ok(nanos)) => UNIX_EPOCH + Duration::new(seconds, nanos),
        _ => SystemTime::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_tell_the_same_time() {
        let (before, now, after) = (SystemTime::now(), now(), SystemTime::now());
        assert!(before <= now && now <= after);
    }
}
