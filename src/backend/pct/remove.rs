//! The end of a guest, for a Delete and for what was left behind by somebody else.

use super::cluster::{self, Host};
use super::run::Tool;
use crate::error::{Error, Kind, Result};
use crate::sys::pidfd;
use crate::vmid::reconcile::{Destroyer, Mark, Options, Outcome, Seen, apply, decide};
use crate::vmid::{Entry, Ledger};
use std::path::Path;

/// Removes guests.
#[derive(Clone, Debug)]
pub struct Remover {
    /// How pct is called.
    pub tool: Tool,
    /// Where its files are.
    pub host: Host,
}

impl Remover {
    /// Everything that the ledger, the cluster and the folders of state say.
    ///
    /// # Errors
    /// When any of it cannot be seen.
    pub async fn look(&self, ledger: &Ledger, state_dir: &Path) -> Result<Seen> {
        let (ledger, state_dir) = (ledger.clone(), state_dir.to_owned());
        let gather = move |host: &Host| {
            let makers = || Ok(cluster::makers()?.into_keys().collect());
            Seen::gather(&ledger, &state_dir, makers, || host.guests())
        };
        self.host.ask(cluster::LONG, gather).await
    }

    async fn mark(&self, vmid: u32) -> Result<Option<Mark>> {
        self.host.ask(cluster::SHORT, move |host| host.mark(vmid)).await
    }
}

impl Destroyer for Remover {
    async fn destroy(&self, entry: &Entry) -> Result<()> {
        let vmid = entry.vmid;
        // A pct that makes the guest outlives whoever started it, and would be done after this.
        while let Some(pid) = cluster::maker_of(vmid, &entry.identity.generation)? {
            if let Ok(maker) = pidfd::open(pid) {
                pidfd::ended(maker).await?;
            }
        }
        match self.mark(vmid).await? {
            Some(Mark::Ours(identity)) if identity == entry.identity => {}
            None => return self.host.remove_leftovers(vmid),
            // Who has the id here has begun it, and who made it is gone: there is nothing but the
            // file, which pct destroys for nobody.
            Some(Mark::Unfinished) => {
                self.host.remove_unfinished(vmid).await?;
                log::warn!(container = entry.identity.id.as_str();
                    "the guest {vmid} was half made; with pct.storage set, a volume of it may be \
                     left there: see `pvesm list STORAGE --vmid {vmid}`");
                return self.host.remove_leftovers(vmid);
            }
            Some(_) => {
                return Err(Error::precondition(format!(
                    "the guest {vmid} does not say that it is {}, generation {}: it is left alone",
                    entry.identity, entry.identity.generation
                )));
            }
        }
        // One call instead of two: pct itself stops a guest that runs, frozen or not.
        match self.tool.run("destroy", vmid, &["--force", "1"]).await {
            // Somebody was faster.
            Err(error) if error.kind() == Kind::NotFound => {}
            result => result?,
        }
        self.host.remove_leftovers(vmid)
    }

    async fn sweep(&self, entry: &Entry) -> Result<()> {
        match self.mark(entry.vmid).await? {
            None => self.host.remove_leftovers(entry.vmid),
            Some(_) => Ok(()),
        }
    }
}

/// Looks at everything that the ledger, the cluster and the folders of state say, and puts right
/// what does not fit together.
///
/// # Errors
/// When something cannot be seen; then nothing is done. What goes wrong later is in the outcomes.
pub async fn reconcile(
    ledger: &Ledger,
    state_dir: &Path,
    remover: &Remover,
    options: Options,
) -> Result<Vec<Outcome>> {
    let seen = remover.look(ledger, state_dir).await?;
    if !options.dry_run {
        ledger.sweep()?;
    }
    Ok(apply(decide(&seen), ledger, options, remover).await)
}
