//! Word of every time a container ran out of memory.
//!
//! Both versions count killed processes in a file. When to look, v2 says by inotify, v1 by an
//! eventfd that is raised before the kill, several times for one kill, and some time after the
//! cgroup was removed. Both are one descriptor that the supervisor's loop waits for beside
//! everything else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::error::{Context, Result};
use crate::sys::cgroup::{Cgroup, value};
use crate::sys::watch::watch;

/// How often, and how soon after a v1 notice the counter is read again; the pauses double, to ten
/// seconds in all. On a busy machine the one who gave the notice may wait long before it kills.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(10);

/// How long the kernel may take to raise the eventfd after the removal of a v1 cgroup.
const REMOVAL: Duration = Duration::from_secs(1);

/// Watches one container's cgroup for kills by the kernel's out-of-memory killer.
#[derive(Debug)]
pub struct OomWatch {
    fd: AsyncFd<OwnedFd>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// `looks`: how often the counter is still to be read, as the kill comes after the notice.
    Legacy {
        control: PathBuf,
        kills: Option<u64>,
        looks: u32,
    },
    Unified {
        folder: PathBuf,
        kills: u64,
    },
    /// A v1 cgroup that is gone, whose eventfd was raised once: for the removal, or for a kill
    /// before it. If it is raised once more, which is then for the removal, it was a kill.
    Removed {
        until: Instant,
    },
    Ended,
}

impl OomWatch {
    /// Starts to watch; `None` where the container's memory is not accounted for. To be called on
    /// the runtime that will wait.
    pub fn new(cgroup: &Cgroup) -> Result<Option<Self>> {
        let watch = match (cgroup.legacy("memory"), cgroup.unified()) {
            (Some(folder), _) => legacy(folder),
            (None, Some(folder)) if folder.join("memory.events").exists() => unified(folder),
            _ => return Ok(None),
        };
        watch.map(Some).context(|| "watch for lack of memory")
    }

    /// True once for each time that processes were killed for lack of memory since the last call;
    /// several kills at once may count as one. False, then and ever after, when no process is left
    /// in the cgroup (v2), or the cgroup is gone (v1).
    ///
    /// Nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> bool {
        loop {
            if matches!(self.source, Source::Ended) {
                return false;
            }
            let soon = async {
                match &self.source {
                    Source::Legacy { looks: looks @ 1.., .. } => {
                        let pause = LOOK * 2_u32.pow(LOOKS.saturating_sub(*looks));
                        tokio::time::sleep(pause).await;
                    }
                    Source::Removed { until } => tokio::time::sleep_until(*until).await,
                    _ => std::future::pending().await,
                }
            };
            let raised = tokio::select! {
                biased;
                raised = self.fd.async_io(Interest::READABLE, drain) => raised,
                () = soon => Ok(0),
            };
            let Ok(raised) = raised else {
                self.source = Source::Ended;
                continue;
            };
            if self.source.look(raised) {
                return true;
            }
        }
    }
}

impl OomWatch {
    /// Whether there was a kill that [`OomWatch::next`] has not told of yet. Waits only where a v1
    /// cgroup is gone, and then for no more than a second.
    pub async fn check(&mut self) -> bool {
        match &mut self.source {
            Source::Legacy { control, kills: Some(kills), .. } => {
                let now = legacy_count(control);
                if now.is_some() {
                    return rose(kills, now);
                }
                let raised = drain(self.fd.get_ref()).unwrap_or(0);
                if self.source.removed(raised) {
                    return true;
                }
            }
            Source::Unified { folder, kills } => return rose(kills, count(folder).ok()),
            Source::Legacy { kills: None, .. } => return false,
            Source::Removed { .. } | Source::Ended => {}
        }
        // Either the word of the removal comes, or the time for it is over.
        self.next().await
    }
}

/// Takes a counter's new value; whether it is higher than the last.
fn rose(last: &mut u64, now: Option<u64>) -> bool {
    let before = *last;
    *last = now.unwrap_or(before);
    *last > before
}

