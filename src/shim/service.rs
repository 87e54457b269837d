//! The task service: decode, call, encode. Nothing here decides anything.

use super::serve::Signals;
use super::{log, publisher::Publisher, wire};
use crate::config::{self, Config};
use crate::container::{self, Container, Table};
use crate::error::{Error, Result};
use crate::id::{ContainerId, ExecId, Namespace};
use crate::stats;
use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::shim_async::Task;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use std::sync::Arc;
use ttrpc::r#async::TtrpcContext;

pub(super) struct Service {
    namespace: Namespace,
    /// The container this supervisor was started for; its log FIFO is open already.
    first: ContainerId,
    config: Config,
    publisher: Publisher,
    table: Table,
    signals: Arc<Signals>,
}

impl Service {
    pub(super) fn new(
        namespace: Namespace,
        first: ContainerId,
        config: Config,
        publisher: Publisher,
        table: Table,
        signals: Arc<Signals>,
    ) -> Self {
        Self { namespace, first, config, publisher, table, signals }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.table.get(&ContainerId::parse(id)?)
    }

    /// The configuration of one container: containerd sends the options once more with a Create,
    /// and these count.
    fn config(&self, options: Option<&Any>) -> Result<Option<Config>> {
        let Some(any) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(None) };
        Config::load(config::FILE.as_ref(), &config::from_any(any)?).map(Some)
    }

    async fn do_create(&self, request: api::CreateTaskRequest) -> Result<api::CreateTaskResponse> {
        let own = self.config(request.options.as_ref())?;
        let request = wire::create(request, &self.namespace)?;
        let (id, bundle) = (request.id.clone(), request.bundle.clone());
        // Not that of one that is here: its FIFO would be lost.
        let own_log = id != self.first && self.table.get(&id).is_err();
        if own_log {
            log::add(&id, &bundle);
        }
        let config = own.as_ref().unwrap_or(&self.config);
        let created = container::create(request, config, &self.publisher, &self.table).await;
        if created.is_err() && own_log {
            log::remove(&id);
        }
        Ok(api::CreateTaskResponse { pid: wire::pid(created?), ..Default::default() })
    }

    async fn do_delete(&self, request: &api::DeleteRequest) -> Result<api::DeleteResponse> {
        let id = ContainerId::parse(&request.id)?;
        if let (Some(deleted), "") = (self.table.deleted(&id), request.exec_id.as_str()) {
            return Ok(wire::deleted(deleted.ended));
        }
        let container = self.table.get(&id)?;
        let ended = match exec_id(&request.exec_id)? {
            Some(exec) => container.delete_exec(&exec).await?,
            None => {
                let ended = container.delete().await?;
                if id != self.first {
                    log::remove(&id);
                }
                ended
            }
        };
        Ok(wire::deleted(ended))
    }

    fn do_state(&self, request: &api::StateRequest) -> Result<api::StateResponse> {
        let container = self.container(&request.id)?;
        let (id, bundle) = (container.place().id.as_str(), &container.place().bundle);
        Ok(match exec_id(&request.exec_id)? {
            Some(exec) => {
                let found = container.exec(&exec)?;
                wire::state(id, Some(&exec), bundle, found.io(), &found.snapshot())
            }
            None => wire::state(id, None, bundle, container.io(), &container.snapshot()),
        })
    }

    fn do_kill(&self, request: &api::KillRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let signal = i32::try_from(request.signal).unwrap_or(-1);
        match exec_id(&request.exec_id)? {
            Some(exec) => container.exec(&exec)?.kill(signal),
            None => container.kill(signal, request.all),
        }
    }

    fn do_resize(&self, request: &api::ResizePtyRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let size = |side: u32| {
            u16::try_from(side)
                .map_err(|_| Error::invalid(format!("{side} is no size of a terminal")))
        };
        let (width, height) = (size(request.width)?, size(request.height)?);
        match exec_id(&request.exec_id)? {
            Some(exec) => container.exec(&exec)?.resize(width, height),
            None => container.resize(width, height),
        }
    }

    fn do_close_io(&self, request: &api::CloseIORequest) -> Result<()> {
        let container = self.container(&request.id)?;
        if !request.stdin {
            return Ok(());
        }
        match exec_id(&request.exec_id)? {
            Some(exec) => container.exec(&exec)?.close_stdin(),
            None => container.close_stdin(),
        }
        Ok(())
    }

    fn do_stats(&self, request: &api::StatsRequest) -> Result<api::StatsResponse> {
        let container = self.container(&request.id)?;
        let cgroup = container.cgroup().ok_or_else(|| {
            Error::not_found(format!("container {} has no cgroup of its own", request.id))
        })?;
        let stats = MessageField::some(stats::read(cgroup)?);
        Ok(api::StatsResponse { stats, ..Default::default() })
    }
}

