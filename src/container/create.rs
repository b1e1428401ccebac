//! Making a container: everything is checked, then everything is made, and what was made is undone
//! if the rest fails.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Uid};
use oci_spec::runtime::{self as oci, Spec};

use super::record::{self, Home, Init as InitRecord, Phase, Record};
use super::{Container, check_id};
use crate::bundle::Bundle;
use crate::cgroups::{self, Cgroup, Devices, Hierarchy, Site};
use crate::error::{Error, Result, Step};
use crate::hooks::{self, Hook, Point, Subject};
use crate::log;
use crate::namespaces::{self, Origin};
use crate::process::channel::Report;
use crate::process::init::{Gate, Init};
use crate::process::program::{Passed, Program, give_stdio};
use crate::process::{self, Process, foreground};
use crate::rootfs::overlay::{LOWER, Overlay, UPPER, Upper};
use crate::rootfs::{self, Namespace, Setting};
use crate::seccomp;
use crate::sys;

/// What the caller asks for besides the bundle.
#[derive(Debug)]
pub struct Request<'a> {
    pub root: &'a Path,
    pub id: &'a str,
    pub bundle: &'a Path,
    pub console_socket: Option<&'a Path>,
    pub pid_file: Option<&'a Path>,
    pub passed: Passed,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub overlay: Option<&'a str>,
    pub lower: &'a [PathBuf],
    /// The caller stays and relays the terminal.
    pub attached: bool,
}

/// A created container, and its first process as a child of this one.
#[derive(Debug)]
pub struct Created {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master side, for a caller that stays.
    pub terminal: Option<OwnedFd>,
}

/// Everything that is decided before the first side effect.
struct Plan {
    bundle: Bundle,
    namespaces: namespaces::Plan,
    rootfs: rootfs::Plan,
    program: Option<Program>,
    cgroup: cgroups::Plan,
    terminal: Option<Option<sys::tty::Size>>,
    hooks: Hooks,
    subject: Subject,
}

#[derive(Default)]
struct Hooks {
    prestart: Vec<Hook>,
    create_runtime: Vec<Hook>,
    create_container: Vec<Hook>,
    start_container: Vec<Hook>,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
}

pub fn create(request: &Request) -> Result<Created> {
    check_id(request.id)?;
    if Home::open(request.root, request.id)?.is_some() {
        return Err(record::taken(request.id));
    }
    let bundle = Bundle::load(request.bundle)?;
    for warning in &bundle.warnings {
        log::warning(format_args!(
            "config.json ({}): {}",
            warning.pointer, warning.message
        ));
    }
    check_terminal(&bundle.spec, request)?;
    let hierarchy = Hierarchy::find()?;
    let linux = bundle.spec.linux().as_ref();
    let wanted = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let wanted = wanted
        .map(|path| {
            path.to_str()
                .ok_or_else(|| Error::config("/linux/cgroupsPath", "not UTF-8"))
        })
        .transpose()?;
    let below = cgroups::path(wanted, request.id)?;
    let mut plan = Plan::new(request, bundle, hierarchy.mount())?;
    let site = hierarchy.survey(&below)?;
    plan.rootfs.open_sources()?;

    let home = Home::make(request.root, request.id)?;
    let record = plan.record(request, &site);
    home.write(&record)?;
    let mut work = Work {
        container: Container { home, record },
        process: None,
        hooks_ran: false,
    };
    let made = work.make(request, plan, site);
    match made {
        Ok(terminal) => work.finish(terminal),
        Err(error) => {
            work.undo();
            Err(error)
        }
    }
}

/// Who keeps the other side of the terminal must be known before there is one.
fn check_terminal(spec: &Spec, request: &Request) -> Result<()> {
    let wanted = spec
        .process()
        .as_ref()
        .is_some_and(|process| process.terminal().unwrap_or(false));
    match (request.attached, wanted, request.console_socket) {
        (false, true, None) => Err(Error::new(
            "cannot allocate tty if husk will detach without setting console socket",
        )
        .at("/process/terminal")
        .hint("give --console-socket, or set process.terminal to false")),
        (true, _, Some(_)) => Err(Error::new(
            "cannot use console socket if husk will not detach or allocate tty",
        )
        .hint("give --detach as well, or leave --console-socket away")),
        _ => Ok(()),
    }
}

