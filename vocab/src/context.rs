//! The JSON-LD terms of DSP 2025-1 and ODRL 2.2, and the way back from prefixed and expanded
//! spellings to the compact one.
//!
//! This is not a JSON-LD processor: it knows one fixed context, embedded as a table, and fetches
//! nothing. An inline `@context` is read for one thing only: names for namespaces. A prefix that
//! it binds to one of the known namespaces works as `odrl:` does; one of our own prefixes that it
//! binds elsewhere stops being ours: what it begins becomes the IRI that it stands for, so that it
//! stays unknown without the context too, and is refused by whoever reads it. Where a member names
//! things, what begins with any other prefix that is bound becomes its IRI as well.

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

/// Longest namespace that a document may bind, in bytes; it is written out wherever its prefix stands. A longer one is
/// no name of anything.
pub const NAMESPACE_BYTES_MAX: usize = 256;

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

/// What a prefix stands for that is ours, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bound {
    /// One of the known namespaces.
    Ours(&'static str),
    /// A prefix of ours that the document binds elsewhere.
    Elsewhere(String),
}

/// Which prefix stands for which namespace, in one document. A context may have as many prefixes as fit into a
/// message; of those that neither name a known namespace nor hide a usual prefix no more than a few are kept.
struct Names {
    prefixes: BTreeMap<String, Bound>,
    /// Prefixes for namespaces that are not ours.
    own: BTreeMap<String, String>,
}

