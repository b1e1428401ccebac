//! The files that a container will see, found without mounting anything: the layers of its root, and
//! over them what `mounts` will put there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::rootfs::{Rootfs, lexical};
use crate::sys::file::open;
use crate::sys::xattr;

/// As the kernel's MAXSYMLINKS.
const LINKS: usize = 40;

/// What a mount shows.
pub enum Content {
    /// Directories of the host, the topmost first: an overlay's layers, or one.
    Layers(Vec<Rootfs>),
    /// A single file of the host.
    File(OwnedFd),
    /// A new and empty filesystem.
    Empty,
    /// What only the kernel knows: proc, sysfs and their like.
    Opaque,
}

/// What can't be done there, with the entry of config.json that has it so.
#[derive(Default)]
pub struct Limits {
    pub noexec: Option<String>,
    pub read_only: Option<String>,
}

struct Mounted {
    /// Where, with all links resolved.
    at: PathBuf,
    content: Content,
    limits: Limits,
}

/// The container's tree of files.
pub struct View {
    mounts: Vec<Mounted>,
}

/// What is at a path.
pub struct Found {
    /// With all links resolved.
    pub path: PathBuf,
    pub stat: FileStat,
    /// `O_PATH`.
    file: OwnedFd,
}

impl Found {
    pub fn is(&self, kind: SFlag) -> bool {
        self.stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
    }

    /// For reading; `None` if this user may not. Only regular files are opened: a fifo of the image would
    /// hold husk up for ever, and a device do what it does when the host's root opens it.
    pub fn open(&self) -> Option<File> {
        if !self.is(SFlag::S_IFREG) {
            return None;
        }
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()
    }

    /// Where a link leads.
    pub fn link(&self) -> nix::Result<PathBuf> {
        readlinkat(&self.file, OsStr::new("")).map(PathBuf::from)
    }
}

/// Why nothing is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Errno(Errno),
    /// It may be there: what is mounted can't be looked into from here.
    Unknown,
}

impl From<Errno> for Lost {
    fn from(errno: Errno) -> Lost {
        Lost::Errno(errno)
    }
}

/// A directory of the host as a layer.
pub fn layer(path: &Path) -> nix::Result<Rootfs> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map(Rootfs::new)
}

impl View {
    /// `layers`: the root, the topmost first.
    pub fn new(layers: Vec<Rootfs>) -> View {
        View {
            mounts: vec![Mounted {
                at: PathBuf::from("/"),
                content: Content::Layers(layers),
                limits: Limits::default(),
            }],
        }
    }

    /// Over what is there by now.
    pub fn mount(&mut self, destination: &Path, content: Content, limits: Limits) {
        let at = self.place(destination);
        self.mounts.push(Mounted {
            at,
            content,
            limits,
        });
    }

    /// The entry that makes the file at `path`, links resolved, not executable.
    pub fn noexec(&self, path: &Path) -> Option<&str> {
        self.covering(path).limits.noexec.as_deref()
    }

    /// The entry that lets nothing new be made at `path`.
    pub fn read_only(&self, path: &Path) -> Option<&str> {
        self.covering(&self.place(path)).limits.read_only.as_deref()
    }

    /// Whether nothing of config.json is mounted over the root's own directory at `path`.
    pub fn is_roots_own(&self, path: &Path) -> bool {
        self.covering(path).at == Path::new("/")
    }

    /// What a path leads to; what of it isn't there yet is appended as it is written.
    fn place(&self, path: &Path) -> PathBuf {
        let mut known = path.to_owned();
        let mut rest = Vec::new();
        loop {
            match self.find(&known) {
                Ok(found) => {
                    return rest
                        .into_iter()
                        .rev()
                        .fold(found.path, |path, name| path.join(name));
                }
                Err(_) => match (known.file_name().map(OsStr::to_owned), known.pop()) {
                    (Some(name), true) => rest.push(name),
                    _ => return lexical(path),
                },
            }
        }
    }

    fn covering(&self, path: &Path) -> &Mounted {
        let mut mounts = self.mounts.iter().rev();
        mounts
            .find(|mounted| path.starts_with(&mounted.at))
            .unwrap_or(&self.mounts[0])
    }

