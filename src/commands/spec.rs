use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};
use serde::Serialize;

use super::Global;
use crate::error::{Error, Step};
use crate::files;

mod image;
mod template;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Directory to write config.json into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a container that an ordinary user runs: in a user namespace, with the host's network
    #[arg(long)]
    pub rootless: bool,
    /// For an image that was unpacked to rootfs beside it: what its config says, image-spec's conversion
    #[arg(long, value_name = "FILE")]
    pub image_config: Option<PathBuf>,
    /// What is to be run in place of a shell, or of the image's Cmd
    #[arg(value_name = "ARGS")]
    pub args: Vec<String>,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<u8> {
    let mut spec = template::Spec::default();
    if args.rootless {
        spec = spec.into_rootless(geteuid().as_raw(), getegid().as_raw());
    }
    match &args.image_config {
        Some(image) => {
            let rootfs = args.bundle.join("rootfs");
            image::read(image)?.apply(&mut spec, &rootfs, &args.args)?;
        }
        None if !args.args.is_empty() => spec.set_arguments(args.args.clone()),
        None => {}
    }
    let path = args.bundle.join("config.json");
    let mut file = files::make_new(&path).or_fail(|errno| {
        let error = Error::new("write").on(path.display()).errno(errno);
        match errno {
            Errno::EEXIST => error.hint("remove the file first, or give another --bundle"),
            Errno::ENOENT => error.hint("--bundle must be an existing directory"),
            _ => error,
        }
    })?;
    if let Err(error) = file.write_all(&to_json(&spec)?) {
        let _ = fs::remove_file(&path);
        Err::<(), io::Error>(error).step("write", path.display())?;
    }
    Ok(0)
}

/// With tabs, as `runc spec` writes it: people compare the two.
fn to_json(spec: &template::Spec) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    spec.serialize(&mut serde_json::Serializer::with_formatter(&mut json, tabs))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(spec: &template::Spec) -> Value {
        serde_json::from_slice(&to_json(spec).unwrap()).unwrap()
    }

    #[test]
    fn is_a_whole_spec() {
        let json = to_json(&template::Spec::default()).unwrap();
        let spec: oci_spec::runtime::Spec = serde_json::from_slice(&json).unwrap();
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        assert_eq!(
            spec.process().as_ref().unwrap().args().as_deref(),
            Some(&["sh".to_owned()][..])
        );
        let again: Value = serde_json::to_value(&spec).unwrap();
        let ours = value(&template::Spec::default());
        for key in ["root", "hostname", "mounts"] {
            assert_eq!(again[key], ours[key], "{key}");
        }
    }

    #[test]
    fn rootless_maps_the_caller_and_asks_for_nothing_it_may_not() {
        let full = value(&template::Spec::default());
        let rootless = value(&template::Spec::default().into_rootless(1000, 100));
        let linux = &rootless["linux"];
        let map = |id| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        assert_eq!(linux["uidMappings"], map(1000));
        assert_eq!(linux["gidMappings"], map(100));
        assert_eq!(linux["resources"], Value::Null);
        assert_eq!(
            linux["namespaces"],
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                   {"type": "cgroup"}, {"type": "user"}])
        );
        let mounts = rootless["mounts"].as_array().unwrap();
        assert_eq!(
            mounts[5],
            json!({"destination": "/sys", "type": "none", "source": "/sys",
                   "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        );
        assert_eq!(
            mounts[2]["options"],
            json!([
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620"
            ])
        );
        for untouched in [0, 1, 3, 4, 6] {
            assert_eq!(mounts[untouched], full["mounts"][untouched]);
        }
        for key in ["process", "root", "hostname"] {
            assert_eq!(rootless[key], full[key]);
        }
    }

    #[test]
    fn never_overwrites() {
        let dir = std::env::temp_dir().join(format!("husk-spec-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let args = Args {
            bundle: dir.clone(),
            rootless: false,
            image_config: None,
            args: Vec::new(),
        };
        let global = Global::new(None, Default::default(), Default::default()).unwrap();
        assert_eq!(run(args.clone(), &global).unwrap(), 0);
        let first = fs::read(dir.join("config.json")).unwrap();
        let error = run(args, &global).unwrap_err();
        assert!(error.to_string().ends_with("config.json: file exists"));
        assert_eq!(fs::read(dir.join("config.json")).unwrap(), first);
        fs::remove_dir_all(&dir).unwrap();
    }
}
