//! Mutations of JSON by its structure: bytes alone seldom get past the parser.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value};

/// For `fuzz_mutator!`: half of the time the bytes, else one value of the document.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(u64::from(seed) << 1 | 1);
    if dice.below(2) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let Ok(mut document) = serde_json::from_slice::<Value>(&data[..size]) else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..1 + dice.below(3) {
        change(&mut document, &mut dice);
    }
    let Ok(text) = serde_json::to_vec(&document) else {
        return size;
    };
    if text.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..text.len()].copy_from_slice(&text);
    text.len()
}

/// xorshift64*: what libFuzzer gives for a seed must come again for it.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The `index`th value of the document, counted from its root.
fn pick<'v>(value: &'v mut Value, index: &mut usize) -> Option<&'v mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| pick(item, index)),
        Value::Object(map) => map.values_mut().find_map(|item| pick(item, index)),
        _ => None,
    }
}

fn change(document: &mut Value, dice: &mut Dice) {
    let all = count(document);
    let mut from = dice.below(all);
    let other = pick(document, &mut from).cloned().unwrap_or_default();
    // Containers are picked too seldom by themselves.
    let mut value = None;
    for _ in 0..4 {
        let mut at = dice.below(all);
        let found = pick(document, &mut at).map(|found| found.is_array() || found.is_object());
        if found == Some(true) || dice.below(3) == 0 {
            break;
        }
    }
    let mut at = dice.below(all);
    if let Some(found) = pick(document, &mut at) {
        value = Some(found);
    }
    let Some(value) = value else { return };
    match (dice.below(8), value) {
        (0, value) => *value = other,
        (1, value) => *value = scalar(dice),
        (2, Value::Object(map)) => rename(map, dice),
        (3, Value::Object(map)) if !map.is_empty() => {
            let key = map
                .keys()
                .nth(dice.below(map.len()))
                .cloned()
                .unwrap_or_default();
            map.remove(&key);
        }
        (2 | 3, Value::Array(items)) if !items.is_empty() => {
            items.remove(dice.below(items.len()));
        }
        (4, Value::Array(items)) if !items.is_empty() => {
            let twin = items[dice.below(items.len())].clone();
            items.insert(dice.below(items.len()), twin);
        }
        (_, Value::Array(items)) => items.push(other),
        (_, Value::Object(map)) => {
            let key = KEYS[dice.below(KEYS.len())];
            map.insert(
                key.into(),
                if dice.below(2) == 0 {
                    other
                } else {
                    scalar(dice)
                },
            );
        }
        (5, value) => *value = Value::Array(vec![value.take()]),
        (_, Value::Number(number)) => {
            if let Some(whole) = number.as_i64() {
                let near = [
                    whole.wrapping_add(1),
                    whole.wrapping_sub(1),
                    whole.wrapping_neg(),
                    whole << 32,
                ];
                *number = near[dice.below(near.len())].into();
            }
        }
        (_, Value::String(text)) => {
            let word = WORDS[dice.below(WORDS.len())];
            match dice.below(4) {
                0 => *text = word.into(),
                1 => text.push_str(word),
                2 => text.insert_str(0, word),
                _ => {
                    text.pop();
                }
            }
        }
        (_, value) => *value = scalar(dice),
    }
}

fn rename(map: &mut Map<String, Value>, dice: &mut Dice) {
    let Some(key) = map.keys().nth(dice.below(map.len())).cloned() else {
        return;
    };
    if let Some(value) = map.remove(&key) {
        map.insert(KEYS[dice.below(KEYS.len())].into(), value);
    }
}

fn scalar(dice: &mut Dice) -> Value {
    const NUMBERS: [i64; 12] = [
        0,
        1,
        -1,
        -2,
        4096,
        0xffff,
        0x1_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        i64::MAX,
        i64::MIN,
    ];
    match dice.below(9) {
        0 => Value::Null,
        1 => Value::Bool(dice.below(2) == 0),
        2 | 3 => NUMBERS[dice.below(NUMBERS.len())].into(),
        4 => u64::MAX.into(),
        5 => 1.5.into(),
        6 => Value::Array(Vec::new()),
        7 => Value::Object(Map::new()),
        _ => WORDS[dice.below(WORDS.len())].into(),
    }
}

