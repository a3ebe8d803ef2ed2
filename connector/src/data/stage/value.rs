//! What becomes of one value.

use std::borrow::Cow;

use kontor_core::policy::permit::{FieldPath, Transform};
use rust_decimal::Decimal;

use super::{Place, PseudonymKey, StageError};

/// A change of one field's value.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) field: FieldPath,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Replace(String),
    Hash(PseudonymKey),
    Round(Decimal),
    Add(Decimal),
    Multiply(Decimal),
}

impl Change {
    /// The change that a transform asks for; `None` for keep and drop lists.
    pub(super) fn of(transform: Transform, key: Option<&PseudonymKey>) -> Result<Option<Self>, StageError> {
        Ok(Some(match transform {
            Transform::Keep { .. } | Transform::Drop { .. } => return Ok(None),
            Transform::Replace { field, with } => Self { field, how: How::Replace(with) },
            Transform::Hash { field } => match key.cloned() {
                Some(key) => Self { field, how: How::Hash(key) },
                None => return Err(StageError::NoKey { field }),
            },
            Transform::Round { field, to } => Self { field, how: How::Round(to) },
            Transform::Add { field, by } => Self { field, how: How::Add(by) },
            Transform::Multiply { field, by } => Self { field, how: How::Multiply(by) },
        }))
    }

    /// Whether the result is a text, whatever the value was.
    pub(super) fn makes_text(&self) -> bool {
        matches!(self.how, How::Replace(_) | How::Hash(_))
    }

    /// Whether the result depends on the value.
    pub(super) fn reads(&self) -> bool {
        !matches!(self.how, How::Replace(_))
    }

    /// The new value of a text or of a number's digits.
    pub(super) fn apply<'a>(&'a self, value: &[u8], at: Place) -> Result<Cow<'a, str>, StageError> {
        Ok(match &self.how {
            How::Replace(with) => Cow::Borrowed(with),
            How::Hash(key) => Cow::Owned(key.pseudonym(value)),
            How::Round(step) => self.number(value, at, |number| round(number, *step))?,
            How::Add(by) => self.number(value, at, |number| {
                // Digits that do not fit are rounded away: then it does not lead back.
                let exact =
                    |sum: &Decimal| sum.checked_sub(*by) == Some(number) && sum.checked_sub(number) == Some(*by);
                number.checked_add(*by).filter(exact)
            })?,
            How::Multiply(by) => self.number(value, at, |number| {
                let exact = |product: &Decimal| product.is_zero() || product.scale() == number.scale() + by.scale();
                number.checked_mul(*by).filter(exact)
            })?,
        })
    }

    fn number(
        &self,
        value: &[u8],
        at: Place,
        change: impl FnOnce(Decimal) -> Option<Decimal>,
    ) -> Result<Cow<'static, str>, StageError> {
        let wanted = || StageError::Kind { at, field: self.field.clone(), wanted: "number" };
        let number = str::from_utf8(value).ok().and_then(decimal).ok_or_else(wanted)?;
        let changed = change(number).ok_or_else(|| StageError::Inexact { at, field: self.field.clone() })?;
        Ok(Cow::Owned(changed.normalize().to_string()))
    }
}

/// The number that a text writes, if it can be held exactly.
fn decimal(text: &str) -> Option<Decimal> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // The reader allows for `_` between digits; data has no such numbers.
    let plain = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !plain {
        None
    } else if digits.contains(['e', 'E']) {
        Decimal::from_scientific(text).ok()
    } else {
        Decimal::from_str_exact(text).ok()
    }
}

/// The nearest multiple of the step, halves away from zero.
fn round(number: Decimal, step: Decimal) -> Option<Decimal> {
    let rest = number.checked_rem(step)?;
    let below = number.checked_sub(rest)?;
    let twice = rest.abs().checked_mul(Decimal::TWO)?;
    match (twice < step, number.is_sign_negative()) {
        (true, _) => Some(below),
        (false, false) => below.checked_add(step),
        (false, true) => below.checked_sub(step),
    }
}