/// `None` unless the command line or the annotations ask for one. The command line wins.
fn overlay(request: &Request, bundle: &Bundle) -> Result<Option<Overlay>> {
    let annotation = |key: &str| {
        let annotations = bundle.spec.annotations().as_ref()?;
        annotations.get(key).map(String::as_str)
    };
    let here = std::path::absolute(".").step("find", "the current directory")?;
    let at = |key: &str| format!("/annotations/{key}");
    let upper = match (request.overlay, annotation(UPPER)) {
        (Some(text), _) => Some(Upper::parse(text, &here, "--overlay")?),
        (None, Some(text)) => Some(Upper::parse(text, &bundle.dir, &at(UPPER))?),
        (None, None) => None,
    };
    let (lower, base, origin): (Vec<PathBuf>, &Path, String) =
        match (request.lower, annotation(LOWER)) {
            ([], Some(list)) => {
                let layers = list.split(':').filter(|layer| !layer.is_empty());
                (layers.map(PathBuf::from).collect(), &bundle.dir, at(LOWER))
            }
            ([], None) => (Vec::new(), &bundle.dir, "--overlay".into()),
            (given, _) => (given.to_vec(), &here, "--lower".into()),
        };
    // Layers alone get a top that forgets: the layers stay as they are either way.
    let upper = match upper {
        None if lower.is_empty() => return Ok(None),
        None => Upper::Tmpfs { size: None },
        Some(upper) => upper,
    };
    let root = bundle
        .spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::config("/root", "missing"))?;
    Overlay::plan(upper, lower, &bundle.dir.join(root.path()), base, &origin).map(Some)
}

impl Plan {
    fn new(request: &Request, bundle: Bundle, cgroups: &Path) -> Result<Plan> {
        let spec = &bundle.spec;
        let linux = spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let limits = cgroups::plan(
            resources,
            bundle.extra.pids_limit,
            Devices::Confine,
            "/linux/resources",
        )?;
        for warning in &limits.warnings {
            log::warning(format_args!("{warning}"));
        }
        refuse_later(spec)?;
        let namespaces = namespaces::Plan::open(linux)?;
        let setting = Setting {
            bundle: &bundle.dir,
            namespace: match namespaces.origin(CloneFlags::CLONE_NEWNS) {
                Origin::New => Namespace::New,
                Origin::Joined => Namespace::Joined,
                Origin::Inherited => Namespace::Inherited,
            },
            own_cgroup_namespace: namespaces.origin(CloneFlags::CLONE_NEWCGROUP)
                != Origin::Inherited,
            user_namespace: namespaces.in_user_namespace(),
            cgroups,
            overlay: overlay(request, &bundle)?,
            no_pivot: request.no_pivot,
        };
        let rootfs = rootfs::Plan::new(spec, setting)?;
        let filter = filter_of(spec)?;
        let program = match spec.process() {
            Some(process) => Some(Program::plan(
                process,
                filter,
                request.passed,
                caller_umask(),
            )?),
            None => None,
        };
        let hooks = spec
            .hooks()
            .as_ref()
            .map_or_else(Hooks::default, |listed| Hooks {
                prestart: {
                    #[allow(deprecated, reason = "the specification keeps it, and so do engines")]
                    let prestart = listed.prestart().as_ref();
                    hooks::of(prestart)
                },
                create_runtime: hooks::of(listed.create_runtime().as_ref()),
                create_container: hooks::of(listed.create_container().as_ref()),
                start_container: hooks::of(listed.start_container().as_ref()),
                poststart: hooks::of(listed.poststart().as_ref()),
                poststop: hooks::of(listed.poststop().as_ref()),
            });
        let annotations = spec.annotations().iter().flatten();
        let annotations: BTreeMap<String, String> = annotations
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let subject = Subject {
            version: spec.version().clone(),
            id: request.id.to_owned(),
            bundle: bundle.dir.clone(),
            annotations,
        };
        let terminal = spec
            .process()
            .as_ref()
            .filter(|process| process.terminal().unwrap_or(false))
            .map(|process| {
                let caller = request.attached.then(foreground::caller_size).flatten();
                size_of(process).or(caller)
            });
        Ok(Plan {
            namespaces,
            rootfs,
            program,
            cgroup: limits,
            terminal,
            hooks,
            subject,
            bundle,
        })
    }

