//! Between containerd's messages and nexcage's own types, both ways; the only place that knows
//! ttrpc's codes.

use crate::backend::Checkpoint;
use crate::container::{CreateRequest, Ended, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::id::{ContainerId, ExecId, Namespace};
use crate::stdio;
use crate::store::Status;
use crate::sys::mount::Mount;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CreateTaskRequest, DeleteResponse, ExecProcessRequest, ForwardRequest,
    PidsResponse, StateResponse, WaitResponse,
};
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::oci::{CheckpointOptions, ProcessDetails};
use containerd_shim_protos::topics;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use ttrpc::Code;

/// An error as containerd's errdefs understand it.
pub(super) fn status(error: Error) -> ttrpc::Error {
    let code = match error.kind() {
        Kind::NotFound => Code::NOT_FOUND,
        Kind::AlreadyExists => Code::ALREADY_EXISTS,
        Kind::FailedPrecondition => Code::FAILED_PRECONDITION,
        Kind::InvalidArgument => Code::INVALID_ARGUMENT,
        Kind::Unimplemented => Code::UNIMPLEMENTED,
        Kind::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
        Kind::Unavailable => Code::UNAVAILABLE,
        Kind::Unknown => Code::UNKNOWN,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error.to_string()))
}

/// Pids are never negative here.
pub(super) fn pid(pid: i32) -> u32 {
    u32::try_from(pid).unwrap_or(0)
}

pub(super) fn create(request: CreateTaskRequest, namespace: &Namespace) -> Result<CreateRequest> {
    Ok(CreateRequest {
        namespace: namespace.clone(),
        id: ContainerId::parse(&request.id)?,
        bundle: PathBuf::from(request.bundle),
        rootfs: request
            .rootfs
            .into_iter()
            .map(|mount| Mount {
                kind: mount.type_,
                source: mount.source,
                target: mount.target,
                options: mount.options,
            })
            .collect(),
        io: stdio::Request {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
        checkpoint: request.checkpoint,
    })
}

/// The process's JSON and its stdio.
pub(super) fn exec(request: ExecProcessRequest) -> (Vec<u8>, stdio::Request) {
    let io = stdio::Request {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    (request.spec.into_option().unwrap_or_default().value, io)
}

pub(super) fn checkpoint(request: &CheckpointTaskRequest) -> Result<Checkpoint> {
    let options = match request.options.as_ref().filter(|any| !any.type_url.is_empty()) {
        None => CheckpointOptions::default(),
        Some(any) if any.type_url.ends_with("containerd.runc.v1.CheckpointOptions") => {
            CheckpointOptions::parse_from_bytes(&any.value)
                .map_err(|error| Error::invalid(format!("checkpoint options: {error}")))?
        }
        Some(any) => {
            return Err(Error::invalid(format!(
                "checkpoint options of type {:?}: only containerd.runc.v1.CheckpointOptions \
                 are understood",
                any.type_url
            )));
        }
    };
    let image = if request.path.is_empty() { options.image_path } else { request.path.clone() };
    Ok(Checkpoint {
        image: PathBuf::from(image),
        work: PathBuf::from(options.work_path),
        exit: options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        terminal: options.terminal,
        file_locks: options.file_locks,
        empty_namespaces: options.empty_namespaces,
        cgroups_mode: options.cgroups_mode,
        flags: Vec::new(),
    })
}

pub(super) fn deleted((process, exit): Ended) -> DeleteResponse {
    DeleteResponse {
        pid: pid(process),
        exit_status: exit.status,
        exited_at: MessageField::some(exit.at.into()),
        ..Default::default()
    }
}

pub(super) fn waited((_, exit): Ended) -> WaitResponse {
    WaitResponse {
        exit_status: exit.status,
        exited_at: MessageField::some(exit.at.into()),
        ..Default::default()
    }
}

pub(super) fn state(
    id: &str,
    exec: Option<&ExecId>,
    bundle: &Path,
    io: &stdio::Request,
    snapshot: &Snapshot,
) -> StateResponse {
    use containerd_shim_protos::types::task::Status as Wire;
    let status = match snapshot.status {
        // Not yet created is not a status of the API; a creation's caller has not been answered.
        Status::Creating | Status::Created => Wire::CREATED,
        Status::Running => Wire::RUNNING,
        Status::Paused => Wire::PAUSED,
        Status::Stopped => Wire::STOPPED,
    };
    StateResponse {
        id: id.to_owned(),
        exec_id: exec.map(ToString::to_string).unwrap_or_default(),
        bundle: bundle.to_string_lossy().into_owned(),
        pid: pid(snapshot.pid),
        status: status.into(),
        stdin: io.stdin.clone(),
        stdout: io.stdout.clone(),
        stderr: io.stderr.clone(),
        terminal: io.terminal,
        exit_status: snapshot.exit.map_or(0, |exit| exit.status),
        exited_at: snapshot.exit.map(|exit| exit.at.into()).into(),
        ..Default::default()
    }
}

pub(super) fn pids(pids: Vec<(i32, Option<ExecId>)>) -> PidsResponse {
    let processes = pids
        .into_iter()
        .map(|(process, exec)| {
            let details = exec.map(|exec| {
                let details =
                    ProcessDetails { exec_id: exec.to_string(), ..ProcessDetails::default() };
                any("containerd.runc.v1.ProcessDetails", &details)
            });
            containerd_shim_protos::types::task::ProcessInfo {
                pid: pid(process),
                info: details.into(),
                ..Default::default()
            }
        })
        .collect();
    PidsResponse { processes, ..Default::default() }
}

/// A message in an Any, under its bare name, as Go's typeurl writes it.
pub(super) fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: name.to_owned(),
        // Only a message over 2 GiB cannot be encoded.
        value: message.write_to_bytes().unwrap_or_default(),
        ..Any::default()
    }
}

