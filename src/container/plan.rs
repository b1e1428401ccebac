//! What is decided before a container is made: everything that can be refused is refused here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::Uid;
use oci_spec::runtime::{self as oci, Spec};

use super::agent::Agent;
use super::create::Request;
use super::postmortem::Postmortem;
use super::record::{Phase, Record};
use super::rootless::{self, Demand, Whereabouts};
use crate::bundle::{Bundle, settings};
use crate::cgroups::{self, Devices, Place};
use crate::error::{Error, Result, Step};
use crate::hooks::{self, Hook, Subject};
use crate::log;
use crate::lsm;
use crate::namespaces::{self, Origin};
use crate::network;
use crate::process::foreground;
use crate::process::program::Program;
use crate::rdt;
use crate::rootfs::idmap::{Maps, UserNamespace};
use crate::rootfs::overlay::{LOWER, Overlay, UPPER, Upper};
use crate::rootfs::{self, Elsewhere, Namespace, Setting};
use crate::seccomp;
use crate::sys;

/// Everything that is decided before the first side effect.
pub struct Plan {
    pub bundle: Bundle,
    pub namespaces: namespaces::Plan,
    pub rootfs: rootfs::Plan,
    pub program: Option<Program>,
    pub cgroup: cgroups::Plan,
    pub network: Option<network::Plan>,
    pub rdt: Option<rdt::Plan>,
    pub demand: Demand,
    /// Of the container's cgroup, if it is to have one.
    pub whereabouts: Option<Whereabouts>,
    pub terminal: Option<Option<sys::tty::Size>>,
    pub hooks: Hooks,
    pub subject: Subject,
    pub seccomp_agent: Option<Agent>,
}

#[derive(Default)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// Who keeps the other side of the terminal must be known before there is one.
pub fn check_terminal(spec: &Spec, request: &Request) -> Result<()> {
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
        // Nobody would ever connect to it.
        (false, false, Some(_)) => Err(Error::new(
            "cannot use console socket if husk will not detach or allocate tty",
        )
        .at("/process/terminal")
        .hint("set process.terminal to true, or leave --console-socket away")),
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

/// What bundle and namespaces say of the root filesystem.
pub(super) fn rootfs_setting<'a>(
    bundle: &'a Bundle,
    namespaces: &namespaces::Plan,
    cgroups: Option<&'a Path>,
) -> Result<Setting<'a>> {
    let linux = bundle.spec.linux().as_ref();
    Ok(Setting {
        bundle: &bundle.dir,
        namespace: match namespaces.origin(CloneFlags::CLONE_NEWNS) {
            Origin::New => Namespace::New,
            Origin::Joined => Namespace::Joined,
            Origin::Inherited => Namespace::Inherited,
        },
        own_cgroup_namespace: namespaces.origin(CloneFlags::CLONE_NEWCGROUP) != Origin::Inherited,
        user_namespace: user_namespace(namespaces)?,
        nested: namespaces::nested(),
        cgroups,
        own_cgroup: None,
        overlay: None,
        mount_label: lsm::mount_label(linux),
        no_pivot: false,
    })
}

/// As far as the mounts have to know it.
fn user_namespace(namespaces: &namespaces::Plan) -> Result<Option<UserNamespace>> {
    Ok(match namespaces.origin(CloneFlags::CLONE_NEWUSER) {
        Origin::Inherited => None,
        Origin::New => namespaces.id_maps().map(|maps| {
            UserNamespace::New(Maps {
                uid: maps.uid_lines(),
                gid: maps.gid_lines(),
            })
        }),
        Origin::Joined => match namespaces.joined_user() {
            Some(namespace) => {
                let kept = namespace.try_clone_to_owned();
                Some(UserNamespace::Joined(
                    kept.step("keep", "a user namespace")?,
                ))
            }
            None => None,
        },
    })
}