    /// What is at `path`, at the end of all links.
    pub fn find(&self, path: &Path) -> Result<Found, Lost> {
        self.walk(path, true)
    }

    /// As [`View::find`], but a link at the end is what is found.
    pub fn find_link(&self, path: &Path) -> Result<Found, Lost> {
        self.walk(path, false)
    }

    fn walk(&self, path: &Path, follow: bool) -> Result<Found, Lost> {
        let mut todo: Vec<OsString> = names(path);
        let mut here = self.entry(Path::new("/"))?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if !here.is(SFlag::S_IFDIR) {
                return Err(Errno::ENOTDIR.into());
            }
            if name == ".." {
                let above = here.path.parent().unwrap_or(Path::new("/")).to_owned();
                here = self.entry(&above)?;
                continue;
            }
            let next = self.entry(&here.path.join(&name))?;
            if !next.is(SFlag::S_IFLNK) || todo.is_empty() && !follow {
                here = next;
                continue;
            }
            links += 1;
            if links > LINKS {
                return Err(Errno::ELOOP.into());
            }
            let target = next.link()?;
            if target.is_absolute() {
                here = self.entry(Path::new("/"))?;
            }
            todo.extend(names(&target));
        }
        Ok(here)
    }

    /// What stands at a path all of whose directories are known to be no links.
    fn entry(&self, path: &Path) -> Result<Found, Lost> {
        let mounted = self.covering(path);
        let below = path.strip_prefix(&mounted.at).unwrap_or(path);
        let file = match &mounted.content {
            Content::Opaque => return Err(Lost::Unknown),
            Content::Empty if below.as_os_str().is_empty() => scratch()?,
            Content::Empty => return Err(Errno::ENOENT.into()),
            Content::File(file) if below.as_os_str().is_empty() => {
                file.try_clone().map_err(|_| Errno::EMFILE)?
            }
            Content::File(_) => return Err(Errno::ENOTDIR.into()),
            Content::Layers(layers) => in_layers(layers, below)?,
        };
        let stat = fstat(&file)?;
        Ok(Found {
            path: path.to_owned(),
            stat,
            file,
        })
    }

    /// The names in a directory, of all layers, a few thousand at most: for hints.
    pub fn list(&self, path: &Path) -> Vec<String> {
        const ENOUGH: usize = 4096;
        let Ok(found) = self.find(path) else {
            return Vec::new();
        };
        let mounted = self.covering(&found.path);
        let Content::Layers(layers) = &mounted.content else {
            return Vec::new();
        };
        let below = found.path.strip_prefix(&mounted.at).unwrap_or(&found.path);
        let directories = layers
            .iter()
            .filter_map(|layer| layer.lookup_plain(below).ok());
        directories
            .filter_map(|fd| std::fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .take(ENOUGH)
            .collect()
    }
}

/// Any directory: what an empty filesystem's root is like.
fn scratch() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open("/", flags, Mode::empty())
}

/// In the order in which they are taken from the end.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// As overlayfs merges them: a whiteout hides what is below, an opaque directory all that was in it
/// (Documentation/filesystems/overlayfs.rst).
fn in_layers(layers: &[Rootfs], below: &Path) -> Result<OwnedFd, Lost> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    for layer in layers {
        match layer.open_plain(below, flags) {
            Ok(file) if layers.len() > 1 && is_whiteout(&file) => break,
            Ok(file) => return Ok(file),
            Err(Errno::ENOENT) if layers.len() > 1 => {
                if hides(layer, below) {
                    break;
                }
            }
            // A file or link of this layer stands where the layers below have a directory.
            Err(Errno::ENOTDIR | Errno::ELOOP) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::ENOENT.into())
}

fn is_whiteout(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| {
        stat.st_rdev == 0 && stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits()
    })
}

