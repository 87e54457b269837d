//! `delete`: what containerd runs when it wants a container gone and the supervisor is not there
//! to ask, and once more after every ordinary end. It has 5 s.

use super::args::{Args, Target};
use crate::backend::Place;
use crate::config::{self, Config, Options};
use crate::error::{Context, Result};
use crate::postmortem;
use crate::store::{self, Folder};
use crate::sys::{process, reaper};
use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;
use std::path::Path;

pub(super) fn delete(target: &Target, args: &Args) -> Result<Vec<u8>> {
    let Target { id, namespace } = target.clone();
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        // containerd gives the flag and the working directory; the latter is gone with a bundle
        // that is half removed.
        None => std::env::current_dir().unwrap_or_default(),
    };
    // What is removed in the end must be this container's, whatever a bundle says.
    let own = Path::new(namespace.as_str()).join(id.as_str());
    let folder = match store::noted_in(&bundle).filter(|noted| noted.path().ends_with(&own)) {
        Some(folder) => folder,
        None => Folder::of(
            &Config::load(config::FILE.as_ref(), &Options::default())?.state_dir,
            &namespace,
            &id,
        ),
    };
    let place = Place { namespace, id, bundle, folder };
    let remains = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context(|| "start the runtime")?
        .block_on(async {
            // What the runtime leaves behind while it deletes is reaped here.
            process::become_subreaper()?;
            reaper::start()?;
            postmortem::clean(&place).await
        })
        .context(|| format!("clean up container {}", place.id))?;
    let response = DeleteResponse {
        pid: u32::try_from(remains.pid).unwrap_or(0),
        exit_status: remains.exit.status,
        exited_at: protobuf::MessageField::some(remains.exit.at.into()),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().map_err(|error| crate::error::Error::unknown(error.to_string()))
}
