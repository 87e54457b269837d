//! The options containerd sends, in whichever of the three messages its clients use.
//!
//! CRI, ctr and Docker put the options of a runtime that is not runc into
//! `runtimeoptions.v1.Options`; a client that was set up for runc sends
//! `containerd.runc.v1.Options`, and ctr 1.6 and 1.7 the older `containerd.linux.runc.CreateOptions`
//! with the owner of a user namespace. The message's name stands after the last slash of the type URL,
//! whose prefix has changed over the years.

use super::input::{list, mib, quoted};
use super::value::{Table, Value};
use crate::error::{Error, Result};
use containerd_shim_protos::shim::oci::Options as Runc;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use std::path::PathBuf;

#[expect(clippy::unwrap_used, reason = "generated code")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

/// The names of the messages that [`from_any`] decodes.
pub const TYPES: [&str; 3] = [GENERIC, RUNC, FIRST];
const GENERIC: &str = "runtimeoptions.v1.Options";
const RUNC: &str = "containerd.runc.v1.Options";
const FIRST: &str = "containerd.linux.runc.CreateOptions";

/// Runtime options, decoded but not yet read: [`super::Config::load`] does that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// ConfigPath: a file that must be there.
    pub(super) path: Option<PathBuf>,
    /// ConfigBody: the `options` table of containerd's configuration, as TOML.
    pub(super) body: Vec<u8>,
    /// What a runc message says, under the names that the table above uses.
    pub(super) runc: Table,
}

/// The last segment of a type URL.
pub(crate) fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// Decodes the options that came with `start`, `-info` or a Create request. An `Any` with neither
/// type nor value stands for no options.
///
/// # Errors
/// `InvalidArgument` for another type (it is named, with the accepted ones) and for bytes that are
/// not a message of that type.
pub fn from_any(any: &Any) -> Result<Options> {
    if any.type_url.is_empty() && any.value.is_empty() {
        return Ok(Options::default());
    }
    let name = type_name(&any.type_url);
    let malformed = |error| Error::invalid(format!("runtime options {name}: malformed: {error}"));
    if name == GENERIC {
        let message = proto::runtimeoptions::Options::parse_from_bytes(&any.value);
        let message = message.map_err(malformed)?;
        if message.config_body.len() > super::MAX_SIZE {
            return Err(Error::invalid(format!(
                "runtime options {name}: {} bytes of ConfigBody, more than the limit of {}",
                message.config_body.len(),
                mib(super::MAX_SIZE)
            )));
        }
        let path = Some(message.config_path).filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Options { path, body: message.config_body, runc: Table::new() })
    } else if name == RUNC {
        let message = Runc::parse_from_bytes(&any.value).map_err(malformed)?;
        Ok(Options { runc: runc_table(message), ..Options::default() })
    } else if name == FIRST {
        let message = proto::runctypes::CreateOptions::parse_from_bytes(&any.value);
        let message = message.map_err(malformed)?;
        if message.special_fields.unknown_fields().iter().next().is_some() {
            return Err(Error::unimplemented(format!(
                "runtime options {name}: there are some for restoring a checkpoint, which is not \
                 supported"
            )));
        }
        Ok(Options { runc: runc_table(renewed(message)), ..Options::default() })
    } else {
        Err(Error::invalid(format!(
            "runtime options of type {} are not known; accepted are {}",
            quoted(&any.type_url),
            list(&TYPES)
        )))
    }
}

/// The first shims' options in the message that came after it.
fn renewed(message: proto::runctypes::CreateOptions) -> Runc {
    Runc {
        no_pivot_root: message.no_pivot_root,
        no_new_keyring: message.no_new_keyring,
        shim_cgroup: message.shim_cgroup,
        io_uid: message.io_uid,
        io_gid: message.io_gid,
        criu_work_path: message.criu_work_path,
        criu_image_path: message.criu_image_path,
        ..Runc::default()
    }
}