    fn record(&self, request: &Request, site: &Site) -> Record {
        Record {
            format: Record::format(),
            phase: Phase::Creating,
            oci_version: self.subject.version.clone(),
            id: request.id.to_owned(),
            bundle: self.bundle.dir.clone(),
            rootfs: self.rootfs.path().to_owned(),
            created: log::rfc3339_nanos(SystemTime::now()),
            owner: Uid::current().as_raw(),
            init: None,
            cgroup: Some(site.place().clone()),
            namespaces: self.namespaces.own(),
            made: self
                .rootfs
                .overlay()
                .map(Overlay::missing)
                .unwrap_or_default(),
            annotations: self.subject.annotations.clone(),
            poststart: self.hooks.poststart.clone(),
            poststop: self.hooks.poststop.clone(),
        }
    }
}

/// What the configuration may ask for and this version doesn't do is refused: a container without it
/// would not be what was asked for.
fn refuse_later(spec: &Spec) -> Result<()> {
    let process = spec.process().as_ref();
    let linux = spec.linux().as_ref();
    let given = |text: Option<&String>| text.is_some_and(|text| !text.is_empty());
    let asked = [
        (
            "/process/apparmorProfile",
            given(process.and_then(|process| process.apparmor_profile().as_ref())),
        ),
        (
            "/process/selinuxLabel",
            given(process.and_then(|process| process.selinux_label().as_ref())),
        ),
        (
            "/linux/mountLabel",
            given(linux.and_then(|linux| linux.mount_label().as_ref())),
        ),
        (
            "/process/scheduler",
            process.is_some_and(|process| process.scheduler().is_some()),
        ),
        (
            "/process/ioPriority",
            process.is_some_and(|process| process.io_priority().is_some()),
        ),
        (
            "/linux/personality",
            linux.is_some_and(|linux| linux.personality().is_some()),
        ),
        (
            "/linux/intelRdt",
            linux.is_some_and(|linux| linux.intel_rdt().is_some()),
        ),
        (
            "/linux/memoryPolicy",
            linux.is_some_and(|linux| linux.memory_policy().is_some()),
        ),
        (
            "/linux/netDevices",
            linux
                .and_then(|linux| linux.net_devices().as_ref())
                .is_some_and(|devices| !devices.is_empty()),
        ),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((pointer, _)) => Err(Error::config(
            pointer,
            "is not available in this version of husk",
        )),
        None => Ok(()),
    }
}

/// The seccomp filter of a configuration, compiled.
pub(super) fn filter_of(spec: &Spec) -> Result<Option<seccomp::Filter>> {
    let linux = spec.linux().as_ref();
    let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(None);
    };
    let filter = seccomp::compile(profile)?;
    for warning in filter.warnings() {
        log::warning(format_args!("{warning}"));
    }
    if filter.notifies() {
        return Err(Error::config(
            "/linux/seccomp/syscalls",
            "SCMP_ACT_NOTIFY is not available in this version",
        ));
    }
    Ok(Some(filter))
}

/// `process.consoleSize`.
pub(super) fn size_of(process: &oci::Process) -> Option<sys::tty::Size> {
    let size = process.console_size()?;
    Some(sys::tty::Size {
        rows: size.height().min(u16::MAX.into()) as u16,
        columns: size.width().min(u16::MAX.into()) as u16,
    })
}

pub(super) fn caller_umask() -> Mode {
    let mask = umask(Mode::empty());
    umask(mask);
    mask
}

/// A container being made, and what has to be undone if that fails.
struct Work {
    container: Container,
    process: Option<Process>,
    hooks_ran: bool,
}

