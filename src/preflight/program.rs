//! The program that will be executed, and hooks: whether they are there, and whether the kernel can
//! execute them.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use oci_spec::runtime::{Hook, LinuxNamespaceType, Process};

use super::mounts::{has_namespace, host_forbids};
use super::view::{Found, Lost, View};
use super::with_phrase;
use crate::bundle::{Bundle, Finding, arguments, nearest, neighbour, shell};
use crate::executable::{Elf, Format, Script, inspect};
use crate::process::DEFAULT_PATH;

/// Interpreters of interpreters: BINPRM's own limit.
const DEPTH: usize = 5;

pub fn look(bundle: &Bundle, view: &View, findings: &mut Vec<Finding>) {
    let Some(process) = bundle.spec.process() else {
        let message = "no process: `start` will refuse the container";
        let hint = "`husk spec` writes one to begin with";
        findings.push(Finding::warning("/process", message).hint(hint));
        return;
    };
    directory(process, view, findings);
    let Some(name) = process
        .args()
        .iter()
        .flatten()
        .next()
        .filter(|name| !name.is_empty())
    else {
        return;
    };
    let search = Search {
        bundle,
        view,
        process,
        step: "exec",
        at: "/process/args/0".into(),
    };
    search.look(name, findings);
}

fn directory(process: &Process, view: &View, findings: &mut Vec<Finding>) {
    if let Ok(found) = view.find(process.cwd())
        && !found.is(SFlag::S_IFDIR)
    {
        let message = with_phrase(format!("{}", process.cwd().display()), Errno::ENOTDIR);
        findings.push(
            Finding::error("/process/cwd", message).hint("name a directory of the root filesystem"),
        );
    }
}

struct Search<'a> {
    bundle: &'a Bundle,
    view: &'a View,
    process: &'a Process,
    /// What is executed: the program, or a hook of the container.
    step: &'static str,
    at: String,
}

