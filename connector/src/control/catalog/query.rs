//! Which part of the catalogue a peer asks for. The protocol leaves the filter to implementations; Eclipse EDC puts one
//! of its own into every request, a `QuerySpec`, so that one is understood. Any other is refused by name.

use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::iri::EDC;
use serde_json::{Map, Value};

use crate::store::PAGE_MAX;

/// Datasets that one query may name.
const IDS_MAX: usize = 100;

/// A part of the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogQuery {
    /// How many datasets to leave out first.
    pub offset: u64,
    /// How many to give at most; `None`: a whole page, and a link to the next.
    pub limit: Option<usize>,
    /// These alone; `None`: all.
    pub ids: Option<Vec<String>>,
}

impl CatalogQuery {
    /// Reads the `filter` of a catalogue request.
    ///
    /// # Errors
    /// [`Refusal`] that names the part that is not supported.
    pub fn parse(filter: Option<&Value>) -> Result<Self, Refusal> {
        match filter {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Array(items)) => match items.as_slice() {
                [] => Ok(Self::default()),
                [one] => Self::parse(Some(one)),
                _ => Err(unsupported("filter", "several filters are not supported here")),
            },
            Some(Value::Object(map)) if map.is_empty() => Ok(Self::default()),
            Some(Value::Object(map)) if is_query_spec(map) => Self::query_spec(map),
            // Spec: an unsupported filter is answered with 400.
            Some(_) => Err(unsupported("filter", "the filter is of no kind that is supported here")),
        }
    }

    fn query_spec(map: &Map<String, Value>) -> Result<Self, Refusal> {
        let count = |name: &str| match member(map, name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| unsupported(&format!("filter.{name}"), format!("`{value}` is not a count"))),
        };
        let offset = count("offset")?.unwrap_or(0);
        let whole_page = u64::from(PAGE_MAX);
        let limit = match count("limit")? {
            Some(limit) if limit < whole_page => usize::try_from(limit).ok(),
            Some(limit) if limit > whole_page && offset > 0 => {
                return Err(unsupported("filter.limit", format!("`{limit}` is more than {whole_page}")));
            }
            Some(_) | None if offset > 0 => usize::try_from(whole_page).ok(),
            Some(_) | None => None,
        };
        // An order without a field orders nothing.
        if let Some(field) = member(map, "sortField") {
            return Err(unsupported("filter.sortField", format!("datasets are not sorted by `{field}` here")));
        }
        Ok(Self { offset, limit, ids: criteria(map)? })
    }
}

/// The conditions: none, or the identifiers that are wanted.
fn criteria(map: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let wanted = spellings("filterExpression").find_map(|name| map.get(&name));
    let criteria: Vec<&Value> = match wanted {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one) => vec![one],
    };
    let mut ids = None;
    for (at, criterion) in criteria.into_iter().enumerate() {
        let place = format!("filter.filterExpression[{at}]");
        let part = |name: &str| criterion.as_object().and_then(|map| member(map, name));
        let (left, operator) = (part("operandLeft"), part("operator"));
        let is_id = left.and_then(Value::as_str).is_some_and(|left| spellings("id").any(|name| name == left));
        let is_equality =
            operator.and_then(Value::as_str).is_some_and(|operator| matches!(operator, "=" | "==" | "in"));
        if !is_id || !is_equality || ids.is_some() {
            let said = format!(
                "a condition on {} with {} is not supported",
                left.map_or_else(|| "nothing".to_owned(), |left| format!("`{left}`")),
                operator.map_or_else(|| "no operator".to_owned(), |operator| format!("`{operator}`")),
            );
            return Err(unsupported(&place, said));
        }
        let right = criterion.as_object().and_then(|map| spellings("operandRight").find_map(|name| map.get(&name)));
        let named: Option<Vec<String>> = match right {
            Some(Value::Array(items)) => items.iter().map(|item| scalar(item).as_str().map(str::to_owned)).collect(),
            Some(one) => scalar(one).as_str().map(|id| vec![id.to_owned()]),
            None => None,
        };
        ids = Some(named.filter(|ids| ids.len() <= IDS_MAX).ok_or_else(|| {
            unsupported(&place, format!("`operandRight` is not an identifier, or a list of at most {IDS_MAX}"))
        })?);
    }
    Ok(ids)
}

fn unsupported(at: &str, message: impl Into<String>) -> Refusal {
    Refusal::new(Fault::Malformed, "catalog.filter", message).at(at).by("DSP 2025-1, Catalog Request Message").cure(
        "no `filter`, or EDC's `QuerySpec` with `offset`, `limit` and conditions `id` `=`; a broker answers SPARQL",
    )
}

