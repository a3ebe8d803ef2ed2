//! RDF in, within limits: media type, nesting, contexts, triples. Nothing here stores.

use std::collections::HashSet;

use serde_json::Value;

use crate::store::rdf::{self, ParseError, ParseLimits, Syntax, Triple};
use crate::validate::Violation;

/// Most context objects of a JSON-LD description. The parser copies all terms for each of them.
pub const CONTEXTS_MAX: usize = 64;
/// Most terms in all of them.
pub const TERMS_MAX: usize = 256;
/// Most uses of terms whose definition has a context, times all terms: such a context is applied at every use.
const APPLIED_TERMS_MAX: usize = 256 * 1024;
/// Letters of a member's name that a report shows.
const NAME_CHARS: usize = 200;

/// Limits of one description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Most triples.
    pub triples_max: usize,
    /// Most bytes of its terms, with prefixes and contexts written out.
    pub expanded_bytes_max: usize,
    /// Deepest nesting of brackets.
    pub nesting_max: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self { bytes_max: 1024 * 1024, triples_max: 50_000, expanded_bytes_max: 8 * 1024 * 1024, nesting_max: 64 }
    }
}

/// Why a description is not taken; all of these are the publisher's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Neither Turtle nor JSON-LD.
    #[error("the media type `{0}` is not read here")]
    MediaType(String),
    /// Too many bytes.
    #[error("the description has more than {0} bytes")]
    TooLarge(usize),
    /// Not UTF-8.
    #[error("the description is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// Brackets too deep.
    #[error("the description is nested deeper than {max} levels at line {line}, column {column}")]
    Nesting {
        /// The limit.
        max: usize,
        /// Where it was passed, from 1.
        line: u64,
        /// Where it was passed, from 1.
        column: u64,
    },
    /// A context that would have to be fetched.
    #[error("the JSON-LD context `{url}` would have to be fetched, and nothing is fetched here")]
    RemoteContext {
        /// The context.
        url: String,
        /// Where it is named.
        path: String,
    },
    /// Contexts that take more work than the text is long.
    #[error("the JSON-LD contexts are too many, define too many terms, or are applied too often")]
    Contexts {
        /// Where that was noticed.
        path: String,
    },
    /// The text breaks the grammar, or says too much.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It is RDF, but does not have the shape.
    #[error("the description breaks {} rules of the self-description", .0.len())]
    Shape(Vec<Violation>),
}

/// Reads a description into triples.
///
/// # Errors
/// [`IngestError`], all but `Shape`.
pub fn read(
    syntax: Syntax,
    bytes: &[u8],
    participant: &str,
    limits: &IngestLimits,
) -> Result<Vec<Triple>, IngestError> {
    if bytes.len() > limits.bytes_max {
        return Err(IngestError::TooLarge(limits.bytes_max));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| IngestError::NotUtf8(error.valid_up_to()))?;
    // Before any parser runs: a parser that recurses must not be led into its stack's end.
    check_nesting(syntax, text, limits.nesting_max)?;
    if syntax == Syntax::JsonLd {
        let document: Value = serde_json::from_str(text).map_err(|error| ParseError::Syntax {
            line: Some(error.line() as u64),
            column: Some(error.column() as u64),
            message: error.to_string(),
        })?;
        let mut contexts = Contexts::default();
        contexts.check(&document)?;
        contexts.check_uses(&document)?;
    }
    let IngestLimits { triples_max, expanded_bytes_max, .. } = *limits;
    Ok(rdf::parse(syntax, bytes, participant, ParseLimits { triples_max, expanded_bytes_max })?)
}

fn check_nesting(syntax: Syntax, text: &str, max: usize) -> Result<(), IngestError> {
    let mut depth = 0_usize;
    let (mut line, mut column) = (1_u64, 0_u64);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        // Strings, IRIs and comments are skipped whole: brackets in them nest nothing.
        let skip = match next {
            '"' => string_bytes(rest, '"', syntax),
            '\'' if syntax == Syntax::Turtle => string_bytes(rest, '\'', syntax),
            '<' if syntax == Syntax::Turtle => iri_bytes(rest).unwrap_or(1),
            '#' if syntax == Syntax::Turtle => rest.find('\n').unwrap_or(rest.len()),
            '\\' => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            other => other.len_utf8(),
        };
        let (token, tail) = rest.split_at(skip.min(rest.len()));
        match next {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        for letter in token.chars() {
            if letter == '\n' {
                line += 1;
                column = 0;
            } else {
                column += 1;
            }
        }
        if depth > max {
            return Err(IngestError::Nesting { max, line, column });
        }
        rest = tail;
    }
    Ok(())
}

