//! Which backend a container gets, and why.
//!
//! In order: what the command line says, a pod's sandbox apart from all others, the container's own
//! annotation, the rules of the configuration (the first that matches), the default. Nothing
//! here looks at the host: a backend whose program is missing is an error later, never a reason
//! to take another.

use crate::config::{BACKEND_ANNOTATION, BackendName, Config};
use crate::cri::{Cri, Role};
use crate::error::Result;
use crate::id::{ContainerId, Namespace};
use crate::sys::fnmatch::fits;
use std::collections::BTreeMap;
use std::fmt;

/// Shell-style patterns (fnmatch(3) without flags: `*` matches slashes, too), of which one has to
/// match. None at all match everything.
pub type Patterns = Vec<String>;

/// One rule: every condition has to hold, and one without conditions always does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The backend of what it matches.
    pub backend: BackendName,
    /// Of [`Subject::name`].
    pub name: Patterns,
    /// Of [`Subject::image`].
    pub image: Patterns,
    /// Of [`Subject::namespace`].
    pub namespace: Patterns,
    /// Of the annotations of these names.
    pub annotations: BTreeMap<String, Patterns>,
    /// Of the labels of these names.
    pub labels: BTreeMap<String, Patterns>,
}

impl Rule {
    /// One without conditions.
    pub fn of(backend: BackendName) -> Self {
        Self {
            backend,
            name: Patterns::new(),
            image: Patterns::new(),
            namespace: Patterns::new(),
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// What is known of a container when its backend is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its name: in its pod, else nerdctl's, else its id.
    pub name: String,
    /// Its image reference, where the caller told it.
    pub image: Option<String>,
    /// Its pod's namespace, else containerd's.
    pub namespace: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels, where the caller told them.
    pub labels: BTreeMap<String, String>,
}

impl Subject {
    /// What the caller of a runtime says of a container.
    pub fn of(
        namespace: &Namespace,
        id: &ContainerId,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let cri = Cri::of(annotations);
        let name = cri.name.or_else(|| annotations.get("nerdctl/name").map(String::as_str));
        Self {
            name: name.unwrap_or(id.as_str()).to_owned(),
            image: cri.image.map(str::to_owned),
            namespace: cri.pod_namespace.unwrap_or(namespace.as_str()).to_owned(),
            annotations: annotations.clone(),
            labels: cri.labels,
        }
    }
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `--runtime-type`
    CommandLine,
    /// The annotation io.nexcage.backend.
    Annotation,
    /// It is a pod's sandbox.
    Sandbox,
    /// The rule of that number, from 1, and what of it matched.
    Rule(usize, String),
    /// The pattern of container_config.crun_name_patterns.
    NamePattern(String),
    /// The runtime's options in containerd's configuration.
    Options,
    /// Nothing else did.
    Default,
}

impl Reason {
    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::CommandLine => "command-line",
            Self::Annotation => "annotation",
            Self::Sandbox => "sandbox",
            Self::Rule(..) => "routing",
            Self::NamePattern(_) => "crun-name-patterns",
            Self::Options => "options",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => out.write_str("--runtime-type"),
            Self::Annotation => write!(out, "its annotation {BACKEND_ANNOTATION}"),
            Self::Sandbox => out.write_str("it is a pod's sandbox: sandbox_backend"),
            Self::Rule(number, what) => write!(out, "rule {number} of routing ({what})"),
            Self::NamePattern(pattern) => {
                write!(out, "its name matches {pattern} of container_config.crun_name_patterns")
            }
            Self::Options => out.write_str("the runtime's options"),
            Self::Default => out.write_str("no rule matches: default_container_type"),
        }
    }
}

/// A backend, and how it came to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backend.
    pub backend: BackendName,
    /// What decided.
    pub reason: Reason,
    /// The rules before that, each with what of it did not match.
    pub passed_over: Vec<String>,
}

