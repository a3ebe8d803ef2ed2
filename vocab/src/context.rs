//! The JSON-LD terms of DSP 2025-1 and ODRL 2.2, and the way back from prefixed and expanded
//! spellings to the compact one.
//!
//! This is not a JSON-LD processor: it knows one fixed context, embedded as a table, and fetches
//! nothing. An inline `@context` is read for one thing only: names for namespaces. A prefix that
//! it binds to one of the known namespaces works as `odrl:` does; one of our own prefixes that it
//! binds elsewhere stops being ours, so that its members stay unknown and are refused by whoever
//! reads them.

mod table;

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::iri::{DCAT, DCT, DSPACE, FOAF, ODRL, RDF, RDFS, XSD};
use crate::odrl::terms;
use table::{Shape, shape_of};

/// How deep a document may nest before [`compact`] leaves the rest as it came. `serde_json` reads
/// no deeper than 128 levels from text, so this bounds values that were built in memory.
pub const NESTING_MAX: usize = 128;

/// How many names of its own a document may have for the known namespaces; real contexts have one for each. Further
/// ones are ignored, which is safe: their members stay unknown, as those of any prefix that is not ours, and are
/// refused by whoever reads them. What takes a prefix of ours away always counts.
pub const OWN_PREFIXES_MAX: usize = 64;

/// Namespaces with the prefix that they have in the protocol's context.
const PREFIXES: &[(&str, &str)] = &[
    ("dspace", DSPACE),
    ("odrl", ODRL),
    ("dcat", DCAT),
    ("dct", DCT),
    ("foaf", FOAF),
    ("rdf", RDF),
    ("rdfs", RDFS),
    ("xsd", XSD),
];

/// Brings a DSP message or ODRL policy to its compact form: prefixed (`dspace:consumerPid`,
/// `odrl:permission`) and expanded (`https://w3id.org/dspace/2025/1/consumerPid`) keys, types and
/// terms become the bare terms of the protocol's context; `{"@id": x}` and `{"@value": x}` become
/// `x` where the context says so; a single value becomes an array where the context has a set.
/// Unknown members are kept as they are. Nothing is fetched.
///
/// Two spellings of one member are merged, as JSON-LD would: nothing is dropped. Applying it
/// twice changes nothing more.
///
/// ```
/// use kontor_vocab::context::compact;
/// use serde_json::json;
/// let expanded = json!([{
///     "@type": ["http://www.w3.org/ns/odrl/2/Offer"],
///     "http://www.w3.org/ns/odrl/2/permission": [{"http://www.w3.org/ns/odrl/2/action": [{"@id": "http://www.w3.org/ns/odrl/2/use"}]}]
/// }]);
/// assert_eq!(compact(expanded), json!({"@type": "Offer", "permission": [{"action": "use"}]}));
/// ```
#[must_use]
pub fn compact(document: Value) -> Value {
    let document = single_node(document);
    let names = Names::of(&document);
    names.node(document, NESTING_MAX)
}

/// The compact spelling of a term or IRI of the protocol's vocabularies: `odrl:use` and
/// `http://www.w3.org/ns/odrl/2/use` become `use`, `http://purl.org/dc/terms/title` becomes
/// `dct:title`; anything else stays as it is.
#[must_use]
pub fn compact_term(text: &str) -> String {
    Names::default().term(text)
}

/// Whether the context has the member's values for terms or IRIs, and not for texts or nodes of their own.
///
/// ```
/// use kontor_vocab::context::names_things;
/// assert!(names_things("action") && names_things("assigner"));
/// assert!(!names_things("rightOperand") && !names_things("constraint"));
/// ```
#[must_use]
pub fn names_things(member: &str) -> bool {
    matches!(shape_of(member), Some(Shape::Reference | Shape::Term))
}

/// Expanded JSON-LD is an array of nodes, and a graph holds nodes: one node stands for itself.
fn single_node(document: Value) -> Value {
    match document {
        Value::Array(mut nodes) if nodes.len() == 1 && nodes.iter().all(Value::is_object) => {
            nodes.pop().unwrap_or(Value::Null)
        }
        Value::Object(mut map)
            if map.keys().all(|key| key == "@context" || key == "@graph")
                && map.get("@graph").and_then(Value::as_array).is_some_and(|nodes| nodes.len() == 1) =>
        {
            let context = map.shift_remove("@context");
            match map.shift_remove("@graph") {
                Some(Value::Array(mut nodes)) => match (nodes.pop(), context) {
                    (Some(Value::Object(node)), Some(context)) if !node.contains_key("@context") => {
                        let mut with_context = Map::new();
                        with_context.insert("@context".to_owned(), context);
                        with_context.extend(node);
                        Value::Object(with_context)
                    }
                    (Some(node), _) => node,
                    (None, _) => Value::Null,
                },
                _ => Value::Null,
            }
        }
        other => other,
    }
}

