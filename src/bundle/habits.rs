//! What people write who know docker, compose, Kubernetes, mount(8) or a shell, and what it is here.
//!
//! Hints only: nothing is accepted for it.

use serde_json::Value;

use super::schema::quote;

/// A pointer whose indexes are stars: `/mounts/3/options` is `/mounts/*/options`.
fn pattern(pointer: &str) -> String {
    let is_index = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = pointer.split('/').map(|part| match is_index(part) {
        true => "*",
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// What to write in place of a value of the wrong type.
pub fn form(pointer: &str, value: &Value) -> Option<String> {
    let at = pattern(pointer);
    // A process document of its own begins below.
    let at = at.as_str();
    let is = |place: &str| at == place || place.strip_prefix("/process") == Some(at);
    match value {
        Value::String(text) => form_of_text(at, &is, text),
        Value::Number(number) if is("/process/user") => {
            Some(format!("write {{\"uid\": {number}, \"gid\": {number}}}"))
        }
        Value::Number(number) => match at {
            "/linux/resources/memory" | "/linux/resources/pids" => {
                Some(format!("write {{\"limit\": {number}}}"))
            }
            "/linux/resources/cpu" => number
                .as_f64()
                .filter(|cpus| (0.01..=4096.0).contains(cpus))
                .map(|cpus| {
                    let quota = (cpus * 100_000.0).round();
                    format!("write {{\"quota\": {quota}, \"period\": 100000}}")
                }),
            _ => None,
        },
        Value::Array(items) => match at {
            _ if is("/process/capabilities") => Some(format!(
                "it has a list for each set: {{\"bounding\": {0}, \"effective\": {0}, \"permitted\": {0}}}",
                short(items)
            )),
            "/annotations" | "/linux/sysctl" => {
                Some("write an object: {\"NAME\": \"VALUE\", ...}".into())
            }
            "/hooks" => {
                Some("it has a list for each time: {\"createRuntime\": [{\"path\": ...}]}".into())
            }
            "/linux/seccomp" => {
                Some("the profile itself: {\"defaultAction\": ..., \"syscalls\": [...]}".into())
            }
            _ => None,
        },
        Value::Object(map) => match at {
            "/linux/namespaces" => {
                let list = map
                    .keys()
                    .take(8)
                    .map(|key| format!("{{\"type\": {}}}", quote(key)));
                Some(format!(
                    "write a list: [{}]",
                    list.collect::<Vec<_>>().join(", ")
                ))
            }
            _ if is("/process/rlimits") => Some(
                "write a list: [{\"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024}]"
                    .into(),
            ),
            _ if is("/process/env/*") => {
                let (name, value) = (map.get("name")?.as_str()?, map.get("value")?.as_str()?);
                Some(format!("write {}", quote(&format!("{name}={value}"))))
            }
            _ => None,
        },
        _ => None,
    }
}

fn short(items: &[Value]) -> String {
    match items {
        [first] => format!("[{first}]"),
        [first, ..] => format!("[{first}, ...]"),
        [] => "[]".into(),
    }
}

fn form_of_text(at: &str, is: &dyn Fn(&str) -> bool, text: &str) -> Option<String> {
    let numbers: Vec<u64> = text
        .split(':')
        .map_while(|part| part.parse().ok())
        .collect();
    let count = text.split(':').count();
    Some(match at {
        "/root" => format!("write {{\"path\": {}}}", quote(text)),
        "/mounts/*" => mount(text)?,
        "/mounts/*/options" => {
            let words: Vec<&str> = text.split(',').map(str::trim).collect();
            format!("write {words:?}")
        }
        "/linux/namespaces/*" => format!("write {{\"type\": {}}}", quote(text)),
        "/linux/devices/*" => {
            let path = text.split(':').next().unwrap_or_default();
            format!(
                "write {{\"path\": {}, \"type\": \"c\", \"major\": ..., \"minor\": ...}}: `ls -l` shows the numbers",
                quote(path)
            )
        }
        "/linux/uidMappings"
        | "/linux/gidMappings"
        | "/linux/uidMappings/*"
        | "/linux/gidMappings/*" => match numbers[..] {
            [inside, outside, size] if count == 3 => format!(
                "write {{\"containerID\": {inside}, \"hostID\": {outside}, \"size\": {size}}}{}",
                if at.ends_with('*') { "" } else { " in a list" }
            ),
            _ => return None,
        },
        "/linux/seccomp" if text == "unconfined" => "leave linux.seccomp out".into(),
        "/linux/seccomp" => "the profile itself stands here, not the name of its file".into(),
        "/linux/seccomp/syscalls/*" => format!(
            "write {{\"names\": [{}], \"action\": \"SCMP_ACT_ALLOW\"}}",
            quote(text)
        ),
        "/hooks/prestart"
        | "/hooks/createRuntime"
        | "/hooks/createContainer"
        | "/hooks/startContainer"
        | "/hooks/poststart"
        | "/hooks/poststop" => {
            format!("write [{{\"path\": {}}}]", quote(text))
        }
        _ if at.starts_with("/hooks/") && at.matches('/').count() == 3 && at.ends_with('*') => {
            format!("write {{\"path\": {}}}", quote(text))
        }
        "/linux/resources/memory" => "write {\"limit\": BYTES}".into(),
        "/linux/resources/pids" => match text.parse::<i64>() {
            Ok(limit) => format!("write {{\"limit\": {limit}}}"),
            Err(_) => "write {\"limit\": NUMBER}".into(),
        },
        _ if is("/process/user") => match numbers[..] {
            [uid] if count == 1 => format!("write {{\"uid\": {uid}, \"gid\": {uid}}}"),
            [uid, gid] if count == 2 => format!("write {{\"uid\": {uid}, \"gid\": {gid}}}"),
            _ => "write numbers: {\"uid\": 0, \"gid\": 0}; names are not looked up".into(),
        },
        _ if is("/process/rlimits/*") => rlimit(text)?,
        _ if at
            .rsplit_once('/')
            .is_some_and(|(above, _)| above.ends_with("/capabilities")) =>
        {
            format!("write [{}]", quote(text))
        }
        _ => return None,
    })
}

/// `./data:/data:ro` of docker and compose.
fn mount(text: &str) -> Option<String> {
    let mut parts = text.split(':');
    let (source, destination) = (parts.next()?, parts.next()?);
    if !destination.starts_with('/') {
        return None;
    }
    let mut options = vec!["\"rbind\"".to_owned()];
    for word in parts.flat_map(|part| part.split(',')) {
        if word.len() <= 16 && mount_word(word).is_none() {
            options.push(quote(word));
        }
    }
    Some(format!(
        "write {{\"destination\": {}, \"type\": \"bind\", \"source\": {}, \"options\": [{}]}}",
        quote(destination),
        quote(source),
        options.join(", ")
    ))
}

/// `nofile=1024:2048`.
fn rlimit(text: &str) -> Option<String> {
    let (name, values) = text.split_once('=')?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard): (u64, u64) = (soft.parse().ok()?, hard.parse().ok()?);
    let name = name.to_ascii_uppercase();
    let name = name.trim_start_matches("RLIMIT_");
    Some(format!(
        "write {{\"type\": \"RLIMIT_{name}\", \"hard\": {hard}, \"soft\": {soft}}}"
    ))
}

/// Where that is said which others say by this key, in an object at `above`.
pub fn place(above: &str, key: &str) -> Option<&'static str> {
    let above = pattern(above);
    let key: String = key
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .collect::<String>()
        .to_ascii_lowercase();
    let everywhere = match key.as_str() {
        "command" | "cmd" | "entrypoint" => "/process/args",
        "environment" | "envs" | "envvars" => "/process/env",
        "workingdir" | "workdir" | "workingdirectory" => "/process/cwd",
        "tty" | "stdinopen" => "/process/terminal",
        "ulimits" | "ulimit" | "limitnofile" => "/process/rlimits",
        "capadd" | "capdrop" | "caps" | "addcapabilities" => "/process/capabilities",
        "runasuser" | "username" => "/process/user/uid, a number",
        "runasgroup" => "/process/user/gid, a number",
        "supplementalgroups" | "groupadd" | "groups" => "/process/user/additionalGids",
        "allowprivilegeescalation" => "/process/noNewPrivileges, which is its opposite",
        "volumes" | "volumemounts" | "binds" | "volume" => "/mounts",
        "tmpfs" => "/mounts, with the type tmpfs",
        "shmsize" => "the option size= of the mount on /dev/shm",
        "sysctls" => "/linux/sysctl",
        "labels" => "/annotations",
        "memlimit" | "memorylimit" | "maxmemory" => "/linux/resources/memory/limit, in bytes",
        "memswaplimit" | "memoryswap" => {
            "/linux/resources/memory/swap, memory and swap together in bytes"
        }
        "memreservation" => "/linux/resources/memory/reservation",
        "cpulimit" | "cpus" if !above.ends_with("/cpu") => {
            "/linux/resources/cpu, quota of period: 150000 of 100000 are 1.5 CPUs"
        }
        "cpuset" | "cpusetcpus" => "/linux/resources/cpu/cpus",
        "cpusetmems" => "/linux/resources/cpu/mems",
        "cpushares" => "/linux/resources/cpu/shares",
        "pidslimit" => "/linux/resources/pids/limit",
        "blkioweight" => "/linux/resources/blockIO/weight",
        "privileged" => {
            "nowhere alone: /process/capabilities, /linux/devices, /linux/seccomp and the lists of paths"
        }
        "networkmode" | "networks" => "/linux/namespaces; addresses are the engine's business",
        "ports" | "publish" => "nowhere: ports are the engine's business",
        "apparmor" => "/process/apparmorProfile",
        "image" => {
            "nowhere: husk has no images, root.path is the directory that one was unpacked to"
        }
        _ => "",
    };
    let own = match (above.as_str(), key.as_str()) {
        ("", "readonly") => "/root/readonly",
        ("/mounts/*", "readonly" | "ro") => "the word \"ro\" in options",
        ("/mounts/*", "readwrite" | "rw") => "the word \"rw\" in options",
        ("/mounts/*", "propagation" | "bindpropagation" | "mountpropagation") => {
            "a word in options, such as \"rslave\""
        }
        ("/mounts/*", "size" | "tmpfssize") => "the word \"size=...\" in options",
        ("/mounts/*", "mode" | "uid" | "gid") => "a word in options, such as \"mode=755\"",
        ("/mounts/*", "flags" | "data") => "options",
        ("/mounts/*", "src" | "from" | "hostpath" | "device" | "what") => "source",
        ("/mounts/*", "fstype" | "filesystem") => "type",
        ("/process", "uid") => "/process/user/uid",
        ("/process", "gid") => "/process/user/gid",
        ("/linux/resources/memory", "max" | "hard" | "limitinbytes") => "limit",
        ("/linux/resources/memory", "soft" | "low") => "reservation",
        ("/linux/resources/memory", "high" | "min") => {
            "/linux/resources/unified, as \"memory.high\" or \"memory.min\""
        }
        ("/linux/resources/memory", "memswap") => "swap",
        ("/linux/resources/cpu", "limit" | "max" | "count") => {
            "quota of period: 150000 of 100000 are 1.5 CPUs"
        }
        ("/linux/resources/cpu", "weight") => "shares",
        ("/linux/resources/pids", "max") => "limit",
        ("/linux/resources", "limits" | "requests") => "memory/limit and cpu/quota",
        ("/linux/resources", "hugetlb" | "hugepages") => "hugepageLimits",
        ("/linux/resources", "io" | "blkio") => "blockIO",
        ("/linux/devices/*", "mode" | "permissions") => "fileMode, a decimal number",
        ("/linux/devices/*", "access") => "/linux/resources/devices",
        ("/linux/seccomp", "archmap") => {
            "architectures: this is docker's form of a profile, which an engine translates"
        }
        ("/linux/seccomp/syscalls/*", "includes" | "excludes" | "comment") => {
            "nowhere: this is docker's form of a profile, and here the rule holds always"
        }
        ("/linux/seccomp/syscalls/*", "errno") => "errnoRet",
        ("/hooks/*", "when" | "stages" | "hook") => {
            "nowhere: this is podman's form of a hook, which an engine translates"
        }
        ("/hooks", "prestop" | "poststartup") => "poststart or poststop",
        _ => everywhere,
    };
    Some(own).filter(|own| !own.is_empty())
}

/// The words of a command line, as a shell parts them; `None` where a quote isn't closed, or where a
/// shell would do more than part them.
pub fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some('"'), '$' | '`' | '\\')
            | (None, '$' | '`' | '\\' | '*' | '|' | '&' | ';' | '>' | '<') => {
                return None;
            }
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_ascii_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// The arguments that a command line in one string was meant to be, to be written instead.
pub fn arguments(line: &str) -> Option<String> {
    let list = match words(line) {
        Some(words) => words,
        None => vec!["sh".into(), "-c".into(), line.into()],
    };
    ((1..=8).contains(&list.len()) && line.len() <= 200).then(|| format!("write {list:?}"))
}