/// Chooses a container's backend.
///
/// # Errors
/// `InvalidArgument` when the container asks for one that nobody has heard of.
pub fn decide(config: &Config, subject: &Subject) -> Result<Decision> {
    let decided = |backend, reason| Decision { backend, reason, passed_over: Vec::new() };
    if let Some(backend) = config.runtime_type {
        return Ok(decided(backend, Reason::CommandLine));
    }
    // A pod's annotations are handed to its sandbox, too, and mean its containers.
    if Cri::of(&subject.annotations).role == Some(Role::Sandbox) {
        return Ok(decided(config.sandbox_backend, Reason::Sandbox));
    }
    if let Some(name) = subject.annotations.get(BACKEND_ANNOTATION) {
        let backend = BackendName::parse(name)
            .map_err(|error| error.context(format!("annotation {BACKEND_ANNOTATION}")))?;
        return Ok(decided(backend, Reason::Annotation));
    }
    let mut passed_over = Vec::new();
    for (number, rule) in (1..).zip(&config.routing) {
        match rule.matches(subject) {
            Ok(what) => {
                let reason = Reason::Rule(number, what);
                return Ok(Decision { backend: rule.backend, reason, passed_over });
            }
            Err(what) => passed_over.push(what),
        }
    }
    if let Some(pattern) = config.crun_name_patterns.iter().find(|it| fits(it, &subject.name)) {
        let reason = Reason::NamePattern(pattern.clone());
        return Ok(Decision { backend: BackendName::Crun, reason, passed_over });
    }
    let reason = if config.default_by_options { Reason::Options } else { Reason::Default };
    Ok(Decision { backend: config.default_container_type, reason, passed_over })
}

