//! Changes records on their way: bytes in, bytes out, as an agreement's terms say.
//!
//! A [`Stage`] is a pure value. It is given bytes in pieces of any size and gives out the records that are complete,
//! so that where a piece ends changes nothing, and memory is bounded by one record ([`DataLimits::record_bytes_max`]).
//! It stands between a source and the peer; between a peer and a sink it works the same.
//!
//! It is strict, because what it cannot read it cannot hide: a quote where none may be, a row with a column too many, a
//! line that is no object, a field to hide that is not there, each ends the stream with an error that names the record
//! and the field, and never a value. A record is changed whole or not sent.
//!
//! Record formats are CSV with a header row (RFC 4180) and newline-delimited JSON. Other media types are refused before
//! the first byte; Parquet, whose records lie in columns, by name.
//!
//! [`DataLimits::record_bytes_max`]: super::DataLimits::record_bytes_max

use std::fmt;

use kontor_core::id::AgreementId;
use kontor_core::policy::permit::{FieldPath, StreamTerms, TermsProblem};

mod csv;
mod ndjson;
mod value;

/// A format with records that a stream can be taken apart into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Rows of fields under a header row.
    Csv,
    /// One JSON object for each line.
    Ndjson,
}

impl Format {
    /// The format of a media type.
    ///
    /// # Errors
    /// [`StageError::NotRecords`], [`StageError::Parquet`], [`StageError::Parameter`].
    pub fn of(media_type: &str) -> Result<Self, StageError> {
        let mut parts = media_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let format = match parts.next().as_deref().unwrap_or_default() {
            "text/csv" => Self::Csv,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
                Self::Ndjson
            }
            "application/vnd.apache.parquet" | "application/x-parquet" => return Err(StageError::Parquet),
            _ => return Err(StageError::NotRecords { media_type: media_type.to_owned() }),
        };
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((&parameter, ""));
            match (name.trim(), value.trim().trim_matches('"')) {
                ("charset", "utf-8" | "us-ascii") | ("header", "present") => {}
                ("charset" | "header", _) => return Err(StageError::Parameter { parameter }),
                _ => {}
            }
        }
        Ok(format)
    }
}

/// Why a stream cannot be changed as its terms say. Names records, counted from 1 without the header row, and fields;
/// never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// No stream can hold to the terms.
    #[error("the terms of the agreement cannot be applied: {0}")]
    Terms(#[from] TermsProblem),
    /// The media type has no records.
    #[error(
        "the terms of the agreement are about records, and `{media_type}` has none that are known here; `text/csv` or `application/x-ndjson` would have passed"
    )]
    NotRecords {
        /// The media type.
        media_type: String,
    },
    /// Parquet is read from its end, and in columns.
    #[error(
        "the terms of the agreement are about records, and Parquet is not taken apart here: it is read from its end; `text/csv` or `application/x-ndjson` would have passed"
    )]
    Parquet,
    /// A parameter of the media type says that the records cannot be read.
    #[error("the media type's `{parameter}` cannot be read; UTF-8 text, tables with a header row, would have passed")]
    Parameter {
        /// The parameter.
        parameter: String,
    },
    /// A path into a column of a table.
    #[error("`{field}` goes down into a column, and a column has no fields; the name of a column would have passed")]
    Nested {
        /// The field.
        field: FieldPath,
    },
    /// A pseudonym is asked for, and there is no key.
    #[error("`{field}` is to be replaced with a pseudonym, and this data plane was given no key for the agreement")]
    NoKey {
        /// The field.
        field: FieldPath,
    },
    /// A field that must be hidden or changed is not there.
    #[error("{at} has no field `{field}`, which the agreement wants to be hidden or changed")]
    Missing {
        /// The record.
        at: Place,
        /// The field.
        field: FieldPath,
    },
    /// All fields are taken away.
    #[error("{at} has none of the fields that the agreement keeps")]
    NothingLeft {
        /// The header.
        at: Place,
    },
    /// The value is of a kind that cannot be changed so.
    #[error("{at} has a `{field}` that is no {wanted}")]
    Kind {
        /// The record.
        at: Place,
        /// The field.
        field: FieldPath,
        /// What it should be.
        wanted: &'static str,
    },
    /// The result has more digits than are calculated with.
    #[error("{at} has a `{field}` whose change has more digits than are exact here")]
    Inexact {
        /// The record.
        at: Place,
        /// The field.
        field: FieldPath,
    },
    /// Longer than a record may be, as it came or as it would leave.
    #[error("{at} is longer than {limit} bytes; a larger `record_bytes_max` would have passed")]
    TooLong {
        /// The record.
        at: Place,
        /// The limit.
        limit: usize,
    },
    /// Not what its format says.
    #[error("{at} is malformed: {why}")]
    Malformed {
        /// The record.
        at: Place,
        /// What is wrong.
        why: &'static str,
    },
}

