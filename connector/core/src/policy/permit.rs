//! What a permission lets through, as values that a byte stream can hold to: how much, how fast, from when on, and with
//! which fields. A decision gives them out, a data plane applies them; nothing here reads a policy or a byte.
//!
//! Every term is a burden. [`StreamTerms::stricter`] unites the burdens of several rules, and what it makes satisfies
//! each of them: it is free of order, and doing it twice changes nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Most transforms of one stream.
pub const TRANSFORMS_MAX: usize = 64;
/// Most fields that one transform may keep or drop.
pub const FIELDS_MAX: usize = 256;
/// Longest path of a field, in bytes.
pub const FIELD_BYTES_MAX: usize = 256;
/// Most members that the path of a field may go down.
pub const FIELD_DEPTH_MAX: usize = 16;
/// Longest text that a value may be replaced with, in bytes.
pub const REPLACEMENT_BYTES_MAX: usize = 1_024;

/// Under which burdens bytes may flow. The default has none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamTerms {
    /// Most bytes that may leave under the agreement, all transfers together, counted after the transforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// Most records that may leave under the agreement, all transfers together. A header row is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_max: Option<u64>,
    /// How fast bytes may leave, all transfers of the agreement together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Before this instant no byte may leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// What is done to every record. The order says nothing: the keep list is applied first, then what is dropped,
    /// then the rest, of which a field has one at most ([`StreamTerms::check`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<Transform>,
}

impl StreamTerms {
    /// Whether there is no burden at all: the bytes are sent as they lie.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.bytes_max.is_none()
            && self.records_max.is_none()
            && self.rate.is_none()
            && self.not_before.is_none()
            && self.transforms.is_empty()
    }

    /// Whether the stream must be read record by record.
    #[must_use]
    pub fn needs_records(&self) -> bool {
        self.records_max.is_some() || !self.transforms.is_empty()
    }

    /// Both burdens at once, in normal form: the smaller quantity, the slower rate, the later begin, the union of the
    /// transforms. Free of order and of repetition; contradictions are kept for [`StreamTerms::check`] to name.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let mut transforms = self.transforms;
        transforms.extend(other.transforms);
        Self {
            bytes_max: least(self.bytes_max, other.bytes_max),
            records_max: least(self.records_max, other.records_max),
            rate: match (self.rate, other.rate) {
                (Some(one), Some(other)) => Some(one.slower(other)),
                (one, other) => one.or(other),
            },
            not_before: self.not_before.max(other.not_before),
            transforms: normal(transforms),
        }
    }

    /// The same terms with their transforms in normal form: sorted, without repetitions, one keep list (the fields
    /// that every keep list has), one drop list (the fields that any has).
    #[must_use]
    pub fn normalised(self) -> Self {
        self.stricter(Self::default())
    }

    /// The transforms that have something to do, in normal form: without those of fields that are not sent anyway.
    #[must_use]
    pub fn effective(&self) -> Vec<Transform> {
        let transforms = normal(self.transforms.clone());
        let (lists, rest): (Vec<_>, Vec<_>) = transforms.iter().cloned().partition(|one| one.changes().is_none());
        let keep: Vec<_> = lists.iter().filter(|list| matches!(list, Transform::Keep { .. })).cloned().collect();
        let lists = lists.into_iter().filter_map(|mut list| {
            if let Transform::Drop { fields } = &mut list {
                fields.retain(|field| sent(&keep, field));
            }
            (list != Transform::Drop { fields: Vec::new() }).then_some(list)
        });
        let rest = rest.into_iter().filter(|one| one.changes().is_some_and(|field| sent(&transforms, field)));
        lists.chain(rest).collect()
    }

    /// Whether a stream can hold to these terms.
    ///
    /// # Errors
    /// The first [`TermsProblem`]: a limit, a contradiction, or nothing that is left.
    pub fn check(&self) -> Result<(), TermsProblem> {
        let count = self.transforms.len();
        if count > TRANSFORMS_MAX {
            return Err(TermsProblem::TooMany { what: "transforms", count, limit: TRANSFORMS_MAX });
        }
        let transforms = normal(self.transforms.clone());
        for transform in &transforms {
            transform.check()?;
        }
        let changes: Vec<_> = transforms
            .iter()
            .filter_map(|one| Some((one, one.changes().filter(|field| sent(&transforms, field))?)))
            .collect();
        for (at, (one, field)) in changes.iter().enumerate() {
            let clash = changes.iter().skip(at + 1).find(|(_, other)| field.covers(other) || other.covers(field));
            if let Some((other, _)) = clash {
                return Err(TermsProblem::Contradiction { one: (*one).clone(), other: (*other).clone() });
            }
        }
        Ok(())
    }
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whether a part of the field is left by the keep and drop lists.
fn sent(transforms: &[Transform], field: &FieldPath) -> bool {
    transforms.iter().all(|transform| match transform {
        Transform::Keep { fields } => fields.iter().any(|kept| kept.covers(field) || field.covers(kept)),
        Transform::Drop { fields } => !fields.iter().any(|dropped| dropped.covers(field)),
        Transform::Replace { .. }
        | Transform::Hash { .. }
        | Transform::Round { .. }
        | Transform::Add { .. }
        | Transform::Multiply { .. } => true,
    })
}

