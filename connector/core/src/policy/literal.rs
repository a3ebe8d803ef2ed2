//! The values of right operands: instants, durations, counts.

use std::fmt;

use jiff::{Span, Timestamp, tz::Offset};
use serde::{Deserialize, Serialize};

/// Reads an `xsd:dateTime` with a zone. Seconds may be missing, as in the protocol's own
/// examples; a zone may not, because a time without one names no instant.
pub(super) fn instant(text: &str) -> Result<Timestamp, &'static str> {
    const SHAPE: &str = "is not an `xsd:dateTime`";
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    let digits = |from: usize, count: usize| (from..from + count).all(digit);
    if !(digits(0, 4) && is(4, b'-') && digits(5, 2) && is(7, b'-') && digits(8, 2) && is(10, b'T') && digits(11, 2)) {
        return Err(SHAPE);
    }
    if !(is(13, b':') && digits(14, 2)) {
        return Err(SHAPE);
    }
    let mut at = 16;
    if is(at, b':') {
        if !digits(at + 1, 2) {
            return Err(SHAPE);
        }
        if text.get(at + 1..at + 3).is_some_and(|seconds| seconds >= "60") {
            return Err("has a second that no minute has");
        }
        at += 3;
        if is(at, b'.') {
            let fraction = bytes.iter().skip(at + 1).take_while(|byte| byte.is_ascii_digit()).count();
            if fraction == 0 {
                return Err(SHAPE);
            }
            if fraction > 9 {
                return Err("is finer than a nanosecond");
            }
            at += 1 + fraction;
        }
    }
    let zone = text.get(at..).ok_or(SHAPE)?;
    let zone_ok = zone == "Z"
        || (zone.len() == 6
            && zone.starts_with(['+', '-'])
            && digits(at + 1, 2)
            && is(at + 3, b':')
            && digits(at + 4, 2));
    if zone.is_empty() {
        return Err("has no time zone, so it names no instant");
    }
    if !zone_ok {
        return Err(SHAPE);
    }
    if zone.get(1..).is_some_and(|offset| offset > "14:00") || zone.get(4..).is_some_and(|minutes| minutes > "59") {
        return Err("has a time zone that does not exist");
    }
    text.parse().map_err(|_| "is not a time that exists")
}

/// An `xsd:duration` in the form in which equal durations are equal: whole months, which have no
/// fixed length, and the rest, which does in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    months: i64,
    seconds: i64,
    nanos: i64,
}

/// Longest duration that is read, in years.
pub const DURATION_YEARS_MAX: i64 = 9_999;

impl Duration {
    /// Which one ends first, where that is so from every start: a month and thirty days have no
    /// order.
    #[must_use]
    pub fn order(self, other: Self) -> Option<std::cmp::Ordering> {
        let months = self.months.cmp(&other.months);
        let rest = (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos));
        match (months.is_eq(), rest.is_eq()) {
            (true, _) => Some(rest),
            (_, true) => Some(months),
            _ => (months == rest).then_some(months),
        }
    }

    /// The instant that comes this long after another, by the calendar in UTC: a month after
    /// 31 January is the last day of February. `None` where the calendar ends.
    #[must_use]
    pub fn after(self, start: Timestamp) -> Option<Timestamp> {
        let date_time = Offset::UTC.to_datetime(start);
        let months = Span::new().try_months(self.months).ok()?;
        let moved = Offset::UTC.to_timestamp(date_time.checked_add(months).ok()?).ok()?;
        let seconds = moved.as_second().checked_add(self.seconds)?;
        let nanos = i64::from(moved.subsec_nanosecond()).checked_add(self.nanos)?;
        let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Timestamp::from_nanosecond(nanos).ok()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map_err(|why| format!("`{text}` {why}"))
    }
}

