//! The supervisor's main loop: the runtime with its one thread, the server, and the end.

use super::publisher::Publisher;
use super::service::Service;
use super::start::Serve;
use crate::backend::background;
use crate::container::Table;
use crate::error::{Context, Error, Result};
use crate::sys::{process, reaper};
use containerd_shim_protos::shim_async::create_task;
use std::fs;
use std::io::{PipeWriter, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use ttrpc::asynchronous::Server;

/// A supervisor without containers that nobody calls ends by itself: containerd has died between
/// its start and the Create, or between the Delete and the Shutdown. Those follow each other
/// within milliseconds; the first pause may be long on a host that is short of memory. The second
/// keeps the container's id taken, for containerd, and is short.
const IDLE_AT_FIRST: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(5);

/// How long the last events may take to reach containerd.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// How long the answer to Shutdown may take to leave through the socket.
const LAST_ANSWER: Duration = Duration::from_millis(20);

/// How long the removal of guests may go on that a Delete has not waited for. What takes longer is
/// finished by the next nexcage.
const LAST_WORK: Duration = Duration::from_secs(60);

/// What the service tells the main loop.
#[derive(Default)]
pub(super) struct Signals {
    /// Somebody called.
    pub(super) called: Notify,
    /// Shutdown was asked for, and there is no container.
    pub(super) shutdown: Notify,
}

/// Serves until Shutdown. `ready` is told once clients can be answered.
pub(super) fn serve(serve: Serve, ready: &mut Option<PipeWriter>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // For unmounts alone; a thread that has done one goes away.
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_millis(100))
        .thread_stack_size(64 << 10)
        .build()
        .context(|| "start the runtime")?
        .block_on(run(serve, ready))
}

async fn run(serve: Serve, ready: &mut Option<PipeWriter>) -> Result<()> {
    process::become_subreaper()?;
    reaper::start()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let publisher = Publisher::start(serve.namespace.as_str().to_owned(), serve.ttrpc_address);
    let table = Table::default();
    let signals = Arc::new(Signals::default());
    let service = Arc::new(Service::new(
        serve.namespace,
        serve.id,
        serve.config,
        publisher.clone(),
        table.clone(),
        signals.clone(),
    ));
    let mut server = listen(serve.listener, &service)?;
    server.start().await.map_err(|error| Error::unknown(format!("serve: {error}")))?;
    if let Some(mut ready) = ready.take() {
        ready.write_all(b"+")?;
    }
    ::log::debug!("serving on {}", serve.socket.display());
    let mut idle = IDLE_AT_FIRST;
    loop {
        tokio::select! {
            // A Create may have come since the answer to Shutdown.
            () = signals.shutdown.notified() => if table.is_empty() { break },
            () = signals.called.notified() => {}
            () = table.emptied() => idle = IDLE,
            () = tokio::time::sleep(idle), if table.is_empty() => {
                if !table.is_empty() {
                    continue;
                }
                ::log::info!("no container and no call for {} s: ending", idle.as_secs());
                break;
            }
            _ = terminate.recv() => {
                forget_the_cleaned_up(&table).await;
                if table.is_empty() {
                    break;
                }
                ::log::warn!("SIGTERM while there are containers: going on");
            }
            _ = interrupt.recv() => ::log::warn!("SIGINT: going on"),
            _ = hangup.recv() => ::log::warn!("SIGHUP: going on"),
        }
    }
    // A client that comes now is refused at once instead of waiting for an answer.
    drop(fs::remove_file(&serve.socket));
    server.stop_listen().await;
    publisher.drain(LAST_EVENTS).await;
    tokio::time::sleep(LAST_ANSWER).await;
    if !background::finished(LAST_WORK).await {
        ::log::warn!("a guest is still being removed after {} s: ending", LAST_WORK.as_secs());
    }
    Ok(())
}

/// Drops the containers whose records are gone: the `delete` program has removed them, because
/// this process had not answered in time.
async fn forget_the_cleaned_up(table: &Table) {
    for container in table.all() {
        if !container.place().folder.path().exists() {
            ::log::warn!("container {} was cleaned up from outside", container.place().id);
            table.forget(&container.place().id);
            container.forget();
        }
    }
}

/// The same handlers under both names of the task API: containerd up to 1.7 speaks v2, 2.x speaks
/// either, and they differ in nothing else.
fn listen(listener: std::os::unix::net::UnixListener, service: &Arc<Service>) -> Result<Server> {
    const V2: &str = "containerd.task.v2.Task";
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let v2 = create_task(service.clone())
        .into_values()
        .map(|service| (V2.to_owned(), service))
        .collect();
    Ok(Server::new()
        .add_listener(listener.into())
        .register_service(create_task(service.clone()))
        .register_service(v2))
}
