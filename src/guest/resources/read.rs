//! Reads one part of config.json after the other, and says by JSON pointer where one is wrong.

use crate::config::input::quoted;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// An object of config.json, and where it stands.
pub struct Node<'a> {
    at: String,
    map: &'a Map<String, Value>,
}

/// The JSON pointer of `key` in the object or list at `at`, on one line whatever the key is.
pub fn below(at: &str, key: &str) -> String {
    const MOST: usize = 100;
    let key = key.replace('~', "~0").replace('/', "~1");
    let key: String = key.chars().take(MOST).flat_map(char::escape_debug).collect();
    format!("{at}/{key}")
}

/// That a value is none of those which are allowed there.
pub fn wrong(at: &str, found: &Value, wanted: &str) -> Error {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    Error::invalid(format!("{at}: found {found}, wanted {wanted}"))
}

impl<'a> Node<'a> {
    /// `None` for null, which Go's writers leave where nothing is set.
    pub fn at(at: String, value: &'a Value) -> Result<Option<Self>> {
        match value {
            Value::Null => Ok(None),
            Value::Object(map) => Ok(Some(Self { at, map })),
            other => Err(wrong(&at, other, "an object")),
        }
    }

    /// Refuses a key that is not in `known`: what it asks for would not be done.
    pub fn only(self, known: &[&str]) -> Result<Self> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(self),
            Some(key) => Err(Error::invalid(format!(
                "{}: not a field that nexcage knows; it knows {} there",
                self.pointer(key),
                known.join(", ")
            ))),
        }
    }

    /// The JSON pointer of one of its fields.
    pub fn pointer(&self, key: &str) -> String {
        below(&self.at, key)
    }

    /// The value of a field that is there and not null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// All fields that are not null.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let set = self.map.iter().filter(|(_, value)| !value.is_null());
        set.map(|(key, value)| (key.as_str(), value))
    }

    /// An object of any fields.
    pub fn any_object(&self, key: &str) -> Result<Option<Node<'a>>> {
        self.value(key).map_or(Ok(None), |value| Node::at(self.pointer(key), value))
    }

    /// An object with no other fields than those `known`.
    pub fn object(&self, key: &str, known: &[&str]) -> Result<Option<Node<'a>>> {
        self.any_object(key)?.map(|node| node.only(known)).transpose()
    }

    /// A list of objects with no other fields than those `known`.
    pub fn objects(&self, key: &str, known: &[&str]) -> Result<Vec<Node<'a>>> {
        let at = self.pointer(key);
        let entries = match self.value(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(entries)) => entries,
            Some(other) => return Err(wrong(&at, other, "a list of objects")),
        };
        let entry = |(index, value): (usize, &'a Value)| {
            let at = format!("{at}/{index}");
            let missing = || wrong(&at, value, "an object");
            Node::at(at.clone(), value)?.ok_or_else(missing)?.only(known)
        };
        entries.iter().enumerate().map(entry).collect()
    }

    /// A whole number in `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<i128>) -> Result<Option<i128>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let wanted = format!("a whole number from {} to {}", range.start(), range.end());
            wrong(&self.pointer(key), value, &wanted)
        })
    }

    /// A whole number other than 0, which programs write in Go where nothing is set.
    pub fn set(&self, key: &str, range: RangeInclusive<i128>) -> Result<Option<i128>> {
        Ok(self.number(key, range)?.filter(|number| *number != 0))
    }

    /// A whole number that has to be there.
    pub fn needed(&self, key: &str, range: RangeInclusive<i128>) -> Result<i128> {
        self.number(key, range)?
            .ok_or_else(|| wrong(&self.pointer(key), &Value::Null, "a whole number"))
    }

    /// true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(&self.pointer(key), value, "true or false"))
    }

    /// Text without control characters; `None` for an empty one as well.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().filter(|text| !text.contains(char::is_control));
        let wanted = "text without control characters";
        let text = text.ok_or_else(|| wrong(&self.pointer(key), value, wanted))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}