/// `64M` in bytes, `on` as 1: what a kernel's number is meant to be.
pub fn number(text: &str) -> Option<String> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "enabled" | "enable" => Some("write 1".into()),
        "false" | "no" | "off" | "disabled" | "disable" => Some("write 0".into()),
        _ => bytes(text),
    }
}

/// `64M` in bytes, to be written instead.
pub fn bytes(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let bytes = digits.trim().parse::<u32>().ok()?;
    Some(format!("write it in bytes: {}", i128::from(bytes) << shift))
}

/// What a word in a mount's options is that the kernel doesn't know, and what to do.
pub fn mount_word(word: &str) -> Option<&'static str> {
    Some(match word.split('=').next().unwrap_or_default() {
        "loop" => {
            "loop is mount(8)'s word: attach the image by losetup, and make /dev/loopN the source"
        }
        "offset" | "sizelimit" => "it is losetup's, not the kernel's",
        "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" | "users" | "owner"
        | "group" | "comment" | "pri" => "it is fstab's word, for mount(8): remove it",
        word if word.starts_with("x-") || word.starts_with("X-") => {
            "it is fstab's word, for mount(8): remove it"
        }
        "z" | "Z" => "it is docker's word for a SELinux label, which an engine sets: remove it",
        "U" => "it is podman's word for a change of owner: remove it",
        "readonly" | "read-only" => "write ro",
        "readwrite" | "read-write" => "write rw",
        "cached" | "delegated" | "consistent" | "nocopy" | "volume-nocopy" | "copy" => {
            "it is docker's word: remove it"
        }
        "bind-propagation" | "propagation" => "write the propagation alone, such as rslave",
        _ => return None,
    })
}

