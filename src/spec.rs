//! The parts of an OCI config.json that the supervisor itself reads.
//!
//! The runtime behind a backend checks the rest; here are only the fields on which the supervisor
//! acts, so that a spec of many megabytes costs no more than its text. What is wrong with them is
//! said before anything has been made.

use crate::config::input::{self, Links, quoted, shown};
use crate::error::{Context, Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// The largest config.json that is read, in bytes.
pub const MAX_SIZE: usize = 16 << 20;

/// The largest process or resources of a request, in bytes.
pub const MAX_REQUEST: usize = 4 << 20;

/// A container's spec, as far as the supervisor needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// ociVersion: 1.something.
    pub oci_version: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// root.path as it stands there; [`Spec::rootfs`] resolves it.
    pub root: PathBuf,
    /// annotations
    pub annotations: BTreeMap<String, String>,
    /// linux.namespaces
    pub namespaces: Vec<NamespaceEntry>,
    /// linux.cgroupsPath
    pub cgroups_path: Option<String>,
}

/// The slice, prefix and name of a linux.cgroupsPath that is meant for systemd: `slice:prefix:name`,
/// as runc has it (its docs/systemd.md).
pub fn systemd_cgroup(path: &str) -> Option<[&str; 3]> {
    let parts: Vec<&str> = path.split(':').collect();
    <[&str; 3]>::try_from(parts).ok().filter(|[slice, ..]| !slice.contains('/'))
}

/// One entry of linux.namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceEntry {
    /// pid, network, mount, …; the runtime knows which there are.
    pub kind: String,
    /// The namespace to join; `None` for a new one.
    pub path: Option<PathBuf>,
}

/// Reads the config.json of a bundle.
///
/// # Errors
/// `InvalidArgument` that names the file and, where one is wrong, the line, column and field.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let json = input::read(&path, MAX_SIZE, Links::Refuse)?.ok_or_else(|| {
        Error::invalid(format!(
            "{}: no such file; a bundle is a folder with an OCI config.json in it, which \
             containerd writes before it asks for a container, and `runc spec` by hand",
            shown(&path)
        ))
    })?;
    parse(&json).context(|| shown(&path))
}

/// Parses the text of a config.json.
///
/// # Errors
/// As [`load`], without the file's name.
pub fn parse(json: &[u8]) -> Result<Spec> {
    let raw: RawSpec = object(json)?;
    check_version(&raw.oci_version)?;
    let Some(Object(process)) = raw.process else {
        return Err(Error::invalid("process is missing: there is nothing to run"));
    };
    if process.args.is_some_and(|args| args.is_empty()) {
        return Err(Error::invalid("process.args is empty: there is nothing to run"));
    }
    let Some(root) = raw.root.and_then(|root| root.0.path).filter(|path| !path.is_empty()) else {
        return Err(Error::invalid("root.path is missing: there is nothing to run in"));
    };
    let linux = raw.linux.map(|linux| linux.0).unwrap_or_default();
    let namespace = |Object(raw): Object<RawNamespace>| NamespaceEntry {
        kind: raw.kind,
        // Go's writers leave an empty string where they mean a new namespace.
        path: raw.path.filter(|path| !path.is_empty()).map(PathBuf::from),
    };
    Ok(Spec {
        oci_version: raw.oci_version,
        terminal: process.terminal.unwrap_or_default(),
        root: root.into(),
        annotations: raw.annotations.unwrap_or_default(),
        namespaces: linux.namespaces.unwrap_or_default().into_iter().map(namespace).collect(),
        cgroups_path: linux.cgroups_path.filter(|path| !path.is_empty()),
    })
}

impl Spec {
    /// Whether the container's processes do not live in a pid namespace of their own, so that
    /// those it leaves behind outlive its init and have to be killed.
    pub fn shares_pid_namespace(&self) -> bool {
        let pid = self.namespaces.iter().find(|namespace| namespace.kind == "pid");
        pid.is_none_or(|namespace| namespace.path.is_some())
    }

    /// The root filesystem: absolute, or relative to the bundle.
    pub fn rootfs(&self, bundle: &Path) -> PathBuf {
        bundle.join(&self.root)
    }
}