impl Search<'_> {
    fn look(&self, name: &str, findings: &mut Vec<Finding>) {
        match self.find(name) {
            Ok(found) => self.executable(name, &found, 0, findings),
            Err(Lost::Unknown) => {}
            Err(Lost::Errno(errno)) => findings.push(self.missing(name, errno)),
        }
    }

    fn error(&self, message: String) -> Finding {
        Finding::error(self.at.as_str(), message)
    }

    fn refuse(&self, name: &str, errno: Errno, hint: String) -> Finding {
        self.error(with_phrase(format!("{} {name}", self.step), errno))
            .hint(hint)
    }

    fn path(&self) -> &str {
        let environment = self.process.env().iter().flatten().rev();
        let mut values = environment.filter_map(|entry| entry.strip_prefix("PATH="));
        values.next().unwrap_or(DEFAULT_PATH)
    }

    fn root(&self) -> &Path {
        let root = self.bundle.spec.root().as_ref();
        root.map_or(Path::new("rootfs"), |root| root.path().as_path())
    }

    /// As execvp(3) looks for it.
    fn find(&self, name: &str) -> Result<Found, Lost> {
        if name.contains('/') {
            return self.view.find(&self.process.cwd().join(name));
        }
        let mut worst = Lost::Errno(Errno::ENOENT);
        for directory in self.path().split(':') {
            let path = self.process.cwd().join(directory).join(name);
            match self.view.find(&path) {
                Ok(found) if !found.is(SFlag::S_IFDIR) && self.forbidden(&found).is_none() => {
                    return Ok(found);
                }
                Ok(_) => worst = Lost::Errno(Errno::EACCES),
                Err(Lost::Unknown) => worst = Lost::Unknown,
                Err(Lost::Errno(_)) => {}
            }
        }
        Err(worst)
    }

    fn missing(&self, name: &str, errno: Errno) -> Finding {
        if name.contains('/') {
            let message = with_phrase(format!("{} {name}", self.step), errno);
            let finding = self.error(message);
            return match errno {
                Errno::ENOENT => finding.hint(self.near(Path::new(name))),
                Errno::ELOOP => finding.hint("it is a symbolic link that leads to itself"),
                Errno::ENOTDIR => finding.hint("a file stands on the way to it"),
                _ => finding,
            };
        }
        if errno == Errno::EACCES {
            let message = with_phrase(format!("{} {name}", self.step), errno);
            let hint = format!(
                "what $PATH has by that name is a directory or has no x permission: chmod +x {name}"
            );
            return self.error(message).hint(hint);
        }
        let message = with_phrase(
            format!("{} {name}: executable file not found in $PATH", self.step),
            errno,
        );
        let mut names = Vec::new();
        let mut dangling = None;
        for directory in self.path().split(':') {
            let directory = self.process.cwd().join(directory);
            names.extend(self.view.list(&directory));
            dangling = dangling.or_else(|| self.dangling(&directory.join(name)));
        }
        let meant = dangling
            .or_else(|| self.blank(name))
            .or_else(|| split(name))
            .or_else(|| self.shell())
            .or_else(|| self.odd_path());
        let hint = meant.unwrap_or_else(|| {
            let others = names.iter().map(String::as_str);
            let near = nearest(name, others.filter(|other| *other != name));
            let near = near.map(|other| format!("did you mean {other}?"));
            match near.or_else(|| self.usual(name)) {
                Some(hint) => hint,
                None if names.is_empty() => format!(
                    "none of the directories of $PATH has a file: is the image in {}?",
                    self.bundle.dir.join(self.root()).display()
                ),
                None if self.path().is_empty() => "$PATH is empty".into(),
                None => format!("$PATH is {}", self.path()),
            }
        });
        self.error(message).hint(hint)
    }

    /// What a shell would have understood: only of the program, hooks have no arguments here.
    fn shell(&self) -> Option<String> {
        let args = self.process.args().as_deref()?;
        (self.step == "exec").then(|| shell(args)).flatten()
    }

    /// A blank at either end that one doesn't see.
    fn blank(&self, name: &str) -> Option<String> {
        let bare = name.trim();
        (bare != name && !bare.is_empty())
            .then(|| format!("a blank stands before or behind it: write {bare:?}"))
    }

    /// What a shell would have done to the value of PATH.
    fn odd_path(&self) -> Option<String> {
        let environment = self.process.env().as_deref()?;
        let is_path = |entry: &String| entry.starts_with("PATH=");
        let index = environment.iter().rposition(is_path)?;
        let path = self.path();
        let why = if path.contains(['"', '\'']) {
            "has quotes, which only a shell would take away"
        } else if path.contains('$') {
            "has a variable, whose value only a shell would put there"
        } else if path.contains('~') {
            "has a ~, which only a shell knows"
        } else if path.contains([';', ',']) || path.contains(": ") {
            "has more than colons between its directories"
        } else {
            return None;
        };
        Some(format!("$PATH (/process/env/{index}) {why}: it is {path}"))
    }

    /// Where the program is, off $PATH.
    fn usual(&self, name: &str) -> Option<String> {
        let mut usual = DEFAULT_PATH.split(':').map(|at| Path::new(at).join(name));
        let there = usual.find(|path| self.view.find(path).is_ok())?;
        let environment = self.process.env().iter().flatten();
        let index = environment
            .enumerate()
            .filter(|(_, entry)| entry.starts_with("PATH="));
        let place = index
            .last()
            .map(|(index, _)| format!(" (/process/env/{index})"));
        Some(format!(
            "$PATH{} is {:?}, but it is at {}",
            place.unwrap_or_default(),
            self.path(),
            there.display()
        ))
    }

    /// The later mount that hides the earlier one which has this path.
    fn hidden(&self, path: &Path) -> Option<String> {
        let mounts = self.bundle.spec.mounts().as_deref()?;
        let holders = mounts.iter().enumerate().rev();
        let mut holders = holders.filter(|(_, mount)| path.starts_with(mount.destination()));
        let ((below, inner), (above, outer)) = holders.find_map(|(below, inner)| {
            let mut later = mounts.iter().enumerate().skip(below + 1);
            let hiding = later.find(|(_, mount)| {
                let at = mount.destination();
                inner.destination().starts_with(at) && inner.destination() != at
            })?;
            Some(((below, inner), hiding))
        })?;
        Some(format!(
            "/mounts/{above} on {} hides /mounts/{below} on {}: list it before that one",
            outer.destination().display(),
            inner.destination().display()
        ))
    }

    /// What is a link at this path, to nothing.
    fn dangling(&self, path: &Path) -> Option<String> {
        let link = self.view.find_link(path).ok();
        let target = link.filter(|found| found.is(SFlag::S_IFLNK))?.link().ok()?;
        Some(format!(
            "{} is a symbolic link, and its target {} is missing in the container",
            path.display(),
            target.display()
        ))
    }

    /// What else a path could have meant.
    fn near(&self, path: &Path) -> String {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let directory = self
            .process
            .cwd()
            .join(path.parent().unwrap_or(Path::new("/")));
        let whole = self.process.cwd().join(path);
        let meant = self
            .dangling(&whole)
            .or_else(|| self.hidden(&whole))
            .or_else(|| self.blank(path.to_str()?))
            .or_else(|| split(path.to_str()?))
            .or_else(|| self.shell());
        if let Some(words) = meant {
            return words;
        }
        if path.is_relative() && self.view.find(&Path::new("/").join(path)).is_ok() {
            return format!(
                "it is looked for below {}: write /{}",
                self.process.cwd().display(),
                path.display()
            );
        }
        let names = self.view.list(&directory);
        if let Some(other) = nearest(name, names.iter().map(String::as_str)) {
            return format!("did you mean {}?", directory.join(other).display());
        }
        let elsewhere = self
            .path()
            .split(':')
            .map(|directory| Path::new(directory).join(name));
        match elsewhere
            .into_iter()
            .find(|path| self.view.find(path).is_ok())
        {
            Some(other) => format!("the root filesystem has it at {}", other.display()),
            None => format!("{} isn't in the root filesystem", path.display()),
        }
    }

    /// Why this user can't execute it. Ids in a user namespace are the kernel's to judge.
    fn forbidden(&self, found: &Found) -> Option<String> {
        let mode = found.stat.st_mode;
        let user = self.process.user();
        if mode & 0o111 == 0 {
            return Some("no x permission for anybody".into());
        }
        if user.uid() == 0 || has_namespace(self.bundle, LinuxNamespaceType::User) {
            return None;
        }
        let groups = user.additional_gids().iter().flatten();
        let in_group = user.gid() == found.stat.st_gid
            || groups.into_iter().any(|gid| *gid == found.stat.st_gid);
        let bit = if user.uid() == found.stat.st_uid {
            0o100
        } else if in_group {
            0o010
        } else {
            0o001
        };
        (mode & bit == 0).then(|| format!("no x permission for user {}", user.uid()))
    }

    fn executable(&self, name: &str, found: &Found, depth: usize, findings: &mut Vec<Finding>) {
        let refuse = |errno, hint: String| self.refuse(name, errno, hint);
        if found.is(SFlag::S_IFDIR) {
            findings.push(refuse(
                Errno::EISDIR,
                "name a program, not a directory".into(),
            ));
            return;
        }
        if !found.is(SFlag::S_IFREG) {
            findings.push(refuse(Errno::EACCES, "it is no regular file".into()));
            return;
        }
        if let Some(why) = self.forbidden(found) {
            findings.push(refuse(
                Errno::EACCES,
                format!("{why}: chmod +x {}", found.path.display()),
            ));
            return;
        }
        if let Some(entry) = self.view.noexec(&found.path) {
            let hint = format!("it lies on a mount that is noexec: {entry}");
            findings.push(refuse(Errno::EACCES, hint));
            return;
        }
        let Some(file) = found.open() else { return };
        if self.view.is_roots_own(&found.path) && host_forbids(&file) {
            let hint = "the root filesystem lies on a mount of this machine that is noexec";
            findings.push(refuse(Errno::EACCES, hint.into()));
            return;
        }
        let Ok(format) = inspect(&file) else { return };
        match format.fault() {
            Some(fault) if fault.foreign && others_are_registered() => {
                if let Format::Elf(_) = format {
                    let mut finding = refuse(fault.errno, fault.words);
                    finding.severity = crate::bundle::Severity::Warning;
                    findings.push(finding);
                }
            }
            Some(fault) => findings.push(refuse(fault.errno, fault.words)),
            None => match format {
                Format::Elf(elf) => self.loader(name, &elf, findings),
                Format::Script(script) => self.script(name, &script, depth, findings),
                Format::Preceded(_) | Format::Foreign(_) | Format::Empty | Format::Unknown => {}
            },
        }
    }

    fn loader(&self, name: &str, elf: &Elf, findings: &mut Vec<Finding>) {
        let Some(loader) = elf.interpreter() else {
            return;
        };
        match self.view.find(&self.process.cwd().join(loader)) {
            Ok(found) if !found.is(SFlag::S_IFDIR) && found.stat.st_mode & 0o111 == 0 => {
                let loader = loader.display();
                let hint = format!("its loader {loader} has no x permission: chmod +x {loader}");
                findings.push(self.refuse(name, Errno::EACCES, hint));
            }
            Ok(found) if !found.is(SFlag::S_IFDIR) => {
                let format = found.open().and_then(|file| inspect(&file).ok());
                let why = match format {
                    Some(format @ Format::Elf(_)) => {
                        format.fault().map(|fault| format!(": {}", fault.words))
                    }
                    Some(_) => Some(" is no ELF file".to_owned()),
                    None => None,
                };
                if let Some(why) = why {
                    let hint = format!("its loader {}{why}", loader.display());
                    findings.push(self.refuse(name, Errno::ELIBBAD, hint));
                }
            }
            Err(Lost::Unknown) => {}
            _ => {
                let what = loader.to_string_lossy();
                let kind = if what.contains("musl") {
                    "musl (Alpine)"
                } else {
                    "the GNU C library"
                };
                if let Some(words) = self.dangling(&self.process.cwd().join(loader)) {
                    let hint = format!("its loader {what} is missing: {words}");
                    findings.push(self.refuse(name, Errno::ENOENT, hint));
                    return;
                }
                let hint = format!(
                    "its loader {what} is missing: it was linked for {kind}; install that into the root filesystem, or link the program statically"
                );
                findings.push(self.refuse(name, Errno::ENOENT, hint));
            }
        }
    }

    fn script(&self, name: &str, script: &Script, depth: usize, findings: &mut Vec<Finding>) {
        let refuse = |errno, hint: String| self.refuse(name, errno, hint);
        let interpreter = script.interpreter();
        match self.view.find(&self.process.cwd().join(interpreter)) {
            Ok(found) if depth < DEPTH => {
                let before = findings.len();
                self.executable(name, &found, depth + 1, findings);
                for finding in &mut findings[before..] {
                    let hint = finding.hint.take().unwrap_or_default();
                    finding.hint =
                        Some(format!("its interpreter {}: {hint}", interpreter.display()));
                }
            }
            Ok(_) => findings.push(refuse(
                Errno::ELOOP,
                "interpreters are nested too deeply".into(),
            )),
            Err(Lost::Unknown) => {}
            Err(Lost::Errno(_)) => {
                let hint = format!(
                    "the interpreter of its #! line, {}, is missing: {}",
                    interpreter.display(),
                    self.near(interpreter)
                );
                findings.push(refuse(Errno::ENOENT, hint));
            }
        }
    }
}

