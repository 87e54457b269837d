//! The supervisor's command line, as containerd writes it: Go's flags, the action last.
//!
//! Go takes `-id x`, `-id=x`, `--id x` and, for a boolean, `-debug` and `-debug=false`, and stops
//! at the first word that is no flag. Unlike Go, nothing is overlooked: a word after the action is
//! an error, because a flag there would have had no effect.

use crate::config::input::quoted;
use crate::error::{Error, Result};
use crate::id::{ContainerId, Namespace};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What `-help` prints.
pub const USAGE: &str = "\
usage: containerd-shim-nexcage-v1 [flags] [start|delete]

containerd runs this program; for one's own use there is nexcage.

  start    start a supervisor for a container and print its address
  delete   clean up after a container whose supervisor died
  (none)   serve, as the supervisor

  -namespace NAME        containerd's namespace
  -id ID                 the container
  -bundle PATH           its bundle (delete)
  -address PATH          containerd's socket
  -publish-binary PATH   containerd's program
  -socket PATH           the socket to serve on
  -debug-socket PATH     a socket for debugging
  -debug                 log more
  -info                  print what this runtime can do, for containerd
  -v, -version           print the version
  -h, -help              print this
";

/// The container that an action is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: ContainerId,
    /// Its namespace.
    pub namespace: Namespace,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a supervisor and print its address.
    Start(Target),
    /// Clean up after a supervisor that died.
    Delete(Target),
    /// Serve. Without an id, a person ran the program by hand, and should be told what it is.
    Serve(Option<Target>),
    /// Print a RuntimeInfo.
    Info,
    /// Print the version.
    Version,
    /// Print [`USAGE`].
    Help,
}

/// A command line, checked. A path that is unset or empty is `None`, as it is for containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// What is to be done.
    pub action: Action,
    /// -debug
    pub debug: bool,
    /// -bundle; for `start` and `delete` the working folder is the bundle as well.
    pub bundle: Option<PathBuf>,
    /// -address: containerd's gRPC socket.
    pub address: Option<PathBuf>,
    /// -publish-binary
    pub publish_binary: Option<PathBuf>,
    /// -socket
    pub socket: Option<PathBuf>,
    /// -debug-socket
    pub debug_socket: Option<PathBuf>,
}

/// The flags as given, before any of them means something.
#[derive(Default)]
struct Flags {
    namespace: OsString,
    id: OsString,
    bundle: OsString,
    address: OsString,
    publish_binary: OsString,
    socket: OsString,
    debug_socket: OsString,
    debug: bool,
    version: bool,
    info: bool,
    help: bool,
}

/// Where a flag's value goes.
enum Slot<'a> {
    Value(&'a mut OsString),
    Switch(&'a mut bool),
}

impl Flags {
    fn slot(&mut self, name: &[u8]) -> Option<Slot<'_>> {
        Some(match name {
            b"namespace" => Slot::Value(&mut self.namespace),
            b"id" => Slot::Value(&mut self.id),
            b"bundle" => Slot::Value(&mut self.bundle),
            b"address" => Slot::Value(&mut self.address),
            b"publish-binary" => Slot::Value(&mut self.publish_binary),
            b"socket" => Slot::Value(&mut self.socket),
            b"debug-socket" => Slot::Value(&mut self.debug_socket),
            b"debug" => Slot::Switch(&mut self.debug),
            b"v" | b"version" => Slot::Switch(&mut self.version),
            b"info" => Slot::Switch(&mut self.info),
            b"h" | b"help" => Slot::Switch(&mut self.help),
            _ => return None,
        })
    }
}

