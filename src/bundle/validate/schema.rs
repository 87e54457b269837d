//! Every field of runtime-spec 1.3: its type, its range, whether it must be there, and since when
//! there is such a field. What needs more than one field to be judged is in the rules beside this
//! module. A test holds the table against that of `guest::fields`.

use super::at::At;
use crate::config::input::{list, quoted};
use serde_json::Value;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// true or false
    Flag,
    /// A string.
    Text,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A whole number from the first to the second.
    Number(i128, i128),
    /// A list of those.
    List(&'static Shape),
    /// An object with any keys, whose values are those.
    Map(&'static Shape),
    /// An object with these fields.
    Object(&'static [Field]),
    /// Another system's; not looked into.
    Foreign,
}

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What its value may be.
    pub shape: Shape,
    /// runtime-spec calls it REQUIRED.
    required: bool,
    /// The minor version and the patch of runtime-spec 1 that brought it.
    since: (u64, u64),
}

const fn may(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false, since: (0, 0) }
}

const fn must(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true, since: (0, 0) }
}

impl Field {
    const fn since(mut self, minor: u64, patch: u64) -> Self {
        self.since = (minor, patch);
        self
    }
}

use Shape::{Flag, Foreign, List, Map, Number, Object, Text, Word};

const UINT32: Shape = Number(0, u32::MAX as i128);
const INT64: Shape = Number(i64::MIN as i128, i64::MAX as i128);
const UINT64: Shape = Number(0, u64::MAX as i128);
/// -1 is "no limit".
const LIMIT: Shape = Number(-1, i64::MAX as i128);
/// A device's number, of which Linux has 12 and 20 bits.
const DEVICE: Shape = Number(i64::MIN as i128, i64::MAX as i128);
const TEXTS: Shape = List(&Text);

/// The document.
pub const TOP: Shape = Object(&[
    must("ociVersion", Text),
    must("process", Object(PROCESS)),
    must("root", Object(&[must("path", Text), may("readonly", Flag)])),
    may("hostname", Text),
    may("domainname", Text).since(1, 0),
    may("mounts", List(&Object(MOUNT))),
    may("hooks", Object(HOOKS)),
    may("annotations", Map(&Text)),
    may("linux", Object(LINUX)),
    may("solaris", Foreign),
    may("windows", Foreign),
    may("vm", Foreign).since(0, 2),
    may("zos", Foreign).since(1, 0),
    may("freebsd", Foreign).since(3, 0),
]);

const PROCESS: &[Field] = &[
    may("terminal", Flag),
    may("consoleSize", Object(&[must("height", UINT64), must("width", UINT64)])),
    must("cwd", Text),
    may("env", TEXTS),
    must("args", TEXTS),
    may("commandLine", Text).since(0, 2),
    may("user", Object(USER)),
    may("capabilities", Object(CAPABILITIES)),
    may(
        "rlimits",
        List(&Object(&[must("type", Text), must("soft", UINT64), must("hard", UINT64)])),
    ),
    may("noNewPrivileges", Flag),
    may("apparmorProfile", Text),
    may("selinuxLabel", Text),
    may("oomScoreAdj", Number(-1000, 1000)),
    may("scheduler", Object(SCHEDULER)).since(1, 0),
    may(
        "ioPriority",
        Object(&[
            must("class", Word(&["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"])),
            may("priority", Number(0, 7)),
        ]),
    )
    .since(1, 0),
    may("execCPUAffinity", Object(&[may("initial", Text), may("final", Text)])).since(2, 1),
];

const USER: &[Field] = &[
    must("uid", UINT32),
    must("gid", UINT32),
    may("umask", UINT32).since(0, 2),
    may("additionalGids", List(&UINT32)),
    may("username", Text),
];

const CAPABILITIES: &[Field] = &[
    may("bounding", TEXTS),
    may("effective", TEXTS),
    may("inheritable", TEXTS),
    may("permitted", TEXTS),
    may("ambient", TEXTS),
];

const SCHEDULER: &[Field] = &[
    must(
        "policy",
        Word(&[
            "SCHED_OTHER",
            "SCHED_FIFO",
            "SCHED_RR",
            "SCHED_BATCH",
            "SCHED_ISO",
            "SCHED_IDLE",
            "SCHED_DEADLINE",
        ]),
    ),
    may("nice", Number(-20, 19)),
    may("priority", Number(0, 99)),
    may(
        "flags",
        List(&Word(&[
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ])),
    ),
    may("runtime", UINT64),
    may("deadline", UINT64),
    may("period", UINT64),
];

