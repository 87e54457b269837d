//! `-info`: what this runtime is and can do, for containerd 2.x.

use super::bootstrap;
use crate::backend::features;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::io::Read;

/// The type under which containerd decodes runtime-spec's Features, as JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

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
    let name = config.default_container_type;
    let features = features::of(name, &config)?.to_string().into_bytes();
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
