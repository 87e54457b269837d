//! `delete`: what containerd runs when it wants a container gone and the supervisor is not there
//! to ask, and once more after every ordinary end. It has 5 s.

use super::args::{Args, Target};
use super::bootstrap::Bootstrap;
use super::start::socket_path;
use crate::backend::Place;
use crate::config::{self, Config, Options};
use crate::error::{Context, Result};
use crate::postmortem;
use crate::store::{self, Folder};
use crate::sys::{process, reaper};
use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

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
    let socket = socket_of(args, &place)?;
    let found = inode(&socket);
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
    // By now the next supervisor of that name may have one of its own there.
    if found.is_some() && inode(&socket) == found {
        remove_dead(&socket)?;
    }
    let response = DeleteResponse {
        pid: u32::try_from(remains.pid).unwrap_or(0),
        exit_status: remains.exit.status,
        exited_at: protobuf::MessageField::some(remains.exit.at.into()),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().map_err(|error| crate::error::Error::unknown(error.to_string()))
}

/// Where the supervisor of that container listens, or did.
fn socket_of(args: &Args, place: &Place) -> Result<PathBuf> {
    let usual = socket_path(args, &Bootstrap::default(), &place.id, &place.namespace)?;
    // containerd may have told `start` of another folder.
    let noted = fs::read_to_string(place.bundle.join("address")).unwrap_or_default();
    let noted = noted.strip_prefix("unix://").map(PathBuf::from);
    Ok(noted.filter(|noted| noted.file_name() == usual.file_name()).unwrap_or(usual))
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|file| file.ino())
}

/// Removes the socket of a supervisor that was killed; one that lives removes its own.
fn remove_dead(socket: &Path) -> Result<()> {
    match UnixStream::connect(socket) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).context(|| format!("remove {}", socket.display()))
        }
        _ => Ok(()),
    }
}
