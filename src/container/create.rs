//! Making a container: everything is checked, then everything is made, and what was made is undone
//! if the rest fails.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, Uid};
use oci_spec::runtime::{self as oci, Spec};

use super::ground::Ground;
use super::plan::{Plan, check_terminal};
use super::record::{self, Home, Init as InitRecord, Knock, Phase, Record};
use super::rootless::Demand;
use super::{Container, check_id, notify};
use crate::bundle::advise;
use crate::bundle::{Bundle, Finding};
use crate::cgroups::systemd::Scope;
use crate::cgroups::{self, Cgroup, Site};
use crate::error::{Error, Result, Step};
use crate::files;
use crate::hooks::{self, Point};
use crate::log;
use crate::namespaces::{self, Origin};
use crate::process::channel::Report;
use crate::process::init::{Gate, Init};
use crate::process::program::{Passed, Program, give_stdio};
use crate::process::{self, Process, oom_score};
use crate::sys;
use crate::trace;

/// What the caller asks for besides the bundle.
#[derive(Debug)]
pub struct Request<'a> {
    pub root: &'a Path,
    pub id: &'a str,
    pub bundle: &'a Path,
    pub console_socket: Option<&'a Path>,
    pub pidfd_socket: Option<&'a Path>,
    pub pid_file: Option<&'a Path>,
    pub passed: Passed,
    /// Whether the caller wants to know when the program is ready (sd_notify(3)).
    pub notify: bool,
    pub cgroups: Cgroups,
    /// Permissions that an ordinary user doesn't have may be missing.
    pub rootless: bool,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub overlay: Option<&'a str>,
    pub lower: &'a [PathBuf],
    /// The caller stays and relays the terminal.
    pub attached: bool,
    /// The caller answers in place of the seccomp filter, for [`Container::begin`]'s observer.
    pub observed: bool,
    /// The caller starts it as soon as it is there.
    pub at_once: bool,
}

/// Who makes the container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    Cgroupfs,
    Systemd,
    /// Nobody: its processes stay where their creator is.
    None,
}

/// A created container, and its first process as a child of this one.
#[derive(Debug)]
pub struct Created {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master side, for a caller that stays.
    pub terminal: Option<OwnedFd>,
    /// For [`Container::begin`], if the start was asked for ahead.
    pub knock: Option<Knock>,
}

/// The bundle of a container that can be made under this id; `begin` sees its config.json first.
pub(super) fn load(request: &Request, begin: impl FnOnce(&[u8])) -> Result<Bundle> {
    check_id(request.id)?;
    if Home::open(request.root, request.id)?.is_some() {
        return Err(record::taken(request.id));
    }
    let bundle = trace::step("read config.json", || {
        Bundle::load_with(request.bundle, begin)
    })?;
    warn(&bundle.warnings);
    check_terminal(&bundle.spec, request)?;
    Ok(bundle)
}

fn warn(findings: &[Finding]) {
    for finding in findings {
        log::warning(format_args!("config.json {finding}"));
    }
}

/// The container, which nobody else may change before it is dropped, and its process.
pub fn create(request: &Request) -> Result<(Container, Created)> {
    let mut ahead = process::protect::luggage().map(namespaces::Ahead::from_socket);
    let mut bundle = load(request, |raw| {
        if ahead.is_none() {
            ahead = namespaces::Ahead::begin(raw);
        }
    })?;
    let notify = request.notify && notify::offer(&mut bundle.spec);
    let mut plan = trace::step("plan", || Plan::new(request, bundle))?;
    let whereabouts = plan.whereabouts.take();
    let ground = trace::step("look at the cgroup's place", || {
        Ground::survey(whereabouts.as_ref(), request, &mut plan)
    })?;
    trace::step("open root and sources", || plan.rootfs.open_sources())?;

    let mut work = Work::begin(request, &plan, &ground, notify)?;
    let made = work.make(request, plan, ground, ahead);
    match made {
        Ok(ends) => work.finish(ends),
        Err(error) => {
            work.undo();
            Err(error)
        }
    }
}