impl Plan {
    pub fn new(request: &Request, bundle: Bundle) -> Result<Plan> {
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
        let namespaces = namespaces::Plan::open(linux)?;
        namespaces.spare_own(|| settings(spec))?;
        let network = namespaces.joined(CloneFlags::CLONE_NEWNET);
        let network = network::Plan::new(linux, network.map(|(namespace, _)| namespace))?;
        rootless::check(spec, &namespaces, request)?;
        let demand = Demand::of(request, spec, &limits);
        let whereabouts = rootless::whereabouts(request, spec, demand)?;
        let own_cgroup = whereabouts.as_ref().and_then(Whereabouts::path);
        let setting = Setting {
            own_cgroup: own_cgroup.as_deref(),
            overlay: overlay(request, &bundle)?,
            no_pivot: request.no_pivot,
            ..rootfs_setting(
                &bundle,
                &namespaces,
                whereabouts.as_ref().map(|at| at.hierarchy.mount()),
            )?
        };
        let rootfs = rootfs::Plan::new(spec, setting)?;
        let rdt = rdt::Plan::new(linux, request.id)?;
        let filter = filter_of(spec)?;
        let filter = match request.observed {
            true => Some(observed(filter)?.asking()),
            false => filter,
        };
        let seccomp_agent = match &filter {
            _ if request.observed => None,
            Some(filter) if filter.notifies() => Some(Agent::plan(spec)?),
            _ => None,
        };
        let program = match spec.process() {
            Some(process) => Some(Program::plan(
                process,
                linux,
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
            network,
            rdt,
            demand,
            whereabouts,
            terminal,
            hooks,
            subject,
            seccomp_agent,
            bundle,
        })
    }

    /// The one that was joined.
    fn mount_namespace(&self) -> Option<Elsewhere> {
        let (namespace, path) = self.namespaces.joined(CloneFlags::CLONE_NEWNS)?;
        let inode = fstat(namespace).ok()?.st_ino;
        Some(Elsewhere::new(path, inode))
    }

    pub fn record(&self, request: &Request, place: Option<&Place>) -> Result<Record> {
        let joined = self.namespaces.joined(CloneFlags::CLONE_NEWNET);
        let journey = self
            .network
            .as_ref()
            .map(|network| network.journey(joined.map(|(_, path)| path)));
        Ok(Record {
            format: Record::format(),
            phase: Phase::Creating,
            oci_version: self.subject.version.clone(),
            id: request.id.to_owned(),
            bundle: self.bundle.dir.clone(),
            rootfs: self.rootfs.path().to_owned(),
            created: log::rfc3339_nanos(sys::clock::now()),
            owner: Uid::current().as_raw(),
            init: None,
            cgroup: place.cloned(),
            namespaces: self.namespaces.own(),
            first_in_pids: self.namespaces.origin(CloneFlags::CLONE_NEWPID) == Origin::New,
            keyring: (!request.no_new_keyring).then(|| format!("_ses.{}", request.id)),
            root_mount: None,
            root_mount_in: self.mount_namespace(),
            made: self
                .rootfs
                .overlay()
                .map(Overlay::missing)
                .unwrap_or_default(),
            journey: journey.transpose()?,
            restored: false,
            notify: false,
            seccomp_agent: self.seccomp_agent.clone(),
            rdt: self.rdt.as_ref().map(|rdt| rdt.place().clone()),
            annotations: self.subject.annotations.clone(),
            poststart: self.hooks.poststart.clone(),
            poststop: self.hooks.poststop.clone(),
            postmortem: Postmortem::default(),
        })
    }
}

/// A filter that can be answered for by husk.
pub fn observed(filter: Option<seccomp::Filter>) -> Result<seccomp::Filter> {
    match filter {
        Some(filter) if !filter.notifies() => Ok(filter),
        Some(_) => Err(Error::new("--seccomp-log").because(
            "the profile has an agent of its own (SCMP_ACT_NOTIFY), and a filter asks only one",
        )),
        None => Err(Error::new("--seccomp-log")
            .at("/linux/seccomp")
            .because("missing: there is no filter that could deny anything")),
    }
}

/// The seccomp filter of a configuration, compiled.
pub fn filter_of(spec: &Spec) -> Result<Option<seccomp::Filter>> {
    let linux = spec.linux().as_ref();
    let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(None);
    };
    let filter = seccomp::compile(profile)?;
    log::debug(format_args!("seccomp filter flags: {}", filter.flags()));
    for warning in filter.warnings() {
        log::warning(format_args!("{warning}"));
    }
    Ok(Some(filter))
}

/// `process.consoleSize`.
pub fn size_of(process: &oci::Process) -> Option<sys::tty::Size> {
    let size = process.console_size()?;
    Some(sys::tty::Size {
        rows: size.height().min(u16::MAX.into()) as u16,
        columns: size.width().min(u16::MAX.into()) as u16,
    })
}

pub fn caller_umask() -> Mode {
    let mask = umask(Mode::empty());
    umask(mask);
    mask
}