fn is_query_spec(map: &Map<String, Value>) -> bool {
    let kind = map.get("@type").map(scalar).and_then(Value::as_str);
    kind.is_some_and(|kind| spellings("QuerySpec").any(|name| name == kind))
}

/// A term of EDC: bare as in its own context, prefixed, and as an IRI.
fn spellings(name: &str) -> impl Iterator<Item = String> {
    ["", "edc:", EDC].into_iter().map(move |before| format!("{before}{name}"))
}

fn member<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    spellings(name).find_map(|name| map.get(&name)).map(scalar).filter(|value| !value.is_null())
}

/// The value itself, where JSON-LD wrapped it.
fn scalar(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => items.first().map_or(value, scalar),
        Value::Object(map) => map.get("@value").or_else(|| map.get("@id")).unwrap_or(value),
        other => other,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(filter: Value) -> Result<CatalogQuery, Refusal> {
        CatalogQuery::parse(Some(&filter))
    }

    #[test]
    fn the_filter_that_edc_always_sends_asks_for_everything_in_parts() {
        let sent =
            json!([{ "@type": "QuerySpec", "limit": 50, "offset": 0, "sortOrder": "ASC", "filterExpression": [] }]);
        assert_eq!(parse(sent).unwrap(), CatalogQuery { offset: 0, limit: Some(50), ids: None });
        for nothing in [json!(null), json!([]), json!({}), json!([{}]), json!({ "@type": "QuerySpec" })] {
            assert_eq!(parse(nothing).unwrap(), CatalogQuery::default());
        }
        assert_eq!(CatalogQuery::parse(None).unwrap(), CatalogQuery::default());
    }

    #[test]
    fn prefixed_and_expanded_spellings_read_the_same() {
        let expanded = json!([{
            "@type": ["https://w3id.org/edc/v0.0.1/ns/QuerySpec"],
            "https://w3id.org/edc/v0.0.1/ns/limit": [{ "@value": 5 }],
            "edc:offset": { "@value": 10 },
            "edc:filterExpression": [{
                "edc:operandLeft": "edc:id", "edc:operator": "in", "edc:operandRight": ["urn:a", { "@value": "urn:b" }],
            }],
        }]);
        let ids = Some(vec!["urn:a".to_owned(), "urn:b".to_owned()]);
        assert_eq!(parse(expanded).unwrap(), CatalogQuery { offset: 10, limit: Some(5), ids });
    }

    #[test]
    fn a_limit_beyond_a_page_is_a_page_with_a_link_to_the_next() {
        let query = |offset: u64, limit: u64| parse(json!({ "@type": "QuerySpec", "offset": offset, "limit": limit }));
        assert_eq!(query(0, u64::from(PAGE_MAX) + 1).unwrap().limit, None);
        assert_eq!(query(0, u64::from(u32::MAX)).unwrap(), CatalogQuery::default());
        assert_eq!(query(1, u64::from(PAGE_MAX)).unwrap().limit, Some(PAGE_MAX as usize));
        // What cannot be given in one answer, and has no link either, would be a catalogue that looks whole.
        assert_eq!(query(1, u64::from(PAGE_MAX) + 1).unwrap_err().code, "catalog.filter");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let criterion = |left: &str, operator: &str, right: Value| {
            json!({ "@type": "QuerySpec", "filterExpression": [
                { "@type": "Criterion", "operandLeft": left, "operator": operator, "operandRight": right },
            ] })
        };
        let many: Vec<String> = (0..=IDS_MAX).map(|number| format!("urn:{number}")).collect();
        let table = [
            (json!("SELECT"), "no kind"),
            (json!({ "@type": "Sieve" }), "no kind"),
            (json!({ "limit": 5 }), "no kind"),
            (json!([{ "@type": "QuerySpec" }, { "@type": "QuerySpec" }]), "several"),
            (json!({ "@type": "QuerySpec", "limit": "many" }), "filter.limit"),
            (json!({ "@type": "QuerySpec", "offset": -1 }), "filter.offset"),
            (json!({ "@type": "QuerySpec", "sortField": "name" }), "filter.sortField"),
            (criterion("name", "=", json!("x")), "`\"name\"`"),
            (criterion("id", "like", json!("x%")), "`\"like\"`"),
            (criterion("id", "=", json!(5)), "operandRight"),
            (criterion("id", "in", json!(many)), "operandRight"),
            (json!({ "@type": "QuerySpec", "filterExpression": ["id = 5"] }), "nothing"),
        ];
        for (filter, named) in table {
            let refusal = parse(filter.clone()).unwrap_err();
            assert_eq!(refusal.code, "catalog.filter", "{filter}");
            assert!(refusal.sentences().join(" ").contains(named), "{filter}: {:?}", refusal.sentences());
        }
    }
}