/// proto3 cannot tell false, 0 and "" from "not set", so they are taken as not set and never undo
/// what a file says. The address and version of the task API are containerd's note to itself.
fn runc_table(message: Runc) -> Table {
    let flag = |flag: bool| flag.then_some(Value::Flag(true));
    let number = |number: u32| (number != 0).then(|| Value::Number(i64::from(number)));
    let text = |text: String| (!text.is_empty()).then_some(Value::Text(text));
    let values = [
        ("NoPivotRoot", flag(message.no_pivot_root)),
        ("NoNewKeyring", flag(message.no_new_keyring)),
        ("ShimCgroup", text(message.shim_cgroup)),
        ("IoUid", number(message.io_uid)),
        ("IoGid", number(message.io_gid)),
        ("BinaryName", text(message.binary_name)),
        ("Root", text(message.root)),
        ("SystemdCgroup", flag(message.systemd_cgroup)),
        ("CriuImagePath", text(message.criu_image_path)),
        ("CriuWorkPath", text(message.criu_work_path)),
    ];
    values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn generic(path: &str, body: &str) -> Any {
        let message = proto::runtimeoptions::Options {
            type_url: "ignored".to_owned(),
            config_path: path.to_owned(),
            config_body: body.into(),
            ..Default::default()
        };
        any("runtimeoptions.v1.Options", message.write_to_bytes().unwrap())
    }

    pub(in super::super) fn runc(message: &Runc) -> Any {
        any("containerd.runc.v1.Options", message.write_to_bytes().unwrap())
    }

    pub(in super::super) fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.to_owned(), value, ..Any::default() }
    }

    #[test]
    fn an_any_with_neither_type_nor_value_is_no_options() {
        assert_eq!(from_any(&Any::default()).unwrap(), Options::default());
    }

    #[test]
    fn the_type_is_what_stands_after_the_last_slash() {
        for prefix in ["", "types.containerd.io/", "type.googleapis.com/", "/"] {
            let mut any = generic("/a", "b = 1");
            any.type_url.insert_str(0, prefix);
            let options = from_any(&any).unwrap();
            assert_eq!(options.path.unwrap(), PathBuf::from("/a"));
            assert_eq!(options.body, b"b = 1");
        }
    }

    #[test]
    fn another_type_is_refused_by_name_with_the_accepted_ones() {
        let wrong = any("types.containerd.io/kata.v1.Options", vec![]);
        assert_eq!(
            from_any(&wrong).unwrap_err().to_string(),
            "runtime options of type \"types.containerd.io/kata.v1.Options\" are not known; \
             accepted are runtimeoptions.v1.Options, containerd.runc.v1.Options and \
             containerd.linux.runc.CreateOptions"
        );
        assert!(from_any(&any("", vec![1])).is_err());
        let hostile = from_any(&any(&"\n".repeat(1 << 20), vec![])).unwrap_err().to_string();
        assert!(hostile.len() < 400 && !hostile.contains('\n'));
    }

    #[test]
    fn malformed_bytes_are_refused() {
        for name in TYPES {
            let error = from_any(&any(name, vec![0xff; 3])).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
            let start = format!("runtime options {name}: malformed: ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }

    #[test]
    fn what_the_first_shims_were_told_means_the_same() {
        let first = proto::runctypes::CreateOptions {
            io_uid: 5,
            io_gid: 6,
            shim_cgroup: "/shims".to_owned(),
            ..Default::default()
        };
        let sent = any(&format!("types.containerd.io/{FIRST}"), first.write_to_bytes().unwrap());
        let same = Runc { io_uid: 5, io_gid: 6, shim_cgroup: "/shims".into(), ..Runc::default() };
        assert_eq!(from_any(&sent).unwrap(), from_any(&runc(&same)).unwrap());
        // open_tcp = true
        let refused = from_any(&any(FIRST, vec![0x10, 1])).unwrap_err();
        assert_eq!(refused.kind(), crate::error::Kind::Unimplemented);
    }

    #[test]
    fn what_a_runc_message_leaves_at_zero_is_not_set() {
        assert_eq!(from_any(&runc(&Runc::new())).unwrap(), Options::default());
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused() {
        let error = from_any(&generic("", &" ".repeat(super::super::MAX_SIZE + 1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "runtime options runtimeoptions.v1.Options: 1048577 bytes of ConfigBody, \
             more than the limit of 1 MiB"
        );
    }
}
