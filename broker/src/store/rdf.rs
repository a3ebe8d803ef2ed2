//! RDF as plain values: what `ingest`, `validate` and the graph hand to each other, and the one place that parses it.

use std::collections::HashMap;

use oxigraph::io::{JsonLdProfileSet, RdfFormat, RdfParser};
use oxigraph::model::{Literal, NamedNode, NamedNodeRef, NamedOrBlankNode, Term as OxTerm};
use sha2::{Digest, Sha256};

/// Letters of a term that a report shows.
const SHOWN_CHARS: usize = 200;

/// A node or value of a description.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Term {
    /// An absolute IRI.
    Iri(String),
    /// A blank node, with a label that is unique to its description.
    Blank(String),
    /// A literal value.
    Literal {
        /// Its lexical form.
        value: String,
        /// IRI of its datatype.
        datatype: String,
        /// Its language, where it has one.
        language: Option<String>,
    },
}

impl Term {
    /// The IRI, if it is one.
    #[must_use]
    pub fn iri(&self) -> Option<&str> {
        match self {
            Self::Iri(iri) => Some(iri),
            Self::Blank(_) | Self::Literal { .. } => None,
        }
    }

    /// Its bytes, written out.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Iri(text) | Self::Blank(text) => text.len(),
            Self::Literal { value, datatype, language } => {
                value.len() + datatype.len() + language.as_ref().map_or(0, String::len)
            }
        }
    }

    /// The text of an IRI or a literal: what a reader would call the value.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Iri(text) | Self::Literal { value: text, .. } => Some(text),
            Self::Blank(_) => None,
        }
    }
}

/// One statement of a description.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Triple {
    /// What it is about; never a literal.
    pub subject: Term,
    /// IRI of the property.
    pub predicate: String,
    /// The value.
    pub object: Term,
}

impl Triple {
    /// Bytes of its terms.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.subject.bytes() + self.predicate.len() + self.object.bytes()
    }
}

/// How a description is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// `text/turtle`.
    Turtle,
    /// `application/ld+json`.
    JsonLd,
}

impl Syntax {
    /// The media type, without parameters.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Turtle => "text/turtle",
            Self::JsonLd => "application/ld+json",
        }
    }

    /// Reads a media type, ignoring its parameters.
    #[must_use]
    pub fn from_media_type(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/turtle" => Some(Self::Turtle),
            "application/ld+json" | "application/json" => Some(Self::JsonLd),
            _ => None,
        }
    }
}

/// Why bytes are not a description's triples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text breaks the grammar.
    #[error("{message}")]
    Syntax {
        /// Line, from 1, where the parser could tell.
        line: Option<u64>,
        /// Column, from 1, where the parser could tell.
        column: Option<u64>,
        /// What the parser says.
        message: String,
    },
    /// More triples than allowed.
    #[error("the description has more than {max} triples")]
    TooManyTriples {
        /// The limit.
        max: usize,
    },
    /// A short text that says much: its terms have more bytes than allowed.
    #[error("the terms of the description, written out, have more than {max} bytes")]
    Expanded {
        /// The limit.
        max: usize,
    },
}

/// How much a text may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseLimits {
    /// Most triples.
    pub triples_max: usize,
    /// Most bytes of the terms of all triples, with prefixes and contexts written out.
    pub expanded_bytes_max: usize,
}

impl ParseLimits {
    /// No limits, for what has passed some before.
    pub const NONE: Self = Self { triples_max: usize::MAX, expanded_bytes_max: usize::MAX };
}