impl Work {
    fn make(&mut self, request: &Request, plan: Plan, site: Site) -> Result<Option<OwnedFd>> {
        let cgroup = site.make()?;
        let home = &self.container.home;
        home.write_config(&plan.bundle.raw)?;
        let gate = Gate {
            listener: home.listen()?,
            lock: home.lock_waiting()?,
        };
        let keyring = match request.no_new_keyring {
            true => None,
            // An id has no NUL.
            false => CString::new(format!("_ses.{}", request.id)).ok(),
        };
        let runtime_hooks =
            !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty();
        let oom_score_adj = plan
            .program
            .as_ref()
            .and_then(|program| program.identity.oom_score_adj);
        let spec = &plan.bundle.spec;
        let sysctl = spec.linux().iter().flat_map(|linux| linux.sysctl());
        let mut sysctl: Vec<(String, String)> = sysctl
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        sysctl.sort();
        let in_user_namespace = plan.namespaces.in_user_namespace();
        let new_user_namespace = plan.namespaces.origin(CloneFlags::CLONE_NEWUSER) == Origin::New;
        let namespaces = &plan.namespaces;
        let maps = namespaces.id_maps();
        let delegate = delegated_owner(spec, namespaces);
        let init = Init {
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            namespaces: plan.namespaces,
            rootfs: plan.rootfs,
            program: plan.program,
            terminal: plan.terminal,
            sysctl,
            keyring,
            runtime_hooks,
            create_hooks: plan.hooks.create_container,
            start_hooks: plan.hooks.start_container,
            subject: plan.subject.clone(),
            gate,
        };
        if let (None, Some(owner)) = (&init.terminal, stdio_owner(spec, spec.process().as_ref())) {
            give_stdio(owner);
        }
        let process = process::spawn(init, Some(cgroup.fd()))?;
        let process = self.process.insert(process);
        // From here on both sides work at the same time.
        if new_user_namespace {
            maps.write(process.pid)?;
            process.channel.go()?;
        }
        if let Some(score) = oom_score_adj {
            set_oom_score_adj(process.pid, score)?;
        }
        confine(&cgroup, &plan.cgroup, in_user_namespace)?;
        if let Some(owner) = delegate {
            cgroup.delegate(owner)?;
        }
        self.container.record.cgroup = Some(cgroup.place().clone());
        let mut terminal = None;
        let failure = loop {
            match process.channel.next_report()? {
                Some(Report::Terminal(master)) => terminal = Some(master),
                Some(Report::Mounted) => {
                    self.hooks_ran = true;
                    let state = plan.subject.json("creating", Some(process.pid));
                    let bundle = Some(plan.bundle.dir.as_path());
                    hooks::run(Point::Prestart, &plan.hooks.prestart, &state, bundle)?;
                    hooks::run(
                        Point::CreateRuntime,
                        &plan.hooks.create_runtime,
                        &state,
                        bundle,
                    )?;
                    process.channel.go()?;
                }
                Some(Report::Ready) => break None,
                Some(Report::Failed(error)) => break Some(error),
                Some(Report::Forked(..)) => {}
                None => break Some(process::explain_end(&process.pidfd)),
            }
        };
        if let Some(error) = failure {
            return Err(explain(&cgroup, error));
        }
        if let (Some(path), Some(master)) = (request.console_socket, &terminal) {
            send_terminal(path, master)?;
            terminal = None;
        }
        if let Some(path) = request.pid_file {
            write_pid_file(path, process.pid)?;
        }
        self.container.record.init = Some(InitRecord::of(process.pid)?);
        self.container.record.phase = Phase::Created;
        self.container.home.write(&self.container.record)?;
        process.channel.go()?;
        Ok(terminal)
    }

    fn finish(self, terminal: Option<OwnedFd>) -> Result<Created> {
        match self.process {
            Some(process) => Ok(Created {
                pid: process.pid,
                pidfd: process.pidfd,
                terminal,
            }),
            None => Err(Error::new("create container").because("it has no process")),
        }
    }

