//! An OCI image's config to a bundle's config.json, image-spec's conversion.md.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use serde::Deserialize;

use super::template::{Spec, User};
use crate::commands::features::OBEYED;
use crate::error::{Error, Result, Step};
use crate::log;
use crate::rootfs::Rootfs;

/// No user database of an image is larger.
const ENOUGH: u64 = 1 << 20;

/// image-spec's config.md.
#[derive(Debug, Default, Deserialize)]
pub struct Image {
    created: Option<String>,
    author: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    os: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    #[serde(rename = "os.features")]
    os_features: Option<Vec<String>>,
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

pub fn read(path: &Path) -> Result<Image> {
    let file = std::fs::File::open(path).step("open", path.display())?;
    let raw = crate::bundle::read_stream(file, 0, path)?;
    let bad = |reason: String| {
        Error::new("read image config")
            .on(path.display())
            .because(reason)
    };
    let value = crate::bundle::parse_value(&raw).map_err(bad)?;
    // A manifest or an index lies beside it in every image.
    if value
        .get("config")
        .is_some_and(|config| config.get("digest").is_some())
    {
        return Err(bad("it is an image manifest".into())
            .hint("its config.digest names the file that is wanted, below blobs/"));
    }
    if value.get("manifests").is_some() {
        return Err(bad("it is an image index".into())
            .hint("follow it to a manifest, and that to its config"));
    }
    serde_json::from_value(value).map_err(|error| bad(error.to_string()))
}

impl Image {
    /// Puts what the image wants into `spec`; `rootfs` is where its names of users are looked up.
    /// `arguments` stand in for the image's own Cmd, after its Entrypoint.
    pub fn apply(self, spec: &mut Spec, rootfs: &Path, arguments: &[String]) -> Result<()> {
        let annotations = self.annotations();
        let config = self.config.unwrap_or_default();
        let mut args = config.entrypoint.unwrap_or_default();
        args.extend(match arguments {
            [] => config.cmd.unwrap_or_default(),
            given => given.to_vec(),
        });
        if !args.is_empty() {
            spec.set_arguments(args);
        }
        for entry in config.env.unwrap_or_default() {
            spec.set_variable(entry);
        }
        if let Some(directory) = config.working_dir.filter(|directory| !directory.is_empty()) {
            spec.set_directory(directory);
        }
        if let Some(user) = config.user.filter(|user| !user.is_empty()) {
            spec.set_user(look_up(&user, rootfs)?);
        }
        for volume in config.volumes.unwrap_or_default().into_keys() {
            spec.add_volume(volume);
        }
        spec.set_annotations(annotations);
        Ok(())
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let config = self.config.as_ref();
        let ports = config.and_then(|config| config.exposed_ports.as_ref());
        let ports = ports.map(|ports| ports.keys().cloned().collect::<Vec<_>>().join(","));
        let features = self.os_features.as_ref().map(|features| features.join(","));
        let mut annotations = BTreeMap::new();
        for (key, value) in [
            ("os", self.os.clone()),
            ("architecture", self.architecture.clone()),
            ("variant", self.variant.clone()),
            ("os.version", self.os_version.clone()),
            ("os.features", features),
            ("author", self.author.clone()),
            ("created", self.created.clone()),
            (
                "stopSignal",
                config.and_then(|config| config.stop_signal.clone()),
            ),
            ("exposedPorts", ports),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                annotations.insert(format!("org.opencontainers.image.{key}"), value);
            }
        }
        // conversion.md, "Annotation Fields": a label of the same name wins.
        let labels = config.and_then(|config| config.labels.clone());
        for (key, value) in labels.unwrap_or_default() {
            // Who made the image names no layers of the host's, no properties of units and no files of CRIU's.
            match OBEYED.iter().any(|prefix| key.starts_with(prefix)) {
                true => log::warning(format_args!(
                    "the image's label {key} is left out: as an annotation it would tell husk what to do"
                )),
                false => drop(annotations.insert(key, value)),
            }
        }
        annotations
    }
}

/// `user`, `uid`, `user:group` and their mixtures.
fn look_up(text: &str, rootfs: &Path) -> Result<User> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let unknown = |what: &str, name: &str, file: &str| {
        Error::new("look up")
            .on(format!("{what} {name:?} of the image"))
            .because(format!("{file} of {} doesn't have it", rootfs.display()))
            .hint("unpack the image there before, or edit process.user afterwards")
    };
    let passwd = database(rootfs, "etc/passwd")?;
    let groups = database(rootfs, "etc/group")?;
    let number = user.parse::<u32>().ok();
    let mut rows = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.find(|row| match number {
        Some(_) => row.get(2) == Some(&user),
        None => row.first() == Some(&user),
    });
    let field = |index: usize| {
        row.as_ref()
            .and_then(|row| row.get(index)?.parse::<u32>().ok())
    };
    let uid = number
        .or_else(|| field(2))
        .ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
    let mut found = User {
        uid,
        gid: field(3).unwrap_or(0),
        additional_gids: Vec::new(),
    };
    let rows = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    match group {
        Some(group) => {
            let mut rows = rows;
            found.gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => rows
                    .find(|row| row.first() == Some(&group))
                    .and_then(|row| row.get(2)?.parse().ok())
                    .ok_or_else(|| unknown("group", group, "/etc/group"))?,
            };
        }
        None => {
            let name = row.as_ref().and_then(|row| row.first().copied());
            let is_member = |row: &Vec<&str>| {
                row.get(3)
                    .is_some_and(|members| members.split(',').any(|member| Some(member) == name))
            };
            let gids = rows
                .filter(is_member)
                .filter_map(|row| row.get(2)?.parse().ok());
            found.additional_gids = gids.filter(|gid| *gid != found.gid).collect();
        }
    }
    Ok(found)
}

/// A file of the image, which may be anything: links stay inside, and it is read to a limit. Empty if
/// there is none.
fn database(rootfs: &Path, path: &str) -> Result<String> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = match crate::sys::file::open(rootfs, flags, nix::sys::stat::Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(String::new()),
        root => Rootfs::new(root.step("open", rootfs.display())?),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Ok(file) = root.open(Path::new(path), flags) else {
        return Ok(String::new());
    };
    let kind = |mode: u32| mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    if !fstat(&file).is_ok_and(|stat| kind(stat.st_mode)) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(ENOUGH)
        .read_to_end(&mut bytes)
        .step("read", rootfs.join(path).display())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