/// Whether [`load`] reads the value of a JSON pointer, and so refuses a key that is there twice.
pub(crate) fn reads(pointer: &str) -> bool {
    let words: Vec<&str> = pointer.split('/').skip(1).collect();
    matches!(
        words[..],
        ["ociVersion" | "process" | "root" | "annotations" | "linux"]
            | ["process", "terminal" | "args"]
            | ["root", "path"]
            | ["linux", "namespaces" | "cgroupsPath"]
            | ["linux", "namespaces", _, "type" | "path"]
    )
}

/// Checks the process of an exec: an object with a command, to be run in an absolute folder.
/// Answers whether it wants a terminal.
///
/// # Errors
/// `InvalidArgument` that names the field.
pub fn parse_process(json: &[u8]) -> Result<bool> {
    check_size("the process of an exec", json)?;
    let process: RawExec = object(json).context(|| "the process of an exec")?;
    if process.args.is_empty() {
        return Err(Error::invalid("the process of an exec: args is empty: nothing to run"));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid(format!(
            "the process of an exec: cwd: found {}, wanted an absolute path",
            quoted(&process.cwd)
        )));
    }
    Ok(process.terminal.unwrap_or_default())
}

/// Checks the resources of an update: an object. The runtime knows what may be in it.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub fn parse_resources(json: &[u8]) -> Result<()> {
    check_size("the resources of an update", json)?;
    object::<Anything>(json).context(|| "the resources of an update")?;
    Ok(())
}

fn check_size(what: &str, json: &[u8]) -> Result<()> {
    if json.len() > MAX_REQUEST {
        return Err(Error::invalid(format!(
            "{what}: {} bytes, more than the limit of {}",
            json.len(),
            input::mib(MAX_REQUEST)
        )));
    }
    Ok(())
}

/// The newest version of the runtime specification whose every field is known here.
pub const NEWEST: &str = "1.3.0";

/// 1.0.0 and every later 1.x: within a major version, the OCI promises that old programs can run
/// new specs.
///
/// # Errors
/// `InvalidArgument` for another one.
pub(crate) fn check_version(version: &str) -> Result<()> {
    let supported = || {
        let release = version.split(['-', '+']).next()?;
        let tail = version.strip_prefix(release)?;
        let number = |text: &str| -> Option<u64> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let plain = text == "0" || !text.starts_with('0');
            if digits && plain { text.parse().ok() } else { None }
        };
        let numbers: Vec<u64> = release.split('.').map(number).collect::<Option<_>>()?;
        let [1, minor, patch] = numbers[..] else { return None };
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
        // A pre-release comes before its release, and there is no 1.x before 1.0.0.
        let too_early = tail.starts_with('-') && (minor, patch) == (0, 0);
        (tail.len() != 1 && tail.bytes().all(word) && !too_early).then_some(())
    };
    supported().ok_or_else(|| {
        Error::invalid(format!(
            "ociVersion {} is not supported: 1.0.0 and every later 1.x is",
            quoted(version)
        ))
    })
}

/// Parses a JSON object of which `T` is a part.
fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    const LONGEST: usize = 300;
    match serde_json::from_slice::<Object<T>>(json) {
        Ok(Object(value)) => Ok(value),
        Err(error) => {
            // serde repeats the value that does not fit, whatever its length.
            let message = error.to_string();
            Err(Error::invalid(if message.len() <= LONGEST {
                message
            } else {
                let head: String = message.chars().take(LONGEST).collect();
                format!("{head}… at line {} column {}", error.line(), error.column())
            }))
        }
    }
}

/// A value that must be a JSON object: serde's own structs would take a list as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Only<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
            type Value = T;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        source.deserialize_map(Only(PhantomData)).map(Object)
    }
}

/// Makes the function that reads one field and puts the field's path in front of what is wrong,
/// unless a field below it has done so. serde_json finds the position again at the text's end.
macro_rules! fields {
    ($($function:ident $path:literal $type:ty;)*) => {$(
        fn $function<'de, D: Deserializer<'de>>(source: D) -> Result<$type, D::Error> {
            Deserialize::deserialize(source).map_err(|error: D::Error| {
                let message = error.to_string();
                if message.starts_with(concat!($path, ".")) {
                    D::Error::custom(message)
                } else {
                    D::Error::custom(format!(concat!($path, ": {}"), message))
                }
            })
        }
    )*};
}