/// Sorted, without repetitions, with one keep list and one drop list.
fn normal(transforms: Vec<Transform>) -> Vec<Transform> {
    let mut rest = BTreeSet::new();
    let mut keep: Option<BTreeSet<FieldPath>> = None;
    let mut drop = BTreeSet::new();
    for transform in transforms {
        match transform {
            Transform::Keep { fields } => {
                keep = Some(match keep {
                    None => fields.into_iter().collect(),
                    Some(kept) => common(&kept, &fields),
                });
            }
            Transform::Drop { fields } => drop.extend(fields),
            other @ (Transform::Replace { .. }
            | Transform::Hash { .. }
            | Transform::Round { .. }
            | Transform::Add { .. }
            | Transform::Multiply { .. }) => {
                rest.insert(other);
            }
        }
    }
    let keep = keep.map(|fields| Transform::Keep { fields: outermost(&fields) });
    let drop = (!drop.is_empty()).then(|| Transform::Drop { fields: outermost(&drop) });
    keep.into_iter().chain(drop).chain(rest).collect()
}

/// The fields that lie in both sets of subtrees.
fn common(kept: &BTreeSet<FieldPath>, fields: &[FieldPath]) -> BTreeSet<FieldPath> {
    let pairs = kept.iter().flat_map(|one| fields.iter().map(move |other| (one, other)));
    pairs
        .filter_map(|(one, other)| {
            if one.covers(other) {
                Some(other.clone())
            } else if other.covers(one) {
                Some(one.clone())
            } else {
                None
            }
        })
        .collect()
}

/// Without those that lie in another.
fn outermost(fields: &BTreeSet<FieldPath>) -> Vec<FieldPath> {
    fields.iter().filter(|field| !fields.iter().any(|other| other != *field && other.covers(field))).cloned().collect()
}

/// Why no stream can hold to some terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsProblem {
    /// More than we handle.
    #[error("{count} {what} are more than the {limit} that a stream has")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        count: usize,
        /// How much there may be.
        limit: usize,
    },
    /// The keep lists have no field in common.
    #[error("no field is kept; a keep list with a field that every rule lets through would have passed")]
    NothingKept,
    /// Rounding to nothing.
    #[error("`{field}` is rounded to {to}; a number above 0 would have passed")]
    NoStep {
        /// The field.
        field: FieldPath,
        /// The step.
        to: Decimal,
    },
    /// Two rules want different values of one field.
    #[error("{one}, and {other}: a field cannot hold to both; one of them alone would have passed")]
    Contradiction {
        /// One transform.
        one: Transform,
        /// The other.
        other: Transform,
    },
}

/// How fast bytes may leave: a bucket of [`Rate::burst`] bytes that is full at first and is filled again with
/// [`Rate::bytes`] per [`Rate::per`]. Over any stretch of time `t` at most `burst + bytes · t / per` leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RateDocument", into = "RateDocument")]
pub struct Rate {
    bytes: u64,
    per: SignedDuration,
    burst: u64,
}

impl Rate {
    /// So many bytes per duration, and as many at once, in the smallest numbers: 60 bytes a minute are one a second, 60
    /// at once. `None` unless both are above 0.
    #[must_use]
    pub fn new(bytes: u64, per: SignedDuration) -> Option<Self> {
        (bytes > 0 && per > SignedDuration::ZERO).then(|| Self { bytes, per, burst: bytes }.reduced())
    }