/// Parses a description. Relative IRIs are resolved against the participant's URI; blank nodes get labels that no other
/// participant's description can have and that stay the same when the same bytes are parsed again.
///
/// # Errors
/// [`ParseError`], and then nothing was kept.
pub fn parse(syntax: Syntax, bytes: &[u8], participant: &str, limits: ParseLimits) -> Result<Vec<Triple>, ParseError> {
    let plain = |message: String| ParseError::Syntax { line: None, column: None, message };
    let format = match syntax {
        Syntax::Turtle => RdfFormat::Turtle,
        Syntax::JsonLd => RdfFormat::JsonLd { profile: JsonLdProfileSet::empty() },
    };
    let parser = RdfParser::from_format(format)
        .without_named_graphs()
        .with_base_iri(participant)
        .map_err(|error| plain(format!("the participant `{participant}` is no base IRI: {error}")))?;
    let mut labels = Labels::new(participant);
    let mut triples = Vec::new();
    let mut expanded_bytes = 0_usize;
    for quad in parser.for_slice(bytes) {
        let quad = quad.map_err(|error| {
            // The parser counts lines and columns from 0, people from 1.
            let start = error.location().map(|range| range.start);
            ParseError::Syntax {
                line: start.map(|at| at.line + 1),
                column: start.map(|at| at.column + 1),
                message: error.to_string(),
            }
        })?;
        if triples.len() >= limits.triples_max {
            return Err(ParseError::TooManyTriples { max: limits.triples_max });
        }
        let triple = Triple {
            subject: match quad.subject {
                NamedOrBlankNode::NamedNode(node) => Term::Iri(checked(node)?),
                NamedOrBlankNode::BlankNode(node) => labels.scoped(node.as_str()),
            },
            predicate: checked(quad.predicate)?,
            object: match quad.object {
                OxTerm::NamedNode(node) => Term::Iri(checked(node)?),
                OxTerm::BlankNode(node) => labels.scoped(node.as_str()),
                OxTerm::Literal(literal) => checked_literal(literal)?,
            },
        };
        expanded_bytes = expanded_bytes.saturating_add(triple.bytes());
        if expanded_bytes > limits.expanded_bytes_max {
            return Err(ParseError::Expanded { max: limits.expanded_bytes_max });
        }
        triples.push(triple);
    }
    triples.sort_unstable();
    triples.dedup();
    Ok(triples)
}

/// The parser does not look at every prefixed name as a whole: Turtle allows letters in them that no IRI has, and the graph
/// would refuse them after the document was kept.
fn checked(node: NamedNode) -> Result<String, ParseError> {
    match NamedNodeRef::new(node.as_str()) {
        Ok(_) => Ok(node.into_string()),
        Err(error) => Err(no_term(node.as_str(), "IRI", &error)),
    }
}

fn checked_literal(literal: Literal) -> Result<Term, ParseError> {
    if let Some(language) = literal.language() {
        Literal::new_language_tagged_literal("", language).map_err(|error| no_term(language, "language", &error))?;
    }
    let language = literal.language().map(str::to_owned);
    let datatype = checked(literal.datatype().into_owned())?;
    Ok(Term::Literal { value: literal.destruct().0, datatype, language })
}

/// The parser does not say where a term stood; its text says it to whoever wrote it.
fn no_term(text: &str, kind: &str, error: &dyn std::fmt::Display) -> ParseError {
    let shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_default).collect();
    ParseError::Syntax { line: None, column: None, message: format!("`{shown}` is no {kind}: {error}") }
}

/// Blank node labels of one description, numbered in the order in which they appear.
struct Labels {
    prefix: String,
    seen: HashMap<String, usize>,
}

impl Labels {
    fn new(participant: &str) -> Self {
        let digest = Sha256::digest(participant.as_bytes());
        let prefix = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { prefix: format!("b{prefix}n"), seen: HashMap::new() }
    }