impl Rule {
    /// What of the rule matched, or the first condition that did not hold.
    fn matches(&self, subject: &Subject) -> Result<String, String> {
        let of = |kind: &str, key: &str| format!("{kind} {key}");
        let plain = [
            ("name".to_owned(), &self.name, Some(&subject.name)),
            ("image".to_owned(), &self.image, subject.image.as_ref()),
            ("namespace".to_owned(), &self.namespace, Some(&subject.namespace)),
        ];
        let annotations = self
            .annotations
            .iter()
            .map(|(key, patterns)| (of("annotation", key), patterns, subject.annotations.get(key)));
        let labels = self
            .labels
            .iter()
            .map(|(key, patterns)| (of("label", key), patterns, subject.labels.get(key)));
        let mut matched = Vec::new();
        for (what, patterns, value) in plain.into_iter().chain(annotations).chain(labels) {
            if patterns.is_empty() {
                continue;
            }
            let Some(value) = value else {
                return Err(format!("it has no {what}, wanted {}", patterns.join(" or ")));
            };
            match patterns.iter().find(|pattern| fits(pattern, value)) {
                Some(pattern) => matched.push(format!("{what} {value:?} matches {pattern}")),
                None => {
                    return Err(format!(
                        "{what} {value:?} does not match {}",
                        patterns.join(" or ")
                    ));
                }
            }
        }
        if matched.is_empty() {
            return Ok("it has no condition".to_owned());
        }
        Ok(matched.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(all: &[&str]) -> Patterns {
        all.iter().map(|it| (*it).to_owned()).collect()
    }

    fn subject(name: &str) -> Subject {
        Subject {
            name: name.to_owned(),
            image: Some("docker.io/library/postgres:17".to_owned()),
            namespace: "shop".to_owned(),
            annotations: [("team".to_owned(), "data".to_owned())].into(),
            labels: [("app".to_owned(), "db".to_owned())].into(),
        }
    }

    fn decision(config: &Config, subject: &Subject) -> (BackendName, String) {
        let decision = decide(config, subject).unwrap();
        (decision.backend, decision.reason.to_string())
    }

    #[test]
    fn patterns_are_the_shell_s() {
        for (pattern, value, expected) in [
            ("kube-ovn-*", "kube-ovn-cni-7x", true),
            ("kube-ovn-*", "my-kube-ovn-cni", false),
            ("*", "", true),
            ("docker.io/*", "docker.io/library/nginx:1", true),
            ("*/nginx:1.?", "docker.io/library/nginx:1.2", true),
            ("web-[0-9]", "web-7", true),
            ("web-[!0-9]", "web-7", false),
            ("web", "WEB", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("*", "a\0b", false),
        ] {
            assert_eq!(fits(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn the_first_rule_of_which_every_condition_holds_decides() {
        let config = Config {
            routing: vec![
                Rule { name: patterns(&["web-*", "api"]), ..Rule::of(BackendName::Runc) },
                Rule {
                    image: patterns(&["*/postgres:*"]),
                    namespace: patterns(&["shop"]),
                    annotations: [("team".to_owned(), patterns(&["d*"]))].into(),
                    labels: [("app".to_owned(), patterns(&["db"]))].into(),
                    ..Rule::of(BackendName::Pct)
                },
                Rule::of(BackendName::Lxc),
            ],
            ..Config::default()
        };
        assert_eq!(
            decision(&config, &subject("api")),
            (BackendName::Runc, "rule 1 of routing (name \"api\" matches api)".to_owned())
        );
        assert_eq!(decision(&config, &subject("db")).0, BackendName::Pct);
        for change in [
            (|it: &mut Subject| it.image = None) as fn(&mut Subject),
            |it| it.namespace = "other".to_owned(),
            |it| it.annotations.clear(),
            |it| it.labels.clear(),
        ] {
            let mut subject = subject("db");
            change(&mut subject);
            assert_eq!(
                decision(&config, &subject),
                (BackendName::Lxc, "rule 3 of routing (it has no condition)".to_owned()),
                "{subject:?}"
            );
        }
        let passed_over = decide(&config, &Subject { image: None, ..subject("db") }).unwrap();
        assert_eq!(
            passed_over.passed_over,
            ["name \"db\" does not match web-* or api", "it has no image, wanted */postgres:*"]
        );
    }

    #[test]
    fn a_container_s_own_word_comes_first_and_a_sandbox_follows_no_rule() {
        let mut config = Config {
            routing: vec![Rule::of(BackendName::Runc)],
            sandbox_backend: BackendName::Lxc,
            ..Config::default()
        };
        let kind = "io.kubernetes.cri.container-type".to_owned();
        let mut one = subject("db");
        assert_eq!(decision(&config, &one).0, BackendName::Runc);
        one.annotations.insert(BACKEND_ANNOTATION.to_owned(), "pct".to_owned());
        assert_eq!(decision(&config, &one).0, BackendName::Pct);
        one.annotations.insert(kind, "sandbox".to_owned());
        assert_eq!(decision(&config, &one).0, BackendName::Lxc);
        config.runtime_type = Some(BackendName::Crun);
        assert_eq!(decision(&config, &one), (BackendName::Crun, "--runtime-type".to_owned()));
    }

    #[test]
    fn the_older_patterns_come_after_the_rules_and_before_the_default() {
        let mut config = Config {
            crun_name_patterns: patterns(&["kube-ovn-*", "cilium-*"]),
            default_container_type: BackendName::Lxc,
            ..Config::default()
        };
        assert_eq!(
            decision(&config, &subject("cilium-x")),
            (
                BackendName::Crun,
                "its name matches cilium-* of container_config.crun_name_patterns".to_owned()
            )
        );
        assert_eq!(decision(&config, &subject("web")).0, BackendName::Lxc);
        config.routing =
            vec![Rule { name: patterns(&["cilium-x"]), ..Rule::of(BackendName::Runc) }];
        assert_eq!(decision(&config, &subject("cilium-x")).0, BackendName::Runc);
    }

    #[test]
    fn a_name_is_the_one_that_people_gave() {
        let namespace = Namespace::parse("k8s.io").unwrap();
        let id = ContainerId::parse("0123abcd").unwrap();
        let of = |pairs: &[(&str, &str)]| {
            let annotations = pairs.iter().map(|(key, it)| ((*key).to_owned(), (*it).to_owned()));
            let subject = Subject::of(&namespace, &id, &annotations.collect());
            (subject.name, subject.namespace)
        };
        let both = |name: &str, namespace: &str| (name.to_owned(), namespace.to_owned());
        assert_eq!(of(&[]), both("0123abcd", "k8s.io"));
        assert_eq!(of(&[("nerdctl/name", "web")]), both("web", "k8s.io"));
        assert_eq!(
            of(&[
                ("io.kubernetes.cri.container-name", "db"),
                ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ]),
            both("db", "shop")
        );
    }
}
