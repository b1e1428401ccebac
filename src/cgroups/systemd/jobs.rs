//! systemd's manager of units, org.freedesktop.systemd1(5): the machine's or a user's.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Uid;

use super::Owner;
use super::bus::Connection;
use super::properties::Property;
use super::wire::{Call, Kind, Message, Writer};
use crate::error::{Error, Result};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// systemd's own socket, for root: no broker in between that may be busy or not there yet.
const PRIVATE: &str = "unix:path=/run/systemd/private";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

fn method<'a>(member: &'a str, signature: &'a str) -> Call<'a> {
    Call {
        destination: NAME,
        path: OBJECT,
        interface: MANAGER,
        member,
        signature,
    }
}

/// A manager, ready to do something to one unit.
#[derive(Debug)]
pub struct Manager {
    bus: Connection,
    unit: String,
    /// As the bus calls it: whoever else is there may say anything to anybody.
    sender: String,
    /// systemd's release.
    pub version: u32,
    /// Its own cgroup, below which all of its units are.
    pub cgroup: PathBuf,
}

impl Manager {
    /// The machine's manager by the first way that there is, or the user's at this address.
    ///
    /// # Errors
    /// `ENOENT` or `ECONNREFUSED` if there is none.
    pub fn connect(owner: &Owner) -> Result<Manager> {
        if let Some(address) = &owner.user {
            return Manager::talk(address, &owner.unit);
        }
        match Manager::talk(PRIVATE, &owner.unit) {
            Err(error) if is_absence(&error) || error.code() == Some(Errno::EACCES) => {
                Manager::talk(SYSTEM_BUS, &owner.unit)
            }
            done => done,
        }
    }

