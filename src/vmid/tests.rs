//! The ledger under many processes that are killed, and what is decided about what they leave.

use super::reconcile::{Action, Destroyer, Guest, Mark, Options, Seen, apply, decide};
use super::*;
use crate::sys::reaper::tests::no_reaper;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A folder in memory where there is one: these tests make thousands of files that last.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn claim(id: &str) -> Claim {
    let generation = Generation::new().unwrap();
    let identity = Identity::parse("default", id, generation.as_str()).unwrap();
    Claim { identity, bundle: "/bundle".into() }
}

fn reserve(ledger: &Ledger, range: RangeInclusive<u32>, taken: &[u32]) -> Result<u32> {
    let taken = taken.iter().copied().collect();
    ledger.reserve(range, &taken, &claim("c")).map(|entry| entry.vmid)
}

/// Names of all files but the hint.
fn files(ledger: &Ledger) -> Vec<String> {
    let mut names = ledger.names().unwrap();
    names.retain(|name| name != LAST);
    names.sort();
    names
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    assert!(ledger.list().unwrap().entries.is_empty());
    let claim = claim("web-1");
    let entry = ledger.reserve(500..=500, &BTreeSet::new(), &claim).unwrap();
    assert_eq!((entry.vmid, entry.stage, &entry.identity), (500, Stage::Reserved, &claim.identity));
    assert!(entry.has_owner(&boot_id().unwrap()));
    assert!(!entry.has_owner("another boot"));
    assert_eq!(ledger.read(500).unwrap(), entry);
    let made = ledger.set_stage(&entry, Stage::Made).unwrap();
    assert_eq!(ledger.list().unwrap().entries, std::slice::from_ref(&made));
    assert_eq!(ledger.of(&claim.identity.namespace, &claim.identity.id).unwrap(), [made]);
    let other = ContainerId::parse("web-2").unwrap();
    assert!(ledger.of(&claim.identity.namespace, &other).unwrap().is_empty());
    let mode = std::os::unix::fs::MetadataExt::mode(&ledger.folder().metadata().unwrap());
    assert_eq!(mode & 0o7777, 0o700);
    assert_eq!(files(&ledger), ["500"]);
}

#[test]
fn the_file_is_the_json_that_is_documented() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let entry = Entry {
        vmid: 900_001,
        identity: Identity::parse("k8s.io", "web", "1b4e28ba-2fa1").unwrap(),
        bundle: "/b".into(),
        stage: Stage::Destroying,
        boot_id: "boot".into(),
        owner: Some(ProcessId { pid: 7, start_time: 8 }),
        created: 9,
    };
    assert!(ledger.insert(&entry).unwrap());
    let text = fs::read_to_string(ledger.folder().join("900001")).unwrap();
    assert_eq!(
        text,
        r#"{"version":1,"vmid":900001,"namespace":"k8s.io","id":"web","#.to_owned()
            + r#""generation":"1b4e28ba-2fa1","bundle":"/b","bootId":"boot","#
            + r#""supervisor":{"pid":7,"startTime":8},"state":"destroying","created":9}"#
    );
}

#[test]
fn an_id_that_an_entry_or_the_cluster_has_is_passed_over() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let mut got: Vec<u32> =
        (0..3).map(|_| reserve(&ledger, 100..=104, &[101, 103]).unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, [100, 102, 104]);
    let error = reserve(&ledger, 100..=104, &[101, 103]).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("widen pct.vmid_min"), "{error}");
}

#[test]
fn a_freed_id_comes_again_only_after_all_others() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let mut seen = Vec::new();
    for _ in 0..10 {
        let entry = ledger.reserve(100..=104, &BTreeSet::new(), &claim("c")).unwrap();
        assert!(ledger.release(entry.vmid, &entry.identity.generation).unwrap());
        seen.push(entry.vmid);
    }
    let first: BTreeSet<u32> = seen[..5].iter().copied().collect();
    assert_eq!(first.len(), 5, "{seen:?}");
    assert_eq!(seen[..5], seen[5..]);
    assert!(files(&ledger).is_empty());
}