/// What a shell would have made of these arguments, where there is none.
pub fn shell(args: &[String]) -> Option<String> {
    const BUILTINS: [&str; 16] = [
        "cd", "export", "source", ".", "exit", "alias", "set", "unset", "ulimit", "umask", "eval",
        "exec", "trap", "if", "for", "while",
    ];
    const OPERATORS: [&str; 10] = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1", "2>"];
    let name = args.first()?;
    let line = || {
        let line = args.join(" ");
        match line.len() <= 100 {
            true => format!("write {:?}", ["sh", "-c", &line]),
            false => "write [\"sh\", \"-c\", \"...\"]".into(),
        }
    };
    if BUILTINS.contains(&name.as_str()) {
        return Some(format!("{name} is the shell's, no program: {}", line()));
    }
    if name.starts_with('$') || name.contains("${") {
        return Some(format!(
            "nobody puts the value of a variable there: {}",
            line()
        ));
    }
    if name.split_once('=').is_some_and(|(key, _)| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }) {
        return Some("variables belong in process.env".into());
    }
    let operator = args.iter().find(|arg| OPERATORS.contains(&arg.as_str()))?;
    Some(format!("{operator} is the shell's: {}", line()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms() {
        for (pointer, value, expected) in [
            ("/root", json!("rootfs"), r#"{"path": "rootfs"}"#),
            (
                "/mounts/4",
                json!("./data:/data:ro,z"),
                r#"{"destination": "/data", "type": "bind", "source": "./data", "options": ["rbind", "ro"]}"#,
            ),
            (
                "/mounts/0/options",
                json!("rbind, ro"),
                r#"["rbind", "ro"]"#,
            ),
            (
                "/process/user",
                json!("1000:50"),
                r#"{"uid": 1000, "gid": 50}"#,
            ),
            ("/user", json!("1000"), r#"{"uid": 1000, "gid": 1000}"#),
            ("/process/user", json!("joe"), "names are not looked up"),
            ("/process/user", json!(7), r#"{"uid": 7, "gid": 7}"#),
            (
                "/process/rlimits/0",
                json!("nofile=1024:2048"),
                r#"{"type": "RLIMIT_NOFILE", "hard": 2048, "soft": 1024}"#,
            ),
            (
                "/process/capabilities",
                json!(["CAP_KILL"]),
                r#"{"bounding": ["CAP_KILL"]"#,
            ),
            (
                "/process/capabilities/bounding",
                json!("CAP_KILL"),
                r#"["CAP_KILL"]"#,
            ),
            (
                "/process/env/1",
                json!({"name": "A", "value": "b"}),
                r#"write "A=b""#,
            ),
            ("/linux/namespaces/0", json!("pid"), r#"{"type": "pid"}"#),
            (
                "/linux/namespaces",
                json!({"pid": {}}),
                r#"[{"type": "pid"}]"#,
            ),
            (
                "/linux/devices/0",
                json!("/dev/fuse:/dev/fuse"),
                r#""path": "/dev/fuse""#,
            ),
            (
                "/linux/uidMappings/0",
                json!("0:100000:65536"),
                r#"{"containerID": 0, "hostID": 100000, "size": 65536}"#,
            ),
            ("/linux/resources/memory", json!(1024), r#"{"limit": 1024}"#),
            (
                "/linux/resources/cpu",
                json!(1.5),
                r#"{"quota": 150000, "period": 100000}"#,
            ),
            (
                "/linux/seccomp",
                json!("unconfined"),
                "leave linux.seccomp out",
            ),
            (
                "/linux/seccomp/syscalls/3",
                json!("read"),
                r#"{"names": ["read"]"#,
            ),
            (
                "/hooks/prestart",
                json!("/bin/x"),
                r#"[{"path": "/bin/x"}]"#,
            ),
            (
                "/hooks/poststop/0",
                json!("/bin/x"),
                r#"{"path": "/bin/x"}"#,
            ),
            ("/annotations", json!([]), "an object"),
        ] {
            let hint = form(pointer, &value).unwrap_or_default();
            assert!(hint.contains(expected), "{pointer}: {hint}");
        }
        assert_eq!(form("/hostname", &json!(["x"])), None);
        assert_eq!(form("/mounts/0", &json!("data")), None);
    }

    #[test]
    fn places_of_foreign_keys() {
        for (above, key, expected) in [
            ("", "entrypoint", "/process/args"),
            ("/process", "working_dir", "/process/cwd"),
            ("/mounts/3", "readOnly", "\"ro\" in options"),
            ("", "read_only", "/root/readonly"),
            ("/linux/resources/memory", "max", "limit"),
            ("/linux/seccomp/syscalls/0", "includes", "docker's form"),
        ] {
            let found = place(above, key).unwrap_or_default();
            assert!(found.contains(expected), "{above} {key}: {found}");
        }
        assert_eq!(place("/process", "nonsense"), None);
        assert_eq!(place("/linux/resources/cpu", "cpus"), None);
    }

    #[test]
    fn command_lines_are_parted_as_a_shell_does() {
        for (line, expected) in [
            ("sh -c 'exit 0'", r#"write ["sh", "-c", "exit 0"]"#),
            ("echo \"a  b\" ''", r#"write ["echo", "a  b", ""]"#),
            ("sleep 5", r#"write ["sleep", "5"]"#),
            ("a && b", r#"write ["sh", "-c", "a && b"]"#),
            ("echo $HOME", r#"write ["sh", "-c", "echo $HOME"]"#),
        ] {
            assert_eq!(arguments(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(words("it's"), None);
    }

    #[test]
    fn what_only_a_shell_understands() {
        let shell = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            super::shell(&words).unwrap_or_default()
        };
        assert!(shell("cd /tmp && ./run").contains(r#"["sh", "-c", "cd /tmp && ./run"]"#));
        assert!(shell("A=b sh").contains("process.env"));
        assert!(shell("$HOME/run").contains("variable"));
        assert!(shell("make | tee log").contains("| is the shell's"));
        assert_eq!(shell("/bin/true"), "");
    }
}
