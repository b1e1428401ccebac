//! Hooks: programs of the bundle that run at fixed points of a container's life.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::killpg;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Step};
use crate::signal::{self, Signal};
use crate::sys;
use crate::sys::process::{Ended, Strings, reap};
use crate::sys::spawn::{Child, Recipe, spawn};
use crate::trace;

/// How much of a failing hook's words are shown: it stays one line that can be read.
const WORDS: u64 = 240;

/// When hooks run, runtime-spec's config.md, "POSIX-platform Hooks".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    pub fn name(self) -> &'static str {
        match self {
            Point::Prestart => "prestart",
            Point::CreateRuntime => "createRuntime",
            Point::CreateContainer => "createContainer",
            Point::StartContainer => "startContainer",
            Point::Poststart => "poststart",
            Point::Poststop => "poststop",
        }
    }
}

/// One hook, as it is kept in the record, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    /// `None`: nothing, or the program's in its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
}

impl From<&oci::Hook> for Hook {
    fn from(hook: &oci::Hook) -> Hook {
        Hook {
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook.env().clone(),
            timeout: hook
                .timeout()
                .and_then(|seconds| u64::try_from(seconds).ok()),
        }
    }
}

impl Hook {
    fn spawn(
        &self,
        guard: Option<&Guard>,
        directory: Option<&Path>,
        input: &File,
        output: &File,
    ) -> nix::Result<Child> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let path = text(&self.path).map_err(|_| Errno::EINVAL)?;
        let directory = directory.map(text).transpose();
        let directory = directory.map_err(|_| Errno::EINVAL)?;
        // Of one name the last one holds.
        let pair = |entry| str::split_once(entry, '=').unwrap_or((entry, ""));
        let given = self.env.iter().flatten().map(String::as_str).map(pair);
        let environment: BTreeMap<&str, &str> = given.collect();
        let environment = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let arguments = match self.args.is_empty() {
            true => Strings::new([path.as_bytes()]),
            false => Strings::new(self.args.iter().map(String::as_bytes)),
        };
        let recipe = Recipe {
            path: &path,
            arguments: &arguments?,
            environment: &Strings::new(environment)?,
            directory: directory.as_ref(),
            stdio: [input.as_fd(), output.as_fd(), output.as_fd()],
        };
        spawn(&recipe, || guard.map_or(Ok(()), |guard| guard()))
    }

    /// Gives it that environment, unless it has one of its own.
    pub fn inherit(&mut self, environment: impl Iterator<Item = String>) {
        self.env.get_or_insert_with(|| environment.collect());
    }
}

/// The container that hooks are told about, runtime-spec's runtime.md, "State".
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

impl Subject {
    /// The state as JSON; the pid as the reader sees it.
    pub fn json(&self, status: &str, pid: Option<Pid>) -> String {
        self.state(status, pid).to_string()
    }

    pub fn state(&self, status: &str, pid: Option<Pid>) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if let Some(pid) = pid {
            state["pid"] = pid.as_raw().into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state
    }
}

/// What a hook's process does last before it becomes the hook.
pub type Guard = Arc<dyn Fn() -> nix::Result<()> + Send + Sync>;

/// The hooks of one point, in their order.
pub fn of(listed: Option<&Vec<oci::Hook>>) -> Vec<Hook> {
    listed.into_iter().flatten().map(Hook::from).collect()
}

/// Runs the hooks one after the other, with `state` on their standard input.
///
/// # Errors
/// The first failure, with what the hook wrote; later hooks don't run.
pub fn run(
    point: Point,
    hooks: &[Hook],
    state: &dyn Fn() -> String,
    directory: Option<&Path>,
) -> Result<()> {
    run_under(None, point, hooks, state, directory)
}

/// As [`run`], but each hook is bound by `guard` first, in its own process.
pub fn run_under(
    guard: Option<&Guard>,
    point: Point,
    hooks: &[Hook],
    state: &dyn Fn() -> String,
    directory: Option<&Path>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state();
    for (index, hook) in hooks.iter().enumerate() {
        let run = || run_one(guard, point, index, hook, &state, directory);
        trace::step_on(point.name(), hook.path.display(), run)?;
    }
    Ok(())
}

/// Runs all hooks; failures are handed to `report` and don't stop the others (poststop).
pub fn run_all(
    point: Point,
    hooks: &[Hook],
    state: &dyn Fn() -> String,
    directory: Option<&Path>,
    mut report: impl FnMut(Error),
) {
    if hooks.is_empty() {
        return;
    }
    let state = state();
    for (index, hook) in hooks.iter().enumerate() {
        let run = || run_one(None, point, index, hook, &state, directory);
        if let Err(error) = trace::step_on(point.name(), hook.path.display(), run) {
            report(error);
        }
    }
}

