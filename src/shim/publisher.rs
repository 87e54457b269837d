//! Events to containerd, in order, through its restarts.
//!
//! One queue and one task. The head stays until containerd has taken it: nothing overtakes, and
//! nothing is given up because containerd is away. What bounds the queue is its size, not its
//! age: past [`MAX_QUEUED`] bytes, exec events that tell nobody anything once the exec has
//! ended go first, then the oldest of the others, and the log says how many.

use super::wire;
use crate::event::Event;
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use protobuf::Message;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use ttrpc::context;

/// How much waits for containerd at most: some 8000 events of 128 bytes.
pub const MAX_QUEUED: usize = 1 << 20;

/// containerd handles an event in microseconds; one that takes this long is a broken connection.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// How often containerd may refuse an event before it is given up: a containerd that is just
/// coming up refuses what it takes a moment later.
const MAX_REFUSALS: u32 = 10;

struct Queued {
    encoded: Vec<u8>,
    expendable: bool,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Queued>,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    fn push(&mut self, event: Queued) {
        self.bytes += event.encoded.len();
        self.events.push_back(event);
        while self.bytes > MAX_QUEUED {
            // The head may be under way: it is not touched.
            let expendable = self.events.iter().skip(1).position(|queued| queued.expendable);
            let Some(gone) = self.events.remove(expendable.map_or(1, |index| index + 1)) else {
                return;
            };
            self.bytes -= gone.encoded.len();
            self.dropped += 1;
        }
    }

    fn pop(&mut self) {
        if let Some(sent) = self.events.pop_front() {
            self.bytes -= sent.encoded.len();
        }
    }
}

struct Shared {
    namespace: String,
    has_listener: bool,
    queue: Mutex<Queue>,
    added: Notify,
    emptied: Notify,
}

/// Takes events; cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

impl Publisher {
    /// Begins to forward to containerd's ttrpc socket at `address`. containerd need not be there.
    pub fn start(namespace: String, address: Option<String>) -> Self {
        let shared = Arc::new(Shared {
            namespace,
            has_listener: address.is_some(),
            queue: Mutex::default(),
            added: Notify::new(),
            emptied: Notify::new(),
        });
        match address {
            Some(address) => drop(tokio::spawn(forward_all(shared.clone(), address))),
            None => log::warn!("no TTRPC_ADDRESS: containerd will hear of no events"),
        }
        Self(shared)
    }

    /// Queues an event. Never waits.
    pub fn publish(&self, event: &Event) {
        log::debug!(container = event.container().as_str(); "event {event:?}");
        if !self.0.has_listener {
            return;
        }
        let expendable = matches!(event, Event::ExecAdded { .. } | Event::ExecStarted { .. });
        let request = wire::forward(&self.0.namespace, event);
        // Only a message over 2 GiB cannot be encoded.
        let Ok(encoded) = request.write_to_bytes() else { return };
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(Queued { encoded, expendable });
        drop(queue);
        self.0.added.notify_one();
    }

    /// Waits until containerd has taken all that was queued, at most `bound`.
    pub async fn drain(&self, bound: Duration) {
        let empty = async {
            loop {
                let emptied = self.0.emptied.notified();
                if self.0.is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        if tokio::time::timeout(bound, empty).await.is_err() {
            log::warn!("containerd did not take the last events in time");
        }
    }
}

impl Shared {
    fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).events.is_empty()
    }

    fn head(&self) -> Option<ForwardRequest> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut queue.dropped) > 0 {
            log::error!("the queue of events was full: some were dropped");
        }
        ForwardRequest::parse_from_bytes(&queue.events.front()?.encoded).ok()
    }

    fn pop(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop();
        if queue.events.is_empty() {
            // An idle supervisor keeps no room for the events of its busiest moment.
            queue.events.shrink_to_fit();
            self.emptied.notify_waiters();
        }
    }
}

/// Sends the head, again and again until it is taken, then the next.
async fn forward_all(shared: Arc<Shared>, address: String) {
    let address = if address.contains("://") { address } else { format!("unix://{address}") };
    let mut client = None;
    let mut retry = FIRST_RETRY;
    let mut refusals = 0;
    loop {
        let Some(request) = shared.head() else {
            shared.added.notified().await;
            continue;
        };
        match forward(&mut client, &address, &request).await {
            Ok(()) => {
                shared.pop();
                (retry, refusals) = (FIRST_RETRY, 0);
                continue;
            }
            Err(ttrpc::Error::RpcStatus(status)) => {
                refusals += 1;
                if refusals > MAX_REFUSALS {
                    // To say it for ever would stop all that come after it.
                    log::error!("containerd refused an event for good: {}", status.message);
                    shared.pop();
                    (retry, refusals) = (FIRST_RETRY, 0);
                    continue;
                }
            }
            Err(error) => {
                if retry == FIRST_RETRY {
                    log::warn!("containerd does not take events, will retry: {error}");
                }
                client = None;
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn forward(
    client: &mut Option<EventsClient>,
    address: &str,
    request: &ForwardRequest,
) -> ttrpc::Result<()> {
    let events = match client {
        Some(events) => events,
        None => client.insert(EventsClient::new(Client::connect(address).await?)),
    };
    let timeout = i64::try_from(FORWARD_TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
    events.forward(context::with_timeout(timeout), request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(size: usize, expendable: bool) -> Queued {
        Queued { encoded: vec![0; size], expendable }
    }

    #[test]
    fn a_full_queue_gives_up_exec_events_first_and_never_the_head() {
        let mut queue = Queue::default();
        queue.push(event(10, true));
        queue.push(event(20, false));
        queue.push(event(30, true));
        queue.push(event(MAX_QUEUED - 50, false));
        let sizes = |queue: &Queue| -> Vec<usize> {
            queue.events.iter().map(|queued| queued.encoded.len()).collect()
        };
        assert_eq!(sizes(&queue), [10, 20, MAX_QUEUED - 50]);
        queue.push(event(40, false));
        assert_eq!(sizes(&queue), [10, MAX_QUEUED - 50, 40]);
        assert_eq!(queue.dropped, 2);
        assert_eq!(queue.bytes, MAX_QUEUED);
        queue.pop();
        assert_eq!(queue.bytes, MAX_QUEUED - 10);
    }
}