impl Args {
    /// Parses the words after the program's name.
    ///
    /// # Errors
    /// `InvalidArgument` that names the word or the flag that is missing.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut words = words;
        let mut flags = Flags::default();
        let mut action = None;
        while let Some(word) = words.next() {
            let Some(flag) = flag_of(&word) else {
                // "--" ends the flags, and the action may follow.
                action = if word == "--" { words.next() } else { Some(word) };
                break;
            };
            let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
                Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]))),
                None => (flag, None),
            };
            match flags.slot(name) {
                None => {
                    let shown = quoted(&String::from_utf8_lossy(name));
                    return Err(Error::invalid(format!("unknown flag {shown}; see -help")));
                }
                Some(Slot::Switch(on)) => *on = value.map_or(Ok(true), |text| truth(name, text))?,
                Some(Slot::Value(slot)) => {
                    *slot = match value {
                        Some(value) => value.to_owned(),
                        None => words.next().ok_or_else(|| {
                            let name = String::from_utf8_lossy(name);
                            Error::invalid(format!("the flag -{name} needs a value"))
                        })?,
                    };
                }
            }
        }
        if let (Some(action), Some(extra)) = (&action, words.next()) {
            return Err(Error::invalid(format!(
                "{} after the action {}: flags come first, and nothing comes after it",
                shown(&extra),
                shown(action)
            )));
        }
        flags.finish(action.as_deref())
    }
}

impl Flags {
    fn finish(self, action: Option<&OsStr>) -> Result<Args> {
        // In Go's order: these three answer whatever else is given.
        let action = match action.map(OsStr::as_bytes) {
            _ if self.help => Action::Help,
            _ if self.version => Action::Version,
            _ if self.info => Action::Info,
            Some(b"start") => Action::Start(self.target("start")?),
            Some(b"delete") => Action::Delete(self.target("delete")?),
            None if self.id.is_empty() => Action::Serve(None),
            None => Action::Serve(Some(self.target("a supervisor")?)),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "unknown action {}; the actions are start and delete",
                    quoted(&String::from_utf8_lossy(other))
                )));
            }
        };
        let path = |value: OsString| Some(value).filter(|v| !v.is_empty()).map(PathBuf::from);
        Ok(Args {
            action,
            debug: self.debug,
            bundle: path(self.bundle),
            address: path(self.address),
            publish_binary: path(self.publish_binary),
            socket: path(self.socket),
            debug_socket: path(self.debug_socket),
        })
    }

    fn target(&self, who: &str) -> Result<Target> {
        let missing = |flag: &str| Error::invalid(format!("{who} needs the flag {flag}"));
        if self.namespace.is_empty() {
            return Err(missing("-namespace"));
        }
        if self.id.is_empty() {
            return Err(missing("-id"));
        }
        // What is lost here is no letter, so the checks refuse its replacement too.
        Ok(Target {
            id: ContainerId::parse(&self.id.to_string_lossy())?,
            namespace: Namespace::parse(&self.namespace.to_string_lossy())?,
        })
    }
}

/// The flag in a word, without its dashes; `None` where Go's flags end.
fn flag_of(word: &OsStr) -> Option<&[u8]> {
    let bytes = word.as_bytes();
    let flag = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
    (!flag.is_empty()).then_some(flag)
}

/// What Go's strconv.ParseBool takes.
fn truth(name: &[u8], text: &OsStr) -> Result<bool> {
    match text.as_bytes() {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Ok(false),
        _ => Err(Error::invalid(format!(
            "the flag -{} takes true or false, not {}",
            String::from_utf8_lossy(name),
            shown(text)
        ))),
    }
}

