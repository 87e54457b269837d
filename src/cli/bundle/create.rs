//! `nexcage bundle create`

use crate::bundle::create::cri::{self, CriRequest};
use crate::bundle::create::layout::{Choice, Platform};
use crate::bundle::create::settings::{Mount, Settings, parse_annotation, parse_size};
use crate::bundle::create::stop::Stop;
use crate::bundle::create::{self, Made, Request};
use crate::cli::args::{BundleCreate, Global};
use crate::cli::{Said, failed};
use crate::config::{self, BackendName, Config};
use crate::error::{Context, Error, Result};
use crate::id::Namespace;
use nix::sys::stat::{Mode, umask};
use std::path::Path;

/// Where containerd's CRI plugin has its containers.
const CRI_NAMESPACE: &str = "k8s.io";

/// Makes a bundle, and says where it is. A signal that stops it gives 128 and its number as the
/// exit status, as of a program that it has ended.
pub fn create(global: &Global, mut args: BundleCreate) -> Result<Said> {
    // Folders that an archive has no entry for are everybody's to enter, as in any image.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let cri = cri(global, &mut args)?;
    let request = request(global, args)?;
    let stop = Stop::on_signals()?;
    let made = match cri {
        Some((cri, config)) => cri::create(&cri, &config, request, &stop),
        None => create::create(request, &stop),
    };
    match made {
        Ok(made) => Ok(said(&made)),
        Err(error) => {
            let mut said = failed(global, &error);
            if let Some(signal) = stop.caught() {
                said.status = u8::try_from(signal as i32).map_or(1, |number| 128 | number);
            }
            Ok(said)
        }
    }
}

/// What is asked for by CRI's files, with the settings that choose the backend.
fn cri(global: &Global, args: &mut BundleCreate) -> Result<Option<(CriRequest, Config)>> {
    let (Some(container), Some(pod)) = (args.cri_container.take(), args.cri_sandbox.take()) else {
        return Ok(None);
    };
    let file = global.config.as_deref().unwrap_or(Path::new(config::FILE));
    let config = Config::load(file, &config::Options::default())?;
    let root = args.root.take().or_else(|| global.root.clone());
    let root = root.unwrap_or_else(|| config.state_dir.clone());
    let cri = CriRequest {
        container,
        pod,
        sandbox_id: args.sandbox_id.take(),
        container_id: args.container_id.take(),
        namespace: Namespace::parse(global.namespace.as_deref().unwrap_or(CRI_NAMESPACE))?,
        root: std::path::absolute(root)?,
    };
    Ok(Some((cri, config)))
}

fn said(made: &Made) -> Said {
    let out = format!("{}\n", made.path.display());
    let err = made.notes.iter().map(|note| format!("nexcage: note: {note}\n")).collect();
    Said { status: 0, out, err }
}

fn request(global: &Global, args: BundleCreate) -> Result<Request> {
    let size = |flag: &str, text: Option<String>| {
        text.map(|text| parse_size(&text).context(|| flag.to_owned())).transpose()
    };
    let mut mounts = Vec::new();
    for text in &args.mount {
        mounts.push(Mount::parse(text)?);
    }
    for text in &args.volume {
        mounts.push(Mount::parse_volume(text)?);
    }
    let annotations = args.annotation.iter().map(|text| parse_annotation(text));
    let settings = Settings {
        // As docker has it: an empty one takes away the image's.
        entrypoint: args
            .entrypoint
            .map(|one| Some(one).filter(|one| !one.is_empty()).into_iter().collect()),
        args: args.args,
        env: args.env,
        cwd: args.cwd,
        user: args.user,
        hostname: args.hostname,
        mounts,
        memory: size("--memory", args.memory)?,
        memory_swap: size("--memory-swap", args.memory_swap)?,
        cpus: args.cpus,
        cpu_shares: args.cpu_shares,
        cpuset_cpus: args.cpuset_cpus,
        pids: args.pids_limit,
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        read_only: args.read_only,
        terminal: args.tty,
        annotations: annotations.collect::<Result<_>>()?,
    };
    let platform = args.platform.map(|text| Platform::parse(&text)).transpose()?;
    let most_bytes = size("--max-size", Some(args.max_size))?.and_then(|size| size.try_into().ok());
    let backend = global.runtime_type.as_deref().map(BackendName::parse).transpose()?;
    Ok(Request {
        rootfs: args.rootfs,
        overlay: args.overlay,
        choice: Choice { reference: args.reference, platform },
        template: args.template,
        settings,
        backend,
        most_bytes: most_bytes
            .ok_or_else(|| Error::invalid("--max-size: wanted a size, and -1 is none"))?,
        devices: args.devices,
        ..Request::new(args.path.unwrap_or_default())
    })
}
