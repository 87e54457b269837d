//! Where in the text of a config.json a JSON pointer leads, and which keys stand there twice.
//!
//! serde_json hands out the raw text of each value; that text is a part of the whole, so its
//! address says where it begins.

use crate::guest::translate::escape;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Every level is read anew, so that a text of nothing but brackets would be read as often as it
/// is deep. No field of runtime-spec is half as deep.
const DEEPEST: usize = 24;

/// A key that an object has more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// The pointer that all of them have.
    pub pointer: String,
    /// Where the value of the first begins, in bytes.
    pub first: usize,
    /// Where that of a later one begins, in bytes.
    pub later: usize,
}

/// The places of some pointers.
#[derive(Debug, Default)]
pub struct Places {
    starts: BTreeMap<String, usize>,
    /// Keys that stand there more than once.
    pub twice: Vec<Twice>,
}

/// Lines of a text.
#[derive(Debug)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

/// The members of an object in their order, none left out.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        source.deserialize_map(All)
    }
}

impl Places {
    /// Looks through `text`, which is JSON, for the values of the `wanted` pointers.
    pub fn find(text: &str, wanted: &BTreeSet<&str>) -> Self {
        let mut places = Self::default();
        if let Ok(whole) = serde_json::from_str::<&RawValue>(text) {
            places.look(text, whole, &mut String::new(), wanted, 0);
        }
        places
    }

    fn look<'a>(
        &mut self,
        text: &'a str,
        raw: &'a RawValue,
        pointer: &mut String,
        wanted: &BTreeSet<&str>,
        depth: usize,
    ) {
        if wanted.contains(pointer.as_str()) {
            self.starts.insert(pointer.clone(), offset(text, raw));
        }
        if depth >= DEEPEST {
            return;
        }
        let length = pointer.len();
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                let Ok(Members(members)) = serde_json::from_str(raw.get()) else { return };
                let mut first: BTreeMap<&str, usize> = BTreeMap::new();
                for (key, value) in &members {
                    *pointer += "/";
                    *pointer += &escape(key);
                    let here = offset(text, value);
                    match first.get(key.as_str()) {
                        Some(&first) => {
                            let pointer = pointer.clone();
                            self.twice.push(Twice { pointer, first, later: here });
                        }
                        None => {
                            first.insert(key, here);
                        }
                    }
                    self.look(text, value, pointer, wanted, depth + 1);
                    pointer.truncate(length);
                }
            }
            Some(b'[') => {
                let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else { return };
                for (number, value) in items.into_iter().enumerate() {
                    *pointer += &format!("/{number}");
                    self.look(text, value, pointer, wanted, depth + 1);
                    pointer.truncate(length);
                }
            }
            _ => {}
        }
    }

    /// Where the value of a pointer begins, in bytes.
    pub fn of(&self, pointer: &str) -> Option<usize> {
        self.starts.get(pointer).copied()
    }
}

/// A pointer and those of all that it is in, from the inside out.
pub fn ancestors(pointer: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(pointer), |pointer| {
        pointer.rfind('/').map(|end| pointer.get(..end).unwrap_or_default())
    })
}

fn offset(text: &str, raw: &RawValue) -> usize {
    raw.get().as_ptr().addr().saturating_sub(text.as_ptr().addr())
}

impl<'a> Lines<'a> {
    /// The lines of `text`.
    pub fn of(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { text, starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// Line and column of a place in bytes. Both count from 1, a column is a character.
    pub fn at(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.as_bytes().get(start..offset.min(self.text.len()));
        // Bytes that continue a character are not counted.
        let chars = before.unwrap_or_default().iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        (line, chars + 1)
    }

    /// The place in bytes of what serde_json calls a line and a column, which is the number of
    /// bytes that it has read of the line.
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        (start + column.saturating_sub(1)).min(self.text.len())
    }
}
