//! The stdin of `start`: two formats that can each be read as the other.
//!
//! Up to 2.2, containerd writes a bare `Any` with the runtime options, or nothing. From 2.3 on it
//! writes `BootstrapParams`. In both, fields 1 and 2 are length-delimited, so an `Any` decodes as
//! parameters (type URL as instance id, value as namespace) and parameters as an `Any`; nothing in
//! the bytes says which one they are. What does is the command line, where containerd repeats the
//! id and the namespace: bytes that agree with it are parameters.

use crate::config::input::{mib, quoted};
use crate::config::{self, TYPES};
use crate::error::{Context, Error, Result};
use crate::id::{ContainerId, Namespace};
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use log::LevelFilter;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use std::io::Read;
use std::path::PathBuf;

/// The most that is read from stdin, in bytes; containerd's own shims stop there as well.
pub const MAX_SIZE: usize = 10 << 20;

/// What containerd said on stdin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bootstrap {
    /// The runtime options, still encoded: [`config::from_any`] decodes them, and refuses those of
    /// a type it does not know.
    pub options: Option<Any>,
    /// containerd's ttrpc address; `None` when the environment has to tell.
    pub ttrpc_address: Option<String>,
    /// containerd's gRPC address; `None` when the environment has to tell.
    pub grpc_address: Option<String>,
    /// The wanted log level; `None` when `-debug` has to tell.
    pub log_level: Option<LevelFilter>,
    /// Where sockets go; absolute. `None` for the usual place.
    pub socket_dir: Option<PathBuf>,
    /// Whether these were `BootstrapParams`, so that the reply may be a `BootstrapResult`.
    pub new_format: bool,
}

/// Reads stdin to its end.
///
/// # Errors
/// `InvalidArgument` beyond [`MAX_SIZE`], and what reading fails with.
pub fn read_stdin(stdin: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stdin.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).context(|| "read stdin")?;
    if bytes.len() > MAX_SIZE {
        return Err(Error::invalid(format!("stdin: more than the limit of {}", mib(MAX_SIZE))));
    }
    Ok(bytes)
}

/// Decodes the stdin of `start` for this container.
///
/// # Errors
/// `InvalidArgument` for bytes that are neither format, and for parameters of another container.
pub fn decode(stdin: &[u8], id: &ContainerId, namespace: &Namespace) -> Result<Bootstrap> {
    if stdin.is_empty() {
        return Ok(Bootstrap::default());
    }
    match BootstrapParams::parse_from_bytes(stdin) {
        Ok(params)
            if params.instance_id == id.as_str() && params.namespace == namespace.as_str() =>
        {
            from_params(params)
        }
        other => from_any(stdin, other.ok().as_ref(), id, namespace),
    }
}

fn from_params(params: BootstrapParams) -> Result<Bootstrap> {
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let socket_dir = match params.socket_dir.and_then(text).map(PathBuf::from) {
        Some(path) if !path.is_absolute() => {
            let found = quoted(&path.to_string_lossy());
            return Err(Error::invalid(format!(
                "stdin: socket_dir: found {found}, wanted an absolute path"
            )));
        }
        path => path,
    };
    // Extensions are open-ended: one that is not runtime options is for someone else.
    let options = params
        .extensions
        .into_iter()
        .filter_map(|extension| extension.value.into_option())
        .find(|any| TYPES.contains(&config::type_name(&any.type_url)));
    Ok(Bootstrap {
        options,
        ttrpc_address: text(params.containerd_ttrpc_address),
        grpc_address: text(params.containerd_grpc_address),
        log_level: Some(nearest_level(params.log_level.value())),
        socket_dir,
        new_format: true,
    })
}

