//! Where in a JSON text the member of a compact path is.
//!
//! Paths are those of the core: of the compact form, such as `permission[0].constraint[1].operator`.
//! The text may spell the same otherwise (prefixes, whole IRIs, one value instead of an array of
//! one); where a path leads to nothing, the nearest thing around it is the place.

use std::collections::BTreeMap;

use kontor_vocab::context::compact_term;
use serde::Serialize;
use serde_json::Value;

/// A place in a text, as editors count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A JSON text with the place of each of its members.
#[derive(Debug)]
pub struct Spans<'a> {
    text: &'a str,
    root: Node,
    twice: Vec<(String, usize)>,
}

/// A value and where it begins; for a member, where its name begins.
#[derive(Debug)]
struct Node {
    at: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Object(BTreeMap<String, Node>),
    Array(Vec<Node>),
    Leaf,
}

impl<'a> Spans<'a> {
    /// Reads a text: its value, and where everything is.
    ///
    /// # Errors
    /// Where and why it is no JSON. `serde_json` refuses what nests deeper than 128 levels, which
    /// bounds the walk here.
    pub fn read(text: &'a str) -> Result<(Value, Self), serde_json::Error> {
        let value: Value = serde_json::from_str(text)?;
        let mut scan = Scan { text, at: 0, twice: Vec::new() };
        let root = scan.value();
        Ok((value, Self { text, root, twice: scan.twice }))
    }

    /// The place of a path, or of the nearest thing around it.
    #[must_use]
    pub fn place(&self, path: &str) -> Place {
        let mut node = single_node(&self.root);
        let mut rest = path;
        while let Some((next, left)) = node.step(rest) {
            (node, rest) = (next, left);
        }
        self.place_at(node.at)
    }

    /// Members that one object has twice, of which a reader of JSON keeps only the last.
    pub fn twice(&self) -> impl Iterator<Item = (&str, Place)> {
        self.twice.iter().map(|(name, at)| (name.as_str(), self.place_at(*at)))
    }

    fn place_at(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// As JSON-LD is compacted: an array of one node, or a graph of one, stands for the node.
fn single_node(root: &Node) -> &Node {
    match &root.kind {
        Kind::Array(items) => match items.as_slice() {
            [one] => one,
            _ => root,
        },
        Kind::Object(members) if members.keys().all(|name| name == "@context" || name == "@graph") => {
            members.get("@graph").map_or(root, single_node)
        }
        Kind::Object(_) | Kind::Leaf => root,
    }
}

impl Node {
    /// One step along a path, and what is left of it.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(&'n Self, &'p str)> {
        if path.is_empty() {
            return None;
        }
        if let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) {
            let index: usize = index.parse().ok()?;
            return match &self.kind {
                Kind::Array(items) => items.get(index).map(|item| (item, rest)),
                Kind::Object(members) => match members.first_key_value() {
                    Some((name, list)) if members.len() == 1 && (name == "@list" || name == "@set") => {
                        Some((list, path))
                    }
                    _ => (index == 0).then_some((self, rest)),
                },
                Kind::Leaf => (index == 0).then_some((self, rest)),
            };
        }
        match &self.kind {
            Kind::Object(members) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                // A name may hold the signs that separate names: the longest that fits is meant.
                members
                    .iter()
                    .filter_map(|(name, node)| {
                        let rest = path.strip_prefix(compact_term(name).as_str())?;
                        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((node, rest))
                    })
                    .min_by_key(|(_, rest)| rest.len())
            }
            Kind::Array(items) => match items.as_slice() {
                [one] => Some((one, path)),
                _ => None,
            },
            Kind::Leaf => None,
        }
    }
}

/// Walks a text that is known to be JSON.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    twice: Vec<(String, usize)>,
}

impl Scan<'_> {
    fn value(&mut self) -> Node {
        let at = self.token();
        let kind = match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => {
                self.string();
                Kind::Leaf
            }
            _ => {
                while self.peek().is_some_and(|byte| !matches!(byte, b',' | b'}' | b']') && !byte.is_ascii_whitespace())
                {
                    self.at += 1;
                }
                Kind::Leaf
            }
        };
        Node { at, kind }
    }

    fn object(&mut self) -> Kind {
        let mut members = BTreeMap::new();
        self.at += 1;
        loop {
            let at = self.token();
            match self.peek() {
                Some(b'"') => {
                    let name = self.string();
                    self.token();
                    self.at += 1; // the colon
                    let value = Node { at, ..self.value() };
                    if members.contains_key(&name) {
                        self.twice.push((name.clone(), at));
                    }
                    members.insert(name, value);
                }
                Some(b',') => self.at += 1,
                _ => break,
            }
        }
        self.at += 1;
        Kind::Object(members)
    }

    fn array(&mut self) -> Kind {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.token();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') | None => break,
                Some(_) => items.push(self.value()),
            }
        }
        self.at += 1;
        Kind::Array(items)
    }

    /// The string that begins here, unescaped.
    fn string(&mut self) -> String {
        let from = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        self.text.get(from..self.at).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Skips to where the next token begins.
    fn token(&mut self) -> usize {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
        self.at
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn place(text: &str, path: &str) -> (usize, usize) {
        let (_, spans) = Spans::read(text).unwrap();
        let Place { line, column } = spans.place(path);
        (line, column)
    }

    const POLICY: &str = r#"{
  "@type": "Offer", "title \"\u00e4\" {[": 1,
  "odrl:permission": {
    "http://www.w3.org/ns/odrl/2/action": [{ "@id": "odrl:use" }],
    "constraint": [
      { "leftOperand": "count", "operator": "lteq", "rightOperand": 2 },
      { "and": { "@list": [
        { "leftOperand": "spatial" }
      ] } }
    ]
  },
  "https://example.com/mood.x[1]": "good"
}
"#;

    #[test]
    fn a_path_leads_to_the_line_of_its_member_in_any_spelling() {
        for (path, expected) in [
            ("", (1, 1)),
            ("permission[0]", (3, 3)),
            ("permission[0].action", (4, 5)),
            ("permission[0].constraint[0].operator", (6, 33)),
            ("permission[0].constraint[1].and[0].leftOperand", (8, 11)),
            ("https://example.com/mood.x[1]", (12, 3)),
        ] {
            assert_eq!(place(POLICY, path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_missing_has_the_place_of_what_it_is_missing_from() {
        for (path, expected) in
            [("permission[0].target", (3, 3)), ("permission[4].action", (3, 3)), ("prohibition", (1, 1))]
        {
            assert_eq!(place(POLICY, path), expected, "{path}");
        }
        assert_eq!(place("[\n {\"permission\": 1}]", "permission[0]"), (2, 3));
        assert_eq!(place("{\"@context\": [],\n\"@graph\": [{\n\"permission\": []}]}", "permission"), (3, 1));
    }

    #[test]
    fn columns_are_characters_and_a_member_that_comes_twice_is_named() {
        let (value, spans) = Spans::read("{\"ä\": 1, \"a\": 1,\n \"a\": [2]}").unwrap();
        assert_eq!(value["a"][0], 2, "the last one counts");
        assert_eq!(spans.place("a[0]"), Place { line: 2, column: 8 });
        assert_eq!(spans.twice().collect::<Vec<_>>(), [("a", Place { line: 2, column: 2 })]);
        assert_eq!(place("{\"ä\": 1, \"b\": 1}", "b"), (1, 10));
    }

    #[test]
    fn what_nests_without_end_is_refused_before_it_is_walked() {
        assert!(Spans::read(&"[".repeat(100_000)).is_err());
    }
}
