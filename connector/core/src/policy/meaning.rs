//! What a comparison with a handed-in fact or a burden means, from its operand's kind.

use std::sync::Arc;

use jiff::SignedDuration;
use rust_decimal::Decimal;

use super::literal;
use super::model::{Ask, Comparison, Constraint, FactTest, NameRelation, NameTest, Operand, Operator, Test};
use super::operand::{DefinedKind, Known, KnownKind, OperandKind, Taxonomy, canonical_name};
use super::parse::clip;
use super::permit::{FieldPath, Transform};
use super::{Problem, ProblemKind};

/// Bytes in each unit that a quantity may have: UCUM codes and their QUDT names.
const BYTE_UNITS: &[(&str, u64)] = &[
    ("By", 1),
    ("kBy", 1_000),
    ("MBy", 1_000_000),
    ("GBy", 1_000_000_000),
    ("KiBy", 1 << 10),
    ("MiBy", 1 << 20),
    ("GiBy", 1 << 30),
    ("http://qudt.org/vocab/unit/BYTE", 1),
    ("http://qudt.org/vocab/unit/KiloBYTE", 1_000),
    ("http://qudt.org/vocab/unit/MegaBYTE", 1_000_000),
    ("http://qudt.org/vocab/unit/GigaBYTE", 1_000_000_000),
    ("http://qudt.org/vocab/unit/KibiBYTE", 1 << 10),
    ("http://qudt.org/vocab/unit/MebiBYTE", 1 << 20),
    ("http://qudt.org/vocab/unit/GibiBYTE", 1 << 30),
];
/// The UCUM code of a record.
const RECORD: &str = "{record}";
/// Seconds in each unit of time of a rate.
const TIME_UNITS: &[(&str, i64)] = &[("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];

fn wrong(kind: ProblemKind, message: String, cure: &str) -> Problem {
    Problem { kind, path: String::new(), message, cure: cure.to_owned() }
}

fn misread(operand: &Operand, why: &str, cure: &str) -> Problem {
    wrong(ProblemKind::Malformed, format!("`{}` {why}", clip(&operand.text)), cure)
}

/// What the comparison means, for operands that are asked of facts or are burdens.
pub(super) fn meaning(
    known: &Known,
    operator: Operator,
    right: &[Operand],
    unit: Option<&str>,
    taxonomy: &Arc<Taxonomy>,
) -> Result<Test, Problem> {
    let fact = |ask: Option<Ask>| {
        ask.map_or(Test::Undecided, |ask| Test::Fact(Box::new(FactTest { operand: known.name.to_string(), ask })))
    };
    let comparison = operator.comparison().zip(right.first());
    let spec = match &known.kind {
        KnownKind::Spec(spec) => *spec,
        KnownKind::Defined(DefinedKind::Names { every, parts }) => OperandKind::Names { every: *every, parts: *parts },
        KnownKind::Defined(DefinedKind::Level { levels }) => {
            if unit.is_some() {
                return Ok(Test::Undecided);
            }
            return Ok(fact(level(operator, right, levels)?));
        }
        KnownKind::Defined(DefinedKind::Number { unit: wanted }) => {
            let (Some((comparison, operand)), true) = (comparison, unit == wanted.as_deref()) else {
                return Ok(Test::Undecided);
            };
            let number: Decimal =
                operand.text.parse().map_err(|_| misread(operand, "is not a decimal number", "such as `1.5`"))?;
            return Ok(fact(Some(Ask::Number(comparison, number.normalize()))));
        }
        KnownKind::Defined(DefinedKind::Instant) => {
            let (Some((comparison, operand)), None) = (comparison, unit) else { return Ok(Test::Undecided) };
            let cure = "an instant with its zone, such as `2030-01-31T12:00:00Z`";
            let at = literal::instant(&operand.text).map_err(|why| misread(operand, why, cure))?;
            return Ok(fact(Some(Ask::Instant(comparison, at))));
        }
    };
    match spec {
        OperandKind::Names { .. } | OperandKind::Level(_) | OperandKind::Fields | OperandKind::Delay
            if unit.is_some() =>
        {
            Ok(Test::Undecided)
        }
        OperandKind::Names { every, parts } => Ok(fact(names(operator, right, every, parts, taxonomy))),
        OperandKind::Level(levels) => {
            let levels: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
            Ok(fact(level(operator, right, &levels)?))
        }
        OperandKind::Quantity => quantity(comparison, unit),
        OperandKind::Rate => rate(operator, right, unit),
        OperandKind::Delay => {
            let ([operand], true) = (right, matches!(operator, Operator::Eq | Operator::Gteq)) else {
                return Ok(Test::Undecided);
            };
            let cure = "a duration, such as `PT1H`";
            literal::duration(&operand.text).map(Test::Delay).map_err(|why| misread(operand, why, cure))
        }
        OperandKind::Fields => fields(operator, right),
        OperandKind::Time
        | OperandKind::Elapsed
        | OperandKind::Count
        | OperandKind::Recipient
        | OperandKind::Parameter
        | OperandKind::Undecided => Ok(Test::Undecided),
    }
}

fn names(operator: Operator, right: &[Operand], every: bool, parts: bool, taxonomy: &Arc<Taxonomy>) -> Option<Ask> {
    let relation = match operator {
        Operator::Eq | Operator::IsAnyOf => NameRelation::AnyOf,
        Operator::Neq | Operator::IsNoneOf => NameRelation::NoneOf,
        Operator::IsAllOf => NameRelation::AllOf,
        // What has no parts is a part of a set by being in it.
        Operator::IsPartOf | Operator::IsA if parts => NameRelation::PartOf,
        Operator::IsPartOf | Operator::IsA => NameRelation::AnyOf,
        Operator::HasPart if parts => NameRelation::HasPart,
        Operator::HasPart => NameRelation::AllOf,
        Operator::Gt | Operator::Gteq | Operator::Lt | Operator::Lteq => return None,
    };
    let mut names: Vec<String> = right.iter().map(|operand| canonical_name(&operand.text)).collect();
    names.sort();
    names.dedup();
    let taxonomy = if parts { Arc::clone(taxonomy) } else { Arc::default() };
    Some(Ask::Names(NameTest { relation, every, names, parts, taxonomy }))
}

fn level(operator: Operator, right: &[Operand], levels: &[String]) -> Result<Option<Ask>, Problem> {
    let mut places = Vec::new();
    for operand in right {
        let name = canonical_name(&operand.text);
        let place = levels.iter().position(|level| *level == name).ok_or_else(|| {
            wrong(
                ProblemKind::Unknown,
                format!("`{}` is not one of the levels", clip(&operand.text)),
                &format!("`{}`", levels.join("`, `")),
            )
        })?;
        places.push(place);
    }
    let holds = |at: usize| match operator.comparison() {
        Some(comparison) => places.first().is_some_and(|place| comparison.holds(&at, place)),
        None => places.contains(&at) != (operator == Operator::IsNoneOf),
    };
    if matches!(operator, Operator::IsAllOf | Operator::HasPart) {
        return Ok(None);
    }
    let allowed = levels.iter().enumerate().filter(|(at, _)| holds(*at)).map(|(_, level)| level.clone()).collect();
    Ok(Some(Ask::Level { allowed, levels: levels.to_vec() }))
}

fn quantity(comparison: Option<(Comparison, &Operand)>, unit: Option<&str>) -> Result<Test, Problem> {
    let Some((comparison, operand)) = comparison else { return Ok(Test::Undecided) };
    let cure = "a whole number, such as `1000000`";
    let n = literal::count(&operand.text).map_err(|_| misread(operand, "is not a whole number", cure))?;
    let unit = unit.unwrap_or("By");
    if unit == RECORD {
        return Ok(Test::Records(comparison, n));
    }
    let Some((_, factor)) = BYTE_UNITS.iter().find(|(name, _)| *name == unit) else { return Ok(Test::Undecided) };
    let bytes = n.checked_mul(*factor).ok_or_else(|| misread(operand, "is more than can be counted", cure))?;
    Ok(Test::Bytes(comparison, bytes))
}

fn rate(operator: Operator, right: &[Operand], unit: Option<&str>) -> Result<Test, Problem> {
    let ([operand], Operator::Lteq | Operator::Eq, Some((bytes, time))) =
        (right, operator, unit.and_then(|unit| unit.split_once('/')))
    else {
        return Ok(Test::Undecided);
    };
    let factor = BYTE_UNITS.iter().find(|(name, _)| *name == bytes).map(|(_, factor)| *factor);
    let seconds = TIME_UNITS.iter().find(|(name, _)| *name == time).map(|(_, seconds)| *seconds);
    let (Some(factor), Some(seconds)) = (factor, seconds) else { return Ok(Test::Undecided) };
    let cure = "a whole number above 0, such as `1000000`";
    let n = literal::count(&operand.text).map_err(|_| misread(operand, "is not a whole number", cure))?;
    let bytes = n.checked_mul(factor).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or_else(|| misread(operand, "is no rate", cure))?;
    Ok(Test::Rate(bytes, SignedDuration::from_secs(seconds)))
}

fn fields(operator: Operator, right: &[Operand]) -> Result<Test, Problem> {
    let mut fields = Vec::new();
    for operand in right {
        let field: Result<FieldPath, _> = operand.text.parse();
        fields.push(field.map_err(|error| wrong(ProblemKind::Malformed, error.to_string(), "such as `$.name`"))?);
    }
    fields.sort();
    fields.dedup();
    Ok(match operator {
        Operator::Eq | Operator::IsAnyOf | Operator::IsPartOf => Test::Fields(Transform::Keep { fields }),
        Operator::Neq | Operator::IsNoneOf => Test::Fields(Transform::Drop { fields }),
        Operator::Gt
        | Operator::Gteq
        | Operator::Lt
        | Operator::Lteq
        | Operator::IsA
        | Operator::HasPart
        | Operator::IsAllOf => Test::Undecided,
    })
}

/// A burden is one only as a condition that a permission always has: under `or` nobody could say whether it is borne.
pub(super) fn settle_burdens(constraints: &mut [Constraint], bearing: bool) {
    for constraint in constraints {
        match constraint {
            Constraint::Atomic(atomic) => {
                if !bearing && matches!(atomic.test, Test::Delay(_) | Test::Rate(..) | Test::Fields(_)) {
                    atomic.test = Test::Undecided;
                }
            }
            Constraint::Logical(logical) => {
                let and = logical.operand == super::model::LogicalOperand::And;
                settle_burdens(&mut logical.of, bearing && and);
            }
        }
    }
}

/// What narrows a party or an asset is asked of facts alone: uses and quantities are no property of either.
pub(super) fn settle_refinements(constraints: &mut [Constraint]) {
    for constraint in constraints {
        match constraint {
            Constraint::Atomic(atomic) => {
                if !matches!(atomic.test, Test::Fact(_) | Test::Time(..)) {
                    atomic.test = Test::Undecided;
                }
            }
            Constraint::Logical(logical) => settle_refinements(&mut logical.of),
        }
    }
}
