use super::*;
use crate::error::Kind;
use crate::sys::reaper;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::stat::{fstat, stat};
use nix::unistd::{mkfifo, pipe2, read, write};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const QUICK: Bounds =
    Bounds { reader: Duration::from_millis(30), logger: Duration::from_millis(300) };
/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(30);

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        path
    }

    /// A logging program, and its URI.
    fn logger(&self, scheme: &str, script: &str) -> String {
        let path = self.path("logger");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        format!("{scheme}://{path}")
    }
}

fn request(stdin: &str, stdout: &str, stderr: &str) -> Request {
    let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(str::to_owned);
    Request { stdin, stdout, stderr, terminal: false }
}

async fn open_quick(request: &Request) -> Result<(Stdio, ChildIo)> {
    Stdio::open_within(QUICK, request, Owner::default(), "web-1", "k8s.io").await
}

fn end(path: &str, access: OFlag, interest: Interest) -> AsyncFd<OwnedFd> {
    watch(open(path, access | OFlag::O_NONBLOCK, Mode::empty()).unwrap(), interest).unwrap()
}

fn reader(path: &str) -> AsyncFd<OwnedFd> {
    end(path, OFlag::O_RDONLY, Interest::READABLE)
}

fn writer(path: &str) -> AsyncFd<OwnedFd> {
    end(path, OFlag::O_WRONLY, Interest::WRITABLE)
}

/// What there is next; nothing at the end.
async fn next(from: &AsyncFd<OwnedFd>) -> Vec<u8> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut ready = timeout(LONG, from.readable()).await.expect("nothing came").unwrap();
        match read(from, &mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                return buffer;
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EIO) => return Vec::new(),
            Err(errno) => panic!("{errno}"),
        }
    }
}

async fn to_end(from: &AsyncFd<OwnedFd>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match next(from).await {
            some if some.is_empty() => return all,
            some => all.extend(some),
        }
    }
}

/// Waits until all copies of a pipe's other end are closed. A program that another test starts may
/// hold one up to its exec.
fn until_nobody_reads(pipe: &OwnedFd) {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let limit = PollTimeout::try_from(LONG).unwrap();
    assert_eq!(poll(&mut fds, limit), Ok(1), "somebody still reads");
    assert_eq!(write(pipe, b"x").unwrap_err(), Errno::EPIPE);
}

async fn exactly(from: &AsyncFd<OwnedFd>, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = next(from).await;
        assert!(!some.is_empty(), "the end came after {} bytes", all.len());
        all.extend(some);
    }
    all
}

/// The bytes of a stream in which every place looks different.
fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8).collect()
}

/// What a container's process does: it writes, and it waits where it has to.
fn write_pattern(to: OwnedFd, total: usize, most: usize) -> JoinHandle<()> {
    spawn_blocking(move || {
        let mut to = File::from(to);
        let (mut at, mut seed) = (0, 1_u64);
        while at < total {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let count = (1 + (seed >> 33) as usize % most).min(total - at);
            to.write_all(&pattern(at, count)).unwrap();
            at += count;
        }
    })
}

fn lines(range: std::ops::Range<usize>) -> Vec<u8> {
    range.flat_map(|line| format!("line {line}\n").into_bytes()).collect()
}