/// Where in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The header row.
    Header,
    /// A record, counted from 1.
    Record(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => out.write_str("the header row"),
            Self::Record(number) => write!(out, "record {number}"),
        }
    }
}

/// What the pseudonyms of one agreement are made with. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct PseudonymKey([u8; 32]);

impl PseudonymKey {
    /// The key of an agreement, from the secret that the provider keeps for all of them.
    #[must_use]
    pub fn derive(secret: &[u8], agreement: &AgreementId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kontor 2026 pseudonyms of an agreement");
        hasher.update(secret);
        hasher.update(agreement.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// 128 bits as hexadecimal.
    fn pseudonym(&self, value: &[u8]) -> String {
        let hex = blake3::keyed_hash(&self.0, value).to_hex();
        hex.get(..32).unwrap_or(&hex).to_owned()
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PseudonymKey(…)")
    }
}

/// Where a stage stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All that was given is taken in; at the end: all is given out.
    Done,
    /// Enough is given out; more of the same input follows.
    Full,
    /// The next record needs leave: [`Stage::allow`].
    NoRecordsLeft,
}

/// The shape of the records, and what is done to each.
#[derive(Debug)]
enum Shape {
    Csv(Box<csv::Table>),
    Ndjson(ndjson::Lines),
}

/// A stream that is changed record by record.
#[derive(Debug)]
pub struct Stage {
    shape: Shape,
    /// The record that is being gathered, with its line end.
    record: Vec<u8>,
    /// The whole record is here.
    complete: bool,
    record_bytes_max: usize,
    records: u64,
    left: u64,
}

impl Stage {
    /// A stage that applies the terms. Where they limit the number of records, none leaves before [`Stage::allow`].
    ///
    /// # Errors
    /// Why no stream of this media type can hold to the terms: nothing was read yet.
    pub fn new(
        terms: &StreamTerms,
        media_type: &str,
        key: Option<PseudonymKey>,
        record_bytes_max: usize,
    ) -> Result<Self, StageError> {
        let format = Format::of(media_type)?;
        terms.check()?;
        let transforms = terms.effective();
        let shape = match format {
            Format::Csv => Shape::Csv(Box::new(csv::Table::new(transforms, key)?)),
            Format::Ndjson => Shape::Ndjson(ndjson::Lines::new(transforms, key)?),
        };
        let left = if terms.records_max.is_some() { 0 } else { u64::MAX };
        Ok(Self { shape, record: Vec::new(), complete: false, record_bytes_max, records: 0, left })
    }

    /// Lets so many more records leave.
    pub fn allow(&mut self, records: u64) {
        self.left = self.left.saturating_add(records);
    }

