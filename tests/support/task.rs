//! A client of the task API that speaks either version: they differ in the service's name only.

use super::start::Address;
use containerd_shim_protos::api;
use protobuf::Message;
use std::fmt::Debug;
use std::time::Duration;
use ttrpc::asynchronous::Client;
use ttrpc::proto::Request;
use ttrpc::{Code, Error};

/// How long an answer may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a supervisor. The exec id of every call is empty for the container itself.
#[derive(Clone)]
pub struct Task {
    client: Client,
    version: u32,
}

type Result<T> = ttrpc::Result<T>;

impl Task {
    /// Connects, to speak the version that containerd would.
    pub async fn connect(address: &Address) -> Self {
        let client = Client::connect(&address.address).await;
        let client = client.unwrap_or_else(|error| panic!("connect to {address:?}: {error}"));
        Self { client, version: address.version }
    }

    /// The same connection, speaking this version.
    #[must_use]
    pub fn speaking(&self, version: u32) -> Self {
        Self { client: self.client.clone(), version }
    }

    /// Calls any method with any request.
    pub async fn call<A: Message>(&self, method: &str, request: &impl Message) -> Result<A> {
        let request = Request {
            service: format!("containerd.task.v{}.Task", self.version),
            method: method.to_owned(),
            payload: request.write_to_bytes().unwrap(),
            timeout_nano: PATIENCE.as_nanos() as i64,
            ..Request::default()
        };
        let answer = self.client.request(request).await?;
        Ok(A::parse_from_bytes(&answer.payload).expect("an answer of the wrong type"))
    }

    /// State
    pub async fn state(&self, id: &str, exec: &str) -> Result<api::StateResponse> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        self.call("State", &api::StateRequest { id, exec_id, ..Default::default() }).await
    }

    /// Create; returns the pid.
    pub async fn create(&self, request: &api::CreateTaskRequest) -> Result<u32> {
        self.call::<api::CreateTaskResponse>("Create", request).await.map(|answer| answer.pid)
    }

    /// Start; returns the pid.
    pub async fn start(&self, id: &str, exec: &str) -> Result<u32> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = api::StartRequest { id, exec_id, ..Default::default() };
        self.call::<api::StartResponse>("Start", &request).await.map(|answer| answer.pid)
    }

    /// Delete
    pub async fn delete(&self, id: &str, exec: &str) -> Result<api::DeleteResponse> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        self.call("Delete", &api::DeleteRequest { id, exec_id, ..Default::default() }).await
    }

    /// Pids
    pub async fn pids(&self, id: &str) -> Result<api::PidsResponse> {
        let id = id.to_owned();
        self.call("Pids", &api::PidsRequest { id, ..Default::default() }).await
    }

    /// Pause
    pub async fn pause(&self, id: &str) -> Result<api::Empty> {
        let id = id.to_owned();
        self.call("Pause", &api::PauseRequest { id, ..Default::default() }).await
    }

    /// Resume
    pub async fn resume(&self, id: &str) -> Result<api::Empty> {
        let id = id.to_owned();
        self.call("Resume", &api::ResumeRequest { id, ..Default::default() }).await
    }

    /// Checkpoint
    pub async fn checkpoint(&self, id: &str, path: &str) -> Result<api::Empty> {
        let (id, path) = (id.to_owned(), path.to_owned());
        let request = api::CheckpointTaskRequest { id, path, ..Default::default() };
        self.call("Checkpoint", &request).await
    }

    /// Kill
    pub async fn kill(&self, id: &str, exec: &str, signal: u32) -> Result<api::Empty> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        self.call("Kill", &api::KillRequest { id, exec_id, signal, ..Default::default() }).await
    }

    /// Kill, of every process.
    pub async fn kill_all(&self, id: &str, signal: u32) -> Result<api::Empty> {
        let id = id.to_owned();
        self.call("Kill", &api::KillRequest { id, signal, all: true, ..Default::default() }).await
    }

    /// Exec
    pub async fn exec(&self, request: &api::ExecProcessRequest) -> Result<api::Empty> {
        self.call("Exec", request).await
    }

    /// ResizePty
    pub async fn resize(
        &self,
        id: &str,
        exec: &str,
        (width, height): (u32, u32),
    ) -> Result<api::Empty> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = api::ResizePtyRequest { id, exec_id, width, height, ..Default::default() };
        self.call("ResizePty", &request).await
    }

    /// CloseIO, of stdin.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> Result<api::Empty> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = api::CloseIORequest { id, exec_id, stdin: true, ..Default::default() };
        self.call("CloseIO", &request).await
    }

    /// Update, to these resources in JSON.
    pub async fn update(&self, id: &str, resources: &str) -> Result<api::Empty> {
        let resources = protobuf::well_known_types::any::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.into(),
            ..Default::default()
        };
        let (id, resources) = (id.to_owned(), protobuf::MessageField::some(resources));
        self.call("Update", &api::UpdateTaskRequest { id, resources, ..Default::default() }).await
    }

    /// Wait; returns the exit status.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<u32> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = api::WaitRequest { id, exec_id, ..Default::default() };
        let answer = self.call::<api::WaitResponse>("Wait", &request).await?;
        assert!(answer.exited_at.is_some(), "Wait without the time of the exit");
        Ok(answer.exit_status)
    }

    /// Stats
    pub async fn stats(&self, id: &str) -> Result<api::StatsResponse> {
        let id = id.to_owned();
        self.call("Stats", &api::StatsRequest { id, ..Default::default() }).await
    }

    /// Connect
    pub async fn hello(&self, id: &str) -> Result<api::ConnectResponse> {
        let id = id.to_owned();
        self.call("Connect", &api::ConnectRequest { id, ..Default::default() }).await
    }

    /// Shutdown
    pub async fn shutdown(&self, id: &str) -> Result<api::Empty> {
        let id = id.to_owned();
        self.call("Shutdown", &api::ShutdownRequest { id, ..Default::default() }).await
    }
}

/// Looks at refusals.
pub trait Refused {
    /// The text of a refusal, which must have this code.
    #[track_caller]
    fn refused(self, code: Code) -> String;
}

impl<T: Debug> Refused for Result<T> {
    #[track_caller]
    fn refused(self, code: Code) -> String {
        match self {
            Err(Error::RpcStatus(status)) if status.code() == code => {
                let text = status.message;
                assert!(!text.is_empty() && !text.contains('\n'), "not one line: {text:?}");
                text
            }
            other => panic!("not refused with {code:?}: {other:?}"),
        }
    }
}
