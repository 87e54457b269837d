//! An image's configuration (image-spec, config.md), and what it makes of config.json
//! (conversion.md).

use super::default;
use super::layout::Platform;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The parts of an image's configuration that matter to a container.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Image {
    /// What it is for.
    #[serde(flatten)]
    pub platform: Platform,
    /// When it was made.
    #[serde(default)]
    pub created: Option<String>,
    /// By whom.
    #[serde(default)]
    pub author: Option<String>,
    /// How to run it.
    #[serde(default)]
    pub config: Option<Config>,
    /// Its layers.
    #[serde(default)]
    pub rootfs: Layers,
}

/// The digests of the layers, uncompressed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Layers {
    /// From the lowest to the highest.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// How an image is to be run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `user[:group]`, by number or name.
    pub user: Option<String>,
    /// NAME=VALUE
    pub env: Option<Vec<String>>,
    /// The program with its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments unless others are given.
    pub cmd: Option<Vec<String>>,
    /// The working folder.
    pub working_dir: Option<String>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
    /// What people note.
    pub labels: Option<BTreeMap<String, String>>,
    /// port/protocol
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// Folders for data that is to outlive the container.
    pub volumes: Option<BTreeMap<String, Value>>,
}

/// Where an image's stop signal stands in config.json.
pub const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

impl Image {
    /// The environment: the image's over the default.
    pub fn env(&self) -> Vec<String> {
        let own = self.config.as_ref().and_then(|config| config.env.clone()).unwrap_or_default();
        let mut env = vec![default::PATH.to_owned()];
        set_env(&mut env, own);
        env
    }

    /// What it changes in config.json, as a merge patch. The command and the user are not in it:
    /// they depend on what else is said, and on the root.
    ///
    /// # Errors
    /// `InvalidArgument` for a working folder that is none.
    pub fn patch(&self) -> Result<Value> {
        let config = self.config.clone().unwrap_or_default();
        let mut patch = json!({ "process": { "env": self.env() } });
        if let Some(folder) = config.working_dir.filter(|folder| !folder.is_empty()) {
            if !folder.starts_with('/') {
                return Err(Error::invalid(format!(
                    "the image's WorkingDir is {}, not an absolute path",
                    crate::config::input::quoted(&folder)
                )));
            }
            patch["process"]["cwd"] = folder.into();
        }
        patch["annotations"] = self.annotations().into();
        Ok(patch)
    }

    /// conversion.md, "Annotation Fields"; labels win over them.
    fn annotations(&self) -> Map<String, Value> {
        let config = self.config.clone().unwrap_or_default();
        let ports: Vec<String> = config.exposed_ports.unwrap_or_default().into_keys().collect();
        let text = |text: &str| Some(text.to_owned());
        let fields = [
            ("org.opencontainers.image.os", text(&self.platform.os)),
            ("org.opencontainers.image.architecture", text(&self.platform.architecture)),
            ("org.opencontainers.image.variant", text(&self.platform.variant)),
            ("org.opencontainers.image.author", self.author.clone()),
            ("org.opencontainers.image.created", self.created.clone()),
            (STOP_SIGNAL, config.stop_signal),
            ("org.opencontainers.image.exposedPorts", Some(ports.join(","))),
        ];
        let mut all: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.filter(|v| !v.is_empty())?)))
            .map(|(key, value)| (key, value.into()))
            .collect();
        for (key, value) in config.labels.unwrap_or_default() {
            all.insert(key, value.into());
        }
        all
    }

    /// Entrypoint and Cmd.
    pub fn command(&self) -> (Vec<String>, Vec<String>) {
        let config = self.config.clone().unwrap_or_default();
        (config.entrypoint.unwrap_or_default(), config.cmd.unwrap_or_default())
    }

    /// The user, if it names one.
    pub fn user(&self) -> Option<String> {
        self.config.as_ref()?.user.clone().filter(|user| !user.is_empty())
    }

    /// The volumes' places in the container.
    pub fn volumes(&self) -> Vec<String> {
        let config = self.config.clone().unwrap_or_default();
        config.volumes.unwrap_or_default().into_keys().collect()
    }
}

/// Sets environment variables, each in its place if it is there.
pub fn set_env(env: &mut Vec<String>, more: Vec<String>) {
    let name = |line: &str| line.split('=').next().map(str::to_owned);
    for line in more {
        match env.iter_mut().find(|there| name(there) == name(&line)) {
            Some(there) => *there = line,
            None => env.push(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_becomes_what_conversion_md_says() {
        let image: Image = serde_json::from_value(json!({
            "os": "linux", "architecture": "amd64", "author": "me",
            "config": {
                "Env": ["A=1", "PATH=/bin"], "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
                "Labels": {"x": "y", "org.opencontainers.image.author": "you"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}},
                "Entrypoint": ["/e"], "Cmd": null, "User": "",
            },
        }))
        .unwrap();
        assert_eq!(
            image.patch().unwrap(),
            json!({
                "process": {"env": ["PATH=/bin", "A=1"], "cwd": "/srv"},
                "annotations": {
                    "org.opencontainers.image.os": "linux",
                    "org.opencontainers.image.architecture": "amd64",
                    "org.opencontainers.image.author": "you",
                    "org.opencontainers.image.stopSignal": "SIGQUIT",
                    "org.opencontainers.image.exposedPorts": "53/udp,80/tcp",
                    "x": "y",
                },
            })
        );
        assert_eq!(image.command(), (vec!["/e".to_owned()], Vec::new()));
        assert_eq!((image.user(), image.volumes()), (None, vec!["/data".to_owned()]));
        let bad = json!({"config": {"WorkingDir": "srv"}});
        let bad: Image = serde_json::from_value(bad).unwrap();
        assert!(bad.patch().unwrap_err().to_string().contains("WorkingDir"));
    }
}