const MAPPINGS: Shape = List(&Object(&[
    must("containerID", UINT32),
    must("hostID", UINT32),
    must("size", Number(1, u32::MAX as i128)),
]));

const MOUNT: &[Field] = &[
    must("destination", Text),
    may("type", Text),
    may("source", Text),
    may("options", TEXTS),
    may("uidMappings", MAPPINGS).since(1, 0),
    may("gidMappings", MAPPINGS).since(1, 0),
];

const HOOK: Shape = List(&Object(&[
    must("path", Text),
    may("args", TEXTS),
    may("env", TEXTS),
    may("timeout", Number(1, i64::MAX as i128)),
]));

const HOOKS: &[Field] = &[
    may("prestart", HOOK),
    may("createRuntime", HOOK).since(0, 2),
    may("createContainer", HOOK).since(0, 2),
    may("startContainer", HOOK).since(0, 2),
    may("poststart", HOOK),
    may("poststop", HOOK),
];

/// Kinds of namespaces.
pub const NAMESPACES: &[&str] =
    &["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];

const OFFSET: Shape = Object(&[may("secs", INT64), may("nanosecs", Number(0, 999_999_999))]);

const LINUX: &[Field] = &[
    may("namespaces", List(&Object(&[must("type", Word(NAMESPACES)), may("path", Text)]))),
    may("uidMappings", MAPPINGS),
    may("gidMappings", MAPPINGS),
    may("timeOffsets", Object(&[may("boottime", OFFSET), may("monotonic", OFFSET)])).since(1, 0),
    may(
        "devices",
        List(&Object(&[
            must("type", Word(&["c", "b", "u", "p"])),
            must("path", Text),
            may("major", DEVICE),
            may("minor", DEVICE),
            may("fileMode", UINT32),
            may("uid", UINT32),
            may("gid", UINT32),
        ])),
    ),
    may("netDevices", Map(&Object(&[may("name", Text)]))).since(3, 0),
    may("cgroupsPath", Text),
    may("resources", Object(RESOURCES)),
    may(
        "rootfsPropagation",
        Word(&[
            "shared",
            "slave",
            "private",
            "unbindable",
            "rshared",
            "rslave",
            "rprivate",
            "runbindable",
        ]),
    ),
    may("seccomp", Object(SECCOMP)),
    may("sysctl", Map(&Text)),
    may("maskedPaths", TEXTS),
    may("readonlyPaths", TEXTS),
    may("mountLabel", Text),
    may("personality", Object(&[must("domain", Word(&["LINUX", "LINUX32"])), may("flags", TEXTS)]))
        .since(0, 2),
    may(
        "intelRdt",
        Object(&[
            may("closID", Text).since(0, 2),
            may("schemata", TEXTS).since(3, 0),
            may("l3CacheSchema", Text),
            may("memBwSchema", Text).since(0, 2),
            may("enableMonitoring", Flag).since(3, 0),
            may("enableCMT", Flag).since(1, 0),
            may("enableMBM", Flag).since(1, 0),
        ]),
    ),
    may(
        "memoryPolicy",
        Object(&[
            must(
                "mode",
                Word(&[
                    "MPOL_DEFAULT",
                    "MPOL_BIND",
                    "MPOL_INTERLEAVE",
                    "MPOL_WEIGHTED_INTERLEAVE",
                    "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY",
                    "MPOL_LOCAL",
                ]),
            ),
            may("nodes", Text),
            may(
                "flags",
                List(&Word(&[
                    "MPOL_F_NUMA_BALANCING",
                    "MPOL_F_RELATIVE_NODES",
                    "MPOL_F_STATIC_NODES",
                ])),
            ),
        ]),
    )
    .since(3, 0),
];

const WEIGHT: Shape = Number(0, u16::MAX as i128);

const THROTTLE: Shape =
    List(&Object(&[must("major", DEVICE), must("minor", DEVICE), may("rate", UINT64)]));

const RESOURCES: &[Field] = &[
    may(
        "devices",
        List(&Object(&[
            must("allow", Flag),
            may("type", Word(&["a", "c", "b"])),
            may("major", DEVICE),
            may("minor", DEVICE),
            may("access", Text),
        ])),
    ),
    may(
        "memory",
        Object(&[
            may("limit", LIMIT),
            may("reservation", LIMIT),
            may("swap", LIMIT),
            may("kernel", LIMIT),
            may("kernelTCP", LIMIT),
            may("swappiness", Number(0, 100)),
            may("disableOOMKiller", Flag),
            may("useHierarchy", Flag).since(0, 2),
            may("checkBeforeUpdate", Flag).since(1, 0),
        ]),
    ),
    may(
        "cpu",
        Object(&[
            may("shares", UINT64),
            may("quota", INT64),
            may("burst", UINT64).since(1, 0),
            may("period", UINT64),
            may("realtimeRuntime", INT64),
            may("realtimePeriod", UINT64),
            may("cpus", Text),
            may("mems", Text),
            may("idle", Number(0, 1)).since(1, 0),
        ]),
    ),
    may("pids", Object(&[may("limit", INT64)])),
    may(
        "blockIO",
        Object(&[
            may("weight", WEIGHT),
            may("leafWeight", WEIGHT),
            may(
                "weightDevice",
                List(&Object(&[
                    must("major", DEVICE),
                    must("minor", DEVICE),
                    may("weight", WEIGHT),
                    may("leafWeight", WEIGHT),
                ])),
            ),
            may("throttleReadBpsDevice", THROTTLE),
            may("throttleWriteBpsDevice", THROTTLE),
            may("throttleReadIOPSDevice", THROTTLE),
            may("throttleWriteIOPSDevice", THROTTLE),
        ]),
    ),
    may("hugepageLimits", List(&Object(&[must("pageSize", Text), must("limit", UINT64)]))),
    may(
        "network",
        Object(&[
            may("classID", UINT32),
            may("priorities", List(&Object(&[must("name", Text), must("priority", UINT32)]))),
        ]),
    ),
    may("rdma", Map(&Object(&[may("hcaHandles", UINT32), may("hcaObjects", UINT32)]))).since(0, 2),
    may("unified", Map(&Text)).since(1, 0),
];

const ACTION: Shape = Word(&[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
]);

const SECCOMP: &[Field] = &[
    must("defaultAction", ACTION),
    may("defaultErrnoRet", UINT32).since(1, 0),
    may(
        "architectures",
        List(&Word(&[
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_MIPS",
            "SCMP_ARCH_MIPS64",
            "SCMP_ARCH_MIPS64N32",
            "SCMP_ARCH_MIPSEL",
            "SCMP_ARCH_MIPSEL64",
            "SCMP_ARCH_MIPSEL64N32",
            "SCMP_ARCH_PPC",
            "SCMP_ARCH_PPC64",
            "SCMP_ARCH_PPC64LE",
            "SCMP_ARCH_S390",
            "SCMP_ARCH_S390X",
            "SCMP_ARCH_PARISC",
            "SCMP_ARCH_PARISC64",
            "SCMP_ARCH_RISCV64",
            "SCMP_ARCH_LOONGARCH64",
            "SCMP_ARCH_M68K",
            "SCMP_ARCH_SH",
            "SCMP_ARCH_SHEB",
        ])),
    ),
    may(
        "flags",
        List(&Word(&[
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ])),
    )
    .since(0, 2),
    may("listenerPath", Text).since(1, 0),
    may("listenerMetadata", Text).since(1, 0),
    may(
        "syscalls",
        List(&Object(&[
            must("names", TEXTS),
            must("action", ACTION),
            may("errnoRet", UINT32).since(1, 0),
            may(
                "args",
                List(&Object(&[
                    must("index", Number(0, 5)),
                    must("value", UINT64),
                    may("valueTwo", UINT64),
                    must(
                        "op",
                        Word(&[
                            "SCMP_CMP_NE",
                            "SCMP_CMP_LT",
                            "SCMP_CMP_LE",
                            "SCMP_CMP_EQ",
                            "SCMP_CMP_GE",
                            "SCMP_CMP_GT",
                            "SCMP_CMP_MASKED_EQ",
                        ]),
                    ),
                ])),
            ),
        ])),
    ),
];

/// Holds a value against its shape. `version` is the minor version and the patch that the config
/// says it is of.
pub(super) fn check(at: &At<'_>, shape: &Shape, version: Option<(u64, u64)>) {
    match (shape, at.value) {
        (Flag, Value::Bool(_)) | (Text, Value::String(_)) | (Foreign, _) => {}
        (Word(words), Value::String(word)) => check_word(at, words, word),
        (Number(least, most), Value::Number(_)) => {
            if at.number().is_none_or(|number| !(*least..=*most).contains(&number)) {
                wanted(at, shape);
            }
        }
        (List(shape), Value::Array(_)) => {
            at.items().iter().for_each(|item| check(item, shape, version));
        }
        (Map(shape), Value::Object(_)) => {
            at.entries().iter().for_each(|(_, value)| check(value, shape, version));
        }
        (Object(fields), Value::Object(_)) => check_object(at, fields, version),
        _ => wanted(at, shape),
    }
}

fn check_word(at: &At<'_>, words: &[&str], word: &str) {
    if !words.contains(&word) && !word.is_empty() {
        let meant = words.iter().find(|known| {
            known.eq_ignore_ascii_case(word)
                || known.rsplit_once('_').is_some_and(|(_, tail)| tail.eq_ignore_ascii_case(word))
        });
        let mend = match meant.copied().or_else(|| nearest(word, words)) {
            Some(meant) => format!("{meant} may be meant; there are {}", list(words)),
            None => format!("there are {}", list(words)),
        };
        at.error(format!("{} is not known", quoted(word)), mend);
    }
}

fn check_object(at: &At<'_>, fields: &[Field], version: Option<(u64, u64)>) {
    for field in fields {
        let value = at.at(field.name);
        let is_there = match (field.shape, value.value) {
            (_, Value::Null) => false,
            (Text | Word(_), Value::String(text)) => !text.is_empty(),
            _ => true,
        };
        if is_there {
            check(&value, &field.shape, version);
            if version.is_some_and(|version| version < field.since) {
                let (minor, patch) = field.since;
                value.note(
                    format!("is a field of runtime-spec 1.{minor}.{patch}, which is newer than /ociVersion"),
                    format!("say 1.{minor}.{patch} or later in /ociVersion"),
                );
            }
        } else if field.required {
            let mend = format!("give {}", field.shape.what());
            match field.shape {
                // To crun and runc it is 0 or false.
                Number(..) | Flag => value.tolerated("is missing", mend),
                _ => value.error("is missing", mend),
            }
        }
    }
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    for (key, value) in at.entries() {
        if names.contains(&key) {
            continue;
        }
        match names.iter().find(|name| name.eq_ignore_ascii_case(key)) {
            Some(name) => value.warning(
                format!("is no field of runtime-spec; runc takes it for {name}, and crun does not"),
                format!("call it {name}, or remove it"),
            ),
            None => value.note(
                "is no field of runtime-spec 1.3: runtimes pass it over",
                match nearest(key, &names) {
                    Some(name) => format!("{name} may be meant; otherwise it does no harm"),
                    None => "it does no harm, and nothing else".to_owned(),
                },
            ),
        }
    }
}

/// The known word that is most like this one.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const LIKE: f64 = 0.85;
    // No known word is half as long.
    if word.len() > 100 {
        return None;
    }
    let likeness = |known: &&&str| strsim::jaro_winkler(known, word);
    let best = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&best) >= LIKE).then_some(*best)
}

