use super::second_look::explain;
use super::usual::{Given, Usual, flag};
use super::{Global, create};
use crate::bundle::Bundle;
use crate::container::create::create;
use crate::container::plan::{filter_of, observed};
use crate::container::{Container, Knock, Started};
use crate::error::{Error, Result};
use crate::log;
use crate::process::foreground::{self, Signals};
use crate::process::observer::Observer;
use crate::process::readiness;
use crate::sys::prctl;
use std::os::fd::AsFd;
use std::path::Path;

mod seccomp_log;

/// Besides those of `create`.
pub const USUAL: &[Usual] = &[flag("detach", Some(b'd')), flag("keep", None)];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub create: create::Args,
    /// Return once the program runs, instead of waiting for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the stopped container until it is deleted
    #[arg(long)]
    pub keep: bool,
    /// Tell at the end what the seccomp filter has denied, on standard error or as JSON in FILE: a tool
    /// for finding out, not a boundary. In the foreground only; startContainer hooks run unfiltered
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub seccomp_log: Option<String>,
}

impl Args {
    /// A line of an engine's.
    pub fn usual(given: &Given) -> Option<Args> {
        Some(Args {
            create: create::Args::usual(given)?,
            detach: given.flag("detach"),
            keep: given.flag("keep"),
            seccomp_log: None,
        })
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let passed = super::enter_container(args.create.preserve_fds, None)?;
    let mut request = args.create.request(global, passed, !args.detach);
    let mut observer = match (&args.seccomp_log, args.detach) {
        (None, _) => None,
        (Some(_), true) => {
            return Err(Error::new("--seccomp-log")
                .because("somebody has to stay and answer")
                .hint("leave --detach away")
                .into());
        }
        (Some(_), false) => {
            let bundle = Bundle::load(&args.create.bundle)?;
            Some(Observer::new(observed(filter_of(&bundle.spec)?)?))
        }
    };
    request.observed = observer.is_some();
    request.at_once = true;
    if args.detach {
        let created = create(&request).map_err(|error| explain(error, &args.create.bundle))?;
        let (container, created) = created;
        if let Some(started) = start(&args, global, container, created.knock, None)? {
            started.wait()?;
        }
        return Ok(0);
    }
    let signals = Signals::hold()?;
    if !args.create.no_subreaper {
        // What the program leaves behind is reaped here, as by an init.
        prctl::set_child_subreaper(true).map_err(|errno| {
            crate::error::Error::new("become reaper of the container").errno(errno)
        })?;
    }
    let created = create(&request).map_err(|error| explain(error, &args.create.bundle))?;
    let (container, mut created) = created;
    let (terminal, knock) = (created.terminal.take(), created.knock.take());
    let started = start(&args, global, container, knock, observer.as_mut())?;
    let ended = foreground::attend(
        &signals,
        created.pid,
        created.pidfd.as_fd(),
        terminal,
        started.map(|started| started.readiness),
    );
    if !args.keep {
        remove(global, &args.create.id)?;
    }
    if let (Some(observer), Some(file)) = (observer, &args.seccomp_log) {
        seccomp_log::tell(&observer.finish(), file)?;
    }
    let ended = ended?;
    if args.keep {
        // The program's status is the caller's all the same: it may be deleted already.
        if let Err(error) = Container::remember_end(&global.root, &args.create.id, ended) {
            log::debug(format_args!("remember the end: {error}"));
        }
    }
    Ok(ended.status())
}

/// Nobody else knows of the container, so what fails is tried once more.
fn remove(global: &Global, id: &str) -> Result<()> {
    Container::delete(&global.root, id, true).or_else(|error| {
        log::debug(format_args!("{error}: once more"));
        Container::delete(&global.root, id, true)
    })
}

/// A container that can't be started is of no use to anybody.
fn start(
    args: &Args,
    global: &Global,
    container: Container,
    knock: Option<Knock>,
    observer: Option<&mut Observer>,
) -> Result<Option<Started>> {
    let manager = readiness::manager();
    let bundle = &args.create.bundle;
    let explain = |error, _: &Path| explain(error, bundle);
    let started = container.begin(knock, manager.as_deref(), observer, explain);
    if started.is_err() && !args.keep {
        remove(global, &args.create.id)?;
    }
    started
}
