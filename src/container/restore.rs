//! Making a container again from the files of a checkpoint, by CRIU.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::checkpoint::{Places, check_devices, config_of, name_of};
use super::create::{
    self, Created, Work, confine, delegate_to, delegated_owner, load, send_terminal, write_pid_file,
};
use super::ground::Ground;
use super::plan::{Hooks, Plan};
use super::record::{Init as InitRecord, Phase};
use crate::bundle;
use crate::cgroups::Cgroup;
use crate::criu::{self, Choices, External, Kind, Options};
use crate::error::{Error, Result, Step};
use crate::hooks::{self, Point, Subject};
use crate::namespaces::Origin;
use crate::process::criu::{Task, find, spawn};
use crate::process::{self, Ended};
use crate::sys;

#[derive(Debug)]
pub struct Request<'a> {
    /// As for a new container.
    pub create: create::Request<'a>,
    pub images: &'a Path,
    pub work: Option<&'a Path>,
    pub choices: Choices,
    pub lsm_profile: Option<&'a str>,
    pub lsm_mount_context: Option<&'a str>,
}

const LOG: &str = "restore.log";

/// For masks of files: a checkpoint gives all of them the same name.
const NULL: &str = "/dev/null";

pub fn restore(request: &Request) -> Result<Created> {
    let program = find()?;
    let bundle = load(&request.create, |_| {})?;
    check_devices(&bundle.spec)?;
    let streams = read_descriptors(request.images)?;
    let mut plan = Plan::new(&request.create, bundle)?;
    let whereabouts = plan.whereabouts.take();
    let ground = Ground::survey(whereabouts.as_ref(), &request.create, &mut plan)?;
    plan.rootfs.check_restorable()?;
    if plan.namespaces.origin(CloneFlags::CLONE_NEWCGROUP) == Origin::Joined {
        return Err(Error::config(
            "/linux/namespaces",
            "criu can't restore into a cgroup namespace of others",
        ));
    }
    plan.rootfs.open_sources()?;
    let places = Places::open(request.images, request.work, LOG)?;
    let mut work = Work::begin(&request.create, &plan, &ground, false)?;
    match work.restore(request, &program, plan, ground, &places, &streams) {
        Ok(created) => Ok(created),
        Err(error) => {
            work.undo();
            Err(error)
        }
    }
}

/// What the standard streams were. More of them would stand for other descriptors of CRIU's: its socket, the
/// host's directories.
fn read_descriptors(images: &Path) -> Result<Vec<String>> {
    let path = images.join(criu::DESCRIPTORS);
    let text = bundle::read_document(&path)
        .map_err(|error| error.hint("--image-path names the directory of a checkpoint"))?;
    let mut streams: Vec<String> = serde_json::from_slice(&text).map_err(|error| {
        Error::new("read")
            .on(path.display())
            .because(error.to_string())
    })?;
    streams.truncate(3);
    Ok(streams)
}

/// Where CRIU is, and so what it makes.
fn cgroups_of(pid: Pid) -> Result<Vec<(String, String)>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).step("read", &path)?;
    let hierarchies = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    Ok(hierarchies
        .flat_map(|(controllers, path)| {
            let each = controllers.split(',');
            each.map(|controller| (controller.to_owned(), path.to_owned()))
        })
        .collect())
}