/// Which prefix stands for which known namespace, in one document. A context may have as many prefixes as fit into a
/// message; those that neither name a known namespace nor hide a usual prefix change nothing here, and are not kept.
struct Names {
    /// `None`: a prefix of ours that the document binds elsewhere.
    prefixes: BTreeMap<String, Option<&'static str>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { prefixes: PREFIXES.iter().map(|(prefix, iri)| ((*prefix).to_owned(), Some(*iri))).collect() }
    }
}

impl Names {
    /// The usual prefixes, and those that the document's own context names.
    fn of(document: &Value) -> Self {
        let mut names = Self::default();
        let contexts = match document.get("@context") {
            Some(Value::Array(all)) => all.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        for (prefix, value) in contexts.iter().filter_map(Value::as_object).flatten() {
            let iri = value.as_str().or_else(|| value.get("@id").and_then(Value::as_str));
            if let Some(iri) = iri
                && !prefix.starts_with('@')
                && iri.ends_with(['/', '#', ':'])
            {
                names.bind(prefix, iri);
            }
        }
        names
    }

    /// Binds a prefix; of several bindings the last counts.
    fn bind(&mut self, prefix: &str, iri: &str) {
        let namespace = PREFIXES.iter().map(|(_, known)| *known).find(|known| *known == iri);
        if let Some(bound) = self.prefixes.get_mut(prefix) {
            *bound = namespace;
        } else if namespace.is_some() && self.prefixes.len() < PREFIXES.len() + OWN_PREFIXES_MAX {
            self.prefixes.insert(prefix.to_owned(), namespace);
        }
    }

    /// The compact spelling of a term.
    fn term(&self, text: &str) -> String {
        match self.split(text) {
            Some((namespace, name)) => {
                let bare = match namespace {
                    ODRL => terms::is_term(name),
                    DSPACE | DCAT | DCT => table::is_bare(namespace, name),
                    _ => false,
                };
                if bare {
                    return name.to_owned();
                }
                match PREFIXES.iter().find(|(_, iri)| *iri == namespace) {
                    // The usual prefix may be bound elsewhere in this document; then the whole IRI is unambiguous.
                    Some((prefix, iri)) if self.prefixes.get(*prefix) == Some(&Some(*iri)) => {
                        format!("{prefix}:{name}")
                    }
                    Some(_) | None => format!("{namespace}{name}"),
                }
            }
            None => text.to_owned(),
        }
    }

    /// A known namespace and the name in it, from a prefixed or whole IRI.
    fn split<'a>(&self, text: &'a str) -> Option<(&'static str, &'a str)> {
        if let Some((prefix, name)) = text.split_once(':')
            && let Some(namespace) = self.prefixes.get(prefix)
            && !name.starts_with("//")
        {
            return namespace.map(|namespace| (namespace, name)).filter(|(_, name)| !name.is_empty());
        }
        PREFIXES
            .iter()
            .find_map(|(_, iri)| text.strip_prefix(iri).map(|name| (*iri, name)))
            .filter(|(_, name)| !name.is_empty())
    }

    /// A node: its keys, its types, and its members by their shape.
    fn node(&self, value: Value, depth: usize) -> Value {
        let Value::Object(map) = value else { return value };
        if depth == 0 {
            return Value::Object(map);
        }
        // `dataset` is one IRI in this message and a set of nodes everywhere else.
        let asks_for_dataset = self.asks_for_dataset(&map);
        let mut compacted = Map::new();
        let mut respelled: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (key, member) in map {
            let key = if key.starts_with('@') { key } else { self.term(&key) };
            let member = match key.as_str() {
                "dataset" if asks_for_dataset => Some(one(member, |item| self.reference(literal(item)))),
                _ => self.member(&key, member, depth - 1),
            };
            let Some(member) = member else { continue };
            if compacted.contains_key(&key) {
                respelled.entry(key).or_default().push(member);
            } else {
                compacted.insert(key, member);
            }
        }
        for (key, more) in respelled {
            if let Some(present) = compacted.get_mut(&key) {
                merge(present, more);
            }
        }
        Value::Object(compacted)
    }

    fn asks_for_dataset(&self, map: &Map<String, Value>) -> bool {
        let is_request = |kind: &Value| kind.as_str().is_some_and(|kind| self.term(kind) == "DatasetRequestMessage");
        match map.get("@type") {
            Some(Value::Array(kinds)) => kinds.iter().any(is_request),
            Some(kind) => is_request(kind),
            None => false,
        }
    }