/// An event as containerd's event service takes it.
pub(super) fn forward(namespace: &str, event: &Event) -> ForwardRequest {
    let (topic, event) = encode(event);
    let envelope = Envelope {
        timestamp: MessageField::some(SystemTime::now().into()),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: MessageField::some(event),
        ..Default::default()
    };
    ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() }
}

fn encode(event: &Event) -> (&'static str, Any) {
    match event {
        Event::Create(created) => {
            let rootfs = created
                .rootfs
                .iter()
                .map(|mount| containerd_shim_protos::types::mount::Mount {
                    type_: mount.kind.clone(),
                    source: mount.source.clone(),
                    target: mount.target.clone(),
                    options: mount.options.clone(),
                    ..Default::default()
                })
                .collect();
            let io = events::TaskIO {
                stdin: created.stdin.clone(),
                stdout: created.stdout.clone(),
                stderr: created.stderr.clone(),
                terminal: created.terminal,
                ..Default::default()
            };
            let message = events::TaskCreate {
                container_id: created.id.to_string(),
                bundle: created.bundle.to_string_lossy().into_owned(),
                rootfs,
                io: MessageField::some(io),
                checkpoint: created.checkpoint.clone(),
                pid: pid(created.pid),
                ..Default::default()
            };
            (topics::TASK_CREATE_EVENT_TOPIC, any("containerd.events.TaskCreate", &message))
        }
        Event::Start { id, pid: process } => {
            let message = events::TaskStart {
                container_id: id.to_string(),
                pid: pid(*process),
                ..Default::default()
            };
            (topics::TASK_START_EVENT_TOPIC, any("containerd.events.TaskStart", &message))
        }
        Event::ExecAdded { id, exec } => {
            let message = events::TaskExecAdded {
                container_id: id.to_string(),
                exec_id: exec.to_string(),
                ..Default::default()
            };
            (topics::TASK_EXEC_ADDED_EVENT_TOPIC, any("containerd.events.TaskExecAdded", &message))
        }
        Event::ExecStarted { id, exec, pid: process } => {
            let message = events::TaskExecStarted {
                container_id: id.to_string(),
                exec_id: exec.to_string(),
                pid: pid(*process),
                ..Default::default()
            };
            let topic = topics::TASK_EXEC_STARTED_EVENT_TOPIC;
            (topic, any("containerd.events.TaskExecStarted", &message))
        }
        Event::Exit { id, exec, pid: process, exit } => {
            let message = events::TaskExit {
                container_id: id.to_string(),
                id: exec.as_ref().map_or_else(|| id.to_string(), ToString::to_string),
                pid: pid(*process),
                exit_status: exit.status,
                exited_at: MessageField::some(exit.at.into()),
                ..Default::default()
            };
            (topics::TASK_EXIT_EVENT_TOPIC, any("containerd.events.TaskExit", &message))
        }
        Event::Oom { id } => {
            let message = events::TaskOOM { container_id: id.to_string(), ..Default::default() };
            (topics::TASK_OOM_EVENT_TOPIC, any("containerd.events.TaskOOM", &message))
        }
        Event::Paused { id } => {
            let message = events::TaskPaused { container_id: id.to_string(), ..Default::default() };
            (topics::TASK_PAUSED_EVENT_TOPIC, any("containerd.events.TaskPaused", &message))
        }
        Event::Resumed { id } => {
            let message =
                events::TaskResumed { container_id: id.to_string(), ..Default::default() };
            (topics::TASK_RESUMED_EVENT_TOPIC, any("containerd.events.TaskResumed", &message))
        }
        Event::Checkpointed { id, image } => {
            let message = events::TaskCheckpointed {
                container_id: id.to_string(),
                checkpoint: image.to_string_lossy().into_owned(),
                ..Default::default()
            };
            let topic = topics::TASK_CHECKPOINTED_EVENT_TOPIC;
            (topic, any("containerd.events.TaskCheckpointed", &message))
        }
        Event::Delete { id, pid: process, exit } => {
            let message = events::TaskDelete {
                container_id: id.to_string(),
                id: id.to_string(),
                pid: pid(*process),
                exit_status: exit.status,
                exited_at: MessageField::some(exit.at.into()),
                ..Default::default()
            };
            (topics::TASK_DELETE_EVENT_TOPIC, any("containerd.events.TaskDelete", &message))
        }
    }
}
