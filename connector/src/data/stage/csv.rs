//! Tables: RFC 4180, with a header row.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, Writer};
use kontor_core::policy::permit::{FieldPath, Transform};

use super::value::Change;
use super::{Place, PseudonymKey, StageError, split_line_end};

/// Most columns of a table.
pub(super) const COLUMNS_MAX: usize = 4_096;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What becomes of a column.
#[derive(Debug, Clone)]
enum Column {
    Pass,
    Omit,
    Change(Change),
}

/// Where in a row the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// At the very start: so many bytes of a byte order mark were seen.
    Mark(usize),
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: it is over, or the quote is doubled.
    QuoteInQuoted,
    /// After a carriage return: a line feed follows.
    Return,
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Table {
    transforms: Vec<Transform>,
    key: Option<PseudonymKey>,
    /// Empty before the header row.
    columns: Vec<Column>,
    within: Within,
    reader: Reader,
    writer: Writer,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    pub(super) fn new(transforms: Vec<Transform>, key: Option<PseudonymKey>) -> Result<Self, StageError> {
        for transform in &transforms {
            let fields = match transform {
                Transform::Keep { fields } | Transform::Drop { fields } => fields.as_slice(),
                other => other.changes().map(std::slice::from_ref).unwrap_or_default(),
            };
            if let Some(field) = fields.iter().find(|field| field.names().len() > 1) {
                return Err(StageError::Nested { field: field.clone() });
            }
            Change::of(transform.clone(), key.as_ref())?;
        }
        Ok(Self {
            transforms,
            key,
            columns: Vec::new(),
            within: Within::Mark(0),
            reader: Reader::new(),
            writer: Writer::new(),
            fields: Vec::new(),
            ends: vec![0; COLUMNS_MAX + 1],
        })
    }

    pub(super) fn has_header(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Up to the end of the row, or to the end of the piece: how long, and whether the row is complete.
    ///
    /// The reader below forgives what would let a hidden value slip into another column, so the quoting is checked
    /// here.
    pub(super) fn scan(&mut self, piece: &[u8], at: Place) -> Result<(usize, bool), StageError> {
        let malformed = |why| Err(StageError::Malformed { at, why });
        for (length, byte) in (1..).zip(piece) {
            if let Within::Mark(seen) = self.within {
                self.within = match seen {
                    _ if BYTE_ORDER_MARK.get(seen) == Some(byte) => {
                        let whole = seen + 1 == BYTE_ORDER_MARK.len();
                        self.within = if whole { Within::FieldStart } else { Within::Mark(seen + 1) };
                        continue;
                    }
                    0 => Within::FieldStart,
                    _ => Within::Plain,
                };
            }
            self.within = match (self.within, byte) {
                (Within::Quoted, b'"') => Within::QuoteInQuoted,
                (Within::Quoted, _) | (Within::FieldStart | Within::QuoteInQuoted, b'"') => Within::Quoted,
                (_, b'\n') => {
                    self.within = Within::FieldStart;
                    return Ok((length, true));
                }
                (Within::Return, _) => return malformed("a carriage return has no line feed after it"),
                (_, b'\r') => Within::Return,
                (_, b',') => Within::FieldStart,
                (Within::Plain, b'"') => return malformed("a quote stands in a field that is not quoted"),
                (Within::QuoteInQuoted, _) => return malformed("something follows the end of a quoted field"),
                (Within::Mark(_) | Within::FieldStart | Within::Plain, _) => Within::Plain,
            };
        }
        Ok((piece.len(), false))
    }

    /// Whether a row may end here, without a line end.
    pub(super) fn at_end(&self, at: Place) -> Result<(), StageError> {
        match self.within {
            Within::Quoted => Err(StageError::Malformed { at, why: "a quoted field has no end" }),
            Within::Return => Err(StageError::Malformed { at, why: "a carriage return has no line feed after it" }),
            Within::Mark(_) | Within::FieldStart | Within::Plain | Within::QuoteInQuoted => Ok(()),
        }
    }

    /// Writes the row, changed. `row` is used up.
    pub(super) fn write(
        &mut self,
        row: &mut Vec<u8>,
        at: Place,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StageError> {
        if at == Place::Header && row.starts_with(BYTE_ORDER_MARK) {
            row.drain(..BYTE_ORDER_MARK.len());
        }
        let (content, end) = split_line_end(row);
        if content.is_empty() {
            // Not a row; a table often ends with an empty line.
            return Ok(());
        }
        let content = content.len();
        let end: &'static [u8] = match end.len() {
            0 => b"",
            1 => b"\n",
            _ => b"\r\n",
        };
        row.truncate(content);
        row.push(b'\n');
        let count = self.read(row, at)?;
        if at == Place::Header {
            self.read_header(count)?;
        }
        let (mut sent, start) = (0, out.len());
        for (index, column) in self.columns.iter().enumerate() {
            let field = self.field(index);
            let value = match column {
                Column::Omit => continue,
                Column::Change(change) if at != Place::Header && (change.makes_text() || !field.is_empty()) => {
                    Cow::Owned(change.apply(field, at)?.into_owned().into_bytes())
                }
                Column::Pass | Column::Change(_) => Cow::Borrowed(field),
            };
            if sent > 0 {
                out.push(b',');
            }
            self.put(&value, out);
            sent += 1;
            if out.len() - start > limit {
                return Err(StageError::TooLong { at, limit });
            }
        }
        if out.len() == start {
            // One column without a value: an empty line would be no row.
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(end);
        Ok(())
    }

    /// Takes the row apart into `fields` and `ends`: how many there are.
    fn read(&mut self, row: &[u8], at: Place) -> Result<usize, StageError> {
        let wrong = |why| Err(StageError::Malformed { at, why });
        if self.fields.len() < row.len() {
            self.fields.resize(row.len(), 0);
        }
        match self.reader.read_record(row, &mut self.fields, &mut self.ends) {
            (ReadRecordResult::Record, _, _, count) if at == Place::Header && count <= COLUMNS_MAX => Ok(count),
            (ReadRecordResult::Record, _, _, count) if count == self.columns.len() => Ok(count),
            (ReadRecordResult::Record, ..) if at != Place::Header => {
                wrong("it has another number of fields than the header row")
            }
            (ReadRecordResult::Record | ReadRecordResult::OutputEndsFull, ..) => {
                wrong("it has more fields than 4096, which is the limit")
            }
            (ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull | ReadRecordResult::End, ..) => {
                wrong("it cannot be read as a row")
            }
        }
    }

    fn field(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        let end = self.ends.get(index).copied().unwrap_or_default();
        self.fields.get(start..end).unwrap_or_default()
    }

    fn put(&self, value: &[u8], out: &mut Vec<u8>) {
        if !self.writer.should_quote(value) {
            out.extend_from_slice(value);
            return;
        }
        out.push(b'"');
        for (index, part) in value.split(|byte| *byte == b'"').enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\"\"");
            }
            out.extend_from_slice(part);
        }
        out.push(b'"');
    }

    fn read_header(&mut self, count: usize) -> Result<(), StageError> {
        let at = Place::Header;
        let mut names = Vec::with_capacity(count);
        for index in 0..count {
            let name = str::from_utf8(self.field(index));
            names.push(name.map_err(|_| StageError::Malformed { at, why: "it is not UTF-8" })?.to_owned());
        }
        let is = |field: &FieldPath, name: &str| matches!(field.names(), [only] if only == name);
        let mut columns = vec![Column::Pass; count];
        let each = |columns: &mut Vec<Column>, field: &FieldPath, column: &Column| {
            let named = columns.iter_mut().zip(&names).filter(|(_, name)| is(field, name));
            // Every column of the name, since a table may have several.
            if named.map(|(place, _)| *place = column.clone()).count() == 0 {
                return Err(StageError::Missing { at, field: field.clone() });
            }
            Ok(())
        };
        for transform in &self.transforms {
            match transform {
                Transform::Keep { fields } => {
                    for (place, name) in columns.iter_mut().zip(&names) {
                        if !fields.iter().any(|field| is(field, name)) {
                            *place = Column::Omit;
                        }
                    }
                }
                Transform::Drop { fields } => {
                    fields.iter().try_for_each(|field| each(&mut columns, field, &Column::Omit))?;
                }
                other => {
                    if let Some(change) = Change::of(other.clone(), self.key.as_ref())? {
                        each(&mut columns, &change.field.clone(), &Column::Change(change))?;
                    }
                }
            }
        }
        if columns.iter().all(|column| matches!(column, Column::Omit)) {
            return Err(StageError::NothingLeft { at });
        }
        self.columns = columns;
        Ok(())
    }
}