fn run_one(
    guard: Option<&Guard>,
    point: Point,
    index: usize,
    hook: &Hook,
    state: &str,
    directory: Option<&Path>,
) -> Result<()> {
    let pointer = format!("/hooks/{}/{index}", point.name());
    let fail = || {
        Error::new(format!("error running {} hook #{index}:", point.name()))
            .on(hook.path.display())
            .at(&pointer)
    };
    // Files rather than pipes: a hook that doesn't read, or writes much, can't block anybody.
    let input = memory_file(state).or_fail(|errno| fail().errno(errno))?;
    let output = memory_file("").or_fail(|errno| fail().errno(errno))?;
    let brood = hook.timeout.and_then(|_| Brood::new());
    let child = hook.spawn(guard, directory, &input, &output);
    let child = child.or_fail(|errno| {
        let error = fail().errno(errno);
        match errno {
            Errno::ENOENT if hook.path.exists() => {
                error.hint("the interpreter in its #! line, or its ELF loader, is missing")
            }
            Errno::EACCES => error.hint(format!("chmod +x {}", hook.path.display())),
            Errno::ENOEXEC => error.hint("a script needs a #! line"),
            _ => error,
        }
    })?;
    let ended = wait(&child, hook.timeout, brood.as_ref());
    let reason = match ended.or_fail(|errno| fail().errno(errno))? {
        End::Itself(Ended::Exited(0)) => return Ok(()),
        End::Itself(Ended::Exited(code)) => format!("exit status {code}"),
        End::Itself(Ended::Killed(libc::SIGSYS)) => "killed by SIGSYS, a bad system call".into(),
        End::Itself(Ended::Killed(number)) => format!("killed by {}", Signal::from_number(number)),
        End::Late(seconds) => format!("it ran past its timeout: killed after {seconds} s"),
        End::Interrupted(signal) => format!("interrupted by {signal}"),
    };
    Err(match last_words(output) {
        Some(words) => fail().because(format!("{reason}: {words}")),
        None => fail().because(reason),
    })
}

fn memory_file(content: &str) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"hook", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// How a hook came to its end.
enum End {
    Itself(Ended),
    /// After so many seconds it was killed, with all that it started.
    Late(u64),
    /// The caller wants husk to end.
    Interrupted(Signal),
}

/// Waits for the end, not longer than allowed.
fn wait(child: &Child, seconds: Option<u64>, brood: Option<&Brood>) -> nix::Result<End> {
    if seconds.is_none() && !signal::are_held() {
        return reap(&child.pidfd).map(End::Itself);
    }
    /// Signals that are held back wake nobody.
    const LOOK: Duration = Duration::from_millis(100);
    let end = seconds.map(|seconds| (seconds, Instant::now() + Duration::from_secs(seconds)));
    let reason = loop {
        let left = end.map_or(Duration::MAX, |(_, end)| {
            end.saturating_duration_since(Instant::now())
        });
        let look = match signal::are_held() {
            true => LOOK,
            false => Duration::from_secs(3600),
        };
        let timeout = PollTimeout::try_from(left.min(look)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return reap(&child.pidfd).map(End::Itself),
            Err(errno) => return Err(errno),
        }
        match end {
            Some((seconds, end)) if end <= Instant::now() => break End::Late(seconds),
            _ => {}
        }
        if let Some(signal) = signal::interruption() {
            break End::Interrupted(signal);
        }
    };
    match killpg(child.pid, nix::sys::signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno),
    }
    reap(&child.pidfd)?;
    if let Some(brood) = brood {
        brood.kill();
    }
    Ok(reason)
}

/// What a hook starts, sessions of their own included: while this is there, those whose parents have ended
/// become this process's children.
struct Brood {
    /// Children before.
    others: Vec<i32>,
    was_reaper: bool,
}

impl Brood {
    /// `None` where that can't be seen: in a container's process, whose end is that of them all.
    fn new() -> Option<Brood> {
        let own = std::fs::read_link("/proc/self").ok()?;
        if own.to_str()?.parse() != Ok(std::process::id()) {
            return None;
        }
        let brood = Brood {
            others: children()?,
            was_reaper: sys::prctl::is_child_subreaper().ok()?,
        };
        sys::prctl::set_child_subreaper(true).ok()?;
        Some(brood)
    }

    fn kill(&self) {
        // Each round's dead leave their children to the next one.
        for _ in 0..1000 {
            let mut found = children().unwrap_or_default();
            found.retain(|pid| !self.others.contains(pid));
            if found.is_empty() {
                return;
            }
            for pid in found.into_iter().map(Pid::from_raw) {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
            }
        }
    }
}

