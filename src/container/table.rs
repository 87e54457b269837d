//! The containers of one supervisor: mostly one, but containerd may send it more.

use super::{Container, Ended};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How many answers to Delete are remembered.
const REMEMBERED: usize = 64;

#[derive(Default)]
struct Inner {
    containers: BTreeMap<ContainerId, Arc<Container>>,
    deleted: VecDeque<Deleted>,
}

/// A container that was deleted, and what the Delete answered: a caller that timed out asks
/// again, and gets the same answer.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its id.
    pub id: ContainerId,
    /// Its process and how that ended.
    pub ended: Ended,
}

/// Containers by id; cheap to clone.
#[derive(Clone, Default)]
pub struct Table(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    emptied: Notify,
}

impl Table {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a container; from here on its id is taken.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub fn insert(&self, container: Arc<Container>) -> Result<()> {
        let id = container.place().id.clone();
        let mut inner = self.inner();
        if inner.containers.contains_key(&id) {
            return Err(Error::already_exists(format!("container {id} already exists")));
        }
        inner.deleted.retain(|deleted| deleted.id != id);
        inner.containers.insert(id, container);
        Ok(())
    }

    /// The container of that id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &ContainerId) -> Result<Arc<Container>> {
        let found = self.inner().containers.get(id).cloned();
        found.ok_or_else(|| Error::not_found(format!("container {id} is not here")))
    }

    /// What a Delete of that id has answered, if it is gone since.
    pub fn deleted(&self, id: &ContainerId) -> Option<Deleted> {
        self.inner().deleted.iter().find(|deleted| deleted.id == *id).cloned()
    }

    /// Every container.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.inner().containers.values().cloned().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.inner().containers.is_empty()
    }

    /// Removes one that was never made, or is gone without anybody's Delete.
    pub fn forget(&self, id: &ContainerId) {
        let mut inner = self.inner();
        inner.containers.remove(id);
        self.tell(&inner);
    }

    fn tell(&self, inner: &Inner) {
        if inner.containers.is_empty() {
            self.0.emptied.notify_one();
        }
    }

    /// Waits until the last container has gone. For one waiter.
    pub async fn emptied(&self) {
        self.0.emptied.notified().await;
    }

    /// Removes one, and remembers what its Delete answered.
    pub fn remove(&self, id: &ContainerId, ended: Ended) {
        let mut inner = self.inner();
        inner.containers.remove(id);
        inner.deleted.truncate(REMEMBERED - 1);
        inner.deleted.push_front(Deleted { id: id.clone(), ended });
        self.tell(&inner);
    }
}
