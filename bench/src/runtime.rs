//! One runtime, and its commands.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bundle::{self, Filter};
use crate::site::Site;

#[derive(Clone)]
pub struct Runtime {
    pub name: String,
    pub path: PathBuf,
    /// What it says about itself.
    pub version: String,
    /// It has what only husk has.
    pub is_husk: bool,
    /// It insists on more locked memory than this machine's root may have, and is told that it got that.
    pub appeased: bool,
}

/// The first of that name in `PATH`, or where Debian has those that are root's.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

impl Runtime {
    pub fn new(name: &str, path: &Path) -> Result<Self, String> {
        let path =
            fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let output = Command::new(&path).arg("--version").output();
        let output = output.map_err(|error| format!("{}: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .lines()
            .next()
            .and_then(|line| {
                line.split_whitespace()
                    .find(|word| word.as_bytes()[0].is_ascii_digit())
            })
            .unwrap_or("?");
        Ok(Runtime {
            name: name.into(),
            version: version.into(),
            is_husk: text.starts_with("husk"),
            path,
            appeased: false,
        })
    }

    pub fn is_floor(&self) -> bool {
        self.name == "floor"
    }

    /// `--root`, this runtime's alone.
    pub fn root(&self, site: &Site) -> PathBuf {
        let root = site.dir.join("roots").join(&self.name);
        let _ = fs::create_dir_all(&root);
        root
    }

    /// A command line, with what stands before the runtime's name.
    pub fn command(&self, site: &Site, before: &[&str], words: &[&str]) -> Command {
        let mut command = match before.split_first() {
            Some((first, others)) => {
                let mut command = Command::new(first);
                command.args(others).arg(&self.path);
                command
            }
            None => Command::new(&self.path),
        };
        command.arg("--root").arg(self.root(site)).args(words);
        command
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        if self.appeased {
            // SAFETY: one system call, of which nothing else of the process is touched.
            unsafe { command.pre_exec(husk_integration::sys::pretend_locked_memory) };
        }
        command
    }

    /// Finds out by a first container whether it has to be appeased.
    pub fn try_out(&mut self, site: &Site) {
        let id = format!("first-{}", self.name);
        let bundle = bundle::make(site, &id, "/bin/true", Filter::None);
        let words = ["run", "--bundle", &bundle.to_string_lossy(), &id];
        let Err(error) = self.time(site, &words) else {
            return;
        };
        self.appeased = error.to_lowercase().contains("rlim");
        self.forget(site, &id);
    }

    /// How long the command takes.
    pub fn time(&self, site: &Site, words: &[&str]) -> Result<Duration, String> {
        let said = site.dir.join(format!("said-{}", self.name));
        let file = |error: std::io::Error| format!("{}: {error}", said.display());
        let out = File::create(&said).map_err(file)?;
        let err = out.try_clone().map_err(file)?;
        let mut command = self.command(site, &[], words);
        command.stdout(out).stderr(err);
        let before = Instant::now();
        let status = command.status();
        let took = before.elapsed();
        match status {
            Ok(status) if status.success() => Ok(took),
            Ok(status) => {
                let text = fs::read_to_string(&said).unwrap_or_default();
                let last = text.trim().lines().last().unwrap_or("");
                Err(format!("{} {}: {status}: {last}", self.name, words[0]))
            }
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    /// `create`; the pid of the container's process.
    pub fn create(&self, site: &Site, bundle: &Path, id: &str) -> Result<(Duration, i32), String> {
        self.create_by(bundle, id, |words| self.time(site, words))
    }

    /// The same, with what `run` makes of the command's words.
    pub fn create_by<T>(
        &self,
        bundle: &Path,
        id: &str,
        run: impl FnOnce(&[&str]) -> Result<T, String>,
    ) -> Result<(T, i32), String> {
        let file = bundle.join("pid");
        let (bundle, pid_file) = (bundle.to_string_lossy(), file.to_string_lossy());
        let words = ["create", "--bundle", &bundle, "--pid-file", &pid_file, id];
        let made = run(&words)?;
        let text = fs::read_to_string(&file).map_err(|error| format!("{pid_file}: {error}"))?;
        let pid = text.trim().parse();
        Ok((made, pid.map_err(|_| format!("{pid_file}: {text:?}"))?))
    }

    /// As far as it goes: what an error has left must not stand in the next round's way.
    pub fn forget(&self, site: &Site, id: &str) {
        for words in [
            &["kill", id, "KILL"][..],
            &["delete", id][..],
            &["delete", "--force", id][..],
        ] {
            let mut command = self.command(site, &[], words);
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if words[0] == "kill" {
                std::thread::sleep(Duration::from_millis(20));
                reap();
            }
        }
    }
}

/// Waits for this process, which the creator's end has made a child of ours.
pub fn wait_for(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is valid to write.
    while unsafe { libc::waitpid(pid, &mut status, 0) } == -1
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
}

/// Those that have ended. Not while a `Command` is under way.
fn reap() {
    let mut status = 0;
    // SAFETY: `status` is valid to write.
    while unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } > 0 {}
}
