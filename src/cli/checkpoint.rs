//! `checkpoint` and `restore`, which crun and runc do with criu.

use super::args::{CheckpointArgs, Criu, Restore};
use super::create::Making;
use super::runtime::{Runtime, absolute};
use super::{Said, life};
use crate::backend::Checkpoint;
use crate::error::{Context, Error, Result};
use std::path::Path;

/// `nexcage checkpoint`
///
/// # Errors
/// `NotFound`, `FailedPrecondition` unless it runs, `Unimplemented` where the backend has none;
/// what the backend says.
pub fn checkpoint(runtime: &Runtime, args: &CheckpointArgs) -> Result<Said> {
    let criu = &args.criu;
    let mut flags = shared_flags(criu)?;
    if let Some(server) = &criu.page_server {
        flags.extend(["--page-server".to_owned(), server.clone()]);
    }
    if args.pre_dump {
        flags.push("--pre-dump".to_owned());
    }
    let what = Checkpoint {
        image: absolute(&criu.image_path)?,
        work: criu.work_path.as_deref().map(absolute).transpose()?.unwrap_or_default(),
        exit: !(args.leave_running || args.pre_dump),
        open_tcp: criu.tcp_established,
        external_unix_sockets: criu.ext_unix_sk,
        terminal: criu.shell_job,
        file_locks: criu.file_locks,
        empty_namespaces: criu.empty_ns.clone(),
        cgroups_mode: criu.manage_cgroups_mode.clone().unwrap_or_default(),
        flags,
    };
    life::checkpoint(runtime, &args.id, &what)
}

/// `nexcage restore`
///
/// # Errors
/// As `create`; `Unimplemented` where the backend has none.
pub fn restore(mut runtime: Runtime, args: Restore) -> Result<Said> {
    let doing = || format!("restore container {}", args.id);
    let criu = &args.criu;
    let mut flags = shared_flags(criu)?;
    if criu.page_server.is_some() {
        return Err(Error::invalid("--page-server: an image is restored from a folder"));
    }
    let switches = [
        (criu.tcp_established, "--tcp-established"),
        (criu.ext_unix_sk, "--ext-unix-sk"),
        (criu.shell_job, "--shell-job"),
        (criu.file_locks, "--file-locks"),
    ];
    flags.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()));
    let work = criu.work_path.as_deref().map(absolute).transpose()?;
    let values = [
        ("--work-path", work.map(|path| path.to_string_lossy().into_owned())),
        ("--manage-cgroups-mode", criu.manage_cgroups_mode.clone()),
        ("--lsm-profile", args.lsm_profile.clone()),
        ("--lsm-mount-context", args.lsm_mount_context.clone()),
    ];
    for (flag, value) in values {
        flags.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    flags.extend(criu.empty_ns.iter().flat_map(|name| ["--empty-ns".to_owned(), name.clone()]));
    let image = absolute(&criu.image_path)?;
    if !image.is_dir() {
        return Err(Error::not_found(format!("there is no image {}", image.display())))
            .context(doing);
    }
    let making = Making::new(&mut runtime, &args.id, None, args.make.clone()).context(doing)?;
    let making = making.of_image(image, flags);
    if args.detach {
        making.restore_detached().context(doing)?;
        return Ok(Said::default());
    }
    let status = making.restore_in_foreground(args.no_subreaper).context(doing)?;
    Ok(Said { status, ..Said::default() })
}

/// What is passed on as it is.
fn shared_flags(criu: &Criu) -> Result<Vec<String>> {
    if criu.status_fd.is_some() {
        return Err(Error::unimplemented("--status-fd: no descriptor is passed on to criu"));
    }
    let switches = [
        (criu.tcp_skip_in_flight, "--tcp-skip-in-flight"),
        (criu.link_remap, "--link-remap"),
        (criu.lazy_pages, "--lazy-pages"),
        (criu.auto_dedup, "--auto-dedup"),
    ];
    let switches = switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned());
    let parent = criu.parent_path.as_deref().map(Path::to_string_lossy);
    let parent =
        parent.into_iter().flat_map(|path| ["--parent-path".to_owned(), path.into_owned()]);
    Ok(switches.chain(parent).collect())
}