#[test]
fn only_the_generation_that_was_meant_is_freed_or_changed() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let old = ledger.reserve(200..=200, &BTreeSet::new(), &claim("c")).unwrap();
    assert!(ledger.release(200, &old.identity.generation).unwrap());
    assert!(!ledger.release(200, &old.identity.generation).unwrap());
    let new = ledger.reserve(200..=200, &BTreeSet::new(), &claim("c")).unwrap();
    assert!(!ledger.release(200, &old.identity.generation).unwrap());
    assert_eq!(ledger.set_stage(&old, Stage::Made).unwrap_err().kind(), Kind::NotFound);
    assert!(!ledger.insert(&old).unwrap());
    assert_eq!(ledger.read(200).unwrap(), new);
    assert_eq!(files(&ledger), ["200"]);
}

#[test]
fn an_entry_that_cannot_be_read_keeps_its_id_and_is_named() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let entry = ledger.reserve(300..=300, &BTreeSet::new(), &claim("c")).unwrap();
    let text = fs::read_to_string(ledger.folder().join("300")).unwrap();
    fs::write(ledger.folder().join("301"), "{").unwrap();
    fs::write(ledger.folder().join("302"), text.replace("\"version\":1", "\"version\":2")).unwrap();
    fs::write(ledger.folder().join("303"), &text).unwrap();
    fs::write(ledger.folder().join("304"), text.replace("default", "../..")).unwrap();
    let listing = ledger.list().unwrap();
    assert_eq!(listing.entries, [entry]);
    let said: Vec<String> =
        listing.broken.iter().map(|(vmid, error)| format!("{vmid} {error}")).collect();
    for (said, (vmid, part)) in said.iter().zip([
        (301, "not an entry of nexcage"),
        (302, "version 2 of the entry is newer than this nexcage: upgrade it"),
        (303, "it is about vmid 300"),
        (304, "namespace"),
    ]) {
        let begin = format!("{vmid} read {}/{vmid}: ", ledger.folder().display());
        assert!(said.starts_with(&begin) && said.contains(part), "{said}");
    }
    assert_eq!(listing.broken.len(), 4);
    assert_eq!(reserve(&ledger, 300..=305, &[]).unwrap(), 305);
    assert!(ledger.release(301, &claim("c").identity.generation).is_err());
}

#[test]
fn temporary_files_of_the_dead_are_removed_and_those_of_the_living_stay() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let living = ProcessId::of(std::process::id().cast_signed()).unwrap();
    let name = format!("{TEMPORARY}{}-{}-99", living.pid, living.start_time);
    fs::create_dir(ledger.folder()).unwrap();
    for name in [&name, ".new-1-0-3", ".new-x", "other"] {
        fs::write(ledger.folder().join(name), "").unwrap();
    }
    assert_eq!(reserve(&ledger, 400..=400, &[]).unwrap(), 400);
    let mut left = [".new-x", "400", "other", &name];
    left.sort_unstable();
    assert_eq!(files(&ledger), left);
}

#[test]
fn a_lock_that_is_not_given_back_is_an_error_and_not_the_end() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let entry = ledger.reserve(100..=100, &BTreeSet::new(), &claim("c")).unwrap();
    let lock = ledger.lock().unwrap();
    let error = ledger.release(100, &entry.identity.generation).unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    drop(lock);
    assert!(ledger.release(100, &entry.identity.generation).unwrap());
}