fn exec_id(text: &str) -> Result<Option<ExecId>> {
    if text.is_empty() { Ok(None) } else { ExecId::parse(text).map(Some) }
}

/// Answers that carry nothing.
fn empty<T>(result: Result<T>) -> ttrpc::Result<api::Empty> {
    result.map(|_| api::Empty::default()).map_err(wire::status)
}

#[async_trait]
impl Task for Service {
    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> ttrpc::Result<api::StateResponse> {
        self.do_state(&request).map_err(wire::status)
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        self.signals.called.notify_one();
        self.do_create(request).await.map_err(wire::status)
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> ttrpc::Result<api::StartResponse> {
        let started = async {
            let container = self.container(&request.id)?;
            match exec_id(&request.exec_id)? {
                Some(exec) => container.start_exec(&exec).await,
                None => container.start().await,
            }
        };
        let pid = wire::pid(started.await.map_err(wire::status)?);
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let deleted = self.do_delete(&request).await.map_err(wire::status);
        // From here on the main loop counts the time without containers.
        self.signals.called.notify_one();
        deleted
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> ttrpc::Result<api::PidsResponse> {
        let container = self.container(&request.id).map_err(wire::status)?;
        Ok(wire::pids(container.pids()))
    }

    async fn pause(
        &self,
        _: &TtrpcContext,
        request: api::PauseRequest,
    ) -> ttrpc::Result<api::Empty> {
        empty(async { self.container(&request.id)?.pause().await }.await)
    }

    async fn resume(
        &self,
        _: &TtrpcContext,
        request: api::ResumeRequest,
    ) -> ttrpc::Result<api::Empty> {
        empty(async { self.container(&request.id)?.resume().await }.await)
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        let checkpoint = async {
            let container = self.container(&request.id)?;
            container.checkpoint(wire::checkpoint(&request)?).await
        };
        empty(checkpoint.await)
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        empty(self.do_kill(&request))
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: api::ExecProcessRequest,
    ) -> ttrpc::Result<api::Empty> {
        let add = || {
            let container = self.container(&request.id)?;
            let exec = ExecId::parse(&request.exec_id)?;
            let (process, io) = wire::exec(request);
            container.add_exec(exec, process, io)
        };
        empty(add())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<api::Empty> {
        empty(self.do_resize(&request))
    }

    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> ttrpc::Result<api::Empty> {
        empty(self.do_close_io(&request))
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        let resources = request.resources.into_option().unwrap_or_default().value;
        empty(async { self.container(&request.id)?.update(resources).await }.await)
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> ttrpc::Result<api::WaitResponse> {
        let wait = async {
            let container = self.container(&request.id)?;
            Ok(match exec_id(&request.exec_id)? {
                Some(exec) => container.exec(&exec)?.wait().await,
                None => container.wait().await,
            })
        };
        wait.await.map(wire::waited).map_err(wire::status)
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> ttrpc::Result<api::StatsResponse> {
        self.do_stats(&request).map_err(wire::status)
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        self.signals.called.notify_one();
        let task_pid = self.container(&request.id).map_or(0, |found| found.snapshot().pid);
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: wire::pid(task_pid),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(
        &self,
        _: &TtrpcContext,
        _: api::ShutdownRequest,
    ) -> ttrpc::Result<api::Empty> {
        // With containers left it is not for this caller to end the others' supervisor; that is
        // what runc-v2 answers, too.
        if self.table.is_empty() {
            self.signals.shutdown.notify_one();
        }
        Ok(api::Empty::default())
    }
}
