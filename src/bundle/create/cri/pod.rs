//! A pod's configuration (CRI's PodSandboxConfig), as far as it is its containers'.

use super::{keep, only, refuse, texts};
use crate::bundle::create::settings::check_hostname;
use crate::error::{Error, Result};
use crate::guest::translate::cursor::At;
use std::collections::BTreeMap;

/// What is read of it.
#[derive(Debug, Default)]
pub struct Pod {
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// metadata.namespace
    pub namespace: String,
    /// labels
    pub labels: BTreeMap<String, String>,
    /// annotations
    pub annotations: BTreeMap<String, String>,
    /// linux.cgroup_parent
    pub cgroup_parent: Option<String>,
    /// linux.security_context.privileged: whether its containers may be.
    pub privileged: bool,
    hostname: Option<String>,
    resolv: Option<String>,
}

impl Pod {
    /// Reads it; what is wrong is added to `errors`.
    pub fn read(at: &At<'_>, errors: &mut Vec<Error>) -> Self {
        let known = [
            "metadata",
            "hostname",
            "log_directory",
            "dns_config",
            "port_mappings",
            "labels",
            "annotations",
            "linux",
            "windows",
        ];
        only(at, &known, errors);
        refuse(at, "windows", "containers are Linux's here", errors);
        let metadata = at.at("metadata");
        only(&metadata, &["name", "uid", "namespace", "attempt"], errors);
        keep(metadata.at("attempt").number::<u32>(), errors);
        let mut text = |key: &str| {
            let at = metadata.at(key);
            keep(at.some_text().and_then(|text| at.plain(text)).map(str::to_owned), errors)
        };
        let (name, uid, namespace) = (text("name"), text("uid"), text("namespace"));
        keep(at.at("log_directory").text(), errors);
        keep(at.at("port_mappings").items(), errors);
        let hostname = at.at("hostname");
        let hostname = keep(hostname.text(), errors).map(|name| {
            if let Err(error) = check_hostname(name) {
                errors.push(hostname.wrong(error));
            }
            name.to_owned()
        });
        let linux = at.at("linux");
        let known = ["cgroup_parent", "security_context", "sysctls", "overhead", "resources"];
        only(&linux, &known, errors);
        let parent = linux.at("cgroup_parent");
        let cgroup_parent = keep(parent.text(), errors);
        if cgroup_parent.is_some_and(|path| path.split('/').any(|word| word == "..")) {
            errors.push(parent.wrong("has .. in it"));
        }
        let privileged = linux.at("security_context").at("privileged");
        Self {
            privileged: keep(privileged.flag(), errors),
            name,
            uid,
            namespace,
            labels: texts(&at.at("labels"), errors),
            annotations: texts(&at.at("annotations"), errors),
            cgroup_parent: cgroup_parent.map(str::to_owned),
            hostname,
            resolv: keep(resolv(&at.at("dns_config"), errors), errors),
        }
    }

    /// The files that its containers find in /etc, by name.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let hostname = self.hostname.as_ref().map(|name| format!("{name}\n"));
        [("hostname", hostname), ("resolv.conf", self.resolv.clone())]
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), text?.into_bytes())))
            .collect()
    }
}

/// resolv.conf(5), as containerd's CRI plugin writes it.
fn resolv(at: &At<'_>, errors: &mut Vec<Error>) -> Result<Option<String>> {
    only(at, &["servers", "searches", "options"], errors);
    if !at.is_set() {
        return Ok(None);
    }
    let words = |key: &str| -> Result<Vec<String>> {
        let at = at.at(key);
        let words = at.texts()?;
        match words.iter().find(|word| word.chars().any(|c| c.is_whitespace() || c.is_control())) {
            Some(_) => Err(at.wrong("white space separates the words of resolv.conf")),
            None => Ok(words),
        }
    };
    let mut text = String::new();
    let searches = words("searches")?;
    if !searches.is_empty() {
        text += &format!("search {}\n", searches.join(" "));
    }
    for server in words("servers")? {
        text += &format!("nameserver {server}\n");
    }
    let options = words("options")?;
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    Ok(Some(text))
}