/// What husk holds of the process, as in [`Created`].
struct Ends {
    terminal: Option<OwnedFd>,
    knock: Option<Knock>,
}

/// A container being made, and what has to be undone if that fails.
pub(super) struct Work {
    pub container: Container,
    pub process: Option<Process>,
    pub hooks_ran: bool,
}

impl Work {
    /// Writes ahead what is going to be made.
    pub fn begin(request: &Request, plan: &Plan, ground: &Ground, notify: bool) -> Result<Work> {
        let mut record = plan.record(request, ground.place())?;
        record.notify = notify;
        record.root_mount = plan.rootfs.left_behind()?;
        let home = Home::make(request.root, request.id)?;
        if let Err(error) = trace::step("write record", || home.write(&record)) {
            // Without a record it would be nobody's, and the id taken.
            let _ = home.remove();
            return Err(error);
        }
        Ok(Work {
            container: Container {
                home,
                record,
                locked: true,
            },
            process: None,
            hooks_ran: false,
        })
    }

    /// `None` where the container can do without.
    fn make_cgroup(&mut self, site: Site, demand: Demand) -> Result<Option<Cgroup>> {
        let record = &mut self.container.record;
        let cgroup = match site.make() {
            Ok(cgroup) => cgroup,
            Err(error) => {
                // A place that could not be had is somebody else's.
                record.cgroup = None;
                return demand.renounce(error).map(|()| None);
            }
        };
        // With its inode: from here on it is this cgroup that is to be removed, and no other.
        let place = cgroup.place().clone();
        record.cgroup = Some(place.clone());
        if let Err(error) = demand.try_out(&cgroup) {
            demand.renounce(error)?;
            place.remove()?;
            record.cgroup = None;
            return Ok(None);
        }
        Ok(Some(cgroup))
    }

    /// Makes what is there before the process: the cgroup, if systemd doesn't, and the resctrl group.
    pub fn prepare(
        &mut self,
        plan: &mut Plan,
        ground: Ground,
    ) -> Result<(Option<Cgroup>, Option<Box<Scope>>)> {
        let made = match ground {
            Ground::Tree(site) => {
                let made = trace::step("make cgroup", || self.make_cgroup(site, plan.demand));
                (made?, None)
            }
            Ground::Unit(scope) => (None, Some(scope)),
            Ground::Nowhere => (None, None),
        };
        let record = &mut self.container.record;
        if record.cgroup.is_none() && !record.first_in_pids {
            log::warning(format_args!(
                "without a cgroup and a pid namespace, processes of {} can outlive it. Such \
                 configuration is strongly discouraged",
                record.id
            ));
        }
        if let Some(rdt) = plan.rdt.take() {
            // What fails has left nothing.
            record.rdt = None;
            record.rdt = Some(rdt.make()?);
        }
        Ok(made)
    }

    /// What nobody needs before the process is there: now it is done while that is at work. The record gets
    /// the cgroup's inode; without it nothing but an empty cgroup would be removed.
    pub fn note(&self, bundle: &Bundle) -> Result<()> {
        let home = &self.container.home;
        trace::step("write record", || {
            home.write(&self.container.record)?;
            home.write_config(&bundle.raw)
        })?;
        warn(&trace::step("look for unknown properties", || {
            bundle.unknown_properties()
        })?);
        Ok(())
    }

