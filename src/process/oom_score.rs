//! `process.oomScoreAdj`: whom the kernel kills first when memory runs out.

use nix::errno::Errno;

use crate::error::{Error, Result, Step};
use crate::files;
use crate::log;

const FILE: &str = "/proc/self/oom_score_adj";

/// Runs `make` with this score for husk itself, which the process that it makes inherits: that one's own
/// file is another user's as soon as the process is protected. husk's comes back afterwards.
///
/// # Errors
/// A score below the caller's own takes CAP_SYS_RESOURCE. That is only worth a warning if `rootless`.
pub fn inherited<T>(
    score: Option<i32>,
    rootless: bool,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(score) = score else { return make() };
    let own = std::fs::read_to_string(FILE).step("read", FILE)?;
    match set(score) {
        Err(error) if rootless && error.code() == Some(Errno::EACCES) => {
            log::warning(format_args!("{error}"));
            return make();
        }
        done => done?,
    }
    let made = make();
    // What husk was born with is never below what it may have.
    let _ = files::tell_kernel(FILE, own.trim());
    made
}

fn set(score: i32) -> Result<()> {
    files::tell_kernel(FILE, &score.to_string()).or_fail(|errno| {
        let error = Error::new("set oom_score_adj")
            .on(score)
            .at("/process/oomScoreAdj")
            .errno(errno);
        match errno {
            Errno::EACCES | Errno::EPERM => {
                error.hint("lowering it below the caller's own needs CAP_SYS_RESOURCE")
            }
            _ => error,
        }
    })
}
