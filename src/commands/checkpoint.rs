use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::Global;
use crate::container::checkpoint::{Request, checkpoint};
use crate::criu::{CgroupMode, Choices};
use crate::error::{Error, Result, Step};
use crate::sys::fd;

/// What both directions take.
#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Common {
    /// Directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Directory of CRIU's log and work files [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow Unix sockets that are connected to the outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow processes of a shell's session, with a terminal of the outside
    #[arg(long)]
    pub shell_job: bool,
    /// Save and restore file locks
    #[arg(long)]
    pub file_locks: bool,
    /// What becomes of the cgroups below the container's [default: soft]
    #[arg(long, value_name = "soft|full|strict|ignore", default_value = "", hide_default_value = true, value_parser = parse_mode)]
    pub manage_cgroups_mode: CgroupMode,
    /// Leave this namespace as it is made, without its content: network; may be repeated
    #[arg(long, value_name = "network", value_parser = parse_namespace)]
    pub empty_ns: Vec<u32>,
    /// Remove memory from earlier images that is in later ones
    #[arg(long)]
    pub auto_dedup: bool,
    /// Load memory only when it is needed, by userfaultfd
    #[arg(long)]
    pub lazy_pages: bool,
}

impl Common {
    pub fn choices(&self) -> Choices {
        Choices {
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            empty_namespaces: self.empty_ns.iter().fold(0, |all, one| all | one),
            cgroups: self.manage_cgroups_mode,
            ..Choices::default()
        }
    }
}

fn parse_mode(text: &str) -> Result<CgroupMode, String> {
    Ok(match text {
        "" => CgroupMode::Default,
        "soft" => CgroupMode::Soft,
        "full" => CgroupMode::Full,
        "strict" => CgroupMode::Strict,
        "ignore" => CgroupMode::Ignore,
        _ => return Err("is none of soft, full, strict, ignore".into()),
    })
}

fn parse_namespace(text: &str) -> Result<u32, String> {
    match text {
        "network" | "net" => Ok(libc::CLONE_NEWNET as u32),
        _ => Err("CRIU can do without the content of a network namespace only".into()),
    }
}

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    /// Images of a --pre-dump to begin from, relative to --image-path
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<String>,
    /// Let the container go on
    #[arg(long)]
    pub leave_running: bool,
    /// Leave out TCP connections that are being opened
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Link files that were removed but are open back into their directory
    #[arg(long)]
    pub link_remap: bool,
    /// Save only the memory, and let the container go on
    #[arg(long)]
    pub pre_dump: bool,
    /// Descriptor that gets a NUL when lazy pages can be asked for
    #[arg(
        long,
        value_name = "FD",
        default_value = "-1",
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub status_fd: i32,
    /// Server that takes the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    require_root("checkpoint", global)?;
    let status_fd = adopt(args.status_fd)?;
    // CRIU is to have none that the caller left open.
    fd::cloexec_from(3).step("close", "descriptors of the caller")?;
    let server = args.page_server.as_deref().filter(|text| !text.is_empty());
    let text = |given: &Option<String>| given.clone().filter(|text| !text.is_empty());
    let parent = text(&args.parent_path);
    checkpoint(&Request {
        root: &global.root,
        id: &args.id,
        images: images(&args.common),
        work: given(args.common.work_path.as_deref()),
        parent: parent.as_deref(),
        choices: Choices {
            tcp_skip_in_flight: args.tcp_skip_in_flight,
            link_remap: args.link_remap,
            ..args.common.choices()
        },
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        page_server: server.map(parse_server).transpose()?,
        status_fd,
    })?;
    Ok(0)
}

/// CRIU traces processes, and gives them their pids.
pub fn require_root(command: &'static str, global: &Global) -> Result<()> {
    match global.is_rootless() {
        true => Err(Error::new(command)
            .because("CRIU needs root: containers without can't be saved or restored")
            .errno(nix::errno::Errno::EPERM)),
        false => Ok(()),
    }
}

/// Engines give empty ones for none.
pub fn given(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

pub fn images(common: &Common) -> &Path {
    given(Some(&common.image_path)).unwrap_or(Path::new("checkpoint"))
}

fn adopt(number: i32) -> Result<Option<OwnedFd>> {
    match number {
        ..0 => Ok(None),
        0..3 => Err(Error::new("--status-fd")
            .on(number)
            .because("a standard stream can't be used for it")),
        _ => fd::adopt(number).step("--status-fd", number).map(Some),
    }
}

fn parse_server(text: &str) -> Result<(&str, u16)> {
    let parsed = text.rsplit_once(':').and_then(|(address, port)| {
        let port = port.parse().ok().filter(|&port| port != 0)?;
        (!address.is_empty()).then_some((address, port))
    });
    parsed.ok_or_else(|| {
        Error::new("--page-server")
            .on(text)
            .because("want ADDRESS:PORT")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        assert_eq!(parse_server("0.0.0.0:27277").unwrap(), ("0.0.0.0", 27277));
        for text in ["", ":1", "a", "a:", "a:0", "a:65536"] {
            assert!(parse_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn standard_streams_are_no_status_descriptors() {
        assert!(adopt(-1).unwrap().is_none());
        assert!(adopt(1).is_err());
        assert!(adopt(1_000_000).is_err());
    }
}