/// Bytes of the string literal that the text starts with; everything, where it does not end.
pub(crate) fn string_bytes(text: &str, quote: char, syntax: Syntax) -> usize {
    let long: String = std::iter::repeat_n(quote, 3).collect();
    let end = if syntax == Syntax::Turtle && text.starts_with(&long) { long } else { quote.to_string() };
    let mut at = end.len();
    while let Some(rest) = text.get(at..) {
        let Some(next) = rest.chars().next() else { break };
        if rest.starts_with(&end) {
            return at + end.len();
        }
        at += next.len_utf8();
        if next == '\\' {
            at += text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        }
    }
    text.len()
}

/// Bytes of the IRI that the text starts with, if it is one and not a comparison.
pub(crate) fn iri_bytes(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('<')?;
    let end = inside.find(|c: char| c <= ' ' || "<>\"{}|^`".contains(c))?;
    inside.get(end..)?.starts_with('>').then_some(end + 2)
}

/// Looks at every context of a document, before the parser applies them: each one anew where it stands.
#[derive(Default)]
struct Contexts<'a> {
    /// The way to the node that is looked at.
    path: Vec<Step<'a>>,
    objects: usize,
    terms: usize,
    /// Terms whose definition has a context.
    scoped: HashSet<&'a str>,
}

enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

