//! `-info`: what this runtime is and can do, for containerd 2.x.

use super::bootstrap;
use crate::backend::oci;
use crate::config::{self, Config};
use crate::error::{Context, Error, Result};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use oci_spec::runtime::Features;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// The type under which containerd decodes runtime-spec's Features, as JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// How long a runtime may take to tell its features, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX: u64 = 1 << 20;

/// Reads options from `stdin`, and describes the runtime that they choose.
pub(super) fn info(stdin: impl Read) -> Result<Vec<u8>> {
    let stdin = bootstrap::read_stdin(stdin)?;
    let options = if stdin.is_empty() {
        None
    } else {
        let any = Any::parse_from_bytes(&stdin)
            .map_err(|error| Error::invalid(format!("standard input is no Any: {error}")))?;
        Some(any)
    };
    let parsed = options.as_ref().map(config::from_any).transpose()?;
    let config = Config::load(config::FILE.as_ref(), &parsed.unwrap_or_default())?;
    let features = features(&config)?;
    let info = RuntimeInfo {
        name: "io.containerd.nexcage.v1".to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("NEXCAGE_REVISION").to_owned(),
            ..RuntimeVersion::default()
        }),
        options: options.into(),
        features: MessageField::some(Any {
            type_url: FEATURES.to_owned(),
            value: features,
            ..Any::default()
        }),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes().map_err(|error| Error::unknown(error.to_string()))
}

/// The features of the default backend's runtime: its own account, checked to be of the type
/// containerd expects. crun before 1.8.6 gives none: then only what every runtime has is said.
fn features(config: &Config) -> Result<Vec<u8>> {
    let name = config.default_container_type;
    let program = oci::find_program(name, &oci::settings(name, config)?.program)?;
    let said = run_bounded(&program)?;
    let is_account = serde_json::from_slice::<Features>(&said).is_ok();
    let least = br#"{"ociVersionMin":"1.0.0","ociVersionMax":"1.0.2"}"#;
    Ok(if is_account { said } else { least.to_vec() })
}

/// What the program prints of its features. containerd waits for the answer while it starts: one
/// that hangs is killed, and has said nothing.
fn run_bounded(program: &Path) -> Result<Vec<u8>> {
    let mut child = std::process::Command::new(program)
        .arg("features")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(|| format!("run {} features", program.display()))?;
    let (send, said) = std::sync::mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read is no account of features, and is found to be none.
            drop(stdout.by_ref().take(MAX).read_to_end(&mut bytes));
            // Nobody listens any more once the time is up.
            drop(send.send(bytes));
        });
    }
    let said = said.recv_timeout(PATIENCE).unwrap_or_default();
    // It has ended by itself, or it hangs.
    drop(child.kill());
    child.wait().context(|| format!("wait for {}", program.display()))?;
    Ok(said)
}