fields! {
    oci_version "ociVersion" String;
    process "process" Option<Object<RawProcess>>;
    terminal "process.terminal" Option<bool>;
    args "process.args" Option<Vec<String>>;
    root "root" Option<Object<RawRoot>>;
    root_path "root.path" Option<String>;
    annotations "annotations" Option<BTreeMap<String, String>>;
    linux "linux" Option<Object<RawLinux>>;
    namespaces "linux.namespaces" Option<Vec<Object<RawNamespace>>>;
    kind "linux.namespaces.type" String;
    path "linux.namespaces.path" Option<String>;
    cgroups_path "linux.cgroupsPath" Option<String>;
    exec_args "args" Vec<String>;
    exec_cwd "cwd" String;
}

#[derive(serde::Deserialize)]
struct RawSpec {
    #[serde(rename = "ociVersion", deserialize_with = "oci_version")]
    oci_version: String,
    #[serde(default, deserialize_with = "process")]
    process: Option<Object<RawProcess>>,
    #[serde(default, deserialize_with = "root")]
    root: Option<Object<RawRoot>>,
    #[serde(default, deserialize_with = "annotations")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "linux")]
    linux: Option<Object<RawLinux>>,
}

#[derive(serde::Deserialize)]
struct RawProcess {
    #[serde(default, deserialize_with = "terminal")]
    terminal: Option<bool>,
    #[serde(default, deserialize_with = "args")]
    args: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct RawRoot {
    #[serde(default, deserialize_with = "root_path")]
    path: Option<String>,
}

#[derive(Default, serde::Deserialize)]
struct RawLinux {
    #[serde(default, deserialize_with = "namespaces")]
    namespaces: Option<Vec<Object<RawNamespace>>>,
    #[serde(default, rename = "cgroupsPath", deserialize_with = "cgroups_path")]
    cgroups_path: Option<String>,
}

#[derive(serde::Deserialize)]
struct RawNamespace {
    #[serde(rename = "type", deserialize_with = "kind")]
    kind: String,
    #[serde(default, deserialize_with = "path")]
    path: Option<String>,
}

#[derive(serde::Deserialize)]
struct RawExec {
    #[serde(deserialize_with = "exec_args")]
    args: Vec<String>,
    #[serde(deserialize_with = "exec_cwd")]
    cwd: String,
    terminal: Option<bool>,
}

/// An object of any content.
#[derive(serde::Deserialize)]
struct Anything {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn minimal() -> Value {
        json!({"ociVersion": "1.0.2", "process": {"args": ["sh"]}, "root": {"path": "rootfs"}})
    }

    fn with(key: &str, value: Value) -> String {
        let mut spec = minimal();
        spec[key] = value;
        spec.to_string()
    }