impl Source {
    /// Whether there was a kill, after the descriptor was raised. `raised` is what an eventfd
    /// counted.
    fn look(&mut self, raised: u64) -> bool {
        match self {
            Self::Ended => false,
            Self::Removed { .. } => {
                *self = Self::Ended;
                raised > 0
            }
            Self::Legacy { control, .. } if !control.exists() => self.removed(raised),
            // Before 4.13 the kernel did not count: then every notice is one.
            Self::Legacy { kills: None, .. } => raised > 0,
            Self::Legacy { control, kills: Some(kills), looks } => {
                *looks = if raised > 0 { LOOKS } else { looks.saturating_sub(1) };
                let killed = rose(kills, legacy_count(control));
                if killed {
                    *looks = 0;
                }
                killed
            }
            Self::Unified { folder, kills } => {
                let killed = rose(kills, count(folder).ok());
                let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
                if value(&events, "populated").unwrap_or(0) == 0 {
                    *self = Self::Ended;
                }
                killed
            }
        }
    }

    /// Whether there was a kill in a v1 cgroup that is gone, and its count with it: LXC removes a
    /// guest's as soon as that has ended. A notice that no kill has been seen for since is then the
    /// word there is of one. All notices came before the removal, which itself counts once, later.
    fn removed(&mut self, raised: u64) -> bool {
        let unseen = raised > 1 || matches!(self, Self::Legacy { looks: 1.., .. });
        *self = match raised {
            1 if !unseen => Self::Removed { until: Instant::now() + REMOVAL },
            _ => Self::Ended,
        };
        unseen
    }
}

fn legacy(folder: &Path) -> Result<OomWatch> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    // The kernel keeps what it needs of this file; it may be closed after the registration.
    let oom = File::open(folder.join("memory.oom_control"))?;
    let control = folder.join("cgroup.event_control");
    let line = format!("{} {}", event.as_raw_fd(), oom.as_raw_fd());
    OpenOptions::new().write(true).open(&control)?.write_all(line.as_bytes())?;
    // After the registration: a kill in between is then seen by it.
    let kills = legacy_count(&control);
    watched(event.into(), Source::Legacy { control, kills, looks: 0 })
}

fn unified(folder: &Path) -> Result<OomWatch> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // The second is for the end: the removal of a cgroup alone raises nothing on many kernels.
    for file in ["memory.events", "cgroup.events"] {
        inotify.add_watch(&folder.join(file), AddWatchFlags::IN_MODIFY)?;
    }
    // After the watch: a kill in between is then seen by it.
    let kills = count(folder)?;
    watched(inotify.into(), Source::Unified { folder: folder.to_owned(), kills })
}

fn watched(fd: OwnedFd, source: Source) -> Result<OomWatch> {
    Ok(OomWatch { fd: watch(fd, Interest::READABLE)?, source })
}

/// How many processes in this cgroup and below were killed so far.
fn count(folder: &Path) -> io::Result<u64> {
    let events = fs::read_to_string(folder.join("memory.events"))?;
    Ok(value(&events, "oom_kill").unwrap_or(0))
}

/// The same on v1, by the file that notices are registered with; `None` where it does not count.
fn legacy_count(control: &Path) -> Option<u64> {
    let text = fs::read_to_string(control.with_file_name("memory.oom_control")).ok()?;
    value(&text, "oom_kill")
}