    /// How many bytes come back in each [`Rate::per`]. At least 1.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The duration in which they do. Above 0.
    #[must_use]
    pub fn per(&self) -> SignedDuration {
        self.per
    }

    /// Most bytes at once. At least 1.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// The rate that keeps to both: the slower in the long run, with the smaller burst.
    #[must_use]
    pub fn slower(self, other: Self) -> Self {
        let slower = if per_byte(self).cmp(per_byte(other)).is_lt() { other } else { self };
        Self { burst: self.burst.min(other.burst), ..slower }
    }

    /// The same speed in its smallest numbers, so that equal speeds are equal values.
    fn reduced(self) -> Self {
        let nanos = self.per.as_nanos();
        let shared = gcd(i128::from(self.bytes), nanos).max(1);
        match u64::try_from(i128::from(self.bytes) / shared) {
            Ok(bytes) => Self { bytes, per: SignedDuration::from_nanos_i128(nanos / shared), burst: self.burst },
            Err(_) => self,
        }
    }
}

/// Nanoseconds per byte.
fn per_byte(rate: Rate) -> Fraction {
    Fraction { above: rate.per.as_nanos(), below: i128::from(rate.bytes) }
}

/// A positive fraction, compared as a continued one: exactly, and without a product that could overflow.
#[derive(Clone, Copy)]
struct Fraction {
    above: i128,
    below: i128,
}

impl Fraction {
    fn cmp(self, other: Self) -> std::cmp::Ordering {
        let (mut one, mut other) = (self, other);
        let mut turned = false;
        loop {
            let (whole, whole_other) = (one.above / one.below, other.above / other.below);
            let order = match whole.cmp(&whole_other) {
                std::cmp::Ordering::Equal => {
                    let (rest, rest_other) = (one.above % one.below, other.above % other.below);
                    match (rest, rest_other) {
                        (0, 0) => return std::cmp::Ordering::Equal,
                        (0, _) => std::cmp::Ordering::Less,
                        (_, 0) => std::cmp::Ordering::Greater,
                        _ => {
                            // a/b < c/d exactly when b/a > d/c.
                            one = Self { above: one.below, below: rest };
                            other = Self { above: other.below, below: rest_other };
                            turned = !turned;
                            continue;
                        }
                    }
                }
                unequal @ (std::cmp::Ordering::Less | std::cmp::Ordering::Greater) => unequal,
            };
            return if turned { order.reverse() } else { order };
        }
    }
}

fn gcd(mut one: i128, mut other: i128) -> i128 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sixty bytes a minute, rather than one a second with sixty at once.
        let fill =
            self.per.as_nanos().checked_mul(i128::from(self.burst)).filter(|nanos| nanos % i128::from(self.bytes) == 0);
        let fill = fill.map(|nanos| nanos / i128::from(self.bytes)).filter(|nanos| *nanos <= FILL_SHOWN_MAX_NANOS);
        match fill {
            Some(nanos) => write!(out, "{} bytes per {:#}", self.burst, SignedDuration::from_nanos_i128(nanos)),
            None => write!(out, "{} bytes per {:#}, {} at once", self.bytes, self.per, self.burst),
        }
    }
}

/// The longest time to fill a bucket that is shown as one number: what a duration holds.
const FILL_SHOWN_MAX_NANOS: i128 = i64::MAX as i128 * 1_000_000_000;

/// [`Rate`] as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateDocument {
    bytes: u64,
    per: SignedDuration,
    #[serde(default)]
    burst: Option<u64>,
}

impl TryFrom<RateDocument> for Rate {
    type Error = &'static str;

    fn try_from(document: RateDocument) -> Result<Self, Self::Error> {
        let rate = Self::new(document.bytes, document.per).ok_or("a rate has bytes and a duration above 0")?;
        match document.burst {
            Some(0) => Err("a rate has a burst above 0"),
            Some(burst) => Ok(Self { burst, ..rate }),
            None => Ok(rate),
        }
    }
}

impl From<Rate> for RateDocument {
    fn from(rate: Rate) -> Self {
        Self { bytes: rate.bytes, per: rate.per, burst: Some(rate.burst) }
    }
}

