//! The shape of a self-description, rule by rule. Every rule that is broken is reported, not only the first one.

use std::collections::{BTreeSet, HashMap, HashSet};

use kontor_vocab::iri::{DCAT, DCT, DSPACE, IDS, ODRL, RDF};
use serde::Serialize;
use url::Url;

use crate::store::rdf::{Term, Triple};
use crate::store::{DatasetSummary, Summary};

/// Violations that one report lists; more help nobody.
const VIOLATIONS_MAX: usize = 50;
/// Deepest nesting of `odrl:and`, `odrl:or` and `odrl:xone`.
const CONSTRAINT_DEPTH_MAX: usize = 16;
/// Most formats of one distribution and of one dataset. Every dataset in a list carries those of its distributions, and
/// many datasets may share one.
const FORMATS_MAX: usize = 32;
/// Longest format and keyword, in bytes.
const WORD_BYTES_MAX: usize = 256;
/// Most bytes of formats over all datasets, each with its own copy of those that it shares.
const FORMAT_BYTES_MAX: usize = 4 << 20;
/// Longest endpoint, in bytes. Every dataset in a list carries its connector's.
const ENDPOINT_BYTES_MAX: usize = 2048;
/// Letters of an IRI or value that a report shows.
const SHOWN_CHARS: usize = 256;
/// Longest title that is shown in lists, in bytes.
const TITLE_BYTES_MAX: usize = 1024;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// From the connector to the node, property by property.
    pub path: String,
    /// The node: an IRI, or `a blank node`.
    pub node: String,
    /// The rule, `SD-1` to `SD-9`; see the broker's README.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would have passed.
    pub cure: String,
}

/// Holds a description to the shape and takes from it what lists and search show.
///
/// # Errors
/// Every rule that is broken, up to fifty.
pub fn validate(triples: &[Triple], participant: &str) -> Result<Summary, Vec<Violation>> {
    let mut report = Report {
        index: index(triples),
        participant,
        seen: HashMap::new(),
        formats: HashMap::new(),
        format_bytes: 0,
        violations: Vec::new(),
        summary: Summary::default(),
    };
    report.description(triples);
    if report.violations.is_empty() {
        Ok(report.summary)
    } else {
        report.violations.truncate(VIOLATIONS_MAX);
        Err(report.violations)
    }
}

fn index(triples: &[Triple]) -> HashMap<&Term, Vec<&Triple>> {
    let mut index: HashMap<&Term, Vec<&Triple>> = HashMap::new();
    for triple in triples {
        index.entry(&triple.subject).or_default().push(triple);
    }
    index
}

struct Report<'a> {
    index: HashMap<&'a Term, Vec<&'a Triple>>,
    participant: &'a str,
    /// How deep each node was looked at in each of its roles. A description is a graph: a node may be reached on many
    /// more ways than it has triples, and looking at it again says nothing new.
    seen: HashMap<(Role, &'a Term), usize>,
    /// What the distributions that were looked at are offered as.
    formats: HashMap<&'a Term, Vec<String>>,
    /// Bytes of the formats of the datasets so far.
    format_bytes: usize,
    violations: Vec<Violation>,
    summary: Summary,
}

/// As what a node is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Service,
    AccessService,
    Offer,
    Rule,
    Constraint,
    List,
}

