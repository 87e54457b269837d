//! Work that goes on behind an answer, such as a slow removal: the program stays for it.

use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

static RUNNING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::channel(0).0);

/// Counts one piece of work, also where its task is dropped.
struct Counted;

impl Counted {
    fn new() -> Self {
        RUNNING.send_modify(|running| *running += 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.send_modify(|running| *running = running.saturating_sub(1));
    }
}

/// Starts a task that [`finished`] waits for.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let counted = Counted::new();
    tokio::spawn(async move {
        let done = work.await;
        drop(counted);
        done
    })
}

/// Waits until there is no such work, for that long at most; whether there is none.
pub async fn finished(limit: Duration) -> bool {
    let mut running = RUNNING.subscribe();
    let none = running.wait_for(|running| *running == 0);
    tokio::time::timeout(limit, none).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test(flavor = "current_thread")]
    async fn what_goes_on_behind_an_answer_is_waited_for_and_not_for_ever() {
        let (end, ended) = oneshot::channel::<()>();
        let work = spawn(async { ended.await.is_err() });
        assert!(!finished(Duration::from_millis(1)).await);
        drop(end);
        assert!(work.await.unwrap());
        spawn(std::future::pending::<()>()).abort();
        assert!(finished(Duration::from_secs(9)).await);
    }
}