    /// As if it had never been tried. What can't be undone stays in the record, for `delete --force`.
    fn undo(self) {
        let Work {
            mut container,
            process,
            hooks_ran,
        } = self;
        if let Some(process) = process {
            process.end();
        }
        for path in container.record.made.iter().rev() {
            // Only while nothing has been written there; "work" is overlayfs's own.
            let _ = std::fs::remove_dir(path.join("work"));
            let _ = std::fs::remove_dir(path);
        }
        if !hooks_ran {
            container.record.poststop.clear();
        }
        if let Err(error) = container.destroy() {
            log::warning(format_args!("undo create: {error}"));
        }
    }
}

/// A process that ran out of what its limits allow says something else, or nothing.
fn explain(cgroup: &Cgroup, error: Error) -> Error {
    match cgroup.oom_kills() {
        Some(1..) => Error::new("set up the container")
            .at("/linux/resources/memory/limit")
            .because("out of memory: the limit is too small to start in"),
        _ => error,
    }
}

/// Limits and device rules, while the process makes its namespaces.
fn confine(cgroup: &Cgroup, plan: &cgroups::Plan, in_user_namespace: bool) -> Result<()> {
    cgroup.apply(plan)?;
    let Some(program) = &plan.devices else {
        return Ok(());
    };
    match cgroup.attach_devices(program, None) {
        // There nobody can make device nodes either, and what is there was let in by the caller.
        Err(error) if in_user_namespace && error.code() == Some(nix::errno::Errno::EPERM) => Ok(()),
        done => done.map(drop),
    }
}

/// Whose the standard streams are to be.
pub(super) fn stdio_owner(spec: &Spec, process: Option<&oci::Process>) -> Option<Uid> {
    let uid = process?.user().uid();
    namespaces::host_uid(spec.linux().as_ref(), uid).map(Uid::from_raw)
}

/// Who gets the cgroup, runtime-spec's config-linux.md, "Cgroup ownership": with a cgroup namespace
/// of its own and a writable mount of the tree, the user who is to manage it there.
fn delegated_owner(spec: &Spec, namespaces: &namespaces::Plan) -> Option<Uid> {
    let own = namespaces.origin(CloneFlags::CLONE_NEWCGROUP) == Origin::New;
    let writable = spec.mounts().iter().flatten().any(|mount| {
        mount.typ().as_deref() == Some("cgroup")
            && mount.destination() == Path::new("/sys/fs/cgroup")
            && !mount
                .options()
                .iter()
                .flatten()
                .any(|option| option == "ro")
    });
    let uid = spec
        .process()
        .as_ref()
        .map(|process| process.user().uid())?;
    let host = namespaces::host_uid(spec.linux().as_ref(), uid)?;
    (own && writable && host != 0).then(|| Uid::from_raw(host))
}

pub(super) fn set_oom_score_adj(pid: Pid, score: i32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).or_fail(|errno| {
        let error = Error::new("set oom_score_adj")
            .on(score)
            .at("/process/oomScoreAdj")
            .errno(errno);
        match errno {
            nix::errno::Errno::EACCES | nix::errno::Errno::EPERM => {
                error.hint("lowering it below the caller's own needs CAP_SYS_RESOURCE")
            }
            _ => error,
        }
    })
}

/// Digits and nothing else, complete from the first moment on: engines read it without trimming.
pub fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    let name = path.file_name().ok_or_else(|| {
        Error::new("write pid file")
            .on(path.display())
            .because("it has no file name")
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .or_fail(|errno| {
            let _ = std::fs::remove_file(&temporary);
            Error::new("write pid file").on(path.display()).errno(errno)
        })
}

/// Hands the master side to whoever listens at the socket, as runc does: its name as the message.
pub fn send_terminal(path: &Path, master: &OwnedFd) -> Result<()> {
    let fail = |errno| {
        Error::new("send terminal to console socket")
            .on(path.display())
            .errno(errno)
    };
    let stream = std::os::unix::net::UnixStream::connect(path).or_fail(fail)?;
    let number = sys::tty::number(master.as_fd()).or_fail(fail)?;
    let name = format!("/dev/pts/{number}");
    sys::socket::send(stream.as_fd(), name.as_bytes(), Some(master.as_fd())).or_fail(fail)
}
