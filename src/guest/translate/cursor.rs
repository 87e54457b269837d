//! A value of config.json and where it stands there, so that every complaint names the place.

use crate::config::input::quoted;
use crate::error::{Error, Result};
use serde_json::Value;

/// A value and its JSON pointer.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    value: &'a Value,
    pointer: String,
}

/// Go's writers leave null, "", [] and {} where they mean nothing.
pub(crate) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// One word of a JSON pointer (RFC 6901).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl<'a> At<'a> {
    /// The whole document; `pointer` is what its own pointer begins with.
    pub(crate) fn top(value: &'a Value, pointer: &str) -> Self {
        Self { value, pointer: pointer.to_owned() }
    }

    /// What is below `key`; unset where there is no such key.
    pub(crate) fn at(&self, key: &str) -> Self {
        static NULL: Value = Value::Null;
        let value = self.value.get(key).unwrap_or(&NULL);
        Self { value, pointer: format!("{}/{}", self.pointer, escape(key)) }
    }

    /// The value itself.
    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    /// Its JSON pointer.
    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Whether anything is there.
    pub(crate) fn is_set(&self) -> bool {
        !is_unset(self.value)
    }

    /// The value is wrong.
    pub(crate) fn wrong(&self, problem: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: {problem}", self.pointer))
    }

    /// The value may be right, and cannot be had.
    pub(crate) fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::unimplemented(format!("{}: {why}", self.pointer))
    }

    fn wanted(&self, what: &str) -> Error {
        self.wrong(format!("found {}, wanted {what}", quoted(&self.value.to_string())))
    }

    /// A text, `None` where it is unset.
    pub(crate) fn text(&self) -> Result<Option<&'a str>> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            _ => Err(self.wanted("a text")),
        }
    }

    /// A text that must be there, and may be empty.
    pub(crate) fn any_text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wanted("a text"))
    }

    /// A text that must be there.
    pub(crate) fn some_text(&self) -> Result<&'a str> {
        self.text()?.ok_or_else(|| self.wrong("is missing"))
    }

    /// An absolute path that must be there, without control characters.
    pub(crate) fn absolute(&self) -> Result<&'a str> {
        let path = self.some_text()?;
        if !path.starts_with('/') {
            return Err(self.wrong(format!("found {}, wanted an absolute path", quoted(path))));
        }
        self.plain(path)
    }

    /// The text itself, unless it has a control character.
    pub(crate) fn plain(&self, text: &'a str) -> Result<&'a str> {
        if text.chars().any(char::is_control) {
            return Err(self.wrong(format!("{} has a control character", quoted(text))));
        }
        Ok(text)
    }

    /// Yes or no; no where it is unset.
    pub(crate) fn flag(&self) -> Result<bool> {
        match self.value {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(*value),
            _ => Err(self.wanted("true or false")),
        }
    }

    /// A number, `None` where it is unset. `T` has the range.
    pub(crate) fn number<T: TryFrom<i128>>(&self) -> Result<Option<T>> {
        let found = match self.value {
            Value::Null => return Ok(None),
            value => value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from)),
        };
        let fitting = found.and_then(|number| T::try_from(number).ok());
        fitting.map(Some).ok_or_else(|| self.wanted("a whole number in its range"))
    }

    /// The items of a list; none where it is unset.
    pub(crate) fn items(&self) -> Result<Vec<Self>> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => Ok(list
                .iter()
                .enumerate()
                .map(|(number, value)| Self {
                    value,
                    pointer: format!("{}/{number}", self.pointer),
                })
                .collect()),
            _ => Err(self.wanted("a list")),
        }
    }

    /// The texts of a list, each of which may be empty.
    pub(crate) fn texts(&self) -> Result<Vec<String>> {
        self.items()?.iter().map(|item| item.any_text().map(str::to_owned)).collect()
    }

    /// The keys and values of a map; none where it is unset.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Self)>> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(map) => Ok(map.keys().map(|key| (key.as_str(), self.at(key))).collect()),
            _ => Err(self.wanted("an object")),
        }
    }
}