    /// A member's value in the shape that the context gives it; `None` where JSON-LD has nothing.
    fn member(&self, key: &str, value: Value, depth: usize) -> Option<Value> {
        if key == "@type" {
            return Some(self.types(value));
        }
        if key.starts_with('@') {
            return Some(value);
        }
        let Some(shape) = shape_of(key) else {
            // Titles and the like, in namespaces that we know, lose their wrapping; what is not ours stays as it came.
            let described =
                PREFIXES.iter().any(|(prefix, _)| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(':')));
            return Some(if described { one(value, literal) } else { value });
        };
        if value.is_null() {
            return None;
        }
        Some(match shape {
            Shape::Nodes => {
                Value::Array(items(value).into_iter().map(|item| self.reference(self.node(item, depth))).collect())
            }
            Shape::Node | Shape::Reference => one(value, |item| self.reference(literal(self.node(item, depth)))),
            Shape::Term => one(value, |item| self.term_value(item, depth)),
            Shape::Text => one(value, |item| self.reference(literal(item))),
            Shape::Texts => Value::Array(items(value).into_iter().map(literal).collect()),
            Shape::Operand => one(value, |item| self.operand(item, depth)),
        })
    }

    /// `@type`: compact terms; an array of one is the one.
    fn types(&self, value: Value) -> Value {
        let terms = items(value).into_iter().map(|item| match item {
            Value::String(text) => Value::String(self.term(&text)),
            other => other,
        });
        let mut seen = HashSet::new();
        single(terms.filter(|item| seen.insert(item.clone())).collect())
    }

    /// `{"@id": x}` and nothing else is `x`.
    fn reference(&self, value: Value) -> Value {
        match value {
            Value::Object(mut map) if map.len() == 1 => match map.shift_remove("@id") {
                Some(id @ Value::String(_)) => id,
                Some(other) => Value::Object(Map::from_iter([("@id".to_owned(), other)])),
                None => Value::Object(map),
            },
            other => other,
        }
    }

    /// A term by any spelling; a node, such as a refined action, stays a node.
    fn term_value(&self, value: Value, depth: usize) -> Value {
        match self.reference(literal(self.node(value, depth))) {
            Value::String(text) => Value::String(self.term(&text)),
            other => other,
        }
    }

    /// A right operand keeps what tells an IRI from a text and a date from a text.
    fn operand(&self, value: Value, depth: usize) -> Value {
        match literal(self.node(value, depth)) {
            Value::Object(mut map) => {
                if let Some(Value::String(kind)) = map.get_mut("@type") {
                    *kind = self.term(kind);
                }
                Value::Object(map)
            }
            other => other,
        }
    }
}

/// `{"@value": x}` without a type or with the type of plain text is `x`.
fn literal(value: Value) -> Value {
    match value {
        Value::Object(mut map) => {
            let plain = match map.get("@type") {
                None => map.len() == 1,
                Some(Value::String(kind)) => {
                    map.len() == 2 && (kind == "xsd:string" || kind.strip_prefix(XSD) == Some("string"))
                }
                Some(_) => false,
            };
            if plain && map.contains_key("@value") {
                map.shift_remove("@value").unwrap_or(Value::Null)
            } else {
                Value::Object(map)
            }
        }
        other => other,
    }
}

/// The items of an array, of a `@list` or `@set`, or the one value itself. Sets in sets are one
/// set, and nothing is no item.
fn items(value: Value) -> Vec<Value> {
    let mut flat = Vec::new();
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Null => {}
            Value::Array(all) => waiting.extend(all.into_iter().rev()),
            Value::Object(mut map) if map.len() == 1 && (map.contains_key("@list") || map.contains_key("@set")) => {
                waiting.extend(map.shift_remove("@list").or_else(|| map.shift_remove("@set")));
            }
            other => flat.push(other),
        }
    }
    flat
}

/// Each item shaped; an array of one is the one.
fn one(value: Value, shape: impl Fn(Value) -> Value) -> Value {
    single(items(value).into_iter().map(shape).collect())
}

fn single(mut items: Vec<Value>) -> Value {
    match items.len() {
        1 => items.pop().unwrap_or(Value::Null),
        _ => Value::Array(items),
    }
}

/// All spellings of one member are one member with the values of all.
fn merge(present: &mut Value, more: Vec<Value>) {
    let mut all = items(present.take());
    all.extend(items(Value::Array(more)));
    *present = Value::Array(all);
}

#[cfg(test)]
mod tests;