#[test]
fn it_may_be_used_from_any_task() {
    fn is<T: Send + Sync>() {}
    fn goes<T: Send>(_: impl FnOnce(&'static Stdio) -> T) {}
    is::<Stdio>();
    goes(|stdio| stdio.close());
    goes(|stdio| stdio.drain(LONG));
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_asked_for_is_dev_null() {
    let (stdio, child) = open_quick(&Request::default()).await.unwrap();
    let null = stat("/dev/null").unwrap().st_rdev;
    for fd in [&child.stdin, &child.stdout, &child.stderr] {
        assert_eq!(fstat(fd).unwrap().st_rdev, null);
    }
    stdio.drain(LONG).await;
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_container_s_pipes_are_the_owner_s() {
    let place = Place::new();
    let [stdin, out, err] = ["in", "out", "err"].map(|name| place.fifo(name));
    // Only root can give away a pipe.
    let uid = nix::unistd::geteuid();
    let owner = if uid.is_root() { 1234 } else { uid.as_raw() };
    let gid = if uid.is_root() { 1235 } else { nix::unistd::getegid().as_raw() };
    let request = request(&stdin, &out, &err);
    let opened = Stdio::open(&request, Owner { uid: owner, gid }, "web-1", "k8s.io").await;
    let (_stdio, child) = opened.unwrap();
    for fd in [&child.stdin, &child.stdout, &child.stderr] {
        let stat = fstat(fd).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (owner, gid));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn all_output_arrives_whatever_its_sizes() {
    let place = Place::new();
    let (out, err) = (place.fifo("out"), place.fifo("err"));
    let (stdio, child) = open_quick(&request("", &out, &err)).await.unwrap();
    let (out, err) = (reader(&out), reader(&err));
    let (total, small) = (64 << 20, 1 << 20);
    let writers =
        [write_pattern(child.stdout, total, 150_000), write_pattern(child.stderr, small, 300)];
    let check = async |from, total| {
        let mut at = 0;
        loop {
            let some = next(from).await;
            assert!(some == pattern(at, some.len()), "at {at}");
            at += some.len();
            if some.is_empty() {
                return assert_eq!(at, total);
            }
        }
    };
    tokio::join!(check(&out, total), check(&err, small), stdio.drain(LONG));
    for writer in writers {
        writer.await.unwrap();
    }
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn ten_thousand_lines_arrive_one_by_one() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    let from = reader(&path);
    let writer = spawn_blocking(move || {
        let mut to = File::from(child.stdout);
        (0..10_000).for_each(|line| to.write_all(&lines(line..line + 1)).unwrap());
    });
    assert_eq!(to_end(&from).await, lines(0..10_000));
    writer.await.unwrap();
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_is_gone_stops_no_writer_and_finds_the_first_of_the_output() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    drop(reader(&path));
    let all = lines(0..100_000);
    let written = Instant::now();
    let mut to = File::from(child.stdout);
    let mut to = spawn_blocking(move || {
        // First a line at a time: short writes shall not use up the FIFO.
        (0..20_000).for_each(|line| to.write_all(&lines(line..line + 1)).unwrap());
        to.write_all(&lines(20_000..100_000)).unwrap();
        to
    })
    .await
    .unwrap();
    assert!(written.elapsed() < Duration::from_secs(5), "{:?}", written.elapsed());

    let from = reader(&path);
    let backlog = next(&from).await;
    assert!(backlog.len() > 45_000, "{}", backlog.len());
    assert!(all.starts_with(&backlog));
    // What was on its way when the reader came may follow, and then what is written now.
    to.write_all(b"back again\n").unwrap();
    drop(to);
    assert!(to_end(&from).await.ends_with(b"back again\n"));
    stdio.drain(LONG).await;
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_is_slow_loses_nothing() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    let from = reader(&path);
    let total = 1 << 20;
    let writer = write_pattern(child.stdout, total, 9000);
    // Full, and asked several times whether somebody reads.
    sleep(QUICK.reader * 5).await;
    assert!(to_end(&from).await == pattern(0, total));
    writer.await.unwrap();
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_end_waits_for_a_reader_where_there_is_something_to_read() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    write(&child.stdout, b"last words").unwrap();
    drop(child);
    timeout(Duration::from_secs(5), stdio.drain(LONG)).await.expect("drain waits for no reader");
    let from = reader(&path);
    assert_eq!(to_end(&from).await, b"last words");
    // Nothing to read, and nobody to read it: closed at once.
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    drop((child, from));
    stdio.drain(LONG).await;
    while open(path.as_str(), OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty()).is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn it_settles_when_all_that_was_written_is_read() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    let from = reader(&path);
    stdio.settle(LONG).await;
    // More than the pipe and the FIFO hold together.
    let total = 200 << 10;
    let kept = child.stdout.try_clone().unwrap();
    let writer = write_pattern(child.stdout, total, 9000);
    timeout(LONG, from.readable()).await.unwrap().unwrap().retain_ready();
    assert!(timeout(Duration::from_millis(20), stdio.settle(LONG)).await.is_err());
    exactly(&from, total).await;
    writer.await.unwrap();
    timeout(LONG, stdio.settle(LONG * 2)).await.unwrap();
    write(&kept, b"more").unwrap();
    timeout(LONG, stdio.settle(Duration::from_millis(20))).await.unwrap();
    stdio.close().await;
    stdio.settle(LONG).await;
}

#[tokio::test(flavor = "current_thread")]
async fn close_does_not_wait_for_a_reader() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    write(&child.stdout, b"last words").unwrap();
    drop(child);
    stdio.drain(LONG).await;
    stdio.close().await;
    stdio.close().await;
    let gone = open(path.as_str(), OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty());
    assert_eq!(gone.unwrap_err(), Errno::ENXIO);
}

#[tokio::test(flavor = "current_thread")]
async fn a_drain_ends_though_somebody_still_holds_the_pipe() {
    let place = Place::new();
    let path = place.fifo("out");
    let (stdio, child) = open_quick(&request("", &path, "")).await.unwrap();
    let from = reader(&path);
    write(&child.stdout, b"said").unwrap();
    let began = Instant::now();
    stdio.drain(Duration::from_millis(50)).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(to_end(&from).await, b"said");
    until_nobody_reads(&child.stdout);
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn dropping_it_closes_everything() {
    let place = Place::new();
    let (stdin, path) = (place.fifo("in"), place.fifo("out"));
    let (stdio, child) = open_quick(&request(&stdin, &path, "")).await.unwrap();
    let from = reader(&path);
    drop(stdio);
    assert_eq!(to_end(&from).await, b"");
    until_nobody_reads(&child.stdout);
    assert_eq!(read(&child.stdin, &mut [0]).unwrap(), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn a_source_without_end_leaves_other_tasks_their_turn() {
    let endless = end("/dev/random", OFlag::O_RDONLY, Interest::READABLE);
    let (source, mut sink) = (Source::Terminal(Arc::new(endless)), Sink::Nowhere);
    let turns = async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = copy(&source, &mut sink) => panic!("it ended"),
        () = turns => {}
    }
}

#[tokio::test(flavor = "current_thread")]
async fn one_fifo_for_both_streams_keeps_their_order() {
    let place = Place::new();
    let path = place.fifo("both");
    let (stdio, child) = open_quick(&request("", &path, &path)).await.unwrap();
    let from = reader(&path);
    for turn in 0..100 {
        write(if turn % 2 == 0 { &child.stdout } else { &child.stderr }, &[turn]).unwrap();
    }
    drop(child);
    assert_eq!(to_end(&from).await, (0..100).collect::<Vec<u8>>());
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn stdin_outlives_its_clients_until_it_is_closed() {
    let place = Place::new();
    let path = place.fifo("in");
    let (stdio, child) = open_quick(&request(&path, "", "")).await.unwrap();
    let container = watch(child.stdin, Interest::READABLE).unwrap();
    for word in [b"first client", b"other client"] {
        write(writer(&path), word).unwrap();
        assert_eq!(exactly(&container, word.len()).await, word);
    }
    // Closed by containerd while a client still writes, and more than a pipe holds.
    let client = writer(&path);
    stdio.close_stdin();
    let total = 300_000;
    let send = async {
        let mut rest = &pattern(0, total)[..];
        while !rest.is_empty() {
            let mut ready = client.writable().await.unwrap();
            match write(&client, &rest[..rest.len().min(7000)]) {
                Ok(count) => rest = &rest[count..],
                Err(_) => ready.clear_ready(),
            }
        }
    };
    let ((), received) = tokio::join!(send, exactly(&container, total));
    assert!(received == pattern(0, total));
    drop(client);
    assert_eq!(next(&container).await, b"");
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn stdin_is_read_to_the_last_byte_after_it_is_closed() {
    let place = Place::new();
    let path = place.fifo("in");
    let (stdio, child) = open_quick(&request(&path, "", "")).await.unwrap();
    write(writer(&path), b"all of it").unwrap();
    stdio.close_stdin();
    stdio.close_stdin();
    let container = watch(child.stdin, Interest::READABLE).unwrap();
    assert_eq!(to_end(&container).await, b"all of it");
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_container_that_closes_its_stdin_is_left_in_peace() {
    let place = Place::new();
    let (stdin, out) = (place.fifo("in"), place.fifo("out"));
    let (stdio, ChildIo { stdin: container, stdout, stderr }) =
        open_quick(&request(&stdin, &out, "")).await.unwrap();
    let client = writer(&stdin);
    drop(container);
    write(&client, b"nobody listens").unwrap();
    // The client is told.
    timeout(LONG, async {
        while write(&client, b"x") != Err(Errno::EPIPE) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let from = reader(&out);
    write(&stdout, b"still here").unwrap();
    drop((stdout, stderr));
    assert_eq!(to_end(&from).await, b"still here");
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_file_takes_both_streams_and_is_added_to() {
    let place = Place::new();
    let path = place.path("made/on the way/log");
    let uri = format!("file://{}", path.replace(' ', "%20"));
    for round in 1..=2 {
        let (stdio, child) = open_quick(&request("", &uri, &uri)).await.unwrap();
        write(&child.stdout, b"out\n").unwrap();
        write(&child.stderr, b"err\n").unwrap();
        drop(child);
        stdio.drain(LONG).await;
        stdio.close().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "out\nerr\n".repeat(round));
    }
    assert_eq!(stat(path.as_str()).unwrap().st_mode & 0o7777, 0o644);
    let dir = format!("file://{}", place.path("made"));
    open_quick(&request("", &dir, "")).await.map(drop).unwrap_err();
    let fifo = format!("file://{}", place.fifo("fifo"));
    open_quick(&request("", &fifo, "")).await.map(drop).unwrap_err();
}

#[tokio::test(flavor = "current_thread")]
async fn a_full_disk_stops_no_writer() {
    let (stdio, child) = open_quick(&request("", "file:///dev/full", "")).await.unwrap();
    write_pattern(child.stdout, 1 << 20, 5000).await.unwrap();
    stdio.drain(LONG).await;
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_no_fifo_is_refused_by_name() {
    let place = Place::new();
    let file = place.path("file");
    std::fs::write(&file, "").unwrap();
    let link = place.path("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let fifo = place.fifo("fifo");
    let missing = place.path("missing");
    let below = format!("{file}/x");
    for path in [&file, &link, &missing, &below, &place.path(""), "/dev/null"] {
        for (stream, request) in [
            ("stdin", request(path, "", "")),
            ("stdout", request("", path, "")),
            ("stderr", request("", &fifo, path)),
        ] {
            let error = open_quick(&request).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
            let text = error.to_string();
            assert!(text.contains(stream) && text.contains(&format!("{path:?}")), "{text}");
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"");
    let link = place.path("good link");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    open_quick(&request(&link, &link, "")).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_logger_gets_its_contract() {
    let _alone = reaper::tests::start_alone();
    for (scheme, ready) in [("binary", "exec 5>&-"), ("binary-v2", "printf . >&5")] {
        let place = Place::new();
        let log = place.path("log");
        let script = format!(
            "exec >{log} 2>&1; {ready}; echo \"$# $*\"; echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID\"
             echo \"$HOME\"; cat <&3; cat <&4; exec 3<&- 4<&-; echo done"
        );
        let uri = place.logger(scheme, &script) + "?b=two+words&a";
        let (stdio, child) = open_quick(&request("", &uri, &uri)).await.unwrap();
        write(&child.stdout, b"out\n").unwrap();
        write(&child.stderr, b"err\n").unwrap();
        drop(child);
        timeout(LONG, stdio.drain(LONG)).await.unwrap();
        stdio.close().await;
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log, "4 b two words a \nk8s.io/web-1\n\nout\nerr\ndone\n");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_logger_may_go_to_the_background() {
    let _alone = reaper::tests::start_alone();
    let place = Place::new();
    let log = place.fifo("log");
    let uri = place.logger("binary", &format!("(exec 5>&-; exec cat <&3 >{log}) & exit 0"));
    let (stdio, child) = open_quick(&request("", &uri, &uri)).await.unwrap();
    let from = reader(&log);
    write(&child.stdout, b"out").unwrap();
    assert_eq!(exactly(&from, 3).await, b"out");
    drop(child);
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_logger_that_fails_is_an_error_and_does_not_stay() {
    let _alone = reaper::tests::start_alone();
    for (scheme, script, kind, says) in [
        ("binary", "exit 3", Kind::Unavailable, "status 3"),
        ("binary-v2", "exit 0", Kind::Unavailable, "status 0"),
        ("binary-v2", "exec 5>&-; exec cat <&3", Kind::Unavailable, "closed its ready pipe"),
        ("binary", "exec sleep 1000", Kind::DeadlineExceeded, "ready"),
    ] {
        let place = Place::new();
        let pid = place.path("pid");
        let uri = place.logger(scheme, &format!("echo $$ >{pid}; {script}"));
        let error = open_quick(&request("", &uri, &uri)).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        let pid = std::fs::read_to_string(pid).unwrap();
        timeout(LONG, async {
            let stat = format!("/proc/{}/stat", pid.trim());
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the logger stays");
    }
    let uri = "binary:///does/not/exist";
    let error = open_quick(&request("", uri, uri)).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_logger_that_will_not_end_is_killed_within_three_seconds() {
    let _alone = reaper::tests::start_alone();
    let place = Place::new();
    let uri =
        place.logger("binary", "trap '' TERM; exec 5>&-; while :; do sleep 0.1 3<&- 4<&-; done");
    let (stdio, child) = open_quick(&request("", &uri, &uri)).await.unwrap();
    let began = Instant::now();
    stdio.close().await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(3), "{took:?}");
    until_nobody_reads(&child.stdout);
}

#[tokio::test(flavor = "current_thread")]
async fn a_terminal_is_copied_both_ways() {
    let place = Place::new();
    let (stdin, out) = (place.fifo("in"), place.fifo("out"));
    let request = Request { terminal: true, ..request(&stdin, &out, "") };
    let (stdio, child) = open_quick(&request).await.unwrap();
    let null = stat("/dev/null").unwrap().st_rdev;
    assert!(
        [&child.stdin, &child.stdout, &child.stderr].map(|fd| fstat(fd).unwrap().st_rdev)
            == [null; 3]
    );
    assert_eq!(stdio.resize(80, 25).unwrap_err().kind(), Kind::FailedPrecondition);

    let pty = openpty(None, None).unwrap();
    stdio.attach_console(pty.master).unwrap();
    let other = openpty(None, None).unwrap();
    let again = stdio.attach_console(other.master).unwrap_err();
    assert_eq!(again.kind(), Kind::FailedPrecondition);
    stdio.resize(132, 43).unwrap();

    let from = reader(&out);
    let client = writer(&stdin);
    write(&client, b"typed\n").unwrap();
    let slave = watch(pty.slave, Interest::READABLE).unwrap();
    assert_eq!(exactly(&slave, 6).await, b"typed\n");
    assert_eq!(exactly(&from, 7).await, b"typed\r\n", "the echo");
    write(&slave, b"said\n").unwrap();
    drop(slave);
    timeout(LONG, stdio.drain(LONG)).await.unwrap();
    assert_eq!(to_end(&from).await, b"said\r\n");
    stdio.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_terminal_that_nobody_reads_stops_no_writer() {
    let place = Place::new();
    let out = place.fifo("out");
    for out in [out.as_str(), ""] {
        let request = Request { terminal: true, ..request("", out, "") };
        let (stdio, _child) = open_quick(&request).await.unwrap();
        let pty = openpty(None, None).unwrap();
        stdio.attach_console(pty.master).unwrap();
        timeout(LONG, write_pattern(pty.slave, 1 << 20, 2000)).await.unwrap().unwrap();
        stdio.drain(LONG).await;
        stdio.close().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_terminal_can_go_to_a_logger() {
    let _alone = reaper::tests::start_alone();
    let place = Place::new();
    let log = place.path("log");
    let script = format!("exec >{log}; printf . >&5; cat <&4; echo no stderr; cat <&3");
    let uri = place.logger("binary-v2", &script);
    let request = Request { terminal: true, ..request("", &uri, "") };
    let (stdio, _child) = open_quick(&request).await.unwrap();
    let pty = openpty(None, None).unwrap();
    stdio.attach_console(pty.master).unwrap();
    write(&pty.slave, b"said\n").unwrap();
    drop(pty.slave);
    stdio.drain(LONG).await;
    stdio.close().await;
    assert_eq!(std::fs::read_to_string(log).unwrap(), "no stderr\nsaid\r\n");
}

#[tokio::test(flavor = "current_thread")]
async fn a_console_socket_takes_one_terminal() {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    async fn send(dir: &Path, fds: &[&OwnedFd]) -> Result<OwnedFd> {
        let socket = ConsoleSocket::bind(dir)?;
        let path = socket.path().to_owned();
        let runtime = UnixStream::connect(&path).unwrap();
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let text = [IoSlice::new(b"/dev/pts/0")];
        sendmsg::<()>(runtime.as_raw_fd(), &text, rights, MsgFlags::empty(), None).unwrap();
        let received = socket.receive().await;
        assert!(!path.exists());
        received
    }

    let place = Place::new();
    let dir = PathBuf::from(place.path("console"));
    let pty = openpty(None, None).unwrap();
    let master = send(&dir, &[&pty.master]).await.unwrap();
    assert_eq!(stat(&dir).unwrap().st_mode & 0o777, 0o700);
    drop(pty.master);
    write(&pty.slave, b"x").unwrap();
    assert_eq!(read(&master, &mut [0]).unwrap(), 1);

    let (no_terminal, _) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let other = openpty(None, None).unwrap();
    for fds in [&[][..], &[&no_terminal], &[&master, &other.master]] {
        send(&dir, fds).await.unwrap_err();
    }
    let socket = ConsoleSocket::bind(&dir).unwrap();
    drop(UnixStream::connect(socket.path()).unwrap());
    socket.receive().await.unwrap_err();

    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o750)).unwrap();
    assert_eq!(ConsoleSocket::bind(&dir).unwrap_err().kind(), Kind::FailedPrecondition);
    let long = place.path(&"x".repeat(100));
    assert_eq!(ConsoleSocket::bind(long.as_ref()).unwrap_err().kind(), Kind::InvalidArgument);
}

/// Counting needs a process of its own: other tests open files as well.
#[tokio::test(flavor = "current_thread")]
async fn no_descriptor_is_left_behind() {
    let _alone = reaper::tests::start_alone();
    let output = tempfile::tempfile().unwrap();
    let child = crate::sys::command::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stdio::tests::open_and_close_a_hundred_times"])
        .env(ALONE, "1")
        .stdin(null().unwrap())
        .stdout(output.try_clone().unwrap().into())
        .spawn()
        .unwrap();
    let exit = child.exited().await;
    let mut text = [0; 4096];
    let count = nix::sys::uio::pread(&output, &mut text, 0).unwrap();
    let text = String::from_utf8_lossy(&text[..count]);
    assert!(exit.status == 0 && text.contains("1 passed"), "{text}");
}

/// Set where one test has the process to itself.
const ALONE: &str = "NEXCAGE_TEST_ALONE";

/// The other half of the test above.
#[tokio::test(flavor = "current_thread")]
async fn open_and_close_a_hundred_times() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let _alone = reaper::tests::start_alone();
    let place = Place::new();
    let [stdin, out, err] = ["in", "out", "err"].map(|name| place.fifo(name));
    let file = format!("file://{}", place.path("log"));
    let logger = place.logger("binary", "exec 5>&-; exec cat <&3 >/dev/null");
    let bad = place.path("missing");
    let console = PathBuf::from(place.path("console"));
    let mut before = 0;
    for round in 0..100 {
        for request in [
            request(&stdin, &out, &err),
            request(&stdin, &file, &file),
            request("", &logger, &logger),
            request(&stdin, &out, &bad),
            request(&stdin, &(logger.clone() + "-missing"), ""),
            Request { terminal: true, ..request(&stdin, &out, "") },
            Request { terminal: true, ..request(&stdin, &logger, "") },
        ] {
            let Ok((stdio, child)) = open_quick(&request).await else { continue };
            if request.terminal {
                let socket = ConsoleSocket::bind(&console).unwrap();
                let pty = openpty(None, None).unwrap();
                stdio.attach_console(pty.master).unwrap();
                drop(socket);
            } else {
                write(&child.stdout, b"output").unwrap();
            }
            drop(child);
            if round % 2 == 0 {
                stdio.drain(LONG).await;
            }
            stdio.close().await;
        }
        match round {
            // The runtime has opened what it needs.
            0 => before = count(),
            _ => assert_eq!(count(), before, "round {round}"),
        }
    }
}
