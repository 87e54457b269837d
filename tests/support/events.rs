//! containerd's end of the events: an endpoint that can go away and come back, and a record of all
//! that was sent to it.

use containerd_shim_protos::events::task as events;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async;
use protobuf::Message;
use protobuf::well_known_types::empty::Empty;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use ttrpc::asynchronous::{Server, TtrpcContext};

/// One event. As text: its topic's last word, the container (and `/exec`), and an exit's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The namespace of the envelope.
    pub namespace: String,
    /// `/tasks/…`
    pub topic: String,
    /// Whose.
    pub container: String,
    /// Which exec; empty for the container itself.
    pub exec: String,
    /// The process, where the event names one.
    pub pid: u32,
    /// The status, for an exit and a delete.
    pub status: Option<u32>,
    /// The event itself.
    pub value: Vec<u8>,
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.topic.trim_start_matches("/tasks/"), self.container)?;
        if !self.exec.is_empty() {
            write!(out, "/{}", self.exec)?;
        }
        self.status.map_or(Ok(()), |status| write!(out, " {status}"))
    }
}

impl Event {
    fn of(request: &ForwardRequest) -> Self {
        let envelope = &request.envelope;
        let mut event = Self {
            namespace: envelope.namespace.clone(),
            topic: envelope.topic.clone(),
            container: String::new(),
            exec: String::new(),
            pid: 0,
            status: None,
            value: envelope.event.value.clone(),
        };
        let bytes = event.value.clone();
        match envelope.event.type_url.rsplit('/').next().unwrap_or_default() {
            "containerd.events.TaskCreate" => {
                let of = events::TaskCreate::parse_from_bytes(&bytes).unwrap();
                (event.container, event.pid) = (of.container_id, of.pid);
            }
            "containerd.events.TaskStart" => {
                let of = events::TaskStart::parse_from_bytes(&bytes).unwrap();
                (event.container, event.pid) = (of.container_id, of.pid);
            }
            "containerd.events.TaskExecAdded" => {
                let of = events::TaskExecAdded::parse_from_bytes(&bytes).unwrap();
                (event.container, event.exec) = (of.container_id, of.exec_id);
            }
            "containerd.events.TaskExecStarted" => {
                let of = events::TaskExecStarted::parse_from_bytes(&bytes).unwrap();
                (event.container, event.exec, event.pid) = (of.container_id, of.exec_id, of.pid);
            }
            "containerd.events.TaskExit" => {
                let of = events::TaskExit::parse_from_bytes(&bytes).unwrap();
                assert!(of.exited_at.is_some(), "an exit without its time");
                event.exec = if of.id == of.container_id { String::new() } else { of.id };
                (event.container, event.pid) = (of.container_id, of.pid);
                event.status = Some(of.exit_status);
            }
            "containerd.events.TaskDelete" => {
                let of = events::TaskDelete::parse_from_bytes(&bytes).unwrap();
                (event.container, event.pid) = (of.container_id, of.pid);
                event.status = Some(of.exit_status);
            }
            "containerd.events.TaskOOM" => {
                event.container = events::TaskOOM::parse_from_bytes(&bytes).unwrap().container_id;
            }
            "containerd.events.TaskPaused" => {
                event.container =
                    events::TaskPaused::parse_from_bytes(&bytes).unwrap().container_id;
            }
            "containerd.events.TaskResumed" => {
                event.container =
                    events::TaskResumed::parse_from_bytes(&bytes).unwrap().container_id;
            }
            "containerd.events.TaskCheckpointed" => {
                event.container =
                    events::TaskCheckpointed::parse_from_bytes(&bytes).unwrap().container_id;
            }
            other => panic!("an event of the unknown type {other:?}"),
        }
        event
    }
}

struct Recorder(watch::Sender<Vec<Event>>);

#[async_trait::async_trait]
impl shim_async::Events for Recorder {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let event = Event::of(&request);
        self.0.send_modify(|events| events.push(event));
        Ok(Empty::new())
    }
}

struct Serving {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// The endpoint. It has a thread of its own, so that a test that blocks does not hold it up.
pub struct Events {
    socket: PathBuf,
    recorder: Arc<Recorder>,
    serving: Option<Serving>,
}

impl Events {
    /// An endpoint at `socket` that does not serve yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, recorder: Arc::new(Recorder(watch::channel(Vec::new()).0)), serving: None }
    }

    /// Its socket, for TTRPC_ADDRESS.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Serves, until [`Events::stop`].
    pub fn serve(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let (ready, wait) = mpsc::channel();
        let address = format!("unix://{}", self.socket.display());
        let recorder = self.recorder.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut server = Server::new()
                    .bind(&address)
                    .unwrap()
                    .register_service(shim_async::create_events(recorder));
                server.start().await.unwrap();
                ready.send(()).unwrap();
                // Gone without a word means the same.
                drop(stopped.await);
                server.shutdown().await.unwrap();
            });
        });
        wait.recv().unwrap();
        self.serving = Some(Serving { stop, thread });
    }

    /// Goes away: the socket's file with it, and the connections.
    pub fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.stop.send(()).ok();
            drop(serving.thread.join());
            drop(std::fs::remove_file(&self.socket));
        }
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Event> {
        self.recorder.0.borrow().clone()
    }

    /// Everything so far, as text.
    pub fn lines(&self) -> Vec<String> {
        self.all().iter().map(ToString::to_string).collect()
    }

    /// Waits until `enough`, at most 10 s, and returns everything so far.
    pub async fn until(&self, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let mut seen = self.recorder.0.subscribe();
        let wait = seen.wait_for(|events| enough(events));
        match tokio::time::timeout(Duration::from_secs(10), wait).await {
            Ok(events) => events.unwrap().clone(),
            Err(_) => panic!("not all events have come in 10 s, only: {:#?}", self.lines()),
        }
    }

    /// Waits until `enough`, at most 10 s, and returns what has come by then.
    pub async fn as_far_as(&self, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let mut seen = self.recorder.0.subscribe();
        drop(tokio::time::timeout(Duration::from_secs(10), seen.wait_for(|all| enough(all))).await);
        self.all()
    }

    /// Waits for an event of this text, and returns everything so far as text.
    pub async fn line(&self, text: &str) -> Vec<String> {
        let is = |event: &Event| event.to_string() == text;
        self.until(|events| events.iter().any(is)).await.iter().map(ToString::to_string).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop();
    }
}
