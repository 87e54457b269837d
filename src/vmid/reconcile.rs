//! What the ledger says against what there is: after a crash at any step, after a reboot, after a
//! guest was destroyed by hand.
//!
//! [`decide`] is a pure function of what was seen; [`apply`] does what it decided. Each action
//! may be repeated and holds even where things have changed since they were seen: entries are
//! freed by generation, added only where there is none, and whoever destroys a guest reads once
//! more whose it is.

use super::{Entry, Generation, Identity, Ledger, Stage};
use crate::error::{Error, Result};
use crate::id::{ContainerId, Namespace};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What the configuration of a guest says about whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Tag and description are nexcage's.
    Ours(Identity),
    /// Neither is.
    Foreign,
    /// Somebody is making it at this moment, or was and died: it says nothing yet.
    Unfinished,
    /// It has a part of nexcage's marks, or cannot be read: why.
    Unclear(String),
}

/// A guest of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// A container guest on this node.
    Here(Mark),
    /// A virtual machine, or anything on the node of that name.
    Elsewhere(String),
}

/// Everything that is known. To be gathered in this order: entries, guests, the rest. A guest
/// that was made after the entries were read then has an entry that [`Ledger::insert`] finds, and
/// an entry whose owner was dead when it was read can get no guest by that owner any more.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The entries that can be read.
    pub entries: Vec<Entry>,
    /// The ids whose entries cannot, and why.
    pub broken: Vec<(u32, String)>,
    /// Every guest of the cluster.
    pub guests: BTreeMap<u32, Guest>,
    /// The ids whose entry's owner lives.
    pub owned: BTreeSet<u32>,
    /// The containers with a folder of state, and the generation that it is of.
    pub held: BTreeMap<(Namespace, ContainerId), Generation>,
}

/// What is to be done about one vmid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The entry has no guest, and nobody is making one: the id is free again.
    Free(Entry, &'static str),
    /// The guest says whose it is and has no entry: the entry is made anew.
    Rebuild(Entry),
    /// The container was deleted and the guest's removal was not finished.
    Finish(Entry),
    /// The guest's container is gone. It is destroyed only if that is asked for.
    Stale(Entry),
    /// Nothing is done about it here: why, and what an administrator can do.
    Report(u32, String),
}

impl Action {
    /// The id that it is about.
    pub fn vmid(&self) -> u32 {
        match self {
            Self::Free(entry, _)
            | Self::Rebuild(entry)
            | Self::Finish(entry)
            | Self::Stale(entry) => entry.vmid,
            Self::Report(vmid, _) => *vmid,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free(entry, why) => {
                write!(out, "{}: free, was {}: {why}", entry.vmid, entry.identity)
            }
            Self::Rebuild(entry) => {
                write!(out, "{}: write its entry anew, it is {}", entry.vmid, entry.identity)
            }
            Self::Finish(entry) => {
                write!(
                    out,
                    "{}: finish the removal of {}, which was begun",
                    entry.vmid, entry.identity
                )
            }
            Self::Stale(entry) => {
                write!(out, "{}: stale, its container {} is gone", entry.vmid, entry.identity)
            }
            Self::Report(vmid, why) => write!(out, "{vmid}: {why}"),
        }
    }
}

/// Says what is to be done, by vmid.
pub fn decide(seen: &Seen) -> Vec<Action> {
    let entries: BTreeMap<u32, &Entry> =
        seen.entries.iter().map(|entry| (entry.vmid, entry)).collect();
    let broken: BTreeMap<u32, &str> =
        seen.broken.iter().map(|(vmid, why)| (*vmid, why.as_str())).collect();
    let ids: BTreeSet<u32> =
        entries.keys().chain(broken.keys()).chain(seen.guests.keys()).copied().collect();
    let mut actions = Vec::new();
    for vmid in ids {
        let guest = seen.guests.get(&vmid);
        match (entries.get(&vmid), broken.get(&vmid)) {
            (Some(entry), _) => seen.about_entry(entry, guest, &mut actions),
            (None, Some(why)) => actions.push(Action::Report(
                vmid,
                format!("its entry cannot be read, and the id stays taken: {why}"),
            )),
            (None, None) => seen.about_stranger(vmid, guest, &mut actions),
        }
    }
    actions
}

impl Seen {
    /// Looks at everything, in the order that matters; `makers`, the generations whose guests are
    /// being made, and `guests` are asked in the middle.
    ///
    /// # Errors
    /// When any of it cannot be seen: what is not known to be gone is not gone.
    pub fn gather(
        ledger: &Ledger,
        state_dir: &Path,
        makers: impl FnOnce() -> Result<BTreeSet<String>>,
        guests: impl FnOnce() -> Result<BTreeMap<u32, Guest>>,
    ) -> Result<Self> {
        let listing = ledger.list()?;
        let boot_id = super::boot_id()?;
        // Who makes a guest goes on when whoever wanted it dies.
        let makers = makers()?;
        let owned = listing.entries.iter().filter(|entry| {
            entry.has_owner(&boot_id) || makers.contains(entry.identity.generation.as_str())
        });
        let owned = owned.map(|entry| entry.vmid).collect();
        let broken = listing.broken.into_iter().map(|(vmid, error)| (vmid, error.to_string()));
        Ok(Self {
            entries: listing.entries,
            broken: broken.collect(),
            owned,
            guests: guests()?,
            held: super::held(state_dir)?,
        })
    }

    fn is_held(&self, identity: &Identity) -> bool {
        let name = (identity.namespace.clone(), identity.id.clone());
        self.held.get(&name) == Some(&identity.generation)
    }

    /// Whether anyone still answers for the container.
    fn lives(&self, entry: &Entry) -> bool {
        self.owned.contains(&entry.vmid) || self.is_held(&entry.identity)
    }