#[test]
fn a_folder_of_state_says_which_guest_it_is_about() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let claim = claim("web-1");
    let entry = ledger.reserve(500..=500, &BTreeSet::new(), &claim).unwrap();
    let Identity { namespace, id, generation } = claim.identity;
    let state = folder.path().join("state");
    assert!(held(&state).unwrap().is_empty());
    let of = |id: &str| Folder::of(&state, &namespace, &ContainerId::parse(id).unwrap());
    for id in ["web-1", "crun-1"] {
        of(id).create().unwrap();
    }
    fs::write(state.join("default/file"), "").unwrap();
    fs::create_dir(state.join("default/.crun")).unwrap();
    assert_eq!(noted_in(&of("web-1")).unwrap(), None);
    note_in(&of("web-1"), &entry).unwrap();
    assert_eq!(noted_in(&of("web-1")).unwrap(), Some((500, generation.clone())));
    let all = held(&state).unwrap();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [((namespace.clone(), id), generation)]);
    fs::write(of("web-1").path().join(NOTE), "{").unwrap();
    assert!(held(&state).is_err());
}

/// Nobody's guests: nothing may be destroyed.
struct NoGuests;

impl Destroyer for NoGuests {
    async fn destroy(&self, entry: &Entry) -> Result<()> {
        panic!("there is no guest {}", entry.vmid)
    }

    async fn sweep(&self, _: &Entry) -> Result<()> {
        Ok(())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Reconciles on a host that has no guest at all.
fn reconcile(ledger: &Ledger) {
    ledger.sweep().unwrap();
    let nowhere = Path::new("/nonexistent");
    let seen =
        Seen::gather(ledger, nowhere, || Ok(BTreeSet::new()), || Ok(BTreeMap::new())).unwrap();
    assert!(seen.broken.is_empty(), "{seen:?}");
    let outcomes = run(apply(decide(&seen), ledger, Options::default(), &NoGuests));
    for outcome in outcomes {
        assert!(outcome.error.is_none(), "{outcome:?}");
    }
}

/// Where a worker finds its ledger, and how it works on it.
const LEDGER: &str = "NEXCAGE_TEST_LEDGER";

/// Starts a worker that makes so many allocations, and kills it after it has reported `last` of
/// them. Answers what it reported.
fn worker(ledger: &Path, mode: &str, count: usize, last: usize) -> Vec<(u32, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "vmid::tests::a_worker_allocates", "--nocapture"])
        .env(LEDGER, format!("{mode} {count} {}", ledger.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reported = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((vmid, generation)) =
            line.strip_prefix("got ").and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        reported.push((vmid.parse().unwrap(), generation.to_owned()));
        if reported.len() == last {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success() || reported.len() >= last, "{status}");
    reported
}

/// What [`worker`] starts.
#[test]
fn a_worker_allocates() {
    let Ok(order) = std::env::var(LEDGER) else { return };
    let mut words = order.splitn(3, ' ');
    let (mode, count) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let ledger = Ledger::below(Path::new(words.next().unwrap()));
    let mut own: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let entry = match mode {
            "keep" => ledger.reserve(900_000..=902_999, &BTreeSet::new(), &claim("c")).unwrap(),
            _ => loop {
                // The dead may have everything that the living have not.
                match ledger.reserve(100..=139, &BTreeSet::new(), &claim("c")) {
                    Ok(entry) => break entry,
                    Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                }
                reconcile(&ledger);
            },
        };
        let line = format!("got {} {}\n", entry.vmid, entry.identity.generation);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        own.push(entry);
        if mode == "free" {
            for entry in &own {
                assert_eq!(ledger.read(entry.vmid).unwrap(), *entry, "somebody took it away");
            }
            if own.len() == 4 {
                let entry = own.remove(0);
                assert!(ledger.release(entry.vmid, &entry.identity.generation).unwrap());
            }
        }
    }
}

/// Eight times one worker after the other until `count` allocations are reported; all but the
/// last are killed at different moments.
fn eight(ledger: &Path, mode: &str, count: usize) -> (usize, Vec<(u32, String)>) {
    let _children = no_reaper();
    std::thread::scope(|scope| {
        let slot = |slot: usize| {
            let (mut kills, mut reported) = (0, Vec::new());
            while reported.len() < count {
                let left = count - reported.len();
                let last = 1 + (slot * 7 + kills * 13) % 60;
                reported.extend(worker(ledger, mode, left, last));
                kills += 1;
            }
            (kills, reported)
        };
        let slots: Vec<_> = (0..8).map(|number| scope.spawn(move || slot(number))).collect();
        let slots = slots.into_iter().map(|slot| slot.join().unwrap());
        slots.fold((0, Vec::new()), |(kills, mut all), (more, reported)| {
            all.extend(reported);
            (kills + more, all)
        })
    })
}

#[test]
fn eight_processes_that_are_killed_give_no_id_twice_and_leave_none() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let (kills, reported) = eight(folder.path(), "keep", 200);
    assert!(kills > 40 && reported.len() >= 1600, "{kills} {}", reported.len());
    let ids: BTreeSet<u32> = reported.iter().map(|(vmid, _)| *vmid).collect();
    assert_eq!(ids.len(), reported.len(), "an id was given twice");
    let listing = ledger.list().unwrap();
    assert!(listing.broken.is_empty(), "{listing:?}");
    let entries: BTreeMap<u32, Entry> =
        listing.entries.into_iter().map(|entry| (entry.vmid, entry)).collect();
    for (vmid, generation) in &reported {
        assert_eq!(entries[vmid].identity.generation.as_str(), generation);
    }
    // One that was killed may have reserved an id that it did not live to report.
    assert!(entries.len() - reported.len() <= kills, "{} too many", entries.len());
    reconcile(&ledger);
    assert!(files(&ledger).is_empty(), "{:?}", files(&ledger));
}

