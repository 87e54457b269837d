//! `nexcage route explain`: which backend a container would get, and why.

use super::Said;
use super::args::{Explain, Global, ReportFormat};
use crate::config::{self, BackendName, Config, Options};
use crate::error::{Context, Error, Result};
use crate::id::{ContainerId, Namespace};
use crate::route::{Decision, Subject, decide};
use crate::spec;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// The namespace of a container that the caller names none for.
const NAMESPACE: &str = "default";

pub(super) fn explain(global: &Global, asked: Explain) -> Result<Said> {
    let file = global.config.as_deref().unwrap_or(Path::new(config::FILE));
    let mut config = Config::load(file, &Options::default())?;
    let runtime_type = global.runtime_type.as_deref();
    config.runtime_type =
        runtime_type.map(BackendName::parse).transpose().context(|| "--runtime-type")?;
    let format = asked.format;
    let subject = subject(global, asked)?;
    let decision = decide(&config, &subject)?;
    let out = match format {
        ReportFormat::Text => as_text(&subject, &decision),
        ReportFormat::Json => as_json(&subject, &decision),
    };
    Ok(Said { out, ..Said::default() })
}

/// What the bundle says, with what the command line says over it.
fn subject(global: &Global, asked: Explain) -> Result<Subject> {
    let mut annotations = match &asked.bundle {
        Some(bundle) => spec::load(bundle)?.annotations,
        None => BTreeMap::new(),
    };
    annotations.extend(pairs("--annotation", asked.annotation)?);
    let namespace = Namespace::parse(global.namespace.as_deref().unwrap_or(NAMESPACE))?;
    let id = ContainerId::parse(asked.id.as_deref().unwrap_or("container"))?;
    let mut subject = Subject::of(&namespace, &id, &annotations);
    if asked.id.is_none() && subject.name == id.as_str() {
        subject.name.clear();
    }
    if let Some(name) = asked.name {
        subject.name = name;
    }
    if let Some(namespace) = &global.namespace {
        subject.namespace.clone_from(namespace);
    }
    subject.image = asked.image.or(subject.image);
    subject.labels.extend(pairs("--label", asked.label)?);
    Ok(subject)
}

fn pairs(flag: &str, words: Vec<String>) -> Result<BTreeMap<String, String>> {
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(format!("{flag} {word:?}: wanted KEY=VALUE"))),
    };
    words.into_iter().map(pair).collect()
}

fn as_text(subject: &Subject, decision: &Decision) -> String {
    let image = subject.image.as_deref().unwrap_or("unknown");
    let mut out = format!(
        "backend:    {}\nbecause:    {}\nname:       {}\nimage:      {image}\nnamespace:  {}\n",
        decision.backend, decision.reason, subject.name, subject.namespace
    );
    let passed_over = (1..).zip(&decision.passed_over);
    out.extend(passed_over.map(|(number, why)| format!("not rule {number}: {why}\n")));
    out
}

fn as_json(subject: &Subject, decision: &Decision) -> String {
    let said = json!({
        "backend": decision.backend.as_str(),
        "decidedBy": decision.reason.word(),
        "because": decision.reason.to_string(),
        "passedOver": decision.passed_over,
        "subject": {
            "name": subject.name,
            "image": subject.image,
            "namespace": subject.namespace,
            "annotations": subject.annotations,
            "labels": subject.labels,
        },
    });
    format!("{said:#}\n")
}
