//! The door: the command line in, the exit status out, and the only place that prints an error.

#![cfg_attr(not(test), no_main)]

use std::ffi::OsString;

use husk::cli::{self, Invocation, Said};
use husk::commands::{self, VERSION};
use husk::log;
use husk::sys::arena::Arena;
use husk::trace;

#[global_allocator]
static MEMORY: Arena<{ 4 << 20 }> = Arena::new();

#[cfg(not(test))]
husk::start_with!(run);

#[cfg_attr(test, allow(dead_code))]
fn run(words: Vec<OsString>) -> u8 {
    std::panic::set_hook(Box::new(|panic| {
        log::error(&anyhow::anyhow!(
            "internal error at {}",
            place_and_message(panic)
        ));
        // Not abort(): in a process that clone3(2) made, the C library would send the signal to another.
        husk::sys::process::exit(134);
    }));

    // Children must be waited for: a caller that ignores their end passes that on.
    husk::sys::process::reset_signal_action(libc::SIGCHLD);
    // A closed standard stream would give its number to the next file that is opened.
    if let Err(errno) = husk::sys::fd::fill_stdio() {
        log::error(&anyhow::Error::from(
            husk::error::Error::new("open").on("/dev/null").errno(errno),
        ));
        return 1;
    }
    let mut said = Said::default();
    let parsed = cli::parse(words.into_iter(), &mut said, commands::protect);
    // The log first: what is wrong with the command line belongs there, too.
    let log = log::init(said.log.as_deref(), said.log_format, said.log_level());
    let log = log.and_then(|()| said.trace.as_deref().map_or(Ok(()), trace::init));
    let (result, failure) = match log.and(parsed) {
        Err(error) => (Err(error.into()), 1),
        Ok(Invocation::Print(text)) => (commands::print(&text).map_err(Into::into), 1),
        Ok(Invocation::Run {
            command,
            task,
            global,
        }) => {
            log::debug(format_args!("husk {VERSION} {}", command.name));
            (trace::step(command.name, || task(&global)), command.failure)
        }
    };
    commands::settle();
    match result {
        Ok(status) => {
            log::succeeded();
            status
        }
        Err(error) => {
            log::error(&error);
            failure
        }
    }
}

fn place_and_message(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let message = match payload.downcast_ref::<&str>() {
        Some(message) => message,
        None => payload
            .downcast_ref::<String>()
            .map_or("panic", String::as_str),
    };
    match panic.location() {
        Some(place) => format!("{}:{}: {message}", place.file(), place.line()),
        None => message.into(),
    }
}
