//! A value of config.json, where it stands, and a place for all that is found wrong with it.

use super::Level;
use crate::guest::translate::{escape, is_unset};
use serde_json::Value;
use std::cell::RefCell;

/// So many findings of each kind are kept; whoever has more has the same mistake often.
const MOST: usize = 500;

/// Something found, without its line.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub level: Level,
    pub refused: bool,
    pub pointer: String,
    pub problem: String,
    pub mend: String,
}

/// All that has been found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: RefCell<Vec<Found>>,
    /// By level; last, of errors for which nothing is refused.
    counts: RefCell<[usize; 4]>,
}

impl Findings {
    /// Adds one. An error is one for which a bundle is refused.
    pub fn add(
        &self,
        level: Level,
        pointer: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let (pointer, problem, mend) = (pointer.into(), problem.into(), mend.into());
        self.push(Found { level, refused: level == Level::Error, pointer, problem, mend });
    }

    fn push(&self, found: Found) {
        let mut counts = self.counts.borrow_mut();
        // These must not keep those for which it is refused from being seen.
        let tolerated = found.level == Level::Error && !found.refused;
        let kind = if tolerated { 3 } else { found.level as usize };
        let Some(count) = counts.get_mut(kind) else { return };
        *count += 1;
        if *count <= MOST {
            self.list.borrow_mut().push(found);
        }
    }

    /// Has a bundle refused for the errors at a pointer, below it, and at what it is in. Whether
    /// there are any.
    pub fn refuse(&self, pointer: &str) -> bool {
        let mut list = self.list.borrow_mut();
        let errors = list.iter_mut().filter(|found| {
            found.level == Level::Error
                && (within(&found.pointer, pointer) || within(pointer, &found.pointer))
        });
        errors.map(|found| found.refused = true).count() > 0
    }

    /// Those that were kept, and how many of each level there are beyond them.
    pub fn finish(self) -> (Vec<Found>, usize) {
        let more = self.counts.into_inner().iter().map(|count| count.saturating_sub(MOST)).sum();
        (self.list.into_inner(), more)
    }
}

/// Whether a pointer is another one, or leads below it.
fn within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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

    /// The same, but there are runtimes that make of it what was most likely meant: nobody's
    /// container is refused for it.
    pub fn tolerated(&self, problem: impl Into<String>, mend: impl Into<String>) {
        self.out.push(Found {
            level: Level::Error,
            refused: false,
            pointer: self.pointer.clone(),
            problem: problem.into(),
            mend: mend.into(),
        });
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