/// Values that mean something somewhere in config.json, or nothing anywhere.
const WORDS: &[&str] = &[
    "",
    "/",
    ".",
    "..",
    "/dev",
    "/proc",
    "/sys",
    "/a/../b",
    "a",
    "0",
    "-1",
    "0-3,5",
    "max",
    "\0",
    "\n",
    "é",
    "none",
    "bind",
    "rbind",
    "ro",
    "rro",
    "idmap",
    "remount",
    "private",
    "rshared",
    "tmpcopyup",
    "mode=755",
    "size=64m",
    "tmpfs",
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "mqueue",
    "devpts",
    "overlay",
    "pid",
    "network",
    "ipc",
    "uts",
    "mount",
    "user",
    "cgroup",
    "time",
    "CAP_SYS_ADMIN",
    "CAP_NO",
    "RLIMIT_NOFILE",
    "RLIMIT_NO",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_NOTIFY",
    "SCMP_ARCH_X86",
    "SCMP_CMP_EQ",
    "SCMP_CMP_MASKED_EQ",
    "read",
    "clone",
    "a",
    "b",
    "c",
    "p",
    "u",
    "rwm",
    "2MB",
    "SCHED_DEADLINE",
    "SCHED_OTHER",
    "IOPRIO_CLASS_RT",
    "LINUX32",
    "MPOL_BIND",
    "1.3.0",
    "1.0",
    "256:rbps",
    "memory.high",
    "user=1",
    "/proc/self/ns/net",
    "eth0",
];

const KEYS: &[&str] = &[
    "ociVersion",
    "process",
    "root",
    "hostname",
    "domainname",
    "mounts",
    "hooks",
    "annotations",
    "linux",
    "path",
    "readonly",
    "terminal",
    "consoleSize",
    "user",
    "uid",
    "gid",
    "umask",
    "additionalGids",
    "args",
    "env",
    "cwd",
    "capabilities",
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
    "rlimits",
    "type",
    "soft",
    "hard",
    "noNewPrivileges",
    "apparmorProfile",
    "oomScoreAdj",
    "selinuxLabel",
    "ioPriority",
    "class",
    "priority",
    "scheduler",
    "policy",
    "nice",
    "flags",
    "runtime",
    "deadline",
    "period",
    "execCPUAffinity",
    "initial",
    "final",
    "destination",
    "source",
    "options",
    "uidMappings",
    "gidMappings",
    "containerID",
    "hostID",
    "size",
    "sysctl",
    "resources",
    "cgroupsPath",
    "namespaces",
    "devices",
    "netDevices",
    "seccomp",
    "rootfsPropagation",
    "maskedPaths",
    "readonlyPaths",
    "mountLabel",
    "intelRdt",
    "personality",
    "timeOffsets",
    "memoryPolicy",
    "major",
    "minor",
    "fileMode",
    "allow",
    "access",
    "memory",
    "cpu",
    "pids",
    "blockIO",
    "hugepageLimits",
    "network",
    "rdma",
    "unified",
    "limit",
    "reservation",
    "swap",
    "swappiness",
    "shares",
    "quota",
    "burst",
    "cpus",
    "mems",
    "idle",
    "defaultAction",
    "defaultErrnoRet",
    "architectures",
    "listenerPath",
    "listenerMetadata",
    "syscalls",
    "names",
    "action",
    "errnoRet",
    "index",
    "value",
    "valueTwo",
    "op",
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
    "timeout",
    "closID",
    "schemata",
    "enableMonitoring",
    "secs",
    "nanosecs",
    "domain",
    "mode",
    "nodes",
    "\0",
    "x",
];