#[test]
fn ids_of_the_dead_are_used_again_and_those_of_the_living_are_not() {
    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let (_, reported) = eight(folder.path(), "free", 40);
    assert!(reported.len() >= 320);
    reconcile(&ledger);
    assert!(files(&ledger).is_empty(), "{:?}", files(&ledger));
}

/// A few containers, generations and ids, so that they meet.
fn identity() -> impl Strategy<Value = Identity> {
    ("[ab]", "[ab]", "[ab]").prop_map(|(namespace, id, generation)| {
        Identity::parse(&namespace, &id, &generation).unwrap()
    })
}

fn entry(vmid: u32) -> impl Strategy<Value = Entry> {
    let stage = prop_oneof![Just(Stage::Reserved), Just(Stage::Made), Just(Stage::Destroying)];
    (identity(), stage).prop_map(move |(identity, stage)| Entry {
        vmid,
        identity,
        bundle: "/b".into(),
        stage,
        boot_id: String::new(),
        owner: None,
        created: 0,
    })
}

fn guest() -> impl Strategy<Value = Guest> {
    prop_oneof![
        4 => identity().prop_map(|identity| Guest::Here(Mark::Ours(identity))),
        1 => Just(Guest::Here(Mark::Foreign)),
        1 => Just(Guest::Here(Mark::Unfinished)),
        1 => Just(Guest::Here(Mark::Unclear("unclear".to_owned()))),
        1 => Just(Guest::Elsewhere("a virtual machine".to_owned())),
    ]
}

fn seen() -> impl Strategy<Value = Seen> {
    const IDS: std::ops::Range<u32> = 100..104;
    let entries: Vec<_> = IDS.map(|vmid| prop::option::of(entry(vmid))).collect();
    let guests = prop::collection::btree_map(IDS, guest(), 0..4);
    let held = prop::collection::vec(identity(), 0..3);
    let broken = prop::collection::btree_set(IDS, 0..2);
    (entries, guests, prop::collection::btree_set(IDS, 0..3), held, broken).prop_map(
        |(entries, guests, owned, held, broken)| {
            let mut entries: Vec<Entry> = entries.into_iter().flatten().collect();
            entries.retain(|entry| !broken.contains(&entry.vmid));
            let has_entry = |vmid: &u32| entries.iter().any(|entry| entry.vmid == *vmid);
            Seen {
                owned: owned.into_iter().filter(has_entry).collect(),
                entries,
                broken: broken.into_iter().map(|vmid| (vmid, "broken".to_owned())).collect(),
                guests,
                held: held
                    .into_iter()
                    .map(|held| ((held.namespace, held.id), held.generation))
                    .collect(),
            }
        },
    )
}

