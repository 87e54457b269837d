//! A value of config.json, where it stands, and a place for all that is found wrong with it.

use super::Level;
use crate::guest::translate::{escape, is_unset};
use serde_json::Value;
use std::cell::RefCell;

/// So many findings of each level are kept; whoever has more has the same mistake often.
const MOST: usize = 500;

/// Something found, without its line.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub level: Level,
    pub pointer: String,
    pub problem: String,
    pub mend: String,
}

/// All that has been found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: RefCell<Vec<Found>>,
    counts: RefCell<[usize; 3]>,
}

impl Findings {
    /// Adds one.
    pub fn add(
        &self,
        level: Level,
        pointer: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let mut counts = self.counts.borrow_mut();
        let Some(count) = counts.get_mut(level as usize) else { return };
        *count += 1;
        if *count <= MOST {
            let (pointer, problem, mend) = (pointer.into(), problem.into(), mend.into());
            self.list.borrow_mut().push(Found { level, pointer, problem, mend });
        }
    }

    /// Whether there is an error at a pointer, below it, or at what it is in.
    pub fn has_error(&self, pointer: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.list.borrow().iter().any(|found| {
            found.level == Level::Error
                && (within(&found.pointer, pointer) || within(pointer, &found.pointer))
        })
    }

    /// Those that were kept, and how many of each level there are beyond them.
    pub fn finish(self) -> (Vec<Found>, usize) {
        let more = self.counts.into_inner().iter().map(|count| count.saturating_sub(MOST)).sum();
        (self.list.into_inner(), more)
    }
}

/// A value and its JSON pointer. What is asked for and has another type is answered as if it
/// were not there: the table of fields has complained about it.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub value: &'a Value,
    pub pointer: String,
    out: &'a Findings,
}

impl<'a> At<'a> {
    /// The whole document.
    pub fn top(value: &'a Value, out: &'a Findings) -> Self {
        Self { value, pointer: String::new(), out }
    }

    /// What is below `key`; unset where there is no such key.
    pub fn at(&self, key: &str) -> Self {
        static NULL: Value = Value::Null;
        let value = self.value.get(key).unwrap_or(&NULL);
        Self { value, pointer: format!("{}/{}", self.pointer, escape(key)), out: self.out }
    }

    /// Whether anything is there; what Go writes for nothing is nothing.
    pub fn is_set(&self) -> bool {
        !is_unset(self.value)
    }

    /// A text that is not empty.
    pub fn text(&self) -> Option<&'a str> {
        self.value.as_str().filter(|text| !text.is_empty())
    }

    /// A whole number.
    pub fn number(&self) -> Option<i128> {
        self.value.as_i64().map(i128::from).or_else(|| self.value.as_u64().map(i128::from))
    }

    /// Yes or no; no where it is unset.
    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// The items of a list.
    pub fn items(&self) -> Vec<Self> {
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        let item = |(number, value)| Self {
            value,
            pointer: format!("{}/{number}", self.pointer),
            out: self.out,
        };
        list.iter().enumerate().map(item).collect()
    }

    /// The members of an object.
    pub fn entries(&self) -> Vec<(&'a str, Self)> {
        let members = self.value.as_object().into_iter().flatten();
        members.map(|(key, _)| (key.as_str(), self.at(key))).collect()
    }

    /// This keeps the container from being made or from being what was asked for.
    pub fn error(&self, problem: impl Into<String>, mend: impl Into<String>) {
        self.out.add(Level::Error, &self.pointer, problem, mend);
    }

    /// This is most likely a mistake, or not all runtimes take it.
    pub fn warning(&self, problem: impl Into<String>, mend: impl Into<String>) {
        self.out.add(Level::Warning, &self.pointer, problem, mend);
    }

    /// This is worth knowing.
    pub fn note(&self, problem: impl Into<String>, mend: impl Into<String>) {
        self.out.add(Level::Note, &self.pointer, problem, mend);
    }
}