impl Drop for Brood {
    fn drop(&mut self) {
        if !self.was_reaper {
            let _ = sys::prctl::set_child_subreaper(false);
        }
    }
}

/// In a container its /proc may be the image's, and say anything, or nothing for ever.
fn children() -> Option<Vec<i32>> {
    const LIST: &str = "/proc/thread-self/children";
    let kind = statfs(LIST).ok()?.filesystem_type();
    if kind != PROC_SUPER_MAGIC {
        return None;
    }
    let mut listed = sys::process::children(LIST).ok()?;
    listed.retain(|&pid| sys::process::is_child(pid));
    Some(listed)
}

/// The end of what the hook wrote, on one line.
fn last_words(mut output: File) -> Option<String> {
    let length = output.metadata().ok()?.len();
    let from = length.saturating_sub(WORDS);
    output.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    // What it has left running may write without end.
    output.take(WORDS).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut text = text.trim();
    // Whole lines, where there is more than one.
    if from > 0 {
        text = text.split_once('\n').map_or(text, |(_, rest)| rest);
    }
    let mut words = text.lines().collect::<Vec<_>>().join("; ");
    if from > 0 && !words.is_empty() {
        words.insert_str(0, "... ");
    }
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["hook".into(), "-c".into(), script.into()],
            env: Some(vec!["A=b".into()]),
            timeout,
        }
    }

    fn run_script(script: &str, timeout: Option<u64>) -> Result<()> {
        run(
            Point::Prestart,
            &[shell(script, timeout)],
            &|| r#"{"id":"x"}"#.into(),
            Some(Path::new("/")),
        )
    }

    #[test]
    fn gets_state_environment_and_name() {
        run_script(
            r#"[ "$(cat)" = '{"id":"x"}' ] && [ "$A" = b ] && [ "$0" = hook ] && [ "$PWD" = / ] && [ -z "$HOME" ]"#,
            None,
        )
        .unwrap();
    }

    #[test]
    fn a_failure_tells_status_and_words() {
        let error = run_script("echo out; echo no such gadget >&2; exit 3", None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running prestart hook #0: /bin/sh (/hooks/prestart/0): \
             exit status 3: out; no such gadget"
        );
        let error = run_script("kill -9 $$", None).unwrap_err();
        assert!(error.to_string().ends_with("killed by SIGKILL"), "{error}");
    }

    #[test]
    fn of_a_noisy_hook_the_last_lines_are_shown() {
        let script = "i=0; while [ $i -lt 300 ]; do echo line $i of many; i=$((i+1)); done; \
            echo disk quota exceeded; exit 1";
        let text = run_script(script, None).unwrap_err().to_string();
        assert!(text.contains("exit status 1: ... line 2"), "{text}");
        assert!(
            text.ends_with("; line 299 of many; disk quota exceeded"),
            "{text}"
        );
        assert!(text.len() < 400, "{text}");
        // One endless line is cut.
        let text = run_script("head -c 9000 /dev/zero | tr '\\0' x; exit 1", None).unwrap_err();
        assert!(text.to_string().ends_with(&"x".repeat(240)), "{text}");
    }

    #[test]
    fn a_late_hook_is_killed_with_its_children() {
        let begin = std::time::Instant::now();
        let marker = std::env::temp_dir().join(format!("husk-hook-{}", std::process::id()));
        let script = format!("(sleep 3; touch {}) & sleep 30", marker.display());
        let error = run_script(&script, Some(1)).unwrap_err();
        assert!(error.to_string().ends_with("killed after 1 s"), "{error}");
        assert!(begin.elapsed().as_secs() < 3);
        std::thread::sleep(std::time::Duration::from_millis(2500));
        assert!(!marker.exists());
    }

    #[test]
    fn only_own_children_are_killed() {
        let mut child = std::process::Command::new("/bin/sleep").arg("9").spawn();
        let child = child.as_mut().unwrap();
        assert!(sys::process::is_child(child.id() as i32));
        for other in [-1, 0, 1, std::process::id() as i32] {
            assert!(!sys::process::is_child(other), "{other}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!sys::process::is_child(child.id() as i32));
    }

    #[test]
    fn much_output_and_unread_input_block_nobody() {
        run_script("head -c 3000000 /dev/zero", Some(20)).unwrap();
    }

    #[test]
    fn the_first_failure_ends_the_list_but_for_poststop() {
        let hooks = [shell("exit 1", None), shell("exit 2", None)];
        let first = run(Point::CreateRuntime, &hooks, &String::new, None).unwrap_err();
        assert_eq!(first.pointer(), Some("/hooks/createRuntime/0"));
        let mut reports = Vec::new();
        run_all(Point::Poststop, &hooks, &String::new, None, |error| {
            reports.push(error.to_string());
        });
        assert_eq!(reports.len(), 2);
    }
}