    fn talk(address: &str, unit: &str) -> Result<Manager> {
        let mut bus = Connection::open(address, outer_uid())?;
        // There systemd is the other side itself: no bus to say hello to, and signals come unasked.
        if !address.contains("/systemd/private") {
            let bus_call = |member, signature| Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member,
                signature,
            };
            bus.call(&bus_call("Hello", ""), |_| {});
            bus.call(&bus_call("AddMatch", "s"), |writer| {
                writer.text(&format!(
                    "type='signal',sender='{NAME}',path='{OBJECT}',interface='{MANAGER}',\
                     member='JobRemoved',arg2='{unit}'"
                ));
            });
        }
        let get = Call {
            interface: "org.freedesktop.DBus.Properties",
            ..method("Get", "ss")
        };
        let [version, cgroup] = ["Version", "ControlGroup"].map(|property| {
            bus.call(&get, |writer| {
                writer.text(MANAGER);
                writer.text(property);
            })
        });
        bus.send()?;
        bus.greet()?;
        let mut value = |serial: u32| -> Result<(String, String)> {
            let message = bus.answer(serial, drop)?;
            let text = message.body().text_variant().map(str::to_owned);
            match (message.kind, text) {
                (Kind::Reply, Some(text)) => Ok((text, message.sender)),
                _ => Err(Error::new("ask systemd for its version at")
                    .on(address)
                    .because(refusal(&message))),
            }
        };
        let (version, sender) = value(version)?;
        let (cgroup, _) = value(cgroup)?;
        Ok(Manager {
            version: number_in(&version),
            sender,
            cgroup: cgroup.trim_start_matches('/').into(),
            unit: unit.to_owned(),
            bus,
        })
    }

    /// Has a unit's job queued, and waits until it is done. `Ok(Err(_))` is what systemd has against it.
    fn job(
        &mut self,
        call: &Call,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Result<String, Message>> {
        let serial = self.bus.call(call, body);
        self.bus.send()?;
        let mut ended = Vec::new();
        let (unit, sender) = (self.unit.clone(), self.sender.clone());
        let answer = self.bus.answer(serial, |message| {
            ended.extend(end_of_job(&message, &sender, &unit));
        })?;
        if answer.kind == Kind::Error {
            return Ok(Err(answer));
        }
        let job = answer.body().text().unwrap_or_default().to_owned();
        loop {
            if let Some((_, result)) = ended.iter().find(|(path, _)| *path == job) {
                return Ok(Ok(result.clone()));
            }
            let message = self.bus.next()?;
            ended.extend(end_of_job(&message, &sender, &unit));
        }
    }

    fn reset_failed(&mut self) -> Result<()> {
        let unit = self.unit.clone();
        let serial = self.bus.call(&method("ResetFailedUnit", "s"), |writer| {
            writer.text(&unit);
        });
        self.bus.send()?;
        self.bus.answer(serial, drop).map(drop)
    }

    pub fn start(&mut self, properties: &[Property]) -> Result<()> {
        let fail = |unit: &str| Error::new("start systemd unit").on(unit);
        let unit = self.unit.clone();
        let mut again = true;
        loop {
            let call = method("StartTransientUnit", "ssa(sv)a(sa(sv))");
            let outcome = self.job(&call, |writer| {
                writer.text(&unit);
                writer.text("replace");
                write_properties(writer, properties);
                writer.array(8, |_| {});
            })?;
            match outcome {
                Ok(result) if result == "done" => return Ok(()),
                Ok(result) => {
                    return Err(fail(&unit)
                        .because(format!("its job ended as {result:?}"))
                        .hint(format!("see: journalctl -u {unit}")));
                }
                Err(message) if message.error == UNIT_EXISTS => {
                    // One that failed stays until somebody has taken note of it.
                    if std::mem::take(&mut again) {
                        self.reset_failed()?;
                        continue;
                    }
                    return Err(fail(&unit)
                        .at("/linux/cgroupsPath")
                        .errno(Errno::EEXIST)
                        .hint("another container has it: choose another id or linux.cgroupsPath"));
                }
                Err(message) => return Err(blame(fail(&unit), &message, properties)),
            }
        }
    }

    /// Stops the unit and forgets whether it failed; one that isn't there is fine.
    pub fn stop(&mut self) -> Result<()> {
        let unit = self.unit.clone();
        let outcome = self.job(&method("StopUnit", "ss"), |writer| {
            writer.text(&unit);
            writer.text("replace");
        })?;
        match outcome {
            Ok(_) => self.reset_failed(),
            Err(message) if message.error == NO_SUCH_UNIT => Ok(()),
            Err(message) => {
                let error = Error::new("stop systemd unit").on(&self.unit);
                Err(blame(error, &message, &[]))
            }
        }
    }

    /// Changes properties until the machine or the unit ends.
    pub fn set(&mut self, properties: &[Property]) -> Result<()> {
        let serial = self
            .bus
            .call(&method("SetUnitProperties", "sba(sv)"), |writer| {
                writer.text(&self.unit);
                writer.bool(true);
                write_properties(writer, properties);
            });
        self.bus.send()?;
        let answer = self.bus.answer(serial, drop)?;
        match answer.kind {
            Kind::Reply => Ok(()),
            _ => {
                let error = Error::new("set limits of systemd unit").on(&self.unit);
                Err(blame(error, &answer, properties))
            }
        }
    }
}

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The job and its result, if that is what the signal tells, from systemd and about this unit.
fn end_of_job(message: &Message, sender: &str, unit: &str) -> Option<(String, String)> {
    if message.kind != Kind::Signal
        || message.sender != sender
        || message.interface != MANAGER
        || message.member != "JobRemoved"
        || message.signature != "uoss"
    {
        return None;
    }
    let mut body = message.body();
    body.u32()?;
    let job = body.text()?.to_owned();
    (body.text()? == unit).then_some(())?;
    Some((job, body.text()?.to_owned()))
}

fn write_properties(writer: &mut Writer, properties: &[Property]) {
    writer.array(8, |writer| {
        for property in properties {
            writer.structure(|writer| {
                writer.text(&property.name);
                writer.variant(&property.value);
            });
        }
    });
}