/// What is done to every record of a stream. A closed list; whatever else a policy asks for is refused by name.
///
/// A field that a transform changes or drops, and that a record lacks, stops the stream: a misspelled name must not
/// let through what it meant to hide. The keep list is the other way round: it lets through what it names, so a field
/// that is absent stays absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Transform {
    /// Nothing but these fields: a projection (`idsc:PATH`).
    Keep {
        /// The fields. Not empty.
        fields: Vec<FieldPath>,
    },
    /// Everything but these fields (`idsc:DROP`, and `odrl:anonymize` of a field).
    Drop {
        /// The fields.
        fields: Vec<FieldPath>,
    },
    /// A fixed text in place of the value (`idsc:REPLACE` with `idsc:REPLACE_WITH`).
    Replace {
        /// The field.
        field: FieldPath,
        /// The text; at most [`REPLACEMENT_BYTES_MAX`].
        with: String,
    },
    /// A pseudonym in place of the value (`idsc:HASH`): a keyed digest, with a key of the provider's for each
    /// agreement. Equal values stay equal within one agreement, cannot be found by trying out values without the key,
    /// and cannot be linked with another agreement's.
    Hash {
        /// The field.
        field: FieldPath,
    },
    /// The nearest multiple of a step in place of the number, halves away from zero (`idsc:ROUND`).
    Round {
        /// The field.
        field: FieldPath,
        /// The step. Above 0.
        #[serde(with = "rust_decimal::serde::str")]
        to: Decimal,
    },
    /// The sum with a constant in place of the number, exactly (`idsc:ADD`).
    Add {
        /// The field.
        field: FieldPath,
        /// The constant.
        #[serde(with = "rust_decimal::serde::str")]
        by: Decimal,
    },
    /// The product with a constant in place of the number, exactly (`idsc:MULTIPLY`).
    Multiply {
        /// The field.
        field: FieldPath,
        /// The constant.
        #[serde(with = "rust_decimal::serde::str")]
        by: Decimal,
    },
}

impl Transform {
    /// The field whose value it changes; `None` for the lists.
    #[must_use]
    pub fn changes(&self) -> Option<&FieldPath> {
        match self {
            Self::Keep { .. } | Self::Drop { .. } => None,
            Self::Replace { field, .. }
            | Self::Hash { field }
            | Self::Round { field, .. }
            | Self::Add { field, .. }
            | Self::Multiply { field, .. } => Some(field),
        }
    }

    fn check(&self) -> Result<(), TermsProblem> {
        let limited = |what, count, limit| {
            if count > limit { Err(TermsProblem::TooMany { what, count, limit }) } else { Ok(()) }
        };
        match self {
            Self::Keep { fields } if fields.is_empty() => Err(TermsProblem::NothingKept),
            Self::Keep { fields } => limited("kept fields", fields.len(), FIELDS_MAX),
            Self::Drop { fields } => limited("dropped fields", fields.len(), FIELDS_MAX),
            Self::Replace { with, .. } => limited("bytes of a replacement", with.len(), REPLACEMENT_BYTES_MAX),
            Self::Round { field, to } if *to <= Decimal::ZERO => {
                Err(TermsProblem::NoStep { field: field.clone(), to: *to })
            }
            Self::Hash { .. } | Self::Round { .. } | Self::Add { .. } | Self::Multiply { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Transform {
    /// In plain words: `drop $.name and $.born`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |fields: &[FieldPath]| fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Keep { fields } => write!(out, "keep only {}", list(fields)),
            Self::Drop { fields } => write!(out, "drop {}", list(fields)),
            Self::Replace { field, with } => write!(out, "replace `{field}` with `{with}`"),
            Self::Hash { field } => write!(out, "replace `{field}` with its pseudonym"),
            Self::Round { field, to } => write!(out, "round `{field}` to multiples of {to}"),
            Self::Add { field, by } => write!(out, "add {by} to `{field}`"),
            Self::Multiply { field, by } => write!(out, "multiply `{field}` by {by}"),
        }
    }
}

/// Which field of a record: the names to go down by. `$.a.b` or `$['a b'].c` as in JSONPath, with names only; a text
/// without `$` is one name as it stands, such as a column of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath(Vec<String>);

/// A text names no field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names no field: {why}; `$.name`, `$.outer.inner`, `$['a name']` or the name of a column would have passed"
)]
pub struct NoField {
    /// The text, or its beginning.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl FieldPath {
    /// The field by one name: a column, or a member at the top.
    ///
    /// # Errors
    /// [`NoField`] when the name is empty or too long.
    pub fn name(name: impl Into<String>) -> Result<Self, NoField> {
        Self::of(vec![name.into()])
    }

