//! `nexcage vmid`: which guest of Proxmox VE is which container's, and putting right what does
//! not fit together.

use super::Said;
use super::args::Format;
use crate::backend::oci::find_program;
use crate::backend::pct::cluster::{self, Host};
use crate::backend::pct::remove::{Remover, reconcile};
use crate::backend::pct::run::Tool;
use crate::config::{self, BackendName, Config};
use crate::error::Result;
use crate::sys::reaper;
use crate::vmid::reconcile::{Action, Guest, Options, Outcome};
use crate::vmid::{Entry, Ledger, boot_id};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// `nexcage vmid list`
pub fn list(format: Format) -> Result<Said> {
    let config = Config::load(Path::new(config::FILE), &config::Options::default())?;
    list_on(&Ledger::below(&config.data_dir), &Host::default(), format)
}

fn list_on(ledger: &Ledger, host: &Host, format: Format) -> Result<Said> {
    let listing = ledger.list()?;
    // Without Proxmox VE the ledger is still worth a look.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guests = runtime.block_on(host.ask(cluster::LONG, Host::guests)).ok();
    let boot_id = boot_id()?;
    let rows: Vec<Row<'_>> = listing
        .entries
        .iter()
        .map(|entry| Row {
            entry,
            guest: guest_word(entry, guests.as_ref(), host),
            owned: entry.has_owner(&boot_id),
        })
        .collect();
    let out = match format {
        Format::Table => table(&rows),
        Format::Json => as_json(&rows),
    };
    let err: String =
        listing.broken.iter().map(|(_, error)| format!("nexcage: {error}\n")).collect();
    Ok(Said { status: u8::from(!err.is_empty()), out, err })
}

struct Row<'a> {
    entry: &'a Entry,
    guest: &'static str,
    owned: bool,
}

fn guest_word(entry: &Entry, guests: Option<&BTreeMap<u32, Guest>>, host: &Host) -> &'static str {
    match guests.map(|guests| guests.get(&entry.vmid)) {
        None => "unknown",
        Some(None) => "none",
        Some(Some(Guest::Elsewhere(_))) => "elsewhere",
        Some(Some(Guest::Here(_))) => match host.is_running(entry.vmid) {
            Ok(true) => "running",
            Ok(false) => "stopped",
            Err(_) => "unknown",
        },
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let mut out = format!(
        "{:<10} {:<10} {:<9} {:<10} {:<20} {}\n",
        "VMID", "STATE", "GUEST", "SUPERVISOR", "NAMESPACE", "CONTAINER"
    );
    for Row { entry, guest, owned } in rows {
        let (namespace, id) = (entry.identity.namespace.as_str(), entry.identity.id.as_str());
        let owner = if *owned { "alive" } else { "gone" };
        let (vmid, stage) = (entry.vmid, entry.stage.to_string());
        out += &format!("{vmid:<10} {stage:<10} {guest:<9} {owner:<10} {namespace:<20} {id}\n");
    }
    out
}

