//! Lines of JSON: one object each. Values that are not changed leave letter by letter as they came.

use std::borrow::Cow;
use std::fmt;

use kontor_core::policy::permit::{FieldPath, Transform};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::value::Change;
use super::{Place, PseudonymKey, StageError, split_line_end};

/// What becomes of a field and of those within it.
#[derive(Debug, Default)]
struct Node {
    /// Sorted by name.
    within: Vec<(String, Node)>,
    /// It lies on the keep list, as a whole.
    keep: bool,
    /// It, or a field within, lies on the keep list.
    keeps: bool,
    act: Option<Act>,
    /// The field that must be there: this one, or the first within.
    required: Option<FieldPath>,
}

#[derive(Debug)]
enum Act {
    Drop,
    Change(Change),
}

impl Node {
    /// The node of a field, made with those on the way, each shown to `pass`.
    fn reach(&mut self, names: &[String], pass: &mut impl FnMut(&mut Self)) -> &mut Self {
        pass(self);
        let Some((name, rest)) = names.split_first() else { return self };
        let at = match self.within.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.within.insert(at, (name.clone(), Self::default()));
                at
            }
        };
        // INVARIANT: found or just inserted at this place.
        self.within[at].1.reach(rest, pass)
    }

    fn require(&mut self, field: &FieldPath) -> &mut Self {
        self.reach(field.names(), &mut |node| {
            node.required.get_or_insert_with(|| field.clone());
        })
    }
}

/// Lines that are being read.
#[derive(Debug)]
pub(super) struct Lines {
    root: Node,
    /// Nothing is changed: the records are only counted.
    plain: bool,
}

/// Up to the end of the line, or of the piece: how long, and whether the line is complete.
pub(super) fn scan(piece: &[u8]) -> (usize, bool) {
    match piece.iter().position(|byte| *byte == b'\n') {
        Some(at) => (at + 1, true),
        None => (piece.len(), false),
    }
}

impl Lines {
    pub(super) fn new(transforms: Vec<Transform>, key: Option<PseudonymKey>) -> Result<Self, StageError> {
        let plain = transforms.is_empty();
        let mut root = Node::default();
        let all = !transforms.iter().any(|transform| matches!(transform, Transform::Keep { .. }));
        (root.keep, root.keeps) = (all, all);
        for transform in transforms {
            match transform {
                Transform::Keep { fields } => {
                    for field in fields {
                        root.reach(field.names(), &mut |node| node.keeps = true).keep = true;
                    }
                }
                Transform::Drop { fields } => {
                    for field in fields {
                        root.require(&field).act = Some(Act::Drop);
                    }
                }
                other => {
                    if let Some(change) = Change::of(other, key.as_ref())? {
                        let field = change.field.clone();
                        root.require(&field).act = Some(Act::Change(change));
                    }
                }
            }
        }
        Ok(Self { root, plain })
    }

    /// Writes the line, changed.
    pub(super) fn write(&self, line: &[u8], at: Place, limit: usize, out: &mut Vec<u8>) -> Result<(), StageError> {
        let (content, end) = split_line_end(line);
        if content.is_empty() {
            return Ok(());
        }
        let start = out.len();
        let text = str::from_utf8(content).map_err(|_| StageError::Malformed { at, why: "it is not UTF-8" })?;
        let members = members(text).ok_or(StageError::Malformed { at, why: "it is not a JSON object" })?;
        if self.plain {
            out.extend_from_slice(content);
        } else {
            Rewrite { at, limit, start }.object(&members, &self.root, self.root.keep, out)?;
        }
        out.extend_from_slice(end);
        Ok(())
    }
}

/// One record on its way.
struct Rewrite {
    at: Place,
    limit: usize,
    start: usize,
}

impl Rewrite {
    fn object(&self, members: &Members<'_>, node: &Node, kept: bool, out: &mut Vec<u8>) -> Result<(), StageError> {
        let mut seen = vec![false; node.within.len()];
        let mut first = true;
        out.push(b'{');
        for (name, value) in &members.0 {
            let found = node.within.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok();
            let child = found.and_then(|at| node.within.get(at)).map(|(_, child)| child);
            if let Some(seen) = found.and_then(|at| seen.get_mut(at)) {
                *seen = true;
            }
            let kept = kept || child.is_some_and(|child| child.keep);
            let leaves = kept || child.is_some_and(|child| child.keeps);
            if !leaves || matches!(child, Some(Node { act: Some(Act::Drop), .. })) {
                continue;
            }
            let inner = match child {
                Some(child) if child.act.is_none() && !child.within.is_empty() => match parse(value.get()) {
                    Some(inner) => Some((child, inner)),
                    // Not an object, so that nothing of what is to be hidden or changed is there.
                    None => match &child.required {
                        Some(field) => return Err(StageError::Missing { at: self.at, field: field.clone() }),
                        None if kept => None,
                        None => continue,
                    },
                },
                Some(_) | None => None,
            };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            string(name, out);
            out.push(b':');
            match (inner, child) {
                (Some((child, inner)), _) => self.object(&inner, child, kept, out)?,
                (None, Some(Node { act: Some(Act::Change(change)), .. })) => self.change(change, value.get(), out)?,
                (None, _) => out.extend_from_slice(value.get().as_bytes()),
            }
            if out.len() - self.start > self.limit {
                return Err(StageError::TooLong { at: self.at, limit: self.limit });
            }
        }
        out.push(b'}');
        let missing =
            node.within.iter().zip(seen).find_map(|((_, child), seen)| child.required.as_ref().filter(|_| !seen));
        match missing {
            Some(field) => Err(StageError::Missing { at: self.at, field: field.clone() }),
            None => Ok(()),
        }
    }

    fn change(&self, change: &Change, value: &str, out: &mut Vec<u8>) -> Result<(), StageError> {
        let kind = |wanted| Err(StageError::Kind { at: self.at, field: change.field.clone(), wanted });
        let text = match value.as_bytes().first() {
            _ if !change.reads() => Cow::Borrowed(value),
            Some(b'{' | b'[') => return kind(if change.makes_text() { "text or number" } else { "number" }),
            Some(b'n') if !change.makes_text() => {
                out.extend_from_slice(value.as_bytes());
                return Ok(());
            }
            Some(b'"') if !change.makes_text() => return kind("number"),
            Some(b'"') => match serde_json::from_str(value) {
                Ok(text) => Cow::Owned(text),
                Err(_) => return kind("text"),
            },
            Some(_) | None => Cow::Borrowed(value),
        };
        let changed = change.apply(text.as_bytes(), self.at)?;
        if change.makes_text() {
            string(&changed, out);
        } else {
            out.extend_from_slice(changed.as_bytes());
        }
        Ok(())
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    // A text always serialises, and writing to memory never fails.
    let _ = serde_json::to_writer(out, text);
}

/// The members of an object in their order, a name that comes twice twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

fn parse(text: &str) -> Option<Members<'_>> {
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

fn members(line: &str) -> Option<Members<'_>> {
    parse(line.trim_matches([' ', '\t', '\r']))
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