fn from_any(
    stdin: &[u8],
    params: Option<&BootstrapParams>,
    id: &ContainerId,
    namespace: &Namespace,
) -> Result<Bootstrap> {
    let neither = || {
        Error::invalid(format!(
            "stdin: {} bytes that are neither BootstrapParams for {namespace}/{id} nor an Any \
             with runtime options",
            stdin.len()
        ))
    };
    let any = Any::parse_from_bytes(stdin).map_err(|_| neither())?;
    // An Any has two fields. More of them that read as parameters are parameters, and since they
    // do not agree with the command line, they are another container's.
    let more = any.special_fields.unknown_fields().iter().next().is_some();
    if let (true, Some(params)) = (more, params) {
        return Err(Error::invalid(format!(
            "stdin: BootstrapParams for the container {} in the namespace {}, but the flags say \
             {namespace}/{id}",
            quoted(&params.instance_id),
            quoted(&params.namespace)
        )));
    }
    if any.type_url.is_empty() && any.value.is_empty() && !more {
        return Ok(Bootstrap::default());
    }
    let plausible = any.type_url.contains('.')
        && any.type_url.bytes().all(|byte| byte.is_ascii_graphic())
        && !more;
    if !plausible {
        return Err(neither());
    }
    Ok(Bootstrap { options: Some(any), ..Bootstrap::default() })
}