    fn of(names: Vec<String>) -> Result<Self, NoField> {
        let refuse = |why| Err(NoField { text: names.join(".").chars().take(FIELD_BYTES_MAX).collect(), why });
        if names.is_empty() {
            return refuse("it names the whole record");
        }
        if names.iter().any(String::is_empty) {
            return refuse("a name is empty");
        }
        if names.len() > FIELD_DEPTH_MAX {
            return refuse("it goes down by more than 16 names");
        }
        if names.iter().map(String::len).sum::<usize>() > FIELD_BYTES_MAX {
            return refuse("it is longer than 256 bytes");
        }
        Ok(Self(names))
    }

    /// The names, the outermost first. At least one.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether the other field is this one or lies within it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl FromStr for FieldPath {
    type Err = NoField;

    fn from_str(text: &str) -> Result<Self, NoField> {
        let refuse = |why| NoField { text: text.chars().take(FIELD_BYTES_MAX).collect(), why };
        let Some(mut rest) = text.strip_prefix('$') else { return Self::name(text) };
        let mut names = Vec::new();
        while !rest.is_empty() {
            if names.len() == FIELD_DEPTH_MAX {
                return Err(refuse("it goes down by more than 16 names"));
            }
            if let Some(after) = rest.strip_prefix("['") {
                let (name, after) = quoted(after).ok_or_else(|| refuse("a quoted name has no end"))?;
                names.push(name);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if !name.chars().all(plain) {
                    return Err(refuse("a name after a dot has letters, digits, `_` and `-` only"));
                }
                names.push(name.to_owned());
                rest = after;
            } else {
                return Err(refuse("indices, wildcards and filters are not known here"));
            }
        }
        Self::of(names).map_err(|error| refuse(error.why))
    }
}

fn plain(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '-'
}

/// The name up to `']`, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            '\'' => return Some((name, text.get(at + 1..)?.strip_prefix(']')?)),
            other => name.push(other),
        }
    }
    None
}

