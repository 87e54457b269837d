//! `start`: binds the socket, leaves the supervisor behind, prints the address.
//!
//! The parent binds and the child inherits, so a client that has the address can connect at
//! once and there is no moment in which two supervisors could bind the same path. The child is
//! made by fork alone: an exec of the same program would cost its start-up once more. A pipe
//! tells whether the child came up; what it failed with is this program's own error.

use super::args::{Args, Target};
use super::bootstrap::{self, Bootstrap};
use super::{log, serve};
use crate::config::{self, Config};
use crate::error::{Context, Error, Result};
use crate::id::{ContainerId, Namespace};
use crate::store::create_private;
use crate::sys::process::{self, Fork};
use ::log::LevelFilter;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// containerd's own folder for the sockets of shims.
const SOCKET_DIR: &str = "/run/containerd/s";

/// sockaddr_un has room for 108 bytes with the final zero; containerd refuses above 106.
const MAX_SOCKET_PATH: usize = 106;

/// What the supervisor is told by its start.
pub(super) struct Serve {
    pub(super) namespace: Namespace,
    pub(super) id: ContainerId,
    pub(super) listener: UnixListener,
    pub(super) socket: PathBuf,
    pub(super) config: Config,
    pub(super) ttrpc_address: Option<String>,
}

pub(super) fn start(target: &Target, args: &Args) -> Result<Vec<u8>> {
    let Target { id, namespace } = target.clone();
    let bundle = std::env::current_dir().context(|| "find the bundle, the working directory")?;
    let stdin = bootstrap::read_stdin(std::io::stdin())?;
    let bootstrap = bootstrap::decode(&stdin, &id, &namespace)?;
    let options = bootstrap.options.as_ref().map(config::from_any).transpose()?;
    let config = Config::load(config::FILE.as_ref(), &options.unwrap_or_default())?;
    let socket = socket_path(args, &bootstrap, &id, &namespace)?;
    let Some(listener) = bind(&socket)? else {
        // A live supervisor has this id already: containerd is given that one.
        return reply(&bundle, &socket);
    };
    let level = match bootstrap.log_level {
        Some(level) => level,
        None if args.debug => LevelFilter::Debug,
        None => LevelFilter::Info,
    };
    let ttrpc_address = bootstrap
        .ttrpc_address
        .or_else(|| std::env::var("TTRPC_ADDRESS").ok())
        .filter(|address| !address.is_empty());
    let containerd = nix::unistd::getppid().as_raw();
    let (ready, tell) = std::io::pipe().context(|| "make a pipe")?;
    let serve = Serve { namespace, id, listener, socket: socket.clone(), config, ttrpc_address };
    match process::fork()? {
        Fork::Parent(_) => {
            drop(tell);
            drop(serve);
            wait_until_ready(ready).inspect_err(|_| drop(fs::remove_file(&socket)))?;
            reply(&bundle, &socket)
        }
        Fork::Child => {
            drop(ready);
            let mut tell = Some(tell);
            let result = process::detach().and_then(|()| {
                log::init(serve.namespace.as_str(), level);
                log::add(&serve.id, &bundle);
                prepare(containerd, &serve.config);
                serve::serve(serve, &mut tell)
            });
            if let Err(error) = &result {
                // Once the parent has gone it is the log that has it.
                if let Some(mut tell) = tell {
                    drop(write!(tell, "{error}"));
                }
                ::log::error!("{error}");
            }
            std::process::exit(i32::from(result.is_err()))
        }
    }
}

/// The file containerd 1.7 finds a sandbox's supervisor by, and the reply.
fn reply(bundle: &Path, socket: &Path) -> Result<Vec<u8>> {
    let address = format!("unix://{}", socket.display());
    let file = bundle.join("address");
    // Two starts may be at it at once.
    let new = bundle.join(format!("address.{}", std::process::id()));
    fs::write(&new, &address)
        .and_then(|()| fs::rename(&new, &file))
        .context(|| format!("write {}", file.display()))?;
    Ok(address.into_bytes())
}

fn wait_until_ready(mut ready: impl Read) -> Result<()> {
    let mut said = String::new();
    ready.read_to_string(&mut said).context(|| "wait for the supervisor")?;
    match said.strip_prefix('+') {
        Some("") => Ok(()),
        None if said.is_empty() => Err(Error::unknown("the supervisor died while it started")),
        _ => Err(Error::unknown(said)),
    }
}

/// Where the supervisor listens: a name of fixed length, made of what tells containers apart, so
/// that a second `start` finds the first one's socket.
pub(super) fn socket_path(
    args: &Args,
    bootstrap: &Bootstrap,
    id: &ContainerId,
    namespace: &Namespace,
) -> Result<PathBuf> {
    let given = args.address.as_deref().unwrap_or(Path::new(""));
    let grpc = bootstrap.grpc_address.as_deref().map_or(given, Path::new);
    let dir = bootstrap.socket_dir.as_deref().unwrap_or(Path::new(SOCKET_DIR));
    let identity = grpc.join(namespace.as_str()).join(id.as_str());
    let digest = Sha256::digest(identity.as_os_str().as_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = dir.join(name);
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Error::invalid(format!(
            "the socket {} is longer than {MAX_SOCKET_PATH} characters: choose a shorter \
             socket_dir",
            path.display()
        )));
    }
    Ok(path)
}

/// Binds the socket, for root alone; `None` when a live supervisor listens there. The file of a
/// dead one is replaced.
fn bind(path: &Path) -> Result<Option<UnixListener>> {
    if let Some(dir) = path.parent() {
        create_private(dir)?;
    }
    // Two attempts: the dead one's file may go between the look and the removal.
    for _ in 0..2 {
        match UnixListener::bind(path) {
            Ok(listener) => {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                    .context(|| format!("chmod {}", path.display()))?;
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Ok(None);
                }
                drop(fs::remove_file(path));
            }
            Err(error) => return Err(error).context(|| format!("listen on {}", path.display())),
        }
    }
    Err(Error::unknown(format!("{} is taken again and again", path.display())))
}

/// What can be done without and is only said in the log: a host may not let it.
fn prepare(containerd: i32, config: &Config) {
    process::drop_last_argument();
    if let Err(error) = process::raise_open_files() {
        ::log::warn!("{error}");
    }
    if let Err(error) = std::env::set_current_dir("/") {
        ::log::warn!("leave the bundle: {error}");
    }
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty())
        && let Err(error) = process::new_core_scheduling_cookie()
    {
        ::log::warn!("SCHED_CORE is set, but: {error}");
    }
    if let Err(error) = adjust_oom_score(containerd) {
        ::log::warn!("{error}");
    }
    if let Some(cgroup) = &config.shim_cgroup
        && let Err(error) = crate::sys::cgroup::join(cgroup)
    {
        ::log::warn!("join shim_cgroup {cgroup}: {error}");
    }
}

/// One more than containerd's: when memory is short the kernel takes a supervisor before it takes
/// containerd, and takes neither while there is a container to take.
fn adjust_oom_score(containerd: i32) -> Result<()> {
    const MIN: i32 = -998;
    const MAX: i32 = 1000;
    let path = format!("/proc/{containerd}/oom_score_adj");
    let score = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    let score: i32 =
        score.trim().parse().map_err(|_| Error::unknown(format!("{path}: {score}")))?;
    let score = (score + 1).clamp(MIN, MAX);
    // In one write: formatted into the file, a negative number would be its sign and then the rest.
    fs::write("/proc/self/oom_score_adj", score.to_string())
        .context(|| format!("set the OOM score to {score}"))
}