    // What it needs of the stack is not to lie below what reading the config needs.
    #[inline(never)]
    fn make(
        &mut self,
        request: &Request,
        mut plan: Plan,
        ground: Ground,
        ahead: Option<namespaces::Ahead>,
    ) -> Result<Ends> {
        let (cgroup, scope) = self.prepare(&mut plan, ground)?;
        let home = &self.container.home;
        if self.container.record.notify {
            plan.rootfs.bind(&notify::mount(&home.make_notify()?))?;
        }
        let gate = Gate {
            door: home.open_door()?,
            name: home.door_name()?,
        };
        let keyring = self.container.record.keyring.clone();
        // An id has no NUL.
        let keyring = keyring.and_then(|name| CString::new(name).ok());
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
        let unprivileged = plan.namespaces.in_user_namespace() || request.rootless;
        let namespaces = &plan.namespaces;
        let maps = namespaces.id_maps().cloned();
        let delegate = delegated_owner(spec, namespaces);
        let new = |kind| namespaces.origin(kind) == Origin::New;
        // Who enters it then can trace it, too, and would have what it is about to give up.
        let gives_up = |program: &Program| program.gives_up_more();
        let open_to_maker = request.rootless
            && new(CloneFlags::CLONE_NEWUSER)
            && new(CloneFlags::CLONE_NEWPID)
            && !plan.program.as_ref().is_some_and(gives_up);
        let mappings = plan.rootfs.take_mappings();
        let mut program = plan.program;
        let schedule = program.as_mut().and_then(Program::hand_over_schedule);
        let limits = program.as_ref().map(|program| program.limits.clone());
        let limits = limits.unwrap_or_default();
        let mut ahead = ahead.and_then(|ahead| {
            trace::step("wait for the network namespace", || {
                plan.namespaces.adopt(ahead)
            })
        });
        // They may use the loopback device.
        if !plan.hooks.create_container.is_empty() || !sysctl.is_empty() {
            ahead.take().map_or(Ok(()), namespaces::Ahead::finish)?;
        }
        let init = Init {
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            namespaces: plan.namespaces,
            stage: match plan.rootfs.needs_locking() {
                true => Some(std::path::absolute(home.path()).step("find", home.path().display())?),
                false => None,
            },
            rootfs: plan.rootfs,
            program,
            terminal: plan.terminal,
            sysctl,
            keyring,
            halfway: runtime_hooks || plan.network.is_some(),
            open_to_maker,
            create_hooks: plan.hooks.create_container,
            start_hooks: plan.hooks.start_container,
            subject: plan.subject.clone(),
            gate,
            cgroup_comes: scope.is_some(),
        };
        if let (None, Some(owner)) = (&init.terminal, stdio_owner(spec, spec.process().as_ref())) {
            give_stdio(owner);
        }
        let cgroup_fd = cgroup.as_ref().map(Cgroup::fd);
        let process = oom_score::inherited(oom_score_adj, request.rootless, || {
            limits.inherited(|| trace::step("clone", || process::spawn(init, cgroup_fd)))
        })?;
        let pid = self.process.insert(process).pid;
        if let Some(maps) = &maps {
            trace::step("map ids", || maps.write(pid))?;
        }
        let waits = maps.is_some() || scope.is_some();
        let cgroup = match scope {
            Some(scope) => {
                let start = || self.start_scope(*scope, pid);
                Some(trace::step("start systemd scope", start)?)
            }
            None => cgroup,
        };
        let process = self
            .process
            .as_ref()
            .ok_or_else(|| Error::new("create container").because("it has no process"))?;
        // From here on both sides work at the same time.
        if waits {
            process.channel.go()?;
        }
        if let Some(rdt) = &self.container.record.rdt {
            rdt.join(process.pid)?;
        }
        if let Some(cgroup) = &cgroup {
            confine(cgroup, &plan.cgroup, unprivileged)?;
            if let Some(owner) = delegate {
                delegate_to(owner, cgroup, request.rootless)?;
            }
        }
        if let Some(ahead) = ahead {
            ahead.finish()?;
        }
        self.note(&plan.bundle)?;
        // Of a process that nobody has waited for it stays true; what is wrong with it is said by itself first.
        let seen = InitRecord::of(process.pid);
        let created = |init| Record {
            init: Some(init),
            phase: Phase::Created,
            journey: None,
            ..self.container.record.clone()
        };
        let created = seen.map(created);
        // While the process is at work, so that nothing is left to be done when it is ready but to publish it.
        let draft = created
            .as_ref()
            .map(|created| self.container.home.draft(created));
        // Likewise. Where that can't be it is written then.
        let pid_file = request.pid_file;
        let pid_file = pid_file.and_then(|path| files::begin(path, &pid_text(process.pid)).ok());
        // It is heard when the process has been told that it is a container. With a notify socket the start waits
        // for that to be there. A process that failed has no door any more, and says why itself.
        let at_once = request.at_once && !self.container.record.notify;
        let knock = at_once.then(|| self.container.home.knock());
        process::protect::let_go();
        let mut network = plan.network;
        let mut holds = false;
        let mut terminal = None;
        let failure = loop {
            match trace::step("wait for init", || process.channel.next_report())? {
                Some(Report::Terminal(master)) => terminal = Some(master),
                Some(Report::Unmapped(entry, tree)) => {
                    let mapping = mappings.iter().find(|mapping| mapping.entry == entry);
                    mapping
                        .ok_or_else(|| Error::new("map ids of mount").because("it has no mapping"))?
                        .apply(tree.as_fd())?;
                    process.channel.go()?;
                }
                Some(Report::Mounted) => {
                    if let Some(network) = network.take() {
                        let home = &self.container.home;
                        trace::step("move network devices", || match network.joined() {
                            Some(joined) => network.carry_out(joined),
                            None => network.carry_out(home.hold_network(process.pid)?.as_fd()),
                        })?;
                        holds = network.joined().is_none();
                    }
                    self.hooks_ran = runtime_hooks;
                    let bundle = Some(plan.bundle.dir.as_path());
                    // Hooks of this deprecated kind were made for a container that is there already:
                    // it is what the specification's own validation expects them to be told.
                    let state = || plan.subject.json("created", Some(process.pid));
                    hooks::run(Point::Prestart, &plan.hooks.prestart, &state, bundle)?;
                    let state = || plan.subject.json("creating", Some(process.pid));
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
                Some(Report::Forked(..) | Report::Connected(_)) => {}
                None => break Some(process::explain_end(&process.pidfd)),
            }
        };
        if let Some(error) = failure {
            return Err(explain(cgroup.as_ref(), memory_limit(spec), error));
        }
        if let Some(schedule) = schedule {
            schedule.apply(Some(process.pid))?;
        }
        if let (Some(path), Some(master)) = (request.console_socket, &terminal) {
            send_terminal(path, master)?;
            terminal = None;
        }
        if let Some(path) = request.pidfd_socket {
            send_pidfd(path, "standard", &process.pidfd)?;
        }
        if let Some(path) = request.pid_file {
            let appeared = pid_file.map(|file| file.appear(path));
            if !matches!(appeared, Some(Ok(()))) {
                write_pid_file(path, process.pid)?;
            }
        }
        // Only what is published is so: until then all that was made is undone.
        if let Ok(draft) = draft {
            draft?.publish()?;
        }
        let created = created?;
        let knock = knock.transpose()?;
        process.channel.go()?;
        self.container.record = created;
        if holds && let Err(error) = self.container.home.release_network() {
            // `delete` does.
            log::warning(format_args!("{error}"));
        }
        Ok(Ends { terminal, knock })
    }

    pub fn start_scope(&mut self, scope: Scope, pid: Pid) -> Result<Cgroup> {
        let started = scope.start(pid).inspect_err(|error| {
            // Somebody else's, then.
            if error.code() == Some(Errno::EEXIST) {
                self.container.record.cgroup = None;
            }
        });
        let cgroup = started?;
        self.container.record.cgroup = Some(cgroup.place().clone());
        self.container.home.write(&self.container.record)?;
        Ok(cgroup)
    }

    fn finish(self, ends: Ends) -> Result<(Container, Created)> {
        let Some(process) = self.process else {
            return Err(Error::new("create container").because("it has no process"));
        };
        let created = Created {
            pid: process.pid,
            pidfd: process.pidfd,
            terminal: ends.terminal,
            knock: ends.knock,
        };
        Ok((self.container, created))
    }

    /// As if it had never been tried. What can't be undone stays in the record, for `delete --force`.
    pub fn undo(self) {
        let Work {
            mut container,
            process,
            hooks_ran,
        } = self;
        if let Some(process) = process {
            process.end();
        }
        if !hooks_ran {
            container.record.poststop.clear();
        }
        if let Err(error) = container.destroy() {
            log::warning(format_args!("undo create: {error}"));
        }
    }
}

fn memory_limit(spec: &Spec) -> Option<i64> {
    let resources = spec.linux().as_ref()?.resources().as_ref()?;
    resources.memory().as_ref()?.limit()
}

/// A process that ran out of what its limits allow says something else, or nothing.
fn explain(cgroup: Option<&Cgroup>, limit: Option<i64>, error: Error) -> Error {
    match cgroup.and_then(Cgroup::oom_kills) {
        Some(1..) => Error::new("set up the container")
            .at("/linux/resources/memory/limit")
            .because(match limit {
                Some(bytes) => format!("out of memory: {bytes} bytes are too small to start in"),
                None => "out of memory: the limit is too small to start in".into(),
            }),
        _ => error,
    }
}

/// Limits and device rules, while the process makes its namespaces.
pub(super) fn confine(cgroup: &Cgroup, plan: &cgroups::Plan, unprivileged: bool) -> Result<()> {
    trace::step("write limits", || cgroup.apply(plan))?;
    let Some(program) = &plan.devices else {
        return Ok(());
    };
    let attach = || cgroup.attach_devices(program, None);
    match trace::step("load device program", attach) {
        // In a user namespace nobody can make device nodes either, and what is there was let in by the
        // caller.
        Err(error) if unprivileged && error.code() == Some(nix::errno::Errno::EPERM) => Ok(()),
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
pub(super) fn delegated_owner(spec: &Spec, namespaces: &namespaces::Plan) -> Option<Uid> {
    let own = namespaces.origin(CloneFlags::CLONE_NEWCGROUP) == Origin::New;
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let options = || mount.options().iter().flatten();
        mount.source().as_deref() == Some(Path::new("cgroup"))
            && mount.destination() == Path::new("/sys/fs/cgroup")
            // A bind mount's source is a path.
            && !options().any(|option| matches!(option.as_str(), "ro" | "bind" | "rbind"))
    });
    let uid = spec
        .process()
        .as_ref()
        .map(|process| process.user().uid())?;
    let host = namespaces::host_uid(spec.linux().as_ref(), uid)?;
    (own && writable && host != 0).then(|| Uid::from_raw(host))
}

/// An ordinary user can give nothing away: then the container's root can't divide the cgroup.
pub(super) fn delegate_to(owner: Uid, cgroup: &Cgroup, rootless: bool) -> Result<()> {
    match cgroup.delegate(owner) {
        Err(error) if rootless && error.code() == Some(nix::errno::Errno::EPERM) => {
            log::debug(format_args!("{error}"));
            Ok(())
        }
        done => done,
    }
}

/// Digits and nothing else: engines read it without trimming.
fn pid_text(pid: Pid) -> Vec<u8> {
    pid.to_string().into_bytes()
}

/// Complete from the first moment on.
pub fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    files::replace(path, &pid_text(pid))
        .step("write pid file", path.display())
        .map_err(|error| advise(error, path))
}

/// Hands the master side to whoever listens at the socket, as runc does: its name as the message.
pub fn send_terminal(path: &Path, master: &OwnedFd) -> Result<()> {
    let step = "send terminal to console socket";
    let number = sys::tty::number(master.as_fd()).step(step, path.display())?;
    send(step, path, &format!("/dev/pts/{number}"), master)
}

/// Hands a pidfd to whoever listens at the socket. `kind` is runc's word for how the process was made:
/// `standard` for a container's first one, `setns` for one of `exec`.
pub fn send_pidfd(path: &Path, kind: &str, pidfd: &OwnedFd) -> Result<()> {
    send("send pidfd to pidfd socket", path, kind, pidfd)
}

fn send(step: &'static str, path: &Path, words: &str, fd: &OwnedFd) -> Result<()> {
    std::os::unix::net::UnixStream::connect(path)
        .or_fail(|errno| Error::new(step).on(path.display()).errno(errno))
        .and_then(|stream| {
            sys::socket::send(stream.as_fd(), words.as_bytes(), Some(fd.as_fd()))
                .map(drop)
                .step(step, path.display())
        })
}