    /// How many records were given out.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes in a piece, and appends what leaves to `out` until that holds `enough` bytes; it goes above by less than
    /// one record. How many bytes of the piece are taken in, and why it stopped.
    ///
    /// # Errors
    /// [`StageError`]: the stream must end here, with an error. `out` has only whole records.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>, enough: usize) -> Result<(usize, Progress), StageError> {
        let mut taken = 0;
        loop {
            if self.complete {
                if !self.may_leave() {
                    return Ok((taken, Progress::NoRecordsLeft));
                }
                self.give_out(out)?;
                if out.len() >= enough {
                    return Ok((taken, Progress::Full));
                }
            }
            let rest = piece.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((taken, Progress::Done));
            }
            let at = self.place();
            let (length, complete) = match &mut self.shape {
                Shape::Csv(table) => table.scan(rest, at)?,
                Shape::Ndjson(_) => ndjson::scan(rest),
            };
            let line = rest.get(..length).unwrap_or_default();
            if self.record.len() + length > self.record_bytes_max {
                return Err(StageError::TooLong { at, limit: self.record_bytes_max });
            }
            self.record.extend_from_slice(line);
            self.complete = complete;
            taken += length;
        }
    }

    /// The source is at its end: gives out a last record that has no line end. To be called again after
    /// [`Progress::NoRecordsLeft`].
    ///
    /// # Errors
    /// [`StageError`], as for [`Stage::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<Progress, StageError> {
        let at = self.place();
        if !self.complete && !self.record.is_empty() {
            if let Shape::Csv(table) = &self.shape {
                table.at_end(at)?;
            }
            self.complete = true;
        }
        if self.complete {
            if !self.may_leave() {
                return Ok(Progress::NoRecordsLeft);
            }
            self.give_out(out)?;
        }
        match &self.shape {
            Shape::Csv(table) if !table.has_header() => {
                Err(StageError::Malformed { at: Place::Header, why: "the table has no header row" })
            }
            Shape::Csv(_) | Shape::Ndjson(_) => Ok(Progress::Done),
        }
    }

    fn may_leave(&self) -> bool {
        self.left > 0 || !self.counts()
    }

    /// Whether what was gathered is a record, and not the header row or an empty line.
    fn counts(&self) -> bool {
        let header = matches!(&self.shape, Shape::Csv(table) if !table.has_header());
        !header && !split_line_end(&self.record).0.is_empty()
    }

    fn place(&self) -> Place {
        match &self.shape {
            Shape::Csv(table) if !table.has_header() => Place::Header,
            Shape::Csv(_) | Shape::Ndjson(_) => Place::Record(self.records + 1),
        }
    }

    fn give_out(&mut self, out: &mut Vec<u8>) -> Result<(), StageError> {
        let (at, counts, before) = (self.place(), self.counts(), out.len());
        let given = match &mut self.shape {
            Shape::Csv(table) => table.write(&mut self.record, at, self.record_bytes_max, out),
            Shape::Ndjson(lines) => lines.write(&self.record, at, self.record_bytes_max, out),
        };
        if let Err(error) = given {
            out.truncate(before);
            return Err(error);
        }
        if counts {
            self.records += 1;
            self.left = self.left.saturating_sub(1);
        }
        self.record.clear();
        self.complete = false;
        Ok(())
    }
}

/// What a change of records makes of the entity tag of its source: as strong as that, and different for other terms.
#[must_use]
pub fn entity_tag(source: &str, terms: &StreamTerms, key: Option<&PseudonymKey>) -> String {
    let mut hasher = blake3::Hasher::new();
    // The form in which this version writes records: to be counted up when that changes.
    hasher.update(b"stage 1\0");
    hasher.update(source.as_bytes());
    for transform in terms.effective() {
        // Strings and numbers always serialise.
        hasher.update(b"\0").update(&serde_json::to_vec(&transform).unwrap_or_default());
    }
    if let Some(key) = key {
        hasher.update(b"\0").update(key.pseudonym(b"entity tag").as_bytes());
    }
    let hex = hasher.finalize().to_hex();
    format!("\"{}\"", hex.get(..32).unwrap_or(&hex))
}

/// A line without its end, and its end.
fn split_line_end(line: &[u8]) -> (&[u8], &[u8]) {
    let end = match line {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    };
    line.split_at_checked(line.len() - end).unwrap_or((line, &[]))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