/// The prefix and local name of a property, for paths that people read.
type Name = (&'static str, &'static str, &'static str);
const TYPE: Name = ("rdf", RDF, "type");
const PARTICIPANT_ID: Name = ("dspace", DSPACE, "participantId");
const RESOURCE_CATALOG: Name = ("ids", IDS, "resourceCatalog");
const DEFAULT_ENDPOINT: Name = ("ids", IDS, "hasDefaultEndpoint");
const ACCESS_URL: Name = ("ids", IDS, "accessURL");
const MAINTAINER: Name = ("ids", IDS, "maintainer");
const SERVICE: Name = ("dcat", DCAT, "service");
const ENDPOINT_URL: Name = ("dcat", DCAT, "endpointURL");
const DATASET: Name = ("dcat", DCAT, "dataset");
const CATALOG: Name = ("dcat", DCAT, "catalog");
const OFFERED_RESOURCE: Name = ("ids", IDS, "offeredResource");
const TITLE: Name = ("dct", DCT, "title");
const IDS_TITLE: Name = ("ids", IDS, "title");
const DESCRIPTION: Name = ("dct", DCT, "description");
const IDS_DESCRIPTION: Name = ("ids", IDS, "description");
const KEYWORD: Name = ("dcat", DCAT, "keyword");
const IDS_KEYWORD: Name = ("ids", IDS, "keyword");
const HAS_POLICY: Name = ("odrl", ODRL, "hasPolicy");
const CONTRACT_OFFER: Name = ("ids", IDS, "contractOffer");
const DISTRIBUTION: Name = ("dcat", DCAT, "distribution");
const FORMAT: Name = ("dct", DCT, "format");
const ACCESS_SERVICE: Name = ("dcat", DCAT, "accessService");
const ASSIGNER: Name = ("odrl", ODRL, "assigner");
const ACTION: Name = ("odrl", ODRL, "action");
const CONSTRAINT: Name = ("odrl", ODRL, "constraint");
/// What says that something is offered.
const LISTS: [Name; 4] = [RESOURCE_CATALOG, CATALOG, DATASET, OFFERED_RESOURCE];
const RULES: [Name; 3] = [("odrl", ODRL, "permission"), ("odrl", ODRL, "prohibition"), ("odrl", ODRL, "obligation")];
const LOGICAL: [Name; 4] =
    [("odrl", ODRL, "and"), ("odrl", ODRL, "or"), ("odrl", ODRL, "xone"), ("odrl", ODRL, "andSequence")];
const OPERANDS: [Name; 3] = [("odrl", ODRL, "leftOperand"), ("odrl", ODRL, "operator"), ("odrl", ODRL, "rightOperand")];

fn is(iri: &str, (_, namespace, local): Name) -> bool {
    iri.strip_prefix(namespace) == Some(local)
}

fn step(path: &str, (prefix, _, local): Name) -> String {
    format!("{path}/{prefix}:{local}")
}

fn named(node: &Term) -> String {
    node.text().map_or_else(|| "a blank node".to_owned(), shown)
}

/// The text, or its beginning: a report repeats it in every violation.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl<'a> Report<'a> {
    fn fail(
        &mut self,
        rule: &'static str,
        path: &str,
        node: &Term,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        if self.violations.len() < VIOLATIONS_MAX {
            let (path, message, cure) = (path.to_owned(), message.into(), cure.into());
            self.violations.push(Violation { path, node: named(node), rule, message, cure });
        }
    }

    fn values(&self, node: &Term, name: Name) -> Vec<&'a Term> {
        let about = self.index.get(node).map(Vec::as_slice).unwrap_or_default();
        about.iter().filter(|triple| is(&triple.predicate, name)).map(|triple| &triple.object).collect()
    }

    fn either(&self, node: &Term, first: Name, second: Name) -> Vec<&'a Term> {
        let mut all = self.values(node, first);
        let known: HashSet<&Term> = all.iter().copied().collect();
        all.extend(self.values(node, second).into_iter().filter(|value| !known.contains(value)));
        all
    }

    /// Whether a node was not looked at in this role, or nowhere as deep.
    fn is_new(&mut self, role: Role, node: &'a Term, depth: usize) -> bool {
        match self.seen.insert((role, node), depth) {
            Some(before) if before >= depth => {
                self.seen.insert((role, node), before);
                false
            }
            _ => true,
        }
    }

    fn is_a(&self, node: &Term, kinds: &[(&str, &str)]) -> bool {
        self.values(node, TYPE)
            .iter()
            .filter_map(|kind| kind.iri())
            .any(|kind| kinds.iter().any(|(namespace, local)| kind.strip_prefix(namespace) == Some(*local)))
    }

    fn claim(&mut self, node: &Term) {
        if let Some(iri) = node.iri() {
            self.summary.claims.insert(iri.to_owned());
        }
    }

    fn text(&self, node: &Term, first: Name, second: Name) -> Option<String> {
        let texts = self.either(node, first, second);
        texts.iter().filter_map(|text| text.text()).map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
    }

    fn description(&mut self, triples: &'a [Triple]) {
        let kinds = [(IDS, "BaseConnector"), (IDS, "TrustedConnector"), (IDS, "Connector")];
        let mut connectors: Vec<&Term> = self.index.keys().copied().filter(|node| self.is_a(node, &kinds)).collect();
        connectors.sort_unstable();
        let [connector] = connectors.as_slice() else {
            let nobody = Term::Iri(self.participant.to_owned());
            let message = format!("the description has {} nodes of type `ids:BaseConnector`", connectors.len());
            self.fail("SD-1", "description", &nobody, message, "exactly one node of type `ids:BaseConnector`");
            return;
        };
        let connector = *connector;
        self.claim(connector);
        self.summary.title = self.text(connector, TITLE, IDS_TITLE);
        self.summary.description = self.text(connector, DESCRIPTION, IDS_DESCRIPTION);

        let catalogs = self.catalogs(connector);
        self.lists(connector, &catalogs, triples);
        self.identity(connector, &catalogs, triples);
        self.endpoint(connector, &catalogs);
        let mut seen = BTreeSet::new();
        for (catalog, path) in &catalogs {
            for dataset in self.either(catalog, DATASET, OFFERED_RESOURCE) {
                if seen.insert(dataset) {
                    self.dataset(dataset, &step(path, DATASET));
                }
            }
        }
    }

    /// SD-4.
    fn catalogs(&mut self, connector: &'a Term) -> Vec<(&'a Term, String)> {
        let mut catalogs = Vec::new();
        if self.is_a(connector, &[(DCAT, "Catalog")]) {
            catalogs.push((connector, "connector".to_owned()));
        }
        for catalog in self.values(connector, RESOURCE_CATALOG) {
            let path = step("connector", RESOURCE_CATALOG);
            self.claim(catalog);
            if !self.is_a(catalog, &[(IDS, "ResourceCatalog"), (DCAT, "Catalog")]) {
                self.fail(
                    "SD-4",
                    &path,
                    catalog,
                    "the node is no catalogue",
                    "the type `dcat:Catalog` or `ids:ResourceCatalog`",
                );
            }
            catalogs.push((catalog, path));
        }
        if catalogs.is_empty() {
            let cure = "`ids:resourceCatalog` with a node of type `dcat:Catalog`, even one without datasets";
            self.fail("SD-4", "connector", connector, "the connector has no catalogue", cure);
        }
        catalogs
    }

    /// SD-4: whoever asks for what a catalogue lists finds what was looked at here, and nothing else.
    fn lists(&mut self, connector: &'a Term, catalogs: &[(&'a Term, String)], triples: &'a [Triple]) {
        let known: HashSet<&Term> = catalogs.iter().map(|(catalog, _)| *catalog).collect();
        for triple in triples {
            let Some(name) = LISTS.into_iter().find(|name| is(&triple.predicate, *name)) else { continue };
            let subject = &triple.subject;
            let good = if name == RESOURCE_CATALOG { subject == connector } else { known.contains(subject) };
            if !good {
                let message = format!("`{}:{}` at a node that is no catalogue of the connector", name.0, name.2);
                let cure = "`ids:resourceCatalog` at the connector only, and datasets at the catalogues that it names";
                self.fail("SD-4", &step("…", name), subject, message, cure);
            }
        }
    }

    /// SD-2: a description speaks for the participant of the certificate and for nobody else.
    fn identity(&mut self, connector: &'a Term, catalogs: &[(&'a Term, String)], triples: &'a [Triple]) {
        let participant = self.participant.to_owned();
        let mut spoken = self.either(connector, PARTICIPANT_ID, MAINTAINER);
        for (catalog, _) in catalogs {
            spoken.extend(self.values(catalog, PARTICIPANT_ID));
        }
        let cure = format!("`{participant}`, the participant of the certificate");
        if !spoken.iter().any(|who| who.text() == Some(&participant)) {
            let message = "the description does not say whose it is";
            self.fail("SD-2", &step("connector", PARTICIPANT_ID), connector, message, cure.clone());
        }
        for triple in triples {
            for name in [PARTICIPANT_ID, ASSIGNER] {
                if is(&triple.predicate, name) && triple.object.text() != Some(&participant) {
                    let message = format!("`{}` is not the participant of the certificate", named(&triple.object));
                    self.fail("SD-2", &step("…", name), &triple.subject, message, cure.clone());
                }
            }
        }
    }

    /// SD-3.
    fn endpoint(&mut self, connector: &'a Term, catalogs: &[(&'a Term, String)]) {
        let mut urls = Vec::new();
        let path = step("connector", DEFAULT_ENDPOINT);
        for endpoint in self.values(connector, DEFAULT_ENDPOINT) {
            self.claim(endpoint);
            let found = self.either(endpoint, ACCESS_URL, ENDPOINT_URL);
            urls.extend(found.into_iter().map(|url| (url, step(&path, ACCESS_URL))));
        }
        let mut holders = vec![(connector, "connector".to_owned())];
        holders.extend(catalogs.iter().map(|(catalog, path)| (*catalog, path.clone())));
        for (holder, path) in holders {
            let path = step(&path, SERVICE);
            for service in self.values(holder, SERVICE) {
                if !self.is_new(Role::Service, service, 0) {
                    continue;
                }
                self.claim(service);
                urls.extend(self.values(service, ENDPOINT_URL).into_iter().map(|url| (url, step(&path, ENDPOINT_URL))));
            }
        }
        for (url, path) in &urls {
            self.https("SD-3", url, path);
        }
        match urls.first().and_then(|(url, _)| url.text()) {
            Some(url) => url.clone_into(&mut self.summary.endpoint),
            None => {
                let message = "the connector says nowhere where its protocol is spoken";
                let cure = "`ids:hasDefaultEndpoint` with `ids:accessURL`, or `dcat:service` with `dcat:endpointURL`";
                self.fail("SD-3", &path, connector, message, cure);
            }
        }
    }

    fn https(&mut self, rule: &'static str, url: &Term, path: &str) {
        let cure = format!(
            "an absolute `https` URL of at most {ENDPOINT_BYTES_MAX} bytes, with a host and without credentials"
        );
        let short = url.text().filter(|text| text.len() <= ENDPOINT_BYTES_MAX);
        let good = short.and_then(|text| Url::parse(text).ok()).is_some_and(|url| {
            url.scheme() == "https" && url.has_host() && url.username().is_empty() && url.password().is_none()
        });
        if !good {
            self.fail(rule, path, url, format!("`{}` cannot be an endpoint", named(url)), cure);
        }
    }

    /// A keyword or format, which lists repeat.
    fn word(&mut self, rule: &'static str, word: &Term, path: &str) {
        if word.text().is_some_and(|text| text.len() > WORD_BYTES_MAX) {
            let cure = format!("at most {WORD_BYTES_MAX} bytes");
            self.fail(rule, path, word, format!("`{}` is too long", named(word)), cure);
        }
    }

    fn dataset(&mut self, dataset: &'a Term, path: &str) {
        let Some(iri) = dataset.iri() else {
            self.fail(
                "SD-5",
                path,
                dataset,
                "a dataset without an IRI cannot be negotiated for",
                "an IRI as its `@id`",
            );
            return;
        };
        let path = format!("{path}<{}>", shown(iri));
        self.claim(dataset);
        if !self.is_a(dataset, &[(DCAT, "Dataset"), (IDS, "Resource"), (IDS, "DataResource"), (IDS, "TextResource")]) {
            self.fail("SD-5", &path, dataset, "the node is no dataset", "the type `dcat:Dataset` or `ids:Resource`");
        }
        let title = self.text(dataset, TITLE, IDS_TITLE);
        if title.as_ref().is_none_or(|title| title.len() > TITLE_BYTES_MAX) {
            let cure = format!("a `dct:title` of 1 to {TITLE_BYTES_MAX} bytes");
            self.fail("SD-6", &step(&path, TITLE), dataset, "the dataset has no usable title", cure);
        }
        let offers = self.either(dataset, HAS_POLICY, CONTRACT_OFFER);
        if offers.is_empty() {
            let cure = "`odrl:hasPolicy` with at least one offer";
            self.fail("SD-7", &step(&path, HAS_POLICY), dataset, "the dataset has no offer", cure);
        }
        for offer in &offers {
            if self.is_new(Role::Offer, offer, 0) {
                self.offer(offer, &step(&path, HAS_POLICY));
            }
        }
        let distributions = self.values(dataset, DISTRIBUTION);
        if distributions.is_empty() {
            let cure = "`dcat:distribution` with `dct:format` and `dcat:accessService`";
            self.fail("SD-9", &step(&path, DISTRIBUTION), dataset, "the dataset has no distribution", cure);
        }
        let mut formats = Vec::new();
        for distribution in distributions {
            formats.extend(self.distribution(distribution, &step(&path, DISTRIBUTION)));
        }
        formats.sort_unstable();
        formats.dedup();
        self.format_bytes += formats.iter().map(String::len).sum::<usize>();
        if formats.len() > FORMATS_MAX || self.format_bytes > FORMAT_BYTES_MAX {
            let message = format!(
                "the dataset has {} formats, and all datasets so far {} bytes of them",
                formats.len(),
                self.format_bytes
            );
            let cure = format!("at most {FORMATS_MAX} of one dataset, and {FORMAT_BYTES_MAX} bytes of all");
            self.fail("SD-9", &step(&path, FORMAT), dataset, message, cure);
            formats.clear();
        }
        let keywords = self.either(dataset, KEYWORD, IDS_KEYWORD);
        for keyword in &keywords {
            self.word("SD-6", keyword, &step(&path, KEYWORD));
        }
        let entry = DatasetSummary {
            dataset: iri.to_owned(),
            title: title.unwrap_or_default(),
            description: self.text(dataset, DESCRIPTION, IDS_DESCRIPTION),
            keywords: keywords.iter().filter_map(|word| word.text()).map(str::to_owned).collect(),
            formats,
            offers: offers.iter().filter_map(|offer| offer.iri()).map(str::to_owned).collect(),
        };
        self.summary.datasets.push(entry);
    }

    /// SD-7 and SD-8.
    fn offer(&mut self, offer: &'a Term, path: &str) {
        let Some(iri) = offer.iri() else {
            self.fail("SD-7", path, offer, "an offer without an IRI cannot be asked for", "an IRI as its `@id`");
            return;
        };
        let path = format!("{path}<{}>", shown(iri));
        self.claim(offer);
        if !self.is_a(offer, &[(ODRL, "Offer"), (IDS, "ContractOffer")]) {
            self.fail("SD-7", &path, offer, "the node is no offer", "the type `odrl:Offer` or `ids:ContractOffer`");
        }
        let mut rules = 0;
        for name in RULES {
            for rule in self.values(offer, name) {
                rules += 1;
                if !self.is_new(Role::Rule, rule, 0) {
                    continue;
                }
                let path = step(&path, name);
                if self.values(rule, ACTION).is_empty() {
                    self.fail("SD-8", &path, rule, "the rule has no action", "`odrl:action`, such as `odrl:use`");
                }
                for constraint in self.values(rule, CONSTRAINT) {
                    self.constraint(constraint, &step(&path, CONSTRAINT), 0);
                }
            }
        }
        // IDS contract offers spell their rules in their own namespace.
        if rules == 0 && self.values(offer, ("ids", IDS, "permission")).is_empty() {
            let cure = "at least one `odrl:permission`, `odrl:prohibition` or `odrl:obligation`";
            self.fail("SD-8", &path, offer, "the offer says nothing", cure);
        }
    }

    fn constraint(&mut self, constraint: &'a Term, path: &str, depth: usize) {
        if depth > CONSTRAINT_DEPTH_MAX {
            let message = format!("constraints are nested deeper than {CONSTRAINT_DEPTH_MAX}, or in a circle");
            self.fail("SD-8", path, constraint, message, "fewer levels of `odrl:and`, `odrl:or` and `odrl:xone`");
            return;
        }
        // A node that is reached again further down is looked at again, because what hangs below it may be too deep now.
        let first = !self.seen.contains_key(&(Role::Constraint, constraint));
        if !self.is_new(Role::Constraint, constraint, depth) {
            return;
        }
        let mut logical = false;
        for name in LOGICAL {
            for part in self.values(constraint, name) {
                logical = true;
                for item in self.items(part, depth) {
                    self.constraint(item, &step(path, name), depth + 1);
                }
            }
        }
        if !logical && first {
            for name in OPERANDS {
                if self.values(constraint, name).is_empty() {
                    let cure = "`odrl:leftOperand`, `odrl:operator` and `odrl:rightOperand`, or one of `odrl:and`, `odrl:or`, `odrl:xone`";
                    self.fail(
                        "SD-8",
                        &step(path, name),
                        constraint,
                        format!("the constraint has no `odrl:{}`", name.2),
                        cure,
                    );
                }
            }
        }
    }

    /// The members of an RDF list that were not looked at this deep, or the node itself where it is none.
    fn items(&mut self, node: &'a Term, depth: usize) -> Vec<&'a Term> {
        let (first, rest) = (("rdf", RDF, "first"), ("rdf", RDF, "rest"));
        if self.values(node, first).is_empty() {
            return vec![node];
        }
        let (mut items, mut at) = (Vec::new(), node);
        while self.is_new(Role::List, at, depth) {
            items.extend(self.values(at, first));
            match self.values(at, rest).first() {
                Some(next) => at = next,
                None => break,
            }
        }
        items
    }

    /// SD-9; returns the formats.
    fn distribution(&mut self, distribution: &'a Term, path: &str) -> Vec<String> {
        if let Some(formats) = self.formats.get(distribution) {
            return formats.clone();
        }
        self.claim(distribution);
        let mut formats: Vec<String> =
            self.values(distribution, FORMAT).iter().filter_map(|format| format.text()).map(str::to_owned).collect();
        if formats.is_empty() {
            let cure = "`dct:format` with a transfer format, such as `HttpData-PULL`";
            self.fail("SD-9", &step(path, FORMAT), distribution, "the distribution has no format", cure);
        }
        if formats.len() > FORMATS_MAX {
            let message = format!("the distribution has {} formats", formats.len());
            self.fail("SD-9", &step(path, FORMAT), distribution, message, format!("at most {FORMATS_MAX}"));
            formats.truncate(FORMATS_MAX);
        }
        for format in self.values(distribution, FORMAT) {
            self.word("SD-9", format, &step(path, FORMAT));
        }
        formats.retain(|format| format.len() <= WORD_BYTES_MAX);
        self.formats.insert(distribution, formats.clone());
        let services = self.values(distribution, ACCESS_SERVICE);
        let path = step(path, ACCESS_SERVICE);
        if services.is_empty() {
            let cure = "`dcat:accessService` with the data service of the connector";
            self.fail("SD-9", &path, distribution, "the distribution has no access service", cure);
        }
        for service in services {
            if !self.is_new(Role::AccessService, service, 0) {
                continue;
            }
            self.claim(service);
            let urls = self.values(service, ENDPOINT_URL);
            if urls.is_empty() {
                let cure = "`dcat:endpointURL` at the data service";
                self.fail("SD-9", &step(&path, ENDPOINT_URL), service, "the service has no endpoint", cure);
            }
            for url in urls {
                self.https("SD-9", url, &step(&path, ENDPOINT_URL));
            }
        }
        formats
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ingest::{IngestLimits, read};
    use crate::store::Syntax;

    fn example(language: &str) -> &'static str {
        let readme = include_str!("../README.md");
        let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    }

    #[test]
    fn the_examples_of_the_readme_pass_and_say_the_same() {
        let who = "urn:example:provider";
        let summaries = [("turtle", Syntax::Turtle), ("json", Syntax::JsonLd)].map(|(language, syntax)| {
            let triples = read(syntax, example(language).as_bytes(), who, &IngestLimits::default()).unwrap();
            validate(&triples, who).unwrap()
        });
        assert_eq!(summaries[0], summaries[1]);
        assert_eq!(summaries[0].endpoint, "https://provider.example:8443/dsp");
        assert_eq!(summaries[0].datasets[0].formats, ["HttpData-PULL"]);
    }

    #[test]
    fn constraints_in_a_circle_end() {
        let text = example("turtle").replace(
            "odrl:permission [ odrl:action odrl:use ]",
            "odrl:permission [ odrl:action odrl:use ; odrl:constraint p:c ] . p:c odrl:or p:c",
        );
        let who = "urn:example:provider";
        let triples = read(Syntax::Turtle, text.as_bytes(), who, &IngestLimits::default()).unwrap();
        let violations = validate(&triples, who).unwrap_err();
        assert!(violations.iter().all(|one| one.rule == "SD-8"), "{violations:?}");
    }

    fn violations_of(constraints: &str) -> Vec<Violation> {
        let text = example("turtle").replace("odrl:permission [ odrl:action odrl:use ] .", constraints);
        let who = "urn:example:provider";
        let triples = read(Syntax::Turtle, text.as_bytes(), who, &IngestLimits::default()).unwrap();
        validate(&triples, who).unwrap_err()
    }

    /// One way through such a circle for each of its 4^17 paths would not end in anybody's lifetime.
    #[test]
    fn circles_with_many_ways_through_them_end_at_once() {
        let each = |from: &str, to: &str| {
            let ways = ["and", "or", "xone", "andSequence"].map(|name| format!("odrl:{name} {to}"));
            format!("{from} {} .\n", ways.join(" ; "))
        };
        let rule = "odrl:permission [ odrl:action odrl:use ; odrl:constraint p:c ] .\n";
        for circle in [each("p:c", "p:c"), each("p:c", "p:d") + &each("p:d", "p:c"), each("p:c", "(p:c p:c)")] {
            let started = std::time::Instant::now();
            let violations = violations_of(&format!("{rule}{circle}"));
            assert!(
                violations.iter().all(|one| one.rule == "SD-8" && one.message.contains("nested")),
                "{violations:?}"
            );
            assert!(started.elapsed() < std::time::Duration::from_secs(600), "{:?}", started.elapsed());
        }
    }

    #[test]
    fn a_shared_constraint_is_reported_once_and_still_measured_where_it_hangs_deepest() {
        let shared = "odrl:permission [ odrl:action odrl:use ; odrl:constraint p:c, p:d ] . p:c odrl:or p:d, p:d .
            p:d odrl:operator odrl:eq .";
        let violations = violations_of(shared);
        assert_eq!(violations.len(), 2, "a left and a right operand: {violations:?}");
        let chain: String = (0..16).map(|n| format!("p:n{n} odrl:and p:n{} .\n", n + 1)).collect();
        let deep = format!(
            "odrl:permission [ odrl:action odrl:use ; odrl:constraint p:n0, p:top ] .\n{chain}
             p:n16 odrl:leftOperand odrl:count ; odrl:operator odrl:eq ; odrl:rightOperand 1 . p:top odrl:and p:n0 ."
        );
        let violations = violations_of(&deep);
        assert!(violations.iter().any(|one| one.message.contains("deeper than 16")), "{violations:?}");
    }

    /// Nodes that everybody shares: the work is that of the triples, not that of the ways through them.
    #[test]
    fn shared_nodes_are_not_multiplied() {
        let datasets: String = (0..1500)
            .map(|n| {
                format!(
                    "p:catalog dcat:dataset p:x{n} . p:x{n} a dcat:Dataset ; dct:title \"x\" ;
                     odrl:hasPolicy p:offer ; dcat:distribution p:dist .\n"
                )
            })
            .collect();
        let formats: String = (0..3000).map(|n| format!("p:dist dct:format \"f{n}\" .\n")).collect();
        let violations = violations_of(&format!(
            "odrl:permission [ odrl:action odrl:use ] .\n{datasets}{formats}p:dist dcat:accessService p:dsp ."
        ));
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!((violations[0].rule, violations[0].cure.as_str()), ("SD-9", "at most 32"));
    }

    #[test]
    fn only_catalogues_of_the_connector_list_anything() {
        let rule = "odrl:permission [ odrl:action odrl:use ] .\n";
        let other = "dspace:participantId <urn:example:provider> ; dcat:service p:dsp";
        for text in [
            format!("p:second a dcat:Catalog ; {other} ; dcat:dataset <urn:example:alice#fairs> ."),
            format!("[] {other} ; ids:offeredResource <urn:example:alice#fairs> ."),
            "p:second ids:resourceCatalog p:third .".into(),
            format!("p:catalog dcat:catalog p:second . p:second a dcat:Catalog ; {other} ; dcat:dataset p:fairs ."),
            "p:fairs dcat:catalog <urn:example:alice#catalog> .".into(),
        ] {
            let violations = violations_of(&format!("{rule}{text}"));
            assert_eq!((violations.len(), violations[0].rule), (1, "SD-4"), "{text}: {violations:?}");
        }
        // Another catalogue that the connector names, and a connector that is a catalogue itself.
        let named = format!(
            "p:connector ids:resourceCatalog p:second . p:second a dcat:Catalog ; {other} ; dcat:dataset p:fairs .
             p:connector a dcat:Catalog ; dcat:dataset p:fairs ."
        );
        let text = example("turtle").replace("odrl:permission [ odrl:action odrl:use ] .", &format!("{rule}{named}"));
        let who = "urn:example:provider";
        let triples = read(Syntax::Turtle, text.as_bytes(), who, &IngestLimits::default()).unwrap();
        assert_eq!(validate(&triples, who).unwrap().datasets.len(), 1);
    }

    #[test]
    fn what_lists_repeat_is_short() {
        let rule = "odrl:permission [ odrl:action odrl:use ] .\n";
        let long = "x".repeat(257);
        let (keyword, format) = (format!("p:fairs dcat:keyword \"{long}\" ."), format!("p:d dct:format \"{long}\""));
        let distribution = format!("p:fairs dcat:distribution p:d . {format} ; dcat:accessService p:dsp .");
        let endpoint = format!("p:dsp dcat:endpointURL <https://provider.example/{}> .", "x".repeat(2048));
        for (rule_name, text) in [("SD-6", keyword), ("SD-9", distribution), ("SD-3", endpoint)] {
            let violations = violations_of(&format!("{rule}{text}"));
            assert_eq!(violations[0].rule, rule_name, "{violations:?}");
            assert!(violations.iter().all(|one| one.message.len() < 400 && one.node.len() < 400), "{violations:?}");
        }
        // Of many short lists that many datasets share.
        let formats: String = (0..40).map(|n| format!("p:d{n} dct:format \"{n}{}\" .\n", "x".repeat(200))).collect();
        let services: String = (0..40).map(|n| format!("p:d{n} dcat:accessService p:dsp .\n")).collect();
        let dataset = |n: usize, count: usize| {
            let all: Vec<String> = (0..count).map(|n| format!("p:d{n}")).collect();
            format!(
                "p:catalog dcat:dataset p:x{n} . p:x{n} a dcat:Dataset ; dct:title \"x\" ; odrl:hasPolicy p:offer ;
                 dcat:distribution {} .\n",
                all.join(", ")
            )
        };
        let many: String = (0..1000).map(|n| dataset(n, 30)).collect();
        for text in [dataset(0, 40), many] {
            let violations = violations_of(&format!("{rule}{formats}{services}{text}"));
            assert!(violations.iter().all(|one| one.rule == "SD-9"), "{violations:?}");
        }
    }

    #[test]
    fn an_empty_description_is_reported_not_accepted() {
        assert_eq!(validate(&[], "urn:p").unwrap_err()[0].rule, "SD-1");
    }
}