    fn refused(json: impl AsRef<[u8]>) -> String {
        let error = parse(json.as_ref()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
        error.to_string()
    }

    #[test]
    fn a_cgroup_is_systemds_by_its_form() {
        let of = |path| systemd_cgroup(path);
        assert_eq!(of("pod.slice:cri-containerd:c"), Some(["pod.slice", "cri-containerd", "c"]));
        assert_eq!(of(":crio:c"), Some(["", "crio", "c"]));
        for path in ["/pods/c", "pods/a:b:c", "/a:b:c", "a:b", "a:b:c:d", ""] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn what_the_supervisor_needs_is_read_and_the_rest_is_left_alone() {
        let text = json!({
            "ociVersion": "1.1.0",
            "hostname": 7,
            "process": {"terminal": true, "args": ["sh"], "user": {"uid": 0}},
            "root": {"path": "/srv/rootfs", "readonly": true},
            "annotations": {"a": "b"},
            "linux": {
                "namespaces": [
                    {"type": "pid"},
                    {"type": "network", "path": "/proc/1/ns/net"},
                    {"type": "ipc", "path": ""},
                ],
                "cgroupsPath": "/a/b",
                "seccomp": {},
            },
        });
        let entry = |kind: &str, path: Option<&str>| NamespaceEntry {
            kind: kind.to_owned(),
            path: path.map(PathBuf::from),
        };
        let spec = parse(text.to_string().as_bytes()).unwrap();
        let expected = Spec {
            oci_version: "1.1.0".to_owned(),
            terminal: true,
            root: "/srv/rootfs".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            namespaces: vec![
                entry("pid", None),
                entry("network", Some("/proc/1/ns/net")),
                entry("ipc", None),
            ],
            cgroups_path: Some("/a/b".to_owned()),
        };
        assert_eq!(spec, expected);
        assert_eq!(spec.rootfs(Path::new("/bundle")), Path::new("/srv/rootfs"));
    }

    #[test]
    fn what_is_null_or_absent_is_not_set() {
        let mut text = minimal();
        let expected = parse(text.to_string().as_bytes()).unwrap();
        text["annotations"] = Value::Null;
        text["linux"] = json!({"namespaces": null, "cgroupsPath": ""});
        text["process"] = json!({"args": null, "terminal": null});
        assert_eq!(parse(text.to_string().as_bytes()).unwrap(), expected);
        assert!(!expected.terminal && expected.cgroups_path.is_none());
        assert_eq!(expected.rootfs(Path::new("/bundle")), Path::new("/bundle/rootfs"));
    }

    #[test]
    fn a_pid_namespace_is_shared_unless_a_new_one_is_made() {
        for (namespaces, shared) in [
            (json!([]), true),
            (json!([{"type": "mount"}]), true),
            (json!([{"type": "pid", "path": "/proc/1/ns/pid"}]), true),
            (json!([{"type": "mount"}, {"type": "pid"}]), false),
            (json!([{"type": "pid", "path": ""}]), false),
        ] {
            let text = with("linux", json!({ "namespaces": namespaces }));
            assert_eq!(parse(text.as_bytes()).unwrap().shares_pid_namespace(), shared, "{text}");
        }
        assert!(parse(minimal().to_string().as_bytes()).unwrap().shares_pid_namespace());
    }

    #[test]
    fn version_1_is_supported_and_no_other() {
        for version in [
            "1.0.0",
            "1.0.2-dev",
            "1.1.0-rc.1",
            "1.2.1+build",
            "1.0.0+x",
            "1.99.18446744073709551615",
        ] {
            let text = with("ociVersion", version.into());
            assert_eq!(parse(text.as_bytes()).unwrap().oci_version, version);
        }
        for version in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "0.9.0",
            "2.0.0",
            "1.0.0-rc5",
            "v1.0.0",
            "01.0.0",
            "1.00.0",
            "1.0.",
            "1.0.1-",
            "1.0.1 ",
            "1.0.1-a/b",
            "1.0.1\n",
            "-1.0.0",
            "1.0.18446744073709551616",
        ] {
            let message = refused(with("ociVersion", version.into()));
            let expected =
                format!("ociVersion {version:?} is not supported: 1.0.0 and every later 1.x is");
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn refusals_name_the_field_and_the_position() {
        for (text, message) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\n\"ociVersion\": \"1.0.2\",", "EOF while parsing a value at line 2 column 22"),
            ("[\"1.0.2\"]", "invalid type: sequence, expected an object at line 1 column 0"),
            ("{}", "missing field `ociVersion` at line 1 column 2"),
            (
                "{\"ociVersion\": 1}",
                "ociVersion: invalid type: integer `1`, expected a string at line 1 column 16",
            ),
            (
                "{\"process\":\n[true]}",
                "process: invalid type: sequence, expected an object at line 2 column 0",
            ),
            (
                "{\"process\": {\"args\":\n \"sh\"}}",
                "process.args: invalid type: string \"sh\", expected a sequence at line 2 column 5",
            ),
            (
                "{\"process\": {\"args\": [\"sh\", 1]}}",
                "process.args: invalid type: integer `1`, expected a string at line 1 column 29",
            ),
            (
                "{\"process\": {\"terminal\": \"no\"}}",
                "process.terminal: invalid type: string \"no\", expected a boolean at line 1 \
                 column 29",
            ),
            (
                "{\"linux\": {\"namespaces\": [{}]}}",
                "linux.namespaces: missing field `type` at line 1 column 28",
            ),
            (
                "{\"linux\": {\"namespaces\": [{\"type\": 1}]}}",
                "linux.namespaces.type: invalid type: integer `1`, expected a string at line 1 \
                 column 36",
            ),
            ("{\"root\": {}, \"root\": {}}", "duplicate field `root` at line 1 column 19"),
        ] {
            assert_eq!(refused(text), message, "{text}");
        }
    }

    #[test]
    fn there_must_be_something_to_run() {
        for (key, value, message) in [
            ("process", Value::Null, "process is missing: there is nothing to run"),
            ("process", json!({"args": []}), "process.args is empty: there is nothing to run"),
            ("root", Value::Null, "root.path is missing: there is nothing to run in"),
            ("root", json!({"path": ""}), "root.path is missing: there is nothing to run in"),
        ] {
            assert_eq!(refused(with(key, value)), message);
        }
    }

    #[test]
    fn a_message_does_not_repeat_a_value_of_a_megabyte() {
        let message = refused(with("process", "\n".repeat(1 << 20).into()));
        assert!(message.len() < 500 && message.contains(" at line 1 column "), "{message}");
        assert!(!message.contains('\n'));
    }

    #[test]
    fn a_bundle_without_config_says_who_provides_it() {
        let bundle = tempfile::tempdir().unwrap();
        let error = load(bundle.path()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
        let expected = format!(
            "{}/config.json: no such file; a bundle is a folder with an OCI config.json in it, \
             which containerd writes before it asks for a container, and `runc spec` by hand",
            bundle.path().display()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(load(&bundle.path().join("none")).unwrap_err().kind(), error.kind());
    }

    #[test]
    fn a_config_of_100_mb_is_refused_before_it_is_read() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join("config.json");
        std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
        assert_eq!(
            load(bundle.path()).unwrap_err().to_string(),
            format!("{}: 104857600 bytes, more than the limit of 16 MiB", path.display())
        );
    }

    #[test]
    fn a_wrong_config_is_named_and_a_right_one_loads() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join("config.json");
        std::fs::write(&path, minimal().to_string()).unwrap();
        assert_eq!(load(bundle.path()).unwrap().root, Path::new("rootfs"));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(
            load(bundle.path()).unwrap_err().to_string(),
            format!("{}: EOF while parsing an object at line 1 column 1", path.display())
        );
    }

    #[test]
    fn a_config_that_is_a_link_or_a_folder_is_refused() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join("config.json");
        std::os::unix::fs::symlink("/etc/shadow", &path).unwrap();
        assert!(
            load(bundle.path())
                .unwrap_err()
                .to_string()
                .ends_with("is a symbolic link, a regular file is wanted")
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(load(bundle.path()).unwrap_err().to_string().ends_with("is not a regular file"));
    }

    #[test]
    fn the_process_of_an_exec_has_a_command_and_an_absolute_folder() {
        assert!(parse_process(br#"{"args": ["sh"], "cwd": "/", "terminal": true}"#).unwrap());
        for (text, message) in [
            (&b"null"[..], "invalid type: null, expected an object at line 1 column 4"),
            (b"[[\"sh\"], \"/\"]", "invalid type: sequence, expected an object at line 1 column 0"),
            (br#"{"cwd": "/"}"#, "missing field `args` at line 1 column 12"),
            (br#"{"args": [], "cwd": "/"}"#, "args is empty: nothing to run"),
            (
                br#"{"args": [1], "cwd": "/"}"#,
                "args: invalid type: integer `1`, expected a string at line 1 column 11",
            ),
            (br#"{"args": ["a"]}"#, "missing field `cwd` at line 1 column 15"),
            (br#"{"args": ["a"], "cwd": "a"}"#, "cwd: found \"a\", wanted an absolute path"),
        ] {
            let error = parse_process(text).unwrap_err().to_string();
            assert_eq!(error, format!("the process of an exec: {message}"));
        }
        assert_eq!(
            parse_process(&vec![b' '; MAX_REQUEST + 1]).unwrap_err().to_string(),
            "the process of an exec: 4194305 bytes, more than the limit of 4 MiB"
        );
    }

    #[test]
    fn resources_are_an_object() {
        parse_resources(b"{}").unwrap();
        parse_resources(br#"{"memory": {"limit": 1}, "unified": {"a": "b"}}"#).unwrap();
        assert_eq!(
            parse_resources(b"[]").unwrap_err().to_string(),
            "the resources of an update: invalid type: sequence, expected an object at line 1 \
             column 0"
        );
        assert!(parse_resources(b"{").is_err());
        assert!(parse_resources(b"{} x").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "[\\[\\]{}:,\"0-9. ]{0,60}".prop_map(String::into_bytes),
        ]) {
            for error in [parse(&text).err(), parse_process(&text).err(), parse_resources(&text).err()] {
                prop_assert!(error.is_none_or(|error| !error.to_string().contains('\n')));
            }
        }

        #[test]
        fn no_version_makes_the_check_panic(version in "[0-9]{0,30}([.+-][0-9a-z]{0,30}){0,4}") {
            let accepted = check_version(&version).is_ok();
            prop_assert!(!accepted || version.starts_with("1."));
        }
    }
}