/// What the actions make of what was seen.
fn model(mut seen: Seen, actions: &[Action], destroy: bool) -> Seen {
    for action in actions {
        match action {
            Action::Free(entry, _) => seen.entries.retain(|other| other.vmid != entry.vmid),
            Action::Rebuild(entry) => seen.entries.push(entry.clone()),
            Action::Stale(_) if !destroy => {}
            Action::Finish(entry) | Action::Stale(entry) => {
                seen.entries.retain(|other| other.vmid != entry.vmid);
                seen.guests.remove(&entry.vmid);
            }
            Action::Report(..) => {}
        }
    }
    seen
}

proptest! {
    #[test]
    fn nothing_that_lives_or_is_somebody_elses_is_ever_touched(seen in seen()) {
        for action in decide(&seen) {
            let guest = seen.guests.get(&action.vmid());
            let ours = |entry: &Entry| {
                guest == Some(&Guest::Here(Mark::Ours(entry.identity.clone())))
            };
            // Of a reserved id, it is whose the id is.
            let begun = guest == Some(&Guest::Here(Mark::Unfinished));
            let held = |entry: &Entry| {
                let name = (entry.identity.namespace.clone(), entry.identity.id.clone());
                seen.held.get(&name) == Some(&entry.identity.generation)
            };
            prop_assert!(!seen.owned.contains(&action.vmid()), "{action}");
            match &action {
                Action::Free(entry, _) => {
                    prop_assert!(seen.entries.contains(entry));
                    prop_assert!(!ours(entry) && !matches!(guest, Some(Guest::Elsewhere(_))));
                    prop_assert!(!begun);
                }
                Action::Rebuild(entry) => prop_assert!(ours(entry)),
                Action::Finish(entry) => {
                    prop_assert!(ours(entry) || begun);
                    prop_assert!(entry.stage == Stage::Destroying);
                    prop_assert!(seen.entries.contains(entry));
                }
                Action::Stale(entry) => {
                    prop_assert!(ours(entry) || begun && seen.entries.contains(entry));
                    prop_assert!(!held(entry));
                }
                Action::Report(..) => {}
            }
        }
    }

    #[test]
    fn once_is_enough(seen in seen()) {
        let after = model(seen.clone(), &decide(&seen), false);
        for action in decide(&after) {
            prop_assert!(matches!(action, Action::Stale(_) | Action::Report(..)), "{action}");
        }
        let after = model(seen.clone(), &decide(&seen), true);
        for action in decide(&after) {
            prop_assert!(matches!(action, Action::Report(..)), "{action}");
        }
    }
}

