//! Commands and options of docker and podman, and what they are here.

/// What a command of an engine is.
pub fn command(word: &str) -> Option<&'static str> {
    Some(match word {
        "stop" => "`husk kill ID` sends a container SIGTERM; `husk kill ID KILL` ends it",
        "rm" | "remove" | "destroy" => {
            "`husk delete ID` removes a container, with --force a running one, too"
        }
        "inspect" | "status" | "info" => "`husk state ID` shows a container as JSON",
        "ls" | "containers" => "`husk list` shows the containers",
        "top" => "`husk ps ID` shows the processes of a container",
        "stats" => "`husk events --stats ID` shows what a container uses",
        "unpause" | "thaw" => "`husk resume ID` lets a container go on",
        "freeze" => "`husk pause ID` stops a container for a while",
        "shell" | "sh" | "enter" | "attach" => "`husk exec -t ID sh` runs a shell in a container",
        "restart" => "a container starts once: `husk delete ID`, then `husk run ID`",
        "validate" | "verify" | "lint" => "`husk check BUNDLE` says what is wrong with a bundle",
        "init" | "config" | "generate" => "`husk spec` writes a config.json to begin with",
        "logs" | "build" | "pull" | "push" | "images" | "image" | "network" | "volume"
        | "compose" | "commit" | "tag" | "login" => {
            "that is an engine's business: husk runs bundles"
        }
        _ => return None,
    })
}

/// What an option of an engine is, given to `command`; without dashes.
pub fn option(command: Option<&str>, name: &str) -> Option<&'static str> {
    let makes = matches!(command, Some("create" | "run"));
    Some(match (command, name) {
        (Some("run"), "rm") => "`husk run` deletes the container at its end; --keep keeps it",
        (Some("exec"), "it" | "ti" | "i" | "interactive") => {
            "-t gives it a terminal; standard input is always its own"
        }
        (Some("run" | "create"), "it" | "ti" | "i" | "interactive" | "t" | "tty") => {
            "process.terminal in config.json is true for a terminal"
        }
        _ if !makes => return None,
        (_, "name") => "the name stands at the end: husk run --bundle DIR NAME",
        (_, "volume" | "mount" | "tmpfs") => "mounts are in config.json (/mounts)",
        (_, "e" | "env" | "env-file") => "variables are in config.json (/process/env)",
        (_, "w" | "workdir") => "the working directory is in config.json (/process/cwd)",
        (_, "u" | "user") => "the user is in config.json (/process/user)",
        (_, "h" | "hostname") => "the host name is in config.json (/hostname)",
        (_, "m" | "memory" | "cpus" | "cpu-shares" | "pids-limit") => {
            "limits are in config.json (/linux/resources)"
        }
        (_, "cap-add" | "cap-drop" | "privileged") => {
            "capabilities are in config.json (/process/capabilities)"
        }
        (_, "device") => "devices are in config.json (/linux/devices)",
        (_, "security-opt") => {
            "they are in config.json (/linux/seccomp, /process/apparmorProfile, /process/selinuxLabel)"
        }
        (_, "ulimit") => "limits of processes are in config.json (/process/rlimits)",
        (_, "sysctl") => "they are in config.json (/linux/sysctl)",
        (_, "read-only") => "it is in config.json (/root/readonly)",
        (_, "entrypoint") => "the program is in config.json (/process/args)",
        (_, "p" | "publish" | "net" | "network") => {
            "networks are an engine's business; namespaces are in config.json (/linux/namespaces)"
        }
        (_, "restart") => "that is an engine's business",
        _ => return None,
    })
}