/// The level nearest to a number of containerd's scale, which leaves room between its names. Of
/// two that are as near, the one that tells more.
fn nearest_level(number: i32) -> LevelFilter {
    match number {
        i32::MIN..=-6 => LevelFilter::Trace,
        -5..=-2 => LevelFilter::Debug,
        -1..=2 => LevelFilter::Info,
        3..=6 => LevelFilter::Warn,
        7..=i32::MAX => LevelFilter::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::{Extension, LogLevel};
    use proptest::prelude::*;
    use protobuf::{EnumOrUnknown, MessageField};

    fn id() -> ContainerId {
        ContainerId::parse("web-1").unwrap()
    }

    fn namespace() -> Namespace {
        Namespace::parse("k8s.io").unwrap()
    }

    fn any_of(type_url: &str, value: &[u8]) -> Any {
        Any { type_url: type_url.to_owned(), value: value.to_vec(), ..Any::default() }
    }

    fn params() -> BootstrapParams {
        BootstrapParams {
            instance_id: "web-1".to_owned(),
            namespace: "k8s.io".to_owned(),
            containerd_version: "2.3.0".to_owned(),
            ..BootstrapParams::default()
        }
    }

    fn bytes(message: &impl Message) -> Vec<u8> {
        message.write_to_bytes().unwrap()
    }

    fn decoded(stdin: &[u8]) -> Result<Bootstrap> {
        decode(stdin, &id(), &namespace())
    }

    fn refused(stdin: &[u8]) -> String {
        let error = decoded(stdin).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
        error.to_string()
    }

    #[test]
    fn an_empty_stdin_says_nothing() {
        assert_eq!(decoded(b"").unwrap(), Bootstrap::default());
        assert_eq!(decoded(&bytes(&any_of("", b""))).unwrap(), Bootstrap::default());
    }

    #[test]
    fn a_bare_any_is_the_options() {
        let options = any_of("types.containerd.io/containerd.runc.v1.Options", &[0x48, 1]);
        let bootstrap = decoded(&bytes(&options)).unwrap();
        assert_eq!(bootstrap, Bootstrap { options: Some(options), ..Bootstrap::default() });
    }

    #[test]
    fn parameters_that_agree_with_the_flags_are_parameters() {
        let wanted = any_of("runtimeoptions.v1.Options", &[]);
        let extension = |value: MessageField<Any>| Extension { value, ..Extension::default() };
        let params = BootstrapParams {
            log_level: LogLevel::LOG_LEVEL_DEBUG.into(),
            containerd_ttrpc_address: "/run/c.sock.ttrpc".to_owned(),
            containerd_grpc_address: "/run/c.sock".to_owned(),
            extensions: vec![
                extension(MessageField::none()),
                extension(MessageField::some(any_of("containerd.io/nri.v1.PluginConfig", &[1]))),
                extension(MessageField::some(wanted.clone())),
            ],
            socket_dir: Some("/run/s".to_owned()),
            ..params()
        };
        let expected = Bootstrap {
            options: Some(wanted),
            ttrpc_address: Some("/run/c.sock.ttrpc".to_owned()),
            grpc_address: Some("/run/c.sock".to_owned()),
            log_level: Some(LevelFilter::Debug),
            socket_dir: Some("/run/s".into()),
            new_format: true,
        };
        assert_eq!(decoded(&bytes(&params)).unwrap(), expected);
    }

    #[test]
    fn what_parameters_leave_empty_is_unset() {
        let params = BootstrapParams { socket_dir: Some(String::new()), ..params() };
        let expected = Bootstrap {
            log_level: Some(LevelFilter::Info),
            new_format: true,
            ..Bootstrap::default()
        };
        assert_eq!(decoded(&bytes(&params)).unwrap(), expected);
    }

    #[test]
    fn parameters_of_another_container_are_not_taken_for_options() {
        for (instance_id, namespace) in [("web-2", "k8s.io"), ("web-1", "moby"), ("a.b", "k8s.io")]
        {
            let params = BootstrapParams {
                instance_id: instance_id.to_owned(),
                namespace: namespace.to_owned(),
                ..params()
            };
            let expected = format!(
                "stdin: BootstrapParams for the container {instance_id:?} in the namespace \
                 {namespace:?}, but the flags say k8s.io/web-1"
            );
            assert_eq!(refused(&bytes(&params)), expected);
        }
    }

    #[test]
    fn garbage_is_refused() {
        let expected = "stdin: 3 bytes that are neither BootstrapParams for k8s.io/web-1 nor an \
                        Any with runtime options";
        assert_eq!(refused(&[0xff, 0xff, 0xff]), expected);
        for type_url in ["nodot", "new.line\n", "spa ce.x", "\u{fc}ber.x"] {
            let message = refused(&bytes(&any_of(type_url, b"x")));
            assert!(message.contains("neither BootstrapParams"), "{message}");
        }
        assert!(refused(br#"{"instance_id": "web-1"}"#).contains("neither"));
    }

    #[test]
    fn a_relative_socket_dir_is_refused() {
        let params = BootstrapParams { socket_dir: Some("s".to_owned()), ..params() };
        assert_eq!(
            refused(&bytes(&params)),
            "stdin: socket_dir: found \"s\", wanted an absolute path"
        );
    }

    #[test]
    fn a_log_level_without_a_name_is_the_nearest_that_has_one() {
        for (number, level) in [
            (i32::MIN, LevelFilter::Trace),
            (-8, LevelFilter::Trace),
            (-5, LevelFilter::Debug),
            (-4, LevelFilter::Debug),
            (-1, LevelFilter::Info),
            (0, LevelFilter::Info),
            (4, LevelFilter::Warn),
            (5, LevelFilter::Warn),
            (8, LevelFilter::Error),
            (10, LevelFilter::Error),
            (12, LevelFilter::Error),
            (i32::MAX, LevelFilter::Error),
        ] {
            let log_level = EnumOrUnknown::from_i32(number);
            let params = BootstrapParams { log_level, ..params() };
            assert_eq!(decoded(&bytes(&params)).unwrap().log_level, Some(level), "{number}");
        }
    }

    #[test]
    fn stdin_is_read_up_to_the_limit() {
        assert_eq!(read_stdin(&b"abc"[..]).unwrap(), b"abc");
        assert_eq!(read_stdin(std::io::repeat(0).take(MAX_SIZE as u64)).unwrap().len(), MAX_SIZE);
        let error = read_stdin(std::io::repeat(0)).unwrap_err();
        assert_eq!(error.to_string(), "stdin: more than the limit of 10 MiB");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(stdin in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Err(error) = decoded(&stdin) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn changed_parameters_do_not_make_it_panic(
            at in 0usize..80, byte: u8, cut in 0usize..80,
        ) {
            let mut stdin = bytes(&BootstrapParams {
                socket_dir: Some("/run/s".to_owned()),
                extensions: vec![Extension {
                    value: MessageField::some(any_of("a.b", b"c")),
                    ..Extension::default()
                }],
                ..params()
            });
            let at = at % stdin.len();
            stdin[at] = byte;
            stdin.truncate(stdin.len().max(cut) - cut);
            if let Err(error) = decoded(&stdin) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn an_any_is_taken_for_parameters_only_where_it_equals_them(
            type_url in prop_oneof!["[ -~]{0,20}", Just("web-1".to_owned())],
            value in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                Just(b"k8s.io".to_vec()),
            ],
        ) {
            let equal = type_url == "web-1" && value == b"k8s.io";
            let stdin = bytes(&any_of(&type_url, &value));
            let new = decoded(&stdin).is_ok_and(|bootstrap| bootstrap.new_format);
            prop_assert_eq!(new, equal);
        }
    }
}
