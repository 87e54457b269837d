//! A configuration as written: JSON and TOML become one small tree before any key is looked at.
//!
//! `serde_json::Value` keeps the last of two equal keys without a word, and a second tree type for
//! TOML would be a second copy of everything; so this one is ours, and knows only what the keys in
//! [`super::keys`] can hold.

use super::input::quoted;
use crate::error::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Keys and their values, without their order.
pub(super) type Table = BTreeMap<String, Value>;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
    List(Vec<Self>),
    Table(Table),
    /// What no key takes, by the name it has in a message.
    Other(&'static str),
}

impl Value {
    /// What this is, for "found …".
    pub(super) fn found(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => format!("the number {number}"),
            Self::Text(text) => format!("the string {}", quoted(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "an object".to_owned(),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Toml,
}

impl Format {
    /// No TOML document begins with a brace, and every JSON object does.
    pub(super) fn of(text: &[u8]) -> Self {
        if text.trim_ascii_start().first() == Some(&b'{') { Self::Json } else { Self::Toml }
    }
}

/// Parses a whole configuration.
pub(super) fn parse(text: &[u8], format: Format) -> Result<Table> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::invalid(format!("not UTF-8 from byte {}", error.valid_up_to())))?;
    let value = match format {
        Format::Json => serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("not valid JSON: {error}")))?,
        Format::Toml => toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            let end = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count();
            Error::invalid(format!("not valid TOML: {message} at line {line}"))
        })?,
    };
    match value {
        Value::Table(table) => Ok(table),
        other => Err(Error::invalid(format!("found {}, wanted an object", other.found()))),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other("a huge number"), Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a fraction"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut table = Table::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value()?;
            // How the toml crate hands a date through serde.
            if key == "$__toml_private_datetime" {
                return Ok(Value::Other("a date"));
            }
            // Which of two equal keys counts is a matter of the parser; nobody means both.
            if table.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {} is given twice", quoted(&key))));
            }
            table.insert(key, value);
        }
        Ok(Value::Table(table))
    }
}