    fn scoped(&mut self, label: &str) -> Term {
        let next = self.seen.len();
        let number = *self.seen.entry(label.to_owned()).or_insert(next);
        Term::Blank(format!("{}{number}", self.prefix))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn up_to(triples_max: usize) -> ParseLimits {
        ParseLimits { triples_max, ..ParseLimits::NONE }
    }

    #[test]
    fn syntax_error_names_line_and_column() {
        let error = parse(Syntax::Turtle, b"<urn:a> <urn:b> <urn:c> .\n<urn:a> <urn:b> ;;; oops", "urn:p", up_to(10))
            .unwrap_err();
        assert!(matches!(error, ParseError::Syntax { line: Some(2), column: Some(_), .. }), "{error:?}");
    }

    #[test]
    fn blank_nodes_are_stable_and_never_shared_between_participants() {
        let text = b"[] <urn:p> [ <urn:q> _:x ] . _:x <urn:q> \"v\" .";
        let first = parse(Syntax::Turtle, text, "urn:one", up_to(10)).unwrap();
        assert_eq!(first, parse(Syntax::Turtle, text, "urn:one", up_to(10)).unwrap());
        let other = parse(Syntax::Turtle, text, "urn:two", up_to(10)).unwrap();
        assert!(first.iter().all(|triple| other.iter().all(|theirs| theirs.subject != triple.subject)));
    }

    #[test]
    fn relative_iris_resolve_against_the_participant() {
        let json = br##"{"@id":"#connector","http://purl.org/dc/terms/title":"x"}"##;
        let triples = parse(Syntax::JsonLd, json, "urn:example:p", up_to(10)).unwrap();
        assert_eq!(triples[0].subject, Term::Iri("urn:example:p#connector".into()));
    }

    #[test]
    fn a_prefixed_name_that_is_no_iri_is_refused_wherever_it_stands() {
        let prefix = "@prefix p: <urn:p#> .\n";
        for bad in ["p:a\u{e0001}b", "p:a\u{1fffe}", "p:a\\#b", "p:a\\%zz"] {
            for statement in [
                format!("{bad} <urn:q> 1 ."),
                format!("<urn:a> {bad} 1 ."),
                format!("<urn:a> <urn:q> {bad} ."),
                format!("<urn:a> <urn:q> \"1\"^^{bad} ."),
            ] {
                let error =
                    parse(Syntax::Turtle, format!("{prefix}{statement}").as_bytes(), "urn:p", up_to(10)).unwrap_err();
                assert!(error.to_string().contains("urn:p#a"), "{statement}: {error:?}");
            }
        }
    }

    #[test]
    fn triples_are_counted_while_parsing() {
        let text = b"<urn:a> <urn:b> 1, 2, 3 .";
        assert!(parse(Syntax::Turtle, text, "urn:p", up_to(3)).is_ok());
        assert_eq!(parse(Syntax::Turtle, text, "urn:p", up_to(2)), Err(ParseError::TooManyTriples { max: 2 }));
    }

    #[test]
    fn terms_are_measured_as_they_are_written_out() {
        let limits = ParseLimits { expanded_bytes_max: 1 << 20, ..ParseLimits::NONE };
        let long = "a".repeat(20_000);
        let statements: String = (0..3000).map(|n| format!("x:{n} x: x: .\n")).collect();
        let turtle = format!("@prefix x: <urn:{long}> .\n{statements}");
        let nodes: Vec<String> = (0..3000).map(|n| format!("{{\"@id\":\"x:{n}\",\"x:\":{n}}}")).collect();
        let json = format!("{{\"@context\":{{\"x\":\"urn:{long}#\"}},\"@graph\":[{}]}}", nodes.join(","));
        for (syntax, text) in [(Syntax::Turtle, turtle), (Syntax::JsonLd, json)] {
            let error = parse(syntax, text.as_bytes(), "urn:p", limits).unwrap_err();
            assert_eq!(error, ParseError::Expanded { max: 1 << 20 });
        }
        let triple = b"<urn:a> <urn:b> \"c\"@de .";
        let bytes = "urn:aurn:bc".len() + "http://www.w3.org/1999/02/22-rdf-syntax-ns#langStringde".len();
        let within =
            |expanded_bytes_max| parse(Syntax::Turtle, triple, "urn:p", ParseLimits { expanded_bytes_max, ..limits });
        assert!(within(bytes).is_ok());
        assert!(within(bytes - 1).is_err());
    }
}