    fn about_entry(&self, entry: &Entry, guest: Option<&Guest>, actions: &mut Vec<Action>) {
        let vmid = entry.vmid;
        let report = |why: String| Action::Report(vmid, why);
        let mark = match guest {
            // Also where the folder of state is still there: what deletes that finds no guest,
            // and needs no entry for it.
            None if self.owned.contains(&vmid) => return,
            None => {
                actions.push(Action::Free(entry.clone(), "there is no guest, and its maker ended"));
                return;
            }
            Some(Guest::Elsewhere(place)) => {
                // A guest that was moved is still the container's, and its id still taken.
                if !self.owned.contains(&vmid) {
                    actions.push(report(format!(
                        "the entry says {}, and the guest is {place}: if that one is not the \
                         container, remove the entry's file",
                        entry.identity
                    )));
                }
                return;
            }
            Some(Guest::Here(mark)) => mark,
        };
        if self.owned.contains(&vmid) {
            return;
        }
        match mark {
            // What was begun under an id that is reserved, and says nothing yet, goes the same way.
            Mark::Unfinished => self.about_own(entry, actions),
            Mark::Ours(identity) if *identity == entry.identity => self.about_own(entry, actions),
            Mark::Ours(identity) => {
                let why = "the guest is another container's, and its maker ended";
                actions.push(Action::Free(entry.clone(), why));
                self.about_guest(vmid, identity, actions);
            }
            Mark::Foreign => {
                actions.push(Action::Free(entry.clone(), "the guest is not nexcage's"));
            }
            Mark::Unclear(why) => actions.push(report(format!(
                "the guest is not surely that of {}, and is left alone: {why}",
                entry.identity
            ))),
        }
    }

    /// The guest of an entry whose maker is gone.
    fn about_own(&self, entry: &Entry, actions: &mut Vec<Action>) {
        if entry.stage == Stage::Destroying {
            actions.push(Action::Finish(entry.clone()));
        } else if !self.lives(entry) {
            actions.push(Action::Stale(entry.clone()));
        }
    }

    /// A guest without an entry.
    fn about_stranger(&self, vmid: u32, guest: Option<&Guest>, actions: &mut Vec<Action>) {
        match guest {
            Some(Guest::Here(Mark::Ours(identity))) => self.about_guest(vmid, identity, actions),
            Some(Guest::Here(Mark::Unclear(why))) => actions.push(Action::Report(
                vmid,
                format!("the guest is not surely nexcage's, and is left alone: {why}"),
            )),
            // An unfinished guest that nobody has reserved is somebody else's work.
            Some(Guest::Here(Mark::Foreign | Mark::Unfinished) | Guest::Elsewhere(_)) | None => {}
        }
    }

    fn about_guest(&self, vmid: u32, identity: &Identity, actions: &mut Vec<Action>) {
        let entry = Entry {
            vmid,
            identity: identity.clone(),
            bundle: PathBuf::new(),
            stage: Stage::Made,
            boot_id: String::new(),
            owner: None,
            created: 0,
        };
        actions.push(Action::Rebuild(entry.clone()));
        if !self.is_held(identity) {
            actions.push(Action::Stale(entry));
        }
    }
}

/// How far [`apply`] goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing is changed.
    pub dry_run: bool,
    /// Stale guests are destroyed.
    pub destroy: bool,
}

/// Destroys guests.
pub trait Destroyer {
    /// Stops and destroys the guest of an entry. It must look at the guest's own marks first, and
    /// leave it alone if they are not the entry's.
    ///
    /// # Errors
    /// What stands in the way, and what to do. No guest of that id is success.
    fn destroy(&self, entry: &Entry) -> impl Future<Output = Result<()>>;

    /// Removes what is left beside a guest of that id, if there is no such guest any more.
    ///
    /// # Errors
    /// Names what would not go.
    fn sweep(&self, entry: &Entry) -> impl Future<Output = Result<()>>;
}

/// What became of an action.
#[derive(Debug)]
pub struct Outcome {
    /// The action.
    pub action: Action,
    /// Whether anything was done about it.
    pub done: bool,
    /// What went wrong.
    pub error: Option<Error>,
}

/// Does what was decided, one after the other, past errors.
pub async fn apply(
    actions: Vec<Action>,
    ledger: &Ledger,
    options: Options,
    destroyer: &impl Destroyer,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for action in actions {
        let result = match &action {
            _ if options.dry_run => Ok(false),
            Action::Free(entry, _) => destroyer
                .sweep(entry)
                .await
                .and_then(|()| ledger.release(entry.vmid, &entry.identity.generation)),
            Action::Rebuild(entry) => ledger.insert(entry),
            Action::Stale(_) if !options.destroy => Ok(false),
            Action::Finish(entry) | Action::Stale(entry) => remove(ledger, entry, destroyer).await,
            Action::Report(..) => Ok(false),
        };
        let (done, error) = match result {
            Ok(done) => (done, None),
            Err(error) => (false, Some(error)),
        };
        outcomes.push(Outcome { action, done, error });
    }
    outcomes
}

/// Destroys the guest, and frees its id after that. Whoever else finds the entry meanwhile sees
/// that this process is at work on it; after a failure anybody may try again.
///
/// # Errors
/// What stands in the way; that somebody else has removed it is `NotFound`.
pub async fn remove(ledger: &Ledger, entry: &Entry, destroyer: &impl Destroyer) -> Result<bool> {
    let entry = ledger.set_stage(entry, Stage::Destroying)?;
    if let Err(error) = destroyer.destroy(&entry).await {
        // The error at hand says more than one about the ledger would.
        drop(ledger.leave(&entry));
        return Err(error);
    }
    ledger.release(entry.vmid, &entry.identity.generation)
}