/// What was meant by a command line in one string.
fn split(name: &str) -> Option<String> {
    let is_line = name.trim().contains(|c: char| c.is_ascii_whitespace());
    let words = is_line.then(|| arguments(name)).flatten()?;
    Some(format!("each argument is a string of its own: {words}"))
}

/// Whether programs of other formats may be executable here, binfmt_misc.
fn others_are_registered() -> bool {
    std::fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|entries| entries.flatten().count() > 2)
}

/// Those of startContainer are in the container, the programs of the others on the host.
pub fn hooks(bundle: &Bundle, view: Option<&View>, findings: &mut Vec<Finding>) {
    let Some(hooks) = bundle.spec.hooks() else {
        return;
    };
    if let (Some(view), Some(process)) = (view, bundle.spec.process()) {
        for (index, hook) in hooks.start_container().iter().flatten().enumerate() {
            let search = Search {
                bundle,
                view,
                process,
                step: "hook",
                at: format!("/hooks/startContainer/{index}/path"),
            };
            // A relative one is a matter of the document.
            if let Some(path) = hook.path().to_str().filter(|path| path.starts_with('/')) {
                search.look(path, findings);
            }
        }
    }
    #[allow(deprecated, reason = "the specification keeps it, and so do engines")]
    let prestart = hooks.prestart();
    for (point, listed) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (index, hook) in listed.iter().flatten().enumerate() {
            let pointer = format!("/hooks/{point}/{index}/path");
            if let Some((errno, hint)) = hook_trouble(hook) {
                let message = with_phrase(format!("hook {}", hook.path().display()), errno);
                findings.push(Finding::error(pointer, message).maybe_hint(hint));
            }
        }
    }
}