impl fmt::Display for FieldPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("$")?;
        for name in &self.0 {
            if name.chars().all(plain) {
                write!(out, ".{name}")?;
            } else {
                write!(out, "['{}']", name.replace('\\', "\\\\").replace('\'', "\\'"))?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for FieldPath {
    type Error = NoField;

    fn try_from(text: String) -> Result<Self, NoField> {
        text.parse()
    }
}

impl From<FieldPath> for String {
    fn from(field: FieldPath) -> Self {
        field.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(text: &str) -> FieldPath {
        text.parse().unwrap()
    }

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_reads_back_as_it_is_shown() {
        let table: &[(&str, &[&str], &str)] = &[
            ("name", &["name"], "$.name"),
            ("first name", &["first name"], "$['first name']"),
            ("a.b", &["a.b"], "$['a.b']"),
            ("$.a.b", &["a", "b"], "$.a.b"),
            ("$['a'].b", &["a", "b"], "$.a.b"),
            ("$['it\\'s \\\\ it']", &["it's \\ it"], "$['it\\'s \\\\ it']"),
            ("$.größe", &["größe"], "$.größe"),
        ];
        for (text, names, shown) in table {
            let path = field(text);
            assert_eq!(path.names(), *names, "{text}");
            assert_eq!(path.to_string(), *shown, "{text}");
            assert_eq!(field(shown), path, "{text}");
        }
    }

    #[test]
    fn what_names_no_field_is_refused_with_the_reason() {
        let deep = format!("${}", ".a".repeat(FIELD_DEPTH_MAX + 1));
        let long = "x".repeat(FIELD_BYTES_MAX + 1);
        let table = [
            ("", "empty"),
            ("$", "whole record"),
            ("$.", "empty"),
            ("$.a..b", "empty"),
            ("$.a b", "letters"),
            ("$.a[0]", "indices"),
            ("$.a[*]", "indices"),
            ("$['a", "no end"),
            (deep.as_str(), "16 names"),
            (long.as_str(), "256 bytes"),
        ];
        for (text, why) in table {
            let error = text.parse::<FieldPath>().unwrap_err();
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn terms_have_one_written_form() {
        let terms = StreamTerms {
            bytes_max: Some(7),
            rate: Rate::new(10, SignedDuration::from_secs(60)),
            transforms: vec![
                Transform::Keep { fields: vec![field("$.a"), field("b")] },
                Transform::Round { field: field("b"), to: decimal("0.50") },
            ],
            ..StreamTerms::default()
        };
        let json = serde_json::to_value(&terms).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "bytes_max": 7,
                "rate": { "bytes": 1, "per": "PT6S", "burst": 10 },
                "transforms": [
                    { "kind": "keep", "fields": ["$.a", "$.b"] },
                    { "kind": "round", "field": "$.b", "to": "0.50" },
                ],
            })
        );
        assert_eq!(serde_json::from_value::<StreamTerms>(json).unwrap(), terms);
        assert_eq!(serde_json::to_string(&StreamTerms::default()).unwrap(), "{}");
        for wrong in [
            r#"{"rate":{"bytes":0,"per":"PT1S"}}"#,
            r#"{"rate":{"bytes":1,"per":"PT0S"}}"#,
            r#"{"rate":{"bytes":1,"per":"-PT1S"}}"#,
            r#"{"rate":{"bytes":1,"per":"PT1S","burst":0}}"#,
            r#"{"transforms":[{"kind":"shuffle","field":"$.a"}]}"#,
            r#"{"speed":1}"#,
        ] {
            assert!(serde_json::from_str::<StreamTerms>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_that_keeps_to_both_has_the_slower_speed_and_the_smaller_burst() {
        let rate = |bytes, seconds| Rate::new(bytes, SignedDuration::from_secs(seconds)).unwrap();
        // 10 bytes a second, and 5 bytes a second of which 100 may come at once.
        let both = rate(10, 1).slower(rate(100, 20));
        assert_eq!((both.bytes(), both.per(), both.burst()), (1, SignedDuration::from_millis(200), 10));
        assert_eq!(rate(u64::MAX, 1).slower(rate(1, i64::MAX)).bytes(), 1, "far apart, without overflow");
        assert_eq!(rate(60, 60).to_string(), "60 bytes per 1m");
        assert_eq!(both.to_string(), "10 bytes per 2s");
        assert!(Rate::new(0, SignedDuration::from_secs(1)).is_none());
        assert!(Rate::new(1, SignedDuration::ZERO).is_none());
    }

    #[test]
    fn keep_lists_meet_and_drop_lists_join() {
        let keep = |fields: &[&str]| Transform::Keep { fields: fields.iter().map(|text| field(text)).collect() };
        let drop = |fields: &[&str]| Transform::Drop { fields: fields.iter().map(|text| field(text)).collect() };
        let table = [
            (keep(&["a", "b"]), keep(&["b", "c"]), vec![keep(&["b"])]),
            (keep(&["a"]), keep(&["$.a.x", "b"]), vec![keep(&["$.a.x"])]),
            (keep(&["a"]), keep(&["b"]), vec![keep(&[])]),
            (drop(&["a"]), drop(&["b", "$.a.x"]), vec![drop(&["a", "b"])]),
            (drop(&["a"]), keep(&["b"]), vec![keep(&["b"]), drop(&["a"])]),
        ];
        for (one, other, both) in table {
            let terms = |transform| StreamTerms { transforms: vec![transform], ..StreamTerms::default() };
            assert_eq!(terms(one.clone()).stricter(terms(other.clone())).transforms, both, "{one}, {other}");
        }
    }

    #[test]
    fn contradictions_are_named_unless_the_field_is_not_sent() {
        let replace = |name, with: &str| Transform::Replace { field: field(name), with: with.to_owned() };
        let hash = |name| Transform::Hash { field: field(name) };
        let drop = |name| Transform::Drop { fields: vec![field(name)] };
        let keep = |name| Transform::Keep { fields: vec![field(name)] };
        let check = |transforms| StreamTerms { transforms, ..StreamTerms::default() }.check();
        assert!(check(vec![replace("a", "x"), replace("a", "x"), hash("b")]).is_ok());
        assert!(check(vec![replace("a", "x"), replace("a", "y"), drop("a")]).is_ok());
        assert!(check(vec![replace("a", "x"), hash("a"), keep("b")]).is_ok());
        for contradiction in [
            vec![replace("a", "x"), replace("a", "y")],
            vec![replace("a", "x"), hash("a")],
            vec![replace("a", "x"), hash("$.a.b"), drop("$.a.c")],
            vec![replace("a", "x"), hash("a"), keep("$.a.b")],
        ] {
            assert!(matches!(check(contradiction), Err(TermsProblem::Contradiction { .. })));
        }
        assert_eq!(check(vec![keep("a"), keep("b")]), Err(TermsProblem::NothingKept));
        let effective = |transforms| StreamTerms { transforms, ..StreamTerms::default() }.effective();
        assert_eq!(effective(vec![drop("b"), hash("c"), hash("a"), keep("a")]), vec![keep("a"), hash("a")]);
        assert_eq!(effective(vec![drop("$.a.x"), hash("$.a.x"), keep("a")]), vec![keep("a"), drop("$.a.x")]);
        let many = (0..=TRANSFORMS_MAX).map(|n| Transform::Hash { field: field(&format!("f{n}")) }).collect();
        assert!(matches!(check(many), Err(TermsProblem::TooMany { .. })));
        let long = "x".repeat(REPLACEMENT_BYTES_MAX + 1);
        assert!(matches!(check(vec![replace("a", &long)]), Err(TermsProblem::TooMany { .. })));
        let round = Transform::Round { field: field("a"), to: Decimal::ZERO };
        assert!(matches!(check(vec![round]), Err(TermsProblem::NoStep { .. })));
    }

    fn fields() -> impl Strategy<Value = Vec<FieldPath>> {
        let path = prop::sample::select(vec!["a", "b", "$.a.x", "$.a.y", "$.a.x.z"]).prop_map(field);
        prop::collection::vec(path, 1..4)
    }

    fn transforms() -> impl Strategy<Value = Vec<Transform>> {
        let one = || fields().prop_map(|fields| fields.into_iter().next().unwrap());
        let transform = prop_oneof![
            fields().prop_map(|fields| Transform::Keep { fields }),
            fields().prop_map(|fields| Transform::Drop { fields }),
            one().prop_map(|field| Transform::Hash { field }),
            (one(), "[xy]").prop_map(|(field, with)| Transform::Replace { field, with }),
            (one(), 1..3_i64).prop_map(|(field, to)| Transform::Round { field, to: Decimal::from(to) }),
        ];
        prop::collection::vec(transform, 0..4)
    }

    fn terms() -> impl Strategy<Value = StreamTerms> {
        let rate = (1..9_u64, 1..9_i64).prop_map(|(bytes, secs)| Rate::new(bytes, SignedDuration::from_secs(secs)));
        let rate = prop_oneof![Just(None), rate];
        let instant = prop::option::of((0..9_i64).prop_map(|second| Timestamp::from_second(second).unwrap()));
        let limit = || prop::option::of(0..9_u64);
        (limit(), limit(), rate, instant, transforms()).prop_map(
            |(bytes_max, records_max, rate, not_before, transforms)| StreamTerms {
                bytes_max,
                records_max,
                rate,
                not_before,
                transforms,
            },
        )
    }

    proptest! {
        #[test]
        fn the_union_of_burdens_is_free_of_order_and_repetition(one in terms(), two in terms(), three in terms()) {
            let both = one.clone().stricter(two.clone());
            prop_assert_eq!(&both, &two.clone().stricter(one.clone()));
            prop_assert_eq!(&both, &both.clone().stricter(one.clone()), "what is united already adds nothing");
            prop_assert_eq!(
                both.clone().stricter(three.clone()),
                one.clone().stricter(two.clone().stricter(three))
            );
            prop_assert_eq!(one.clone().normalised(), one.clone().normalised().normalised());
            prop_assert!(both.bytes_max.is_none_or(|max| one.bytes_max.is_none_or(|most| max <= most)));
            prop_assert!(both.not_before >= one.not_before && both.not_before >= two.not_before);
        }

        #[test]
        fn what_one_side_hides_the_union_hides(one in terms(), two in terms(), path in fields()) {
            let both = one.clone().stricter(two);
            for field in path {
                prop_assert!(sent(&one.transforms, &field) || !sent(&both.transforms, &field), "{field}");
            }
        }

        #[test]
        fn terms_read_back_as_they_are_written(terms in terms()) {
            let json = serde_json::to_string(&terms).unwrap();
            prop_assert_eq!(serde_json::from_str::<StreamTerms>(&json).unwrap(), terms);
        }

        #[test]
        fn no_text_makes_the_reader_of_paths_fail(text in ".{0,40}") {
            if let Ok(path) = text.parse::<FieldPath>() {
                prop_assert_eq!(path.to_string().parse::<FieldPath>().unwrap(), path);
            }
        }
    }
}
