//! `exec`: one more process in a container.

use super::args::Exec;
use super::foreground::{Foreground, Terminal};
use super::output::{self, inherited_io};
use super::runtime::{Found, Runtime, absolute, block_on};
use super::{Said, life};
use crate::backend::ProcessIo;
use crate::config::input::{self, Links};
use crate::container::{GRACE, Op, unless_dead};
use crate::error::{Context, Error, Result};
use crate::id::ExecId;
use crate::spec;
use crate::store::Status;
use crate::sys::{process, reaper};
use serde_json::{Value, json};
use std::path::Path;

/// `nexcage exec`
///
/// # Errors
/// `NotFound`, `FailedPrecondition` in a container that does not run, `InvalidArgument` for what
/// is wrong with the process; what the backend says.
pub fn exec(runtime: &Runtime, args: &Exec) -> Result<Said> {
    let found = runtime.find(&args.id)?;
    let doing = || format!("exec in container {}", args.id);
    let status = run(&found, args).context(doing)?;
    Ok(Said { status, ..Said::default() })
}

fn run(found: &Found, args: &Exec) -> Result<u8> {
    let mut more = output::passed_fds(args.preserve_fds)?;
    match found.status() {
        Status::Stopped => {
            return Err(Error::precondition(
                "cannot exec in a stopped container: container not running",
            ));
        }
        Status::Paused if args.ignore_paused => more.flags.push("--ignore-paused".to_owned()),
        Status::Paused => {
            return Err(Error::precondition(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        status => Op::Exec.allowed_when(status)?,
    }
    if let Some(cgroup) = &args.cgroup {
        more.flags.extend(["--cgroup".to_owned(), cgroup.clone()]);
    }
    let process = match &args.process {
        Some(file) => described_in(file, args)?,
        None => described_by(found, args)?,
    };
    let process = process.to_string().into_bytes();
    let terminal = spec::parse_process(&process)?;
    let given = args.console_socket.as_deref().map(absolute).transpose()?;
    match (terminal, &given) {
        (true, None) if args.detach => {
            return Err(Error::invalid(
                "cannot allocate tty if it will detach without setting console socket: give \
                 --console-socket, or no terminal",
            ));
        }
        (false, Some(_)) => {
            return Err(Error::invalid("--console-socket is for a process with a terminal"));
        }
        _ => {}
    }
    if args.detach {
        reaper::leave_to_others();
    } else {
        process::become_subreaper()?;
    }
    let backend = found.backend()?;
    block_on(async {
        let own = (terminal && given.is_none()).then(|| Terminal::new(&found.place)).transpose()?;
        let console_socket = own.as_ref().map(|own| own.path().to_owned()).or(given);
        let mut foreground = match args.detach {
            true => None,
            false => Some(Foreground::catch_signals()?),
        };
        let io = ProcessIo { child: inherited_io()?, console_socket, more };
        let id = ExecId::parse(&format!("cli-{}", std::process::id()))?;
        let init = life::init_of(found)?;
        let made = unless_dead(&init, GRACE, backend.exec(&id, &process, io)).await?;
        let told =
            output::tell_pid(made.pid(), args.pidfd_socket.as_deref(), args.pid_file.as_deref());
        if let Err(error) = told {
            // Nobody will wait for it.
            drop(made.signal(libc::SIGKILL));
            return Err(error);
        }
        let Some(foreground) = &mut foreground else { return Ok(0) };
        let attached = match own {
            Some(own) => Some(own.attach().await?),
            None => None,
        };
        let exit = foreground.until_end(&made, attached).await;
        Ok(u8::try_from(exit.status).unwrap_or(u8::MAX))
    })
}

/// The process that a file describes; a terminal may be asked for beside it.
fn described_in(file: &Path, args: &Exec) -> Result<Value> {
    let text = input::read(file, spec::MAX_REQUEST, Links::Follow)?
        .ok_or_else(|| Error::not_found(format!("{}: no such file", file.display())))?;
    let mut process: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(format!("{}: {error}", file.display())))?;
    if args.tty && process.is_object() {
        process["terminal"] = true.into();
    }
    Ok(process)
}

/// The container's own process with what the flags say differently, as runc does it.
fn described_by(found: &Found, args: &Exec) -> Result<Value> {
    if args.args.is_empty() {
        return Err(Error::invalid("no command: give one, or --process FILE"));
    }
    let path = found.place.bundle.join("config.json");
    let text = input::read(&path, spec::MAX_SIZE, Links::Refuse)?
        .ok_or_else(|| Error::not_found(format!("{}: no such file", path.display())))?;
    let spec: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
    let mut process = spec["process"].clone();
    if !process.is_object() {
        return Err(Error::invalid(format!("{}: it has no process", path.display())));
    }
    process["args"] = json!(args.args);
    process["terminal"] = args.tty.into();
    if let Some(cwd) = &args.cwd {
        process["cwd"] = json!(cwd.to_string_lossy());
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    if let Some(env) = process["env"].as_array_mut() {
        let names: Vec<_> = args.env.iter().map(|entry| name(entry)).collect();
        env.retain(|entry| !entry.as_str().is_some_and(|entry| names.contains(&name(entry))));
    }
    extend(&mut process["env"], args.env.iter().map(|entry| json!(entry)));
    if let Some(profile) = &args.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = &args.process_label {
        process["selinuxLabel"] = json!(label);
    }
    if args.no_new_privs {
        process["noNewPrivileges"] = true.into();
    }
    for cap in &args.cap {
        let upper = cap.to_ascii_uppercase();
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        for set in ["bounding", "effective", "permitted"] {
            extend(&mut process["capabilities"][set], [json!(name)]);
        }
    }
    if let Some(user) = &args.user {
        let wrong = || Error::invalid(format!("--user {user:?} is neither UID nor UID:GID"));
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        process["user"]["uid"] = uid.parse::<u32>().map_err(|_| wrong())?.into();
        if !gid.is_empty() {
            process["user"]["gid"] = gid.parse::<u32>().map_err(|_| wrong())?.into();
        }
    }
    extend(
        &mut process["user"]["additionalGids"],
        args.additional_gids.iter().map(|gid| json!(gid)),
    );
    Ok(process)
}

/// Adds to an array that may not be there yet; what is in it already is not added again.
fn extend(array: &mut Value, more: impl IntoIterator<Item = Value>) {
    for value in more {
        match array.as_array_mut() {
            Some(values) if values.contains(&value) => {}
            Some(values) => values.push(value),
            None => *array = json!([value]),
        }
    }
}