fn shown(word: &OsStr) -> String {
    quoted(&word.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn parse(line: &[&str]) -> Result<Args> {
        Args::parse(line.iter().map(OsString::from))
    }

    fn refused(line: &[&str]) -> String {
        let error = parse(line).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
        error.to_string()
    }

    fn target() -> Target {
        Target {
            id: ContainerId::parse("web-1").unwrap(),
            namespace: Namespace::parse("k8s.io").unwrap(),
        }
    }

    #[test]
    fn the_start_of_containerd_is_understood() {
        let args = parse(&[
            "-namespace",
            "k8s.io",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "web-1",
            "-debug",
            "start",
        ]);
        let expected = Args {
            action: Action::Start(target()),
            debug: true,
            bundle: None,
            address: Some("/run/containerd/containerd.sock".into()),
            publish_binary: Some("/usr/bin/containerd".into()),
            socket: None,
            debug_socket: None,
        };
        assert_eq!(args.unwrap(), expected);
    }

    #[test]
    fn the_delete_of_containerd_brings_the_bundle() {
        let args = parse(&["-namespace=k8s.io", "-id=web-1", "-bundle", "/b", "delete"]).unwrap();
        assert_eq!((args.action, args.bundle), (Action::Delete(target()), Some("/b".into())));
    }

    #[test]
    fn one_dash_two_dashes_an_equals_sign_and_a_second_word_all_mean_the_same() {
        for [first, second] in [["-id", "web-1"], ["--id", "web-1"], ["-id=web-1", "-debug=false"]]
        {
            let args = parse(&["--namespace=k8s.io", first, second]).unwrap();
            assert_eq!(args.action, Action::Serve(Some(target())));
            assert!(!args.debug);
        }
    }

    #[test]
    fn the_last_of_several_wins_and_an_empty_value_is_none() {
        let args = parse(&["-socket", "/a", "-socket=/b=c", "-address", "", "-debug=T"]).unwrap();
        assert_eq!(args.socket, Some("/b=c".into()));
        assert_eq!((args.address, args.debug), (None, true));
    }

    #[test]
    fn without_action_and_id_a_person_ran_it() {
        assert_eq!(parse(&[]).unwrap().action, Action::Serve(None));
        assert_eq!(parse(&["-namespace", "x", "--"]).unwrap().action, Action::Serve(None));
    }

    #[test]
    fn info_version_and_help_need_nothing_else() {
        assert_eq!(parse(&["-info"]).unwrap().action, Action::Info);
        assert_eq!(parse(&["-v", "start"]).unwrap().action, Action::Version);
        assert_eq!(parse(&["--version", "-info"]).unwrap().action, Action::Version);
        for help in ["-h", "-help", "--help"] {
            assert_eq!(parse(&[help]).unwrap().action, Action::Help);
        }
    }

    #[test]
    fn the_usage_names_every_flag() {
        let mut flags = Flags::default();
        for word in USAGE.split_whitespace().filter_map(|word| word.strip_prefix('-')) {
            assert!(flags.slot(word.trim_end_matches(',').as_bytes()).is_some(), "{word}");
        }
    }

    #[test]
    fn refusals_name_the_word() {
        for (line, message) in [
            (&["-foo"][..], "unknown flag \"foo\"; see -help"),
            (&["---id", "x"], "unknown flag \"-id\"; see -help"),
            (&["-=x"], "unknown flag \"\"; see -help"),
            (&["-id"], "the flag -id needs a value"),
            (&["-debug=maybe"], "the flag -debug takes true or false, not \"maybe\""),
            (&["run"], "unknown action \"run\"; the actions are start and delete"),
            (&["-"], "unknown action \"-\"; the actions are start and delete"),
            (&["-id", "x", "start"], "start needs the flag -namespace"),
            (&["-namespace", "x", "delete"], "delete needs the flag -id"),
            (&["-id", "x"], "a supervisor needs the flag -namespace"),
            (&["-id", "-namespace", "x"], "unknown action \"x\"; the actions are start and delete"),
            (
                &["-namespace", "x", "-id", "../x", "start"],
                "container id \"../x\" does not begin with a letter or a digit",
            ),
            (
                &["-namespace", "a b", "-id", "x", "start"],
                "namespace \"a b\" has a character other than letters, digits and _ . + -",
            ),
            (
                &["start", "-debug"],
                "\"-debug\" after the action \"start\": flags come first, and nothing comes \
                 after it",
            ),
        ] {
            assert_eq!(refused(line), message);
        }
    }

    #[test]
    fn an_id_that_is_not_text_is_refused() {
        let id = OsString::from_vec(b"web\xff".to_vec());
        let words = ["-namespace".into(), "x".into(), "-id".into(), id, "start".into()];
        let error = Args::parse(words.into_iter()).unwrap_err().to_string();
        assert!(error.contains("has a character other than"), "{error}");
    }

    proptest! {
        #[test]
        fn no_command_line_panics_and_every_refusal_is_one_short_line(
            words in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "-{0,3}(id|namespace|debug|v|info|bundle)?(=.{0,3})?".prop_map(String::into_bytes),
                "start|delete|--|-".prop_map(String::into_bytes),
            ], 0..8),
        ) {
            if let Err(error) = Args::parse(words.into_iter().map(OsString::from_vec)) {
                let message = error.to_string();
                prop_assert!(!message.contains('\n') && message.len() < 2000, "{}", message);
            }
        }
    }
}