fn hook_trouble(hook: &Hook) -> Option<(Errno, Option<String>)> {
    let path: &PathBuf = hook.path();
    if !path.is_absolute() {
        return None;
    }
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) => {
            let errno = Errno::from_raw(error.raw_os_error()?);
            let hint = (errno == Errno::ENOENT).then(|| {
                neighbour(path).unwrap_or_else(|| {
                    "hooks of this kind are looked for on the host, not in the root filesystem"
                        .into()
                })
            });
            return Some((errno, hint));
        }
    };
    if found.is_dir() {
        return Some((Errno::EISDIR, Some("name a program".into())));
    }
    // To open a fifo would wait for somebody.
    if !found.is_file() {
        return Some((Errno::EACCES, Some("it is no regular file".into())));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Some((
            Errno::EACCES,
            Some(format!("make it executable: chmod +x {}", path.display())),
        ));
    }
    let format = inspect(&File::open(path).ok()?).ok()?;
    if let Some(fault) = format.fault() {
        let executable = fault.foreign && others_are_registered();
        return (!executable).then_some((fault.errno, Some(fault.words)));
    }
    let (what, needed) = match &format {
        Format::Script(script) => ("the interpreter of its #! line,", script.interpreter()),
        Format::Elf(elf) => ("its loader", elf.interpreter()?),
        Format::Preceded(_) | Format::Foreign(_) | Format::Empty | Format::Unknown => return None,
    };
    let hint = || format!("{what} {} is missing", needed.display());
    (!needed.exists()).then(|| (Errno::ENOENT, Some(hint())))
}