impl Shape {
    /// What is wanted, in words.
    fn what(&self) -> String {
        match self {
            Flag => "true or false".to_owned(),
            Text => "a string".to_owned(),
            Word(words) if words.len() <= 4 => format!("one of {}", list(words)),
            Word(_) => "one of the words that runtime-spec has for it".to_owned(),
            Number(least, most) if *most >= i128::from(i64::MAX) => match least {
                -1 => "a whole number, -1 for no limit".to_owned(),
                0 | 1 => format!("a whole number from {least} on"),
                _ => "a whole number of 64 bits".to_owned(),
            },
            Number(least, most) => format!("a whole number from {least} to {most}"),
            List(_) => "a list".to_owned(),
            Map(_) | Object(_) | Foreign => "an object".to_owned(),
        }
    }
}

/// The value is not of that shape.
fn wanted(at: &At<'_>, shape: &Shape) {
    let what = shape.what();
    let unquoted = at.value.as_str().is_some_and(|text| match shape {
        Flag => matches!(text, "true" | "false"),
        Number(..) => text.parse::<i128>().is_ok(),
        _ => false,
    });
    let mend = match (shape, at.value) {
        _ if unquoted => "take the quotation marks away".to_owned(),
        (List(_), Value::String(_) | Value::Number(_) | Value::Object(_)) => {
            "put it into brackets: [ … ]".to_owned()
        }
        (Text, Value::Number(_) | Value::Bool(_)) => "put it into quotation marks".to_owned(),
        _ => format!("give {what}"),
    };
    at.error(format!("found {}, wanted {what}", quoted(&at.value.to_string())), mend);
}