impl<'a> Contexts<'a> {
    fn check(&mut self, node: &'a Value) -> Result<(), IngestError> {
        match node {
            Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
                self.path.push(Step::Item(index));
                self.check(item)?;
                self.path.pop();
                Ok(())
            }),
            Value::Object(members) => members.iter().try_for_each(|(name, value)| {
                self.path.push(Step::Member(name));
                match (name.as_str(), value) {
                    ("@context", Value::Array(items)) => items.iter().try_for_each(|item| self.context(item))?,
                    ("@context" | "@import", one) => self.context(one)?,
                    _ => {}
                }
                self.check(value)?;
                self.path.pop();
                Ok(())
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    fn context(&mut self, context: &'a Value) -> Result<(), IngestError> {
        if let Some(url) = context.as_str() {
            return Err(IngestError::RemoteContext { url: url.to_owned(), path: self.place() });
        }
        let terms = context.as_object().into_iter().flatten();
        self.objects += 1;
        self.terms += terms.clone().count();
        self.scoped.extend(terms.filter(|(_, value)| value.get("@context").is_some()).map(|(name, _)| name.as_str()));
        if self.objects > CONTEXTS_MAX || self.terms > TERMS_MAX {
            return Err(IngestError::Contexts { path: self.place() });
        }
        Ok(())
    }

    /// How often the contexts of terms would be applied: as a property, or as a type, by whatever name `@type` has.
    fn check_uses(&self, document: &'a Value) -> Result<(), IngestError> {
        let mut uses = 0_usize;
        let mut rest = vec![document];
        while let Some(node) = rest.pop() {
            match node {
                Value::Array(items) => rest.extend(items),
                Value::Object(members) => {
                    uses += members.keys().filter(|name| self.scoped.contains(name.as_str())).count();
                    rest.extend(members.values());
                }
                Value::String(text) => uses += usize::from(self.scoped.contains(text.as_str())),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        if uses.saturating_mul(self.terms) > APPLIED_TERMS_MAX {
            return Err(IngestError::Contexts { path: "$".into() });
        }
        Ok(())
    }

    fn place(&self) -> String {
        let mut place = "$".to_owned();
        for step in &self.path {
            match step {
                Step::Member(name) => {
                    place.push('.');
                    place.extend(name.chars().take(NAME_CHARS));
                }
                Step::Item(index) => place.push_str(&format!("[{index}]")),
            }
        }
        place
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn limits() -> IngestLimits {
        IngestLimits::default()
    }

    #[test]
    fn deep_nesting_is_refused_with_its_place_in_both_syntaxes() {
        let json = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let error = read(Syntax::JsonLd, json.as_bytes(), "urn:p", &limits()).unwrap_err();
        assert_eq!(error, IngestError::Nesting { max: 64, line: 1, column: 65 });
        for open in ["[ <urn:p> ", "("] {
            let turtle = format!("<urn:a> <urn:b>\n{}", open.repeat(10_000));
            let error = read(Syntax::Turtle, turtle.as_bytes(), "urn:p", &limits()).unwrap_err();
            assert!(matches!(error, IngestError::Nesting { line: 2, .. }), "{error:?}");
        }
    }

    #[test]
    fn brackets_in_strings_iris_and_comments_do_not_nest() {
        let brackets = "[(".repeat(200);
        let text = format!("# {brackets}\n<urn:a> <urn:b> \"{brackets}\\\"\", '''{brackets}'{brackets}''' .");
        assert_eq!(read(Syntax::Turtle, text.as_bytes(), "urn:p", &limits()).unwrap().len(), 2);
    }

    #[test]
    fn a_remote_context_is_refused_by_name_wherever_it_stands() {
        for json in [
            r#"{"@context":"https://evil.example/c","@id":"urn:a"}"#,
            r#"{"@context":[{"a":"urn:a"},"https://evil.example/c"]}"#,
            r#"{"@context":{"@import":"https://evil.example/c"}}"#,
            r#"{"@context":{"a":{"@id":"urn:a","@context":"https://evil.example/c"}}}"#,
        ] {
            let error = read(Syntax::JsonLd, json.as_bytes(), "urn:p", &limits()).unwrap_err();
            assert!(
                matches!(&error, IngestError::RemoteContext { url, .. } if url == "https://evil.example/c"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn contexts_take_no_more_work_than_the_text_is_long() {
        let terms = |count: usize| (0..count).map(|n| format!("\"t{n}\":\"urn:x:{n}\"")).collect::<Vec<_>>().join(",");
        let nodes = |node: &str, count: usize| vec![node; count].join(",");
        let good = |json: String| read(Syntax::JsonLd, json.as_bytes(), "urn:p", &limits()).unwrap();
        let refused = |json: String, place: &str| {
            let error = read(Syntax::JsonLd, json.as_bytes(), "urn:p", &limits()).unwrap_err();
            assert!(matches!(&error, IngestError::Contexts { path } if path.starts_with(place)), "{error:?}");
        };
        let nested = |terms: &str, count: usize| {
            let node = r#"{"@context":{},"t1":1}"#;
            format!(r#"{{"@context":{{{terms}}},"@graph":[{}]}}"#, nodes(node, count))
        };
        good(nested(&terms(256), 63));
        refused(nested(&terms(256), 64), "$.@graph[63].@context");
        refused(nested(&terms(257), 1), "$.@context");
        // A context in a term's definition, as property, as type, and as type by another name.
        for node in [r#"{"s":{"t1":1}}"#, r#"{"@type":"s","t1":1}"#, r#"{"kind":["s"],"t1":1}"#] {
            let scoped = |count: usize| {
                let definition = format!(r#"{{"@id":"urn:s","@context":{{{}}}}}"#, terms(200));
                format!(r#"{{"@context":{{"kind":"@type","s":{definition}}},"@graph":[{}]}}"#, nodes(node, count))
            };
            good(scoped(1000));
            refused(scoped(2000), "$");
        }
    }

    #[test]
    fn broken_json_names_its_line() {
        let error = read(Syntax::JsonLd, b"{\n\"a\": ]", "urn:p", &limits()).unwrap_err();
        assert!(matches!(error, IngestError::Parse(ParseError::Syntax { line: Some(2), .. })), "{error:?}");
    }

    #[test]
    fn size_is_limited() {
        let small = IngestLimits { bytes_max: 4, ..limits() };
        assert_eq!(read(Syntax::Turtle, b"12345", "urn:p", &small), Err(IngestError::TooLarge(4)));
    }
}
