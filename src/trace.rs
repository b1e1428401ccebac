//! `--trace FILE`: what each step takes, of husk, of the container's process and of hooks.
//!
//! The file is in the JSON array form of the Trace Event Format, which Perfetto and chrome://tracing
//! read, one event a line; the array's end may be missing there. Every husk appends to it, each event by
//! one write(2). The processes that it makes don't have it open, as somebody may look at them: they send
//! their events to husk. Times are microseconds of CLOCK_MONOTONIC. Without the option a step costs one
//! comparison.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::error::{Result, Step};
use crate::files;
use crate::sys::socket;

/// Whether steps are traced at all.
static ON: AtomicBool = AtomicBool::new(false);
static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// Where events go.
enum Sink {
    File(File),
    /// To husk, as messages of this kind.
    Husk(OwnedFd),
}

/// What a message with an event begins with.
pub const EVENT: u8 = b's';

/// Whose steps this process takes.
static ROLE: AtomicU32 = AtomicU32::new(Role::Husk as u32);

/// The rows of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The command itself.
    Husk = 1,
    /// The process in between, where there is one.
    GoBetween = 2,
    /// The container's process, until it is the program.
    Init = 3,
    /// The process of `exec`.
    Exec = 4,
}

impl Role {
    const ALL: [Role; 4] = [Role::Husk, Role::GoBetween, Role::Init, Role::Exec];

    fn name(self) -> &'static str {
        match self {
            Role::Husk => "husk",
            Role::GoBetween => "go-between",
            Role::Init => "init",
            Role::Exec => "exec",
        }
    }
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    ph: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args<'a>>,
}

#[derive(Serialize)]
struct Args<'a> {
    name: &'a str,
}

/// Opens the file, made if it isn't there. For `main`, once.
pub fn init(path: &Path) -> Result<()> {
    let file = files::append(path).step("open trace file", path.display())?;
    let is_new = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    set(Some(Sink::File(file)));
    ON.store(true, Ordering::Relaxed);
    if is_new {
        append(b"[\n");
        for role in Role::ALL {
            write(&Event {
                name: "thread_name",
                ph: "M",
                ts: None,
                dur: None,
                pid: 1,
                tid: role as u32,
                args: Some(Args { name: role.name() }),
            });
        }
    }
    Ok(())
}

/// This process is another one from now on, and has no file: its events are lost until they have a way.
pub fn take_role(role: Role) {
    ROLE.store(role as u32, Ordering::Relaxed);
    set(None);
}

/// Events go to the husk at the other end of `connection`, by a descriptor of their own.
pub fn send_to(connection: BorrowedFd) {
    if ON.load(Ordering::Relaxed) {
        set(connection.try_clone_to_owned().ok().map(Sink::Husk));
    }
}

/// The connection is at its end, and no other there yet.
pub fn forget() {
    set(None);
}

/// An event that came as a message: what stands behind [`EVENT`].
pub fn relay(line: &[u8]) {
    append(line);
}

fn set(sink: Option<Sink>) {
    *SINK.lock().unwrap_or_else(PoisonError::into_inner) = sink;
}

/// Does the step, and tells what it took.
pub fn step<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    match ON.load(Ordering::Relaxed) {
        false => work(),
        true => timed(name, None, work),
    }
}

/// As [`step`], with what it is done to.
pub fn step_on<T>(name: &'static str, object: impl fmt::Display, work: impl FnOnce() -> T) -> T {
    match ON.load(Ordering::Relaxed) {
        false => work(),
        true => timed(name, Some(object.to_string()), work),
    }
}

#[cold]
fn timed<T>(name: &'static str, object: Option<String>, work: impl FnOnce() -> T) -> T {
    let begin = now();
    let done = work();
    let took = now() - begin;
    write(&Event {
        name,
        ph: "X",
        ts: Some(begin),
        dur: Some(took),
        pid: 1,
        tid: ROLE.load(Ordering::Relaxed),
        args: object.as_deref().map(|name| Args { name }),
    });
    done
}

/// Microseconds, with the nanoseconds behind the point.
fn now() -> f64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0.0, |time| {
        time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3
    })
}

fn write(event: &Event) {
    let mut line = serde_json::to_string(event).unwrap_or_default();
    line.push_str(",\n");
    append(line.as_bytes());
}

/// A trace that can't be written must not stop a container.
fn append(line: &[u8]) {
    match &*SINK.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(Sink::File(file)) => drop((&*file).write_all(line)),
        Some(Sink::Husk(connection)) => {
            let message = [&[EVENT], line].concat();
            let _ = socket::send(connection.as_fd(), &message, None);
        }
        None => {}
    }
}