impl fmt::Display for Duration {
    /// ISO 8601, in normal form: `P1Y2M3DT4H`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("P")?;
        let parts = |out: &mut fmt::Formatter<'_>, parts: &[(i64, char)]| {
            parts.iter().filter(|(n, _)| *n != 0).try_for_each(|(n, unit)| write!(out, "{n}{unit}"))
        };
        parts(out, &[(self.months / 12, 'Y'), (self.months % 12, 'M'), (self.seconds / 86_400, 'D')])?;
        let rest = self.seconds % 86_400;
        if rest != 0 || self.nanos != 0 || (self.months == 0 && self.seconds == 0) {
            out.write_str("T")?;
            parts(out, &[(rest / 3_600, 'H'), (rest / 60 % 60, 'M')])?;
            let seconds = rest % 60;
            if self.nanos != 0 {
                let fraction = format!("{:09}", self.nanos);
                write!(out, "{seconds}.{}S", fraction.trim_end_matches('0'))?;
            } else if seconds != 0 || rest == 0 {
                write!(out, "{seconds}S")?;
            }
        }
        Ok(())
    }
}

/// Reads an `xsd:duration` that is not negative. Weeks are read too, as ISO 8601 has them.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "is not an `xsd:duration`";
    if text.starts_with('-') {
        return Err("is negative");
    }
    let rest = text.strip_prefix('P').ok_or(SHAPE)?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return Err(SHAPE),
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    let mut total = Duration { months: 0, seconds: 0, nanos: 0 };
    let mut any = false;
    for (part, units) in [(date, "YMWD"), (time, "HMS")] {
        let mut part = part;
        let mut units = units;
        while !part.is_empty() {
            let end = part.find(|c: char| c.is_ascii_alphabetic()).ok_or(SHAPE)?;
            let (number, tail) = part.split_at_checked(end).ok_or(SHAPE)?;
            let unit = tail.chars().next().ok_or(SHAPE)?;
            // Units come in order, each once.
            let place = units.find(unit).ok_or(SHAPE)?;
            units = units.get(place + 1..).ok_or(SHAPE)?;
            part = tail.get(1..).ok_or(SHAPE)?;
            any = true;
            let (whole, fraction) = match number.split_once('.') {
                Some((whole, fraction)) if unit == 'S' => (whole, fraction),
                Some(_) => return Err(SHAPE),
                None => (number, ""),
            };
            if whole.is_empty() || !number.chars().all(|c| c.is_ascii_digit() || c == '.') || number.ends_with('.') {
                return Err(SHAPE);
            }
            let whole: i64 = whole.parse().map_err(|_| "is longer than the calendar")?;
            let (months, seconds) = match (unit, units) {
                ('Y', _) => (12, 0),
                // `M` is months before the `T`, minutes after it: what may still follow tells which.
                ('M', "WD") => (1, 0),
                ('M', _) => (0, 60),
                ('W', _) => (0, 7 * 86_400),
                ('D', _) => (0, 86_400),
                ('H', _) => (0, 3_600),
                _ => (0, 1),
            };
            let add = |sum: i64, unit: i64| whole.checked_mul(unit).and_then(|more| sum.checked_add(more));
            total.months = add(total.months, months).ok_or("is longer than the calendar")?;
            total.seconds = add(total.seconds, seconds).ok_or("is longer than the calendar")?;
            if !fraction.is_empty() {
                if fraction.len() > 9 {
                    return Err("is finer than a nanosecond");
                }
                total.nanos = format!("{fraction:0<9}").parse().map_err(|_| SHAPE)?;
            }
        }
    }
    if !any {
        return Err(SHAPE);
    }
    if total.months > DURATION_YEARS_MAX * 12 || total.seconds > DURATION_YEARS_MAX * 366 * 86_400 {
        return Err("is longer than the calendar");
    }
    Ok(total)
}

/// Reads a count: a whole number that is not negative.
pub(super) fn count(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "is not a whole number of uses";
    let digits = text.strip_prefix('+').unwrap_or(text);
    // Decimals and JSON's floating numbers may spell a whole number.
    let digits = match digits.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.chars().all(|c| c == '0') => whole,
        Some(_) => return Err(SHAPE),
        None => digits,
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(SHAPE);
    }
    digits.parse().map_err(|_| SHAPE)
}