fn as_json(rows: &[Row<'_>]) -> String {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|Row { entry, guest, owned }| {
            json!({
                "vmid": entry.vmid,
                "namespace": entry.identity.namespace.as_str(),
                "id": entry.identity.id.as_str(),
                "generation": entry.identity.generation.as_str(),
                "bundle": entry.bundle,
                "state": entry.stage.to_string(),
                "guest": guest,
                "supervisorAlive": owned,
                "created": entry.created,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

/// `nexcage vmid reconcile`
pub fn reconcile_all(options: Options) -> Result<Said> {
    let config = Config::load(Path::new(config::FILE), &config::Options::default())?;
    let program = find_program(BackendName::Pct, &config.pct.program)?;
    let remover = Remover { tool: Tool { program }, host: Host::default() };
    let ledger = Ledger::below(&config.data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(async {
        reaper::start()?;
        reconcile(&ledger, &config.state_dir, &remover, options).await
    })?;
    Ok(report(&outcomes, options))
}

fn report(outcomes: &[Outcome], options: Options) -> Said {
    let mut said = Said::default();
    for outcome in outcomes {
        let hint = match &outcome.action {
            Action::Stale(_) if !options.destroy => " (--destroy destroys it)",
            Action::Report(..) => "",
            _ if options.dry_run => " (not done: --dry-run)",
            _ => "",
        };
        match &outcome.error {
            None => said.out += &format!("{}{hint}\n", outcome.action),
            Some(error) => {
                said.status = 1;
                said.err += &format!("nexcage: {}: {error}\n", outcome.action);
            }
        }
    }
    if outcomes.is_empty() {
        said.out = "everything fits together\n".to_owned();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::vmid::{Identity, Stage};

    fn entry(vmid: u32, id: &str, stage: Stage) -> Entry {
        Entry {
            vmid,
            identity: Identity::parse("k8s.io", id, "1b4e").unwrap(),
            bundle: "/b".into(),
            stage,
            boot_id: String::new(),
            owner: None,
            created: 9,
        }
    }

    #[test]
    fn the_list_is_a_table_for_people_and_json_for_programs() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::below(folder.path());
        let host = Host {
            etc: folder.path().join("etc"),
            sockets: folder.path().join("unix"),
            ..Host::default()
        };
        for (vmid, id, stage) in [(900_000, "web", Stage::Made), (100, "db", Stage::Destroying)] {
            assert!(ledger.insert(&entry(vmid, id, stage)).unwrap());
        }
        let said = list_on(&ledger, &host, Format::Table).unwrap();
        assert_eq!(
            said.out,
            "VMID       STATE      GUEST     SUPERVISOR NAMESPACE            CONTAINER\n\
             100        destroying unknown   gone       k8s.io               db\n\
             900000     made       unknown   gone       k8s.io               web\n"
        );
        std::fs::create_dir_all(host.etc.join("lxc")).unwrap();
        let ids = r#"{"ids": {"100": {"node": "a", "type": "lxc"}}}"#;
        std::fs::write(host.etc.join(".vmlist"), ids).unwrap();
        std::fs::write(host.config(100), "arch: amd64\n").unwrap();
        std::fs::write(&host.sockets, "0: 0 0 0 1 1 1 @/var/lib/lxc/100/command\n").unwrap();
        let said = list_on(&ledger, &host, Format::Json).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            rows[0],
            json!({
                "vmid": 100, "namespace": "k8s.io", "id": "db", "generation": "1b4e",
                "bundle": "/b", "state": "destroying", "guest": "running",
                "supervisorAlive": false, "created": 9,
            })
        );
        assert_eq!(rows[1]["guest"], "none");
        std::fs::write(ledger.folder().join("101"), "").unwrap();
        let said = list_on(&ledger, &host, Format::Table).unwrap();
        assert!(said.status == 1 && said.err.contains("/101: not an entry"), "{}", said.err);
    }

    #[test]
    fn a_report_says_what_was_done_and_what_was_not() {
        let outcomes = |error: Option<&str>| {
            vec![
                Outcome {
                    action: Action::Free(entry(100, "a", Stage::Made), "why"),
                    done: true,
                    error: None,
                },
                Outcome {
                    action: Action::Stale(entry(101, "b", Stage::Made)),
                    done: false,
                    error: error.map(Error::unknown),
                },
            ]
        };
        let said = report(&outcomes(None), Options::default());
        assert_eq!(
            (said.status, said.out.as_str()),
            (
                0,
                "100: free, was k8s.io/a: why\n\
                 101: stale, its container k8s.io/b is gone (--destroy destroys it)\n"
            )
        );
        let said = report(&outcomes(None), Options { dry_run: true, destroy: true });
        assert!(said.out.lines().all(|line| line.ends_with(" (not done: --dry-run)")));
        let said = report(&outcomes(Some("locked")), Options { dry_run: false, destroy: true });
        assert_eq!(said.status, 1);
        assert_eq!(said.err, "nexcage: 101: stale, its container k8s.io/b is gone: locked\n");
        assert_eq!(report(&[], Options::default()).out, "everything fits together\n");
    }
}