fn refusal(message: &Message) -> String {
    match message.words() {
        words if words.is_empty() && message.error.is_empty() => "it gives no answer".into(),
        words if words.is_empty() => message.error.clone(),
        words => words.trim_end_matches('.').to_owned(),
    }
}

/// systemd names the property that it doesn't like, and config.json has who asked for it.
fn blame(error: Error, message: &Message, properties: &[Property]) -> Error {
    let words = refusal(message);
    let named = |property: &&Property| {
        let mut parts = words.split(|c: char| !c.is_ascii_alphanumeric());
        parts.any(|word| word == property.name)
    };
    let pointer = properties.iter().rfind(named).map(|p| p.pointer.clone());
    let error = match message.error.as_str() {
        "org.freedesktop.DBus.Error.AccessDenied"
        | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
            error.errno(Errno::EACCES)
        }
        _ => error,
    };
    match pointer.filter(|pointer| !pointer.is_empty()) {
        Some(pointer) => error.at(pointer).because(words),
        None => error.because(words),
    }
}

/// Nobody listens there.
pub fn is_absence(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR)
    )
}

/// `257 (257.7-1)`, `v245`.
fn number_in(version: &str) -> u32 {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
}

/// This process's user as a process outside of its user namespace sees him: what the kernel tells the
/// other side.
fn outer_uid() -> u32 {
    let uid = Uid::effective().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map_uid(&map, uid).unwrap_or(uid)
}

fn map_uid(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (inside, outside) = (words.next()?.ok()?, words.next()?.ok()?);
        let count = words.next()?.ok()?;
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Where the caller's own manager is: `None` is the machine's, which is root's.
pub fn own_manager() -> Result<Option<String>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let outer = outer_uid();
    if outer == 0 {
        return Ok(None);
    }
    if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
        // A list, of which the first that is a Unix socket does.
        let mut list = address.split(';').map(str::to_owned);
        return Ok(Some(
            list.find(|one| one.starts_with("unix:")).unwrap_or(address),
        ));
    }
    let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{outer}"));
    ["bus", "systemd/private"]
        .map(|name| Path::new(&runtime).join(name))
        .into_iter()
        .find(|path| path.exists())
        .map(|path| Some(format!("unix:path={}", path.display())))
        .ok_or_else(|| {
            Error::new("find the user's systemd")
                .on(&runtime)
                .because("there is no bus, and DBUS_SESSION_BUS_ADDRESS is not set")
                .hint(
                    "log in by a session of logind's, or loginctl enable-linger; or leave \
                     --systemd-cgroup away",
                )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the system's bus anybody may send a signal to anybody.
    #[test]
    fn the_end_of_a_job_is_what_systemd_says_and_nobody_else() {
        let mut bytes = method("JobRemoved", "uoss").encode(1, |writer| {
            writer.u32(7);
            for word in ["/job/7", "a.scope", "done"] {
                writer.text(word);
            }
        });
        const SIGNAL: u8 = 4;
        bytes[1] = SIGNAL;
        let message = Message::decode(&bytes).unwrap();
        let ended = Some(("/job/7".to_owned(), "done".to_owned()));
        assert_eq!(end_of_job(&message, "", "a.scope"), ended);
        assert_eq!(end_of_job(&message, "", "b.scope"), None);
        assert_eq!(end_of_job(&message, ":1.1", "a.scope"), None);
    }

    #[test]
    fn versions() {
        for (text, version) in [
            ("257 (257.7-1)", 257),
            ("v245.4-1.fc32", 245),
            ("systemd 240", 240),
            ("", 0),
            ("new", 0),
            ("99999999999999", 0),
        ] {
            assert_eq!(number_in(text), version, "{text}");
        }
    }

    #[test]
    fn users_have_another_number_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(map_uid(map, 0), Some(1000));
        assert_eq!(map_uid(map, 5), Some(100_004));
        assert_eq!(map_uid(map, 70_000), None);
        assert_eq!(map_uid("0 0 4294967295", 1000), Some(1000));
        assert_eq!(map_uid("nonsense", 0), None);
    }
}