impl Work {
    fn restore(
        &mut self,
        request: &Request,
        program: &CString,
        mut plan: Plan,
        ground: Ground,
        places: &Places,
        streams: &[String],
    ) -> Result<Created> {
        let (cgroup, scope) = self.prepare(&mut plan, ground)?;
        self.note(&plan.bundle)?;
        let in_user_namespace = plan.namespaces.in_user_namespace();
        let delegate = delegated_owner(&plan.bundle.spec, &plan.namespaces);
        let root = std::path::absolute(self.container.home.path())
            .step("find", self.container.home.path().display())?;
        let mut options = Options {
            choices: request.choices.clone(),
            images: Some(places.images()),
            work: places.work(),
            log: LOG,
            config: config_of(&plan.subject.annotations),
            root: Some(&root),
            restore: true,
            lsm_profile: request.lsm_profile,
            lsm_mount_context: request.lsm_mount_context,
            mounts: mounts(&plan)?,
            ..Options::default()
        };
        for (number, stream) in (0..).zip(streams) {
            if stream.starts_with("pipe:") {
                options.inherited.push((stream.clone(), number));
            }
        }
        let mut kept = Vec::new();
        for (kind, namespace, path) in plan.namespaces.all_joined() {
            match name_of(kind) {
                Some(name) => {
                    let own = namespace.try_clone_to_owned();
                    let own = own.step("keep", path.display())?;
                    options.inherited.push((name.to_owned(), own.as_raw_fd()));
                    kept.push(own);
                }
                None => options.joined.push((kind, path.to_owned())),
            }
        }
        let task = Task {
            kept,
            directories: places.directories(),
            root: Some((plan.rootfs, root.clone())),
        };
        let (criu, session) = spawn(program, task, cgroup.as_ref().map(Cgroup::fd))?;
        let pid = self.process.insert(criu).pid;
        let cgroup = match scope {
            Some(scope) => Some(self.start_scope(*scope, pid)?),
            None => cgroup,
        };
        if let Some(rdt) = &self.container.record.rdt {
            rdt.join(pid)?;
        }
        if let Some(cgroup) = &cgroup {
            confine(cgroup, &plan.cgroup, in_user_namespace)?;
            if let Some(owner) = delegate {
                delegate_to(owner, cgroup, false)?;
            }
        }
        options.cgroups = cgroups_of(pid)?;
        let (mut terminal, mut first) = (None, None);
        let answer = session.ask(&options.request(Kind::Restore), |notice| {
            match (notice.script, notice.pid, notice.fd) {
                ("setup-namespaces", pid, _) => self.run_hooks(&plan.hooks, &plan.subject, pid),
                ("orphan-pts-master", _, Some(master)) => match request.create.console_socket {
                    Some(path) => send_terminal(path, &master),
                    None => {
                        terminal = Some(master);
                        Ok(())
                    }
                },
                ("post-restore", Some(pid), _) => {
                    // It waits, and goes on when this returns: it may end at any time then.
                    let pidfd = sys::process::pidfd_open(pid).step("open process", pid)?;
                    first = Some((pid, pidfd));
                    self.note_process(pid)
                }
                _ => Ok(()),
            }
        });
        session.end();
        let failed = || Error::new("criu failed to restore").on(request.create.id);
        let answer = answer?;
        if !answer.success {
            return Err(places.complain(failed(), &answer));
        }
        if let Some(criu) = self.process.take() {
            match process::reap(&criu.pidfd).step("wait for", "criu")? {
                Ended::Exited(0) => {}
                ended => {
                    return Err(
                        failed().because(format!("it ended with status {}", ended.status()))
                    );
                }
            }
        }
        let (pid, pidfd) = first.ok_or_else(|| failed().because("it told of no process"))?;
        if let Some(path) = request.create.pidfd_socket {
            create::send_pidfd(path, "standard", &pidfd)?;
        }
        if let Some(path) = request.create.pid_file {
            write_pid_file(path, pid)?;
        }
        Ok(Created {
            pid,
            pidfd,
            terminal,
            knock: None,
        })
    }

    fn run_hooks(&mut self, listed: &Hooks, subject: &Subject, pid: Option<Pid>) -> Result<()> {
        self.hooks_ran = !listed.prestart.is_empty() || !listed.create_runtime.is_empty();
        let bundle = Some(subject.bundle.as_path());
        let state = || subject.json("created", pid);
        hooks::run(Point::Prestart, &listed.prestart, &state, bundle)?;
        let state = || subject.json("creating", pid);
        hooks::run(Point::CreateRuntime, &listed.create_runtime, &state, bundle)
    }

    fn note_process(&mut self, pid: Pid) -> Result<()> {
        self.container.record.init = Some(InitRecord::of(pid)?);
        self.container.record.phase = Phase::Created;
        self.container.record.restored = true;
        self.container.note_namespaces(pid);
        self.container.home.write(&self.container.record)
    }
}

/// The host's side of what lies outside: under its name in the configuration, and, as other runtimes
/// have it, under that of its mount point.
fn mounts(plan: &Plan) -> Result<Vec<External>> {
    let root = plan.rootfs.open_root()?;
    let mut mounts = vec![External {
        key: NULL.into(),
        value: NULL.into(),
    }];
    for mut outside in plan.rootfs.outside(&root) {
        // CRIU looks for its mount by the path's text.
        outside.source =
            std::fs::canonicalize(&outside.source).step("find", outside.source.display())?;
        if outside.point != outside.name {
            mounts.push(External {
                key: outside.point,
                value: outside.source.clone(),
            });
        }
        mounts.push(External {
            key: outside.name,
            value: outside.source,
        });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_speak_of_the_standard_streams_alone() {
        let dir = std::env::temp_dir().join(format!("husk-streams-{}", std::process::id()));
        crate::files::make_directory(&dir, 0o700).unwrap();
        let path = dir.join(criu::DESCRIPTORS);
        let listed: Vec<String> = (0..9).map(|number| format!("pipe:[{number}]")).collect();
        crate::files::replace(&path, &serde_json::to_vec(&listed).unwrap()).unwrap();
        assert_eq!(read_descriptors(&dir).unwrap(), listed[..3]);
        std::fs::remove_file(&path).unwrap();
        nix::sys::stat::mknodat(
            nix::fcntl::AT_FDCWD,
            &path,
            nix::sys::stat::SFlag::S_IFIFO,
            nix::sys::stat::Mode::S_IRWXU,
            0,
        )
        .unwrap();
        let error = read_descriptors(&dir).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_dir(&dir).unwrap();
    }
}