impl Default for Names {
    fn default() -> Self {
        let prefixes = PREFIXES.iter().map(|(prefix, iri)| ((*prefix).to_owned(), Bound::Ours(iri))).collect();
        Self { prefixes, own: BTreeMap::new() }
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
            if prefix.starts_with('@') || prefix == "_" {
                continue;
            }
            let iri = value.as_str().or_else(|| value.get("@id").and_then(Value::as_str));
            let is_namespace = iri.is_some_and(|iri| iri.ends_with(['/', '#', ':']));
            names.bind(prefix, iri, is_namespace || value.get("@prefix") == Some(&Value::Bool(true)));
        }
        names.resolve();
        names
    }

    /// Binds a prefix; of several bindings the last counts. To nothing, or to what is no namespace, is elsewhere, too.
    fn bind(&mut self, prefix: &str, iri: Option<&str>, is_namespace: bool) {
        let known = iri.and_then(known_namespace);
        let usable = iri.filter(|iri| iri.len() <= NAMESPACE_BYTES_MAX && iri.contains(':'));
        if let Some(bound) = self.prefixes.get_mut(prefix) {
            *bound = match (known, usable) {
                (Some(known), _) => Bound::Ours(known),
                (None, Some(iri)) => Bound::Elsewhere(iri.to_owned()),
                (None, None) => Bound::Elsewhere(nowhere(prefix)),
            };
        } else if let Some(known) = known {
            if self.prefixes.len() < PREFIXES.len() + OWN_PREFIXES_MAX {
                self.own.remove(prefix);
                self.prefixes.insert(prefix.to_owned(), Bound::Ours(known));
            }
        } else if let (Some(iri), true) = (usable, is_namespace) {
            if self.own.contains_key(prefix) || self.own.len() < OWN_PREFIXES_MAX {
                self.own.insert(prefix.to_owned(), iri.to_owned());
            }
        } else {
            self.own.remove(prefix);
        }
    }

    /// A namespace may itself be written with a prefix.
    fn resolve(&mut self) {
        let whole = |prefix: &str, iri: &str| {
            let mut iri = iri.to_owned();
            for _ in 0..PREFIXES.len() {
                match self.expanded(&iri) {
                    Some(longer) if longer.len() <= NAMESPACE_BYTES_MAX => iri = longer,
                    Some(_) => break,
                    None => return iri,
                }
            }
            nowhere(prefix)
        };
        let mut prefixes = self.prefixes.clone();
        for (prefix, bound) in &mut prefixes {
            if let Bound::Elsewhere(iri) = bound {
                let iri = whole(prefix, iri);
                *bound = known_namespace(&iri).map_or(Bound::Elsewhere(iri), Bound::Ours);
            }
        }
        let own = self.own.iter().map(|(prefix, iri)| (prefix.clone(), whole(prefix, iri))).collect();
        (self.prefixes, self.own) = (prefixes, own);
    }

    /// The whole IRI of what begins with a prefix.
    fn expanded(&self, text: &str) -> Option<String> {
        let (prefix, name) = text.split_once(':').filter(|(_, name)| !name.starts_with("//"))?;
        let namespace = match self.prefixes.get(prefix) {
            Some(Bound::Ours(namespace)) => *namespace,
            Some(Bound::Elsewhere(namespace)) => namespace.as_str(),
            None => self.own.get(prefix)?.as_str(),
        };
        Some(format!("{namespace}{name}"))
    }

    /// The compact spelling of a term.
    fn term(&self, text: &str) -> String {
        let elsewhere = self.elsewhere(text);
        let found = match &elsewhere {
            Some(iri) => in_known_namespace(iri),
            None => self.split(text),
        };
        match found {
            Some((namespace, name)) => {
                let bare = match namespace {
                    ODRL => terms::is_term(name),
                    DSPACE | DCAT | DCT => table::is_bare(namespace, name),
                    _ => false,
                };
                if bare { name.to_owned() } else { self.prefixed(namespace, name) }
            }
            None => elsewhere.unwrap_or_else(|| text.to_owned()),
        }
    }

    /// A name with the usual prefix of its namespace. That may be bound elsewhere in this document; then the whole IRI
    /// is unambiguous.
    fn prefixed(&self, namespace: &'static str, name: &str) -> String {
        match PREFIXES.iter().find(|(_, iri)| *iri == namespace) {
            Some((prefix, _)) if self.prefixes.get(*prefix) == Some(&Bound::Ours(namespace)) => {
                format!("{prefix}:{name}")
            }
            Some(_) | None => format!("{namespace}{name}"),
        }
    }

    /// The IRI of what begins with a prefix of ours that is bound elsewhere.
    fn elsewhere(&self, text: &str) -> Option<String> {
        let (prefix, name) = text.split_once(':').filter(|(_, name)| !name.is_empty() && !name.starts_with("//"))?;
        match self.prefixes.get(prefix)? {
            Bound::Ours(_) => None,
            Bound::Elsewhere(namespace) => Some(format!("{namespace}{name}")),
        }
    }

    /// A known namespace and the name in it, from a prefixed or whole IRI.
    fn split<'a>(&self, text: &'a str) -> Option<(&'static str, &'a str)> {
        if let Some((prefix, name)) = text.split_once(':')
            && let Some(bound) = self.prefixes.get(prefix)
            && !name.starts_with("//")
        {
            return match bound {
                Bound::Ours(namespace) => Some((*namespace, name)).filter(|(_, name)| !name.is_empty()),
                Bound::Elsewhere(_) => None,
            };
        }
        in_known_namespace(text)
    }

    /// The identifier of a thing: whole where the document has a prefix of its own for it.
    fn identifier(&self, text: String) -> String {
        match text.split_once(':') {
            Some((prefix, name)) if !name.is_empty() && !name.starts_with("//") => match self.prefixes.get(prefix) {
                // The usual prefix is known to whoever reads it.
                Some(Bound::Ours(namespace)) => self.prefixed(namespace, name),
                Some(Bound::Elsewhere(_)) | None => self.expanded(&text).unwrap_or(text),
            },
            _ => text,
        }
    }

    /// Things that are named, by their identifiers or in nodes that have one.
    fn identified(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.identifier(text)),
            Value::Object(mut map) => {
                for member in ["@id", "uid"] {
                    if let Some(Value::String(text)) = map.get_mut(member) {
                        *text = self.identifier(std::mem::take(text));
                    }
                }
                Value::Object(map)
            }
            other => other,
        }
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
            Shape::Node => one(value, |item| self.reference(literal(self.node(item, depth)))),
            Shape::Reference => one(value, |item| self.identified(self.reference(literal(self.node(item, depth))))),
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
                self.identified(Value::Object(map))
            }
            other => other,
        }
    }
}

fn known_namespace(iri: &str) -> Option<&'static str> {
    PREFIXES.iter().map(|(_, known)| *known).find(|known| *known == iri)
}

/// A known namespace and the name in it, from a whole IRI.
fn in_known_namespace(text: &str) -> Option<(&'static str, &str)> {
    PREFIXES
        .iter()
        .find_map(|(_, iri)| text.strip_prefix(iri).map(|name| (*iri, name)))
        .filter(|(_, name)| !name.is_empty())
}

/// In place of a namespace that is none: what begins with it is nobody's.
fn nowhere(prefix: &str) -> String {
    format!("_:{prefix}:")
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
