//! Names of units, and where systemd puts their cgroups (systemd.unit(5), systemd.slice(5)).

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const POINTER: &str = "/linux/cgroupsPath";

/// The unit that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `NAME.scope`, or `NAME.slice` for a container that was given a slice's name.
    pub name: String,
    /// The slice that a scope is in.
    pub slice: String,
}

impl Unit {
    /// From `linux.cgroupsPath`, which is `SLICE:PREFIX:NAME` with this driver. Any of the first two may be
    /// empty; `-` is the root slice.
    pub fn of(cgroups_path: Option<&str>, id: &str, default_slice: &str) -> Result<Unit> {
        let path = cgroups_path.unwrap_or_default();
        let parts = match path {
            "" => ["", "husk", id],
            _ => path
                .split(':')
                .collect::<Vec<_>>()
                .try_into()
                .map_err(|_| {
                    Error::config(
                        POINTER,
                        format!(
                            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
                             cgroups, got {path:?} instead"
                        ),
                    )
                })?,
        };
        let [slice, prefix, name] = parts;
        if path.contains('/') {
            return Err(Error::config(
                POINTER,
                format!("{path:?} has a \"/\", which no name of a unit has"),
            ));
        }
        let slice = match slice {
            "" => default_slice.to_owned(),
            "-" => ROOT_SLICE.to_owned(),
            slice => slice.to_owned(),
        };
        expand(&slice).map_err(|reason| Error::config(POINTER, reason))?;
        let name = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        let unit = Unit { name, slice };
        check_name(&unit.name)
            .and_then(|()| match unit.is_slice() {
                true => expand(&unit.name).map(drop),
                false => Ok(()),
            })
            .map_err(|reason| {
                let error = Error::config(POINTER, reason);
                match path {
                    "" => error.hint("choose another id, or set linux.cgroupsPath"),
                    _ => error,
                }
            })?;
        if unit.name == ROOT_SLICE {
            return Err(Error::config(
                POINTER,
                "the root slice is the root of the cgroup tree, which can't be a container's",
            ));
        }
        Ok(unit)
    }

    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Where its cgroup is, below that of the manager's own.
    pub fn path(&self) -> PathBuf {
        match self.is_slice() {
            true => expand(&self.name).unwrap_or_default(),
            false => expand(&self.slice).unwrap_or_default().join(&self.name),
        }
    }
}

const ROOT_SLICE: &str = "-.slice";

/// `a-b.slice` is in `a.slice`, and so is its cgroup.
fn expand(slice: &str) -> Result<PathBuf, String> {
    let wrong = |what: &str| format!("{slice:?} is no name of a slice: {what}");
    let Some(stem) = slice.strip_suffix(".slice") else {
        return Err(wrong("it doesn't end in \".slice\""));
    };
    if slice == ROOT_SLICE {
        return Ok(PathBuf::new());
    }
    check_name(slice)?;
    if stem.split('-').any(str::is_empty) {
        return Err(wrong("there is nothing before or after a \"-\""));
    }
    let ends = stem.match_indices('-').map(|(at, _)| at);
    Ok(ends
        .chain([stem.len()])
        .map(|end| format!("{}.slice", &stem[..end]))
        .collect())
}

/// systemd.unit(5): at most 255 of these characters. Without `@`: a template's instance is not transient.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
    let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
    let reason = match () {
        () if stem.is_empty() => "it is empty",
        () if stem.starts_with('.') => "it begins with a dot",
        () if name.len() > 255 => "it is longer than 255 characters",
        () if !name.bytes().all(allowed) => "only letters, digits and : - _ . \\ are allowed",
        () => return Ok(()),
    };
    Err(format!("{name:?} is no name of a unit: {reason}"))
}

/// What `/proc/PID/cgroup` says of a process, below the tree's root; `None` if it is not in `name`.
pub fn place_of(proc_cgroup: &str, name: &str) -> Option<PathBuf> {
    let line = proc_cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(line);
    let plain = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    (plain && path.file_name() == Some(name.as_ref())).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<Unit> {
        Unit::of(Some(path), "c1", "system.slice")
    }

    #[test]
    fn names_and_places() {
        for (path, name, place) in [
            ("", "husk-c1.scope", "system.slice/husk-c1.scope"),
            ("::x", "x.scope", "system.slice/x.scope"),
            (":crio:x", "crio-x.scope", "system.slice/crio-x.scope"),
            (
                "machine.slice:libpod:x",
                "libpod-x.scope",
                "machine.slice/libpod-x.scope",
            ),
            ("-:libpod:x", "libpod-x.scope", "libpod-x.scope"),
            ("-.slice:libpod:x", "libpod-x.scope", "libpod-x.scope"),
            (
                "a-b-c.slice:p:x",
                "p-x.scope",
                "a.slice/a-b.slice/a-b-c.slice/p-x.scope",
            ),
            ("a.slice:p:a-x.slice", "a-x.slice", "a.slice/a-x.slice"),
            (
                "user-1000.slice:p:x.y",
                "p-x.y.scope",
                "user.slice/user-1000.slice/p-x.y.scope",
            ),
        ] {
            let unit = of(path).unwrap();
            assert_eq!(unit.name, name, "{path}");
            assert_eq!(unit.path(), Path::new(place), "{path}");
        }
        assert_eq!(
            Unit::of(None, "c+1", "user.slice").unwrap_err().pointer(),
            Some(POINTER)
        );
        assert_eq!(
            Unit::of(None, "c1", "user.slice").unwrap().path(),
            Path::new("user.slice/husk-c1.scope")
        );
    }

    #[test]
    fn refused() {
        for path in [
            "/a/b",
            "a",
            "a:b",
            "a:b:c:d",
            "system:p:x",
            "system.slice/a.slice:p:x",
            "system.slice:p/q:x",
            "system.slice:p:../x",
            "system.slice:p:x y",
            "system.slice:p:x'",
            "system.slice:p:x@1",
            "system.slice::",
            "system.slice::.x",
            ".slice:p:x",
            "-a.slice:p:x",
            "a-.slice:p:x",
            "a--b.slice:p:x",
            "a.slice:p:a--x.slice",
            "a.slice:p:-.slice",
            "a.slice:p:.slice",
            &format!("a.slice:p:{}", "x".repeat(250)),
        ] {
            let error = of(path).unwrap_err();
            assert_eq!(error.pointer(), Some(POINTER), "{path}");
        }
        assert!(of("a:b").unwrap_err().to_string().contains(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got \"a:b\" instead"
        ));
    }

    #[test]
    fn places_of_processes() {
        let place = |text| place_of(text, "a.scope");
        assert_eq!(
            place("1:cpu:/x\n0::/system.slice/a.scope\n"),
            Some("system.slice/a.scope".into())
        );
        assert_eq!(place("0::/a.scope"), Some("a.scope".into()));
        assert_eq!(place("0::/system.slice/b.scope"), None);
        assert_eq!(place("0::/../a.scope"), None);
        assert_eq!(place("0::/"), None);
        assert_eq!(place(""), None);
    }
}