/// Whether a directory on the way to `below` hides that of lower layers.
fn hides(layer: &Rootfs, below: &Path) -> bool {
    below.ancestors().skip(1).any(|above| {
        match layer.open_plain(above, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(file) if is_whiteout(&file) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let names = [c"trusted.overlay.opaque", c"user.overlay.opaque"];
        layer.open_plain(above, flags).is_ok_and(|directory| {
            let is_set = |name| xattr::has(directory.as_fd(), name).unwrap_or(false);
            names.into_iter().any(is_set)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let dir = std::env::temp_dir().join(format!("husk-view-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).unwrap();
            Tree(dir)
        }
        fn file(&self, path: &str, text: &str) -> &Tree {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }
        fn link(&self, path: &str, target: &str) -> &Tree {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
            self
        }
        fn layer(&self) -> Rootfs {
            layer(&self.0).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn text(view: &View, path: &str) -> Result<String, Lost> {
        let found = view.find(Path::new(path))?;
        Ok(std::io::read_to_string(found.open().unwrap()).unwrap())
    }

    #[test]
    fn links_stay_inside_of_the_root() {
        let tree = Tree::new("links");
        tree.file("etc/passwd", "inside")
            .link("a", "../../../etc/passwd")
            .link("b", "/etc/passwd")
            .link("usr/bin/c", "../../b")
            .link("loop", "loop")
            .link("dangling", "/nowhere");
        let view = View::new(vec![tree.layer()]);
        for path in ["/etc/passwd", "/a", "/b", "/usr/bin/c", "/../etc/./passwd"] {
            assert_eq!(text(&view, path).as_deref(), Ok("inside"), "{path}");
        }
        assert_eq!(text(&view, "/loop"), Err(Errno::ELOOP.into()));
        assert_eq!(text(&view, "/dangling"), Err(Errno::ENOENT.into()));
        assert_eq!(text(&view, "/b/x"), Err(Errno::ENOTDIR.into()));
        assert!(view.find_link(Path::new("/dangling")).is_ok());
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let tree = Tree::new("fifo");
        nix::unistd::mkfifo(&tree.0.join("fifo"), Mode::S_IRWXU).unwrap();
        let view = View::new(vec![tree.layer()]);
        assert!(view.find(Path::new("/fifo")).unwrap().open().is_none());
    }

    #[test]
    fn the_topmost_layer_wins() {
        let (top, base) = (Tree::new("top"), Tree::new("base"));
        base.file("bin/tool", "old").file("bin/other", "other");
        top.file("bin/tool", "new").link("etc", "/bin");
        let view = View::new(vec![top.layer(), base.layer()]);
        assert_eq!(text(&view, "/bin/tool").as_deref(), Ok("new"));
        assert_eq!(text(&view, "/etc/other").as_deref(), Ok("other"));
        let mut names = view.list(Path::new("/bin"));
        names.sort();
        names.dedup();
        assert_eq!(names, ["other", "tool"]);
    }

    #[test]
    fn mounts_lie_over_what_is_there() {
        let (root, volume) = (Tree::new("root"), Tree::new("volume"));
        root.file("data/x", "root's").link("var", "data");
        volume.file("y", "volume's");
        let mut view = View::new(vec![root.layer()]);
        // Through the link, as the kernel would.
        let content = Content::Layers(vec![volume.layer()]);
        let limits = Limits {
            noexec: Some("/mounts/0".into()),
            read_only: Some("/mounts/0".into()),
        };
        view.mount(Path::new("/var"), content, limits);
        view.mount(Path::new("/proc"), Content::Opaque, Limits::default());
        view.mount(Path::new("/tmp"), Content::Empty, Limits::default());
        assert_eq!(text(&view, "/data/x"), Err(Errno::ENOENT.into()));
        assert_eq!(text(&view, "/data/y").as_deref(), Ok("volume's"));
        assert_eq!(view.noexec(Path::new("/data/y")), Some("/mounts/0"));
        assert_eq!(view.read_only(Path::new("/var/new/x")), Some("/mounts/0"));
        assert_eq!(view.read_only(Path::new("/tmp/new")), None);
        assert_eq!(text(&view, "/proc/version"), Err(Lost::Unknown));
        assert_eq!(text(&view, "/tmp/x"), Err(Errno::ENOENT.into()));
        assert!(view.find(Path::new("/tmp")).unwrap().is(SFlag::S_IFDIR));
    }
}