/// Takes what there is to read. An eventfd gives its count in one go; of inotify's events only
/// that there were some matters.
fn drain(fd: &OwnedFd) -> io::Result<u64> {
    let mut buffer = [0; 1024];
    let mut length = nix::unistd::read(fd.as_fd(), &mut buffer)?;
    let first = buffer.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    while length > 0 {
        length = match nix::unistd::read(fd.as_fd(), &mut buffer) {
            Err(Errno::EAGAIN) => 0,
            next => next?,
        };
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::sys::cgroup::tests::{Contained, laid_out};

    const SOON: Duration = Duration::from_secs(20);

    /// Whether the watch stays silent for a moment.
    async fn silent(watch: &mut OomWatch) -> bool {
        timeout(Duration::from_millis(50), watch.next()).await.is_err()
    }

    /// Limits the container to eight megabytes, on either version.
    fn limit(cgroup: &Cgroup) {
        let (folder, files) = match cgroup.legacy("memory") {
            Some(folder) => (folder, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
            None => (cgroup.unified().unwrap(), ["memory.max", "memory.swap.max"]),
        };
        fs::write(folder.join(files[0]), "8388608").unwrap();
        // A host may do without accounting for swap.
        if folder.join(files[1]).exists() {
            fs::write(folder.join(files[1]), "8388608").unwrap();
        }
    }

    /// Needs root and a memory controller.
    #[tokio::test]
    async fn a_process_over_its_limit_is_reported_and_removal_ends_the_watch() {
        let hungry = "head -c 200000000 /dev/zero | tail; head -c 200000000 /dev/zero | tail";
        let mut web = Contained::new("oom", &["memory"], hungry);
        limit(&web.cgroup);
        let mut watch = OomWatch::new(&web.cgroup).unwrap().expect("a memory controller");
        assert!(silent(&mut watch).await);
        web.go();
        assert!(timeout(SOON, watch.next()).await.unwrap());
        let ended = web.shell.wait().unwrap();
        assert!(!ended.success());
        web.cgroup.remove().unwrap();
        let more = async { while watch.next().await {} };
        timeout(SOON, more).await.unwrap();
        assert!(!watch.next().await);
    }

    #[tokio::test]
    async fn each_rise_of_the_unified_counter_is_reported_until_the_cgroup_is_empty() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("", root.path())]);
        let folder = cgroup.unified().unwrap();
        assert!(OomWatch::new(&cgroup).unwrap().is_none());
        let kills = |n| fs::write(folder.join("memory.events"), format!("oom 9\noom_kill {n}\n"));
        let populated = |n| fs::write(folder.join("cgroup.events"), format!("populated {n}\n"));
        kills(3).unwrap();
        populated(1).unwrap();
        let mut watch = OomWatch::new(&cgroup).unwrap().unwrap();
        assert!(silent(&mut watch).await);
        kills(3).unwrap();
        assert!(silent(&mut watch).await);
        kills(4).unwrap();
        assert!(watch.next().await);
        assert!(silent(&mut watch).await);
        populated(0).unwrap();
        kills(5).unwrap();
        assert!(watch.next().await);
        assert!(!watch.next().await);
        assert!(!watch.next().await);
    }

    /// What a v1 watch tells of a cgroup that is gone, whose eventfd has counted `before` by the
    /// time of the look, and `after` some time later.
    async fn told_of_removed(before: u64, after: u64, ended: bool) -> bool {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
        let kernels = std::fs::File::from(event.as_fd().try_clone_to_owned().unwrap());
        let raise = move |count: u64| (&kernels).write_all(&count.to_ne_bytes()).unwrap();
        let control = "/nonexistent/cgroup.event_control".into();
        let source = Source::Legacy { control, kills: Some(0), looks: 0 };
        let mut watch = watched(event.into(), source).unwrap();
        raise(before);
        let told = async { if ended { watch.check().await } else { watch.next().await } };
        let later = async {
            tokio::time::sleep(LOOK).await;
            raise(after);
        };
        tokio::join!(told, later).0
    }

    #[tokio::test]
    async fn a_kill_right_before_the_removal_is_not_lost() {
        for ended in [true, false] {
            // A kill, and the removal, of which the kernel may tell before the look or after it.
            assert!(told_of_removed(2, 0, ended).await);
            assert!(told_of_removed(1, 1, ended).await);
            // The removal alone.
            assert!(!told_of_removed(1, 0, ended).await);
        }
        assert!(!told_of_removed(0, 1, true).await);
    }
}