/// Every case by name: what is found, and what is said about it.
#[test]
fn what_is_found_decides_what_is_done() {
    let made = |stage| Entry {
        vmid: 100,
        identity: Identity::parse("n", "c", "a").unwrap(),
        bundle: "/b".into(),
        stage,
        boot_id: String::new(),
        owner: None,
        created: 0,
    };
    let ours = || Some(Guest::Here(Mark::Ours(Identity::parse("n", "c", "a").unwrap())));
    let other = || Some(Guest::Here(Mark::Ours(Identity::parse("n", "c", "b").unwrap())));
    let here = |mark| Some(Guest::Here(mark));
    let (reserved, deleted) = (Some(made(Stage::Reserved)), Some(made(Stage::Destroying)));
    let entry = Some(made(Stage::Made));
    // Entry, guest, whether the owner lives, the generation whose folder of state is there.
    let cases = [
        (&entry, None, true, None, vec![]),
        (&reserved, None, false, None, vec!["free"]),
        (&entry, None, false, Some("a"), vec!["free"]),
        (&entry, ours(), true, None, vec![]),
        (&entry, ours(), false, Some("a"), vec![]),
        (&entry, ours(), false, None, vec!["stale"]),
        (&entry, ours(), false, Some("b"), vec!["stale"]),
        (&deleted, ours(), false, Some("a"), vec!["finish"]),
        (&deleted, ours(), true, None, vec![]),
        (&deleted, None, false, None, vec!["free"]),
        (&entry, other(), false, Some("b"), vec!["free", "rebuild"]),
        (&entry, other(), false, None, vec!["free", "rebuild", "stale"]),
        (&entry, here(Mark::Foreign), false, None, vec!["free"]),
        (&reserved, here(Mark::Unfinished), true, None, vec![]),
        (&reserved, here(Mark::Unfinished), false, None, vec!["stale"]),
        (&reserved, here(Mark::Unfinished), false, Some("a"), vec![]),
        (&deleted, here(Mark::Unfinished), false, Some("a"), vec!["finish"]),
        (&None, here(Mark::Unfinished), false, None, vec![]),
        (&entry, here(Mark::Unclear("x".into())), false, None, vec!["report"]),
        (&entry, Some(Guest::Elsewhere("on b".into())), false, None, vec!["report"]),
        (&None, ours(), false, Some("a"), vec!["rebuild"]),
        (&None, ours(), false, None, vec!["rebuild", "stale"]),
        (&None, here(Mark::Foreign), false, None, vec![]),
        (&None, here(Mark::Unclear("x".into())), false, None, vec!["report"]),
    ];
    for (number, (entry, guest, owned, held, expected)) in cases.into_iter().enumerate() {
        let seen = Seen {
            entries: entry.clone().into_iter().collect(),
            guests: guest.map(|guest| (100, guest)).into_iter().collect(),
            owned: owned.then_some(100).into_iter().collect(),
            held: held
                .map(|generation| Identity::parse("n", "c", generation).unwrap())
                .map(|held| ((held.namespace, held.id), held.generation))
                .into_iter()
                .collect(),
            ..Seen::default()
        };
        let kinds: Vec<&str> = decide(&seen)
            .iter()
            .map(|action| match action {
                Action::Free(..) => "free",
                Action::Rebuild(_) => "rebuild",
                Action::Finish(_) => "finish",
                Action::Stale(_) => "stale",
                Action::Report(..) => "report",
            })
            .collect();
        assert_eq!(kinds, expected, "case {number}");
    }
}

#[test]
fn a_stale_guest_is_destroyed_only_when_asked_and_its_id_freed_only_after_that() {
    struct Fails(std::cell::Cell<bool>);

    impl Destroyer for Fails {
        async fn destroy(&self, entry: &Entry) -> Result<()> {
            assert_eq!(entry.stage, Stage::Destroying);
            if self.0.get() { Err(Error::precondition("CT is locked (backup)")) } else { Ok(()) }
        }

        async fn sweep(&self, entry: &Entry) -> Result<()> {
            panic!("{} is not free", entry.vmid)
        }
    }

    let folder = folder();
    let ledger = Ledger::below(folder.path());
    let entry = ledger.reserve(100..=100, &BTreeSet::new(), &claim("c")).unwrap();
    let destroyer = Fails(std::cell::Cell::new(true));
    let apply = |dry_run, destroy| {
        let actions = vec![Action::Stale(entry.clone())];
        let mut all = run(apply(actions, &ledger, Options { dry_run, destroy }, &destroyer));
        let outcome = all.remove(0);
        (outcome.done, outcome.error.map(|error| error.to_string()))
    };
    assert_eq!(apply(false, false), (false, None));
    assert_eq!(apply(true, true), (false, None));
    assert_eq!(ledger.read(100).unwrap(), entry);
    assert_eq!(apply(false, true), (false, Some("CT is locked (backup)".to_owned())));
    // Whoever looks next may try again, though this process lives.
    let left = ledger.read(100).unwrap();
    assert_eq!((left.stage, left.owner), (Stage::Destroying, None));
    destroyer.0.set(false);
    assert_eq!(apply(false, true), (true, None));
    assert!(files(&ledger).is_empty());
}
