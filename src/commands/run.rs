use super::second_look::explain;
use super::{Global, create};
use crate::container::create::{Created, create};
use crate::container::{Container, Started};
use crate::error::Result;
use crate::log;
use crate::process::foreground::{self, Signals};
use crate::process::readiness;
use crate::sys::prctl;
use std::os::fd::AsFd;

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
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let passed = super::enter_container(args.create.preserve_fds, None)?;
    let request = args.create.request(global, passed, !args.detach);
    if args.detach {
        let created = create(&request).map_err(|error| explain(error, &args.create.bundle))?;
        if let (_, Some(started)) = start(&args, global, created)? {
            started.wait()?;
        }
        return Ok(0);
    }
    let signals = Signals::hold()?;
    if !args.create.no_subreaper {
        // What the program leaves behind is reaped here, as by an init.
        prctl::set_child_subreaper().map_err(|errno| {
            crate::error::Error::new("become reaper of the container").errno(errno)
        })?;
    }
    let mut created = create(&request).map_err(|error| explain(error, &args.create.bundle))?;
    let terminal = created.terminal.take();
    let (created, started) = start(&args, global, created)?;
    let ended = foreground::attend(
        &signals,
        created.pid,
        created.pidfd.as_fd(),
        terminal,
        started.map(|started| started.readiness),
    );
    if !args.keep {
        Container::delete(&global.root, &args.create.id, true)?;
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

/// A container that can't be started is of no use to anybody.
fn start(args: &Args, global: &Global, created: Created) -> Result<(Created, Option<Started>)> {
    let id = &args.create.id;
    let manager = readiness::manager();
    match Container::start(&global.root, id, manager.as_deref()) {
        Ok(started) => Ok((created, started)),
        Err(error) => {
            if !args.keep {
                Container::delete(&global.root, id, true)?;
            }
            Err(error)
        }
    }
}
