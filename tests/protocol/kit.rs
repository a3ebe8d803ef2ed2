//! Every test of the conformance kit from the kit's side, so that a break is seen within seconds and without Java. The
//! rules and the data are those that `cargo conformance dsp` runs with; a row is one test of the kit, by its id.
//!
//! Stricter than the kit: the state is asked for once, at once, wherever nothing of the connector's own is to come;
//! bodies have no member too many; a refused message is not repeated; what comes unasked fails, also after the last step.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kontor::control::RECEIPT_WAIT;
use kontor_tests::Participant;
use kontor_tests::participant::PATIENCE;
use kontor_tests::terms::{message, open, urn};
use serde_json::{Value, json};

use crate::Subject;
use crate::peer::{Peer, bare};
use crate::seed::{KIT, OWN, offer_id, subject};
use crate::shape;

/// Longer than any rule waits: what the connector would do by itself has come by then.
const QUIET: Duration = Duration::from_millis(900);

use Message::{Accepted, Agreement, Completion, Counter, End, Finalized, Offer, Start, Suspension, Verification};
use Step::{Comes, Refused, Says};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The connector sends this by itself.
    Comes(Message),
    /// The kit says this, and it is taken.
    Says(Message),
    /// The kit says this, and it is refused.
    Refused(Message),
}

#[derive(Debug, Clone, Copy)]
enum Message {
    Offer,
    Counter,
    Accepted,
    Agreement,
    Verification,
    Finalized,
    Start,
    Suspension,
    Completion,
    End,
}

impl Message {
    fn path(self) -> &'static str {
        match self {
            Offer => "offers",
            Counter => "request",
            Accepted | Finalized => "events",
            Agreement => "agreement",
            Verification => "agreement/verification",
            Start => "start",
            Suspension => "suspension",
            Completion => "completion",
            End => "termination",
        }
    }

    /// The state that it leads to.
    fn state(self) -> &'static str {
        match self {
            Offer => "OFFERED",
            Counter => "REQUESTED",
            Accepted => "ACCEPTED",
            Agreement => "AGREED",
            Verification => "VERIFIED",
            Finalized => "FINALIZED",
            Start => "STARTED",
            Suspension => "SUSPENDED",
            Completion => "COMPLETED",
            End => "TERMINATED",
        }
    }

    fn kind(self, group: &Group) -> &'static str {
        match self {
            Offer => "ContractOfferMessage",
            Counter => "ContractRequestMessage",
            Accepted | Finalized => "ContractNegotiationEventMessage",
            Agreement => "ContractAgreementMessage",
            Verification => "ContractAgreementVerificationMessage",
            Start => "TransferStartMessage",
            Suspension => "TransferSuspensionMessage",
            Completion => "TransferCompletionMessage",
            End if group.is_transfer() => "TransferTerminationMessage",
            End => "ContractNegotiationTerminationMessage",
        }
    }
}

/// One group of the kit's tests.
struct Group {
    class: &'static str,
    method: &'static str,
    /// What its datasets or agreements are called.
    prefix: &'static str,
    /// Whether the connector under test provides.
    provides: bool,
    tests: &'static [(&'static str, &'static [Step])],
}

const CN: Group = Group {
    class: "ContractNegotiationProvider",
    method: "cn",
    prefix: "ACN",
    provides: true,
    tests: &[
        ("01_01", &[Comes(Offer), Says(End)]),
        ("01_02", &[Comes(Offer), Says(Counter), Comes(End)]),
        ("01_03", &[Comes(Offer), Says(Accepted), Comes(Agreement), Says(Verification), Comes(Finalized)]),
        ("01_04", &[Comes(Agreement), Says(Verification), Comes(Finalized)]),
        ("02_01", &[Comes(End)]),
        ("02_02", &[Says(End)]),
        ("02_03", &[Comes(Agreement), Says(End)]),
        ("02_04", &[Comes(Offer), Says(End)]),
        ("02_05", &[Comes(Offer), Comes(End)]),
        ("02_06", &[Comes(Offer), Says(Accepted), Comes(End)]),
        ("02_07", &[Comes(Agreement), Says(Verification), Comes(End)]),
        ("03_01", &[Comes(Agreement), Says(Verification), Comes(Finalized), Refused(End)]),
        ("03_02", &[Comes(Offer), Refused(Verification)]),
        ("03_03", &[Comes(Offer), Says(Accepted), Refused(Verification)]),
        ("03_04", &[Comes(Offer), Says(Counter), Refused(Counter)]),
    ],
};

const CN_C: Group = Group {
    class: "ContractNegotiationConsumer",
    method: "cn_c",
    prefix: "ACNC",
    provides: false,
    tests: &[
        ("01_01", &[Says(Offer), Comes(Accepted), Says(Agreement), Comes(Verification), Says(Finalized)]),
        ("01_02", &[Says(Offer), Comes(Counter), Says(End)]),
        ("01_03", &[Says(Offer), Comes(End)]),
        ("01_04", &[Says(Agreement), Comes(Verification), Says(Finalized)]),
        ("02_01", &[Says(End)]),
        ("02_02", &[Comes(End)]),
        ("02_03", &[Says(Agreement), Comes(End)]),
        ("02_04", &[Says(Offer), Says(End)]),
        ("02_05", &[Says(Offer), Comes(Accepted), Says(End)]),
        ("02_06", &[Says(Agreement), Comes(Verification), Says(End)]),
        ("03_01", &[Refused(Finalized)]),
        ("03_02", &[Says(Offer), Refused(Agreement)]),
        ("03_03", &[Says(Offer), Refused(Finalized)]),
        ("03_04", &[Says(Offer), Comes(Accepted), Refused(Finalized)]),
        ("03_05", &[Says(Offer), Comes(Accepted), Refused(Offer)]),
        ("03_06", &[Says(Offer), Comes(Accepted), Says(Agreement), Refused(Finalized)]),
    ],
};

const TP: Group = Group {
    class: "TransferProcessProvider",
    method: "tp",
    prefix: "ATP",
    provides: true,
    tests: &[
        ("01_01", &[Comes(Start), Comes(End)]),
        ("01_02", &[Comes(Start), Comes(Completion)]),
        ("01_03", &[Comes(Start), Comes(Suspension), Comes(End)]),
        ("01_04", &[Comes(Start), Comes(Suspension), Comes(Start), Comes(Completion)]),
        ("01_05", &[Comes(End)]),
        ("02_01", &[Comes(Start), Says(End)]),
        ("02_02", &[Comes(Start), Says(Completion)]),
        ("02_03", &[Comes(Start), Says(Suspension), Says(End)]),
        ("02_05", &[Says(End)]),
        ("03_01", &[Refused(Completion)]),
        ("03_02", &[Refused(Suspension)]),
        ("03_03", &[Comes(Start), Says(Suspension), Refused(Completion)]),
        ("03_04", &[Comes(Start), Says(End), Refused(Start)]),
        ("03_05", &[Comes(Start), Says(End), Refused(Suspension)]),
        ("03_06", &[Comes(Start), Says(End), Refused(Completion)]),
    ],
};

const TP_C: Group = Group {
    class: "TransferProcessConsumer",
    method: "tp_c",
    prefix: "ATPC",
    provides: false,
    tests: &[
        ("01_01", &[Says(Start), Says(End)]),
        ("01_02", &[Says(Start), Says(Completion)]),
        ("01_03", &[Says(Start), Says(Suspension), Says(End)]),
        ("01_04", &[Says(Start), Says(Suspension), Says(Start), Says(Completion)]),
        ("01_05", &[Says(End)]),
        ("02_01", &[Says(Start), Comes(End)]),
        ("02_02", &[Says(Start), Comes(Completion)]),
        ("02_03", &[Says(Start), Comes(Suspension), Comes(End)]),
        ("02_05", &[Comes(End)]),
        ("03_01", &[Refused(Completion)]),
        ("03_02", &[Refused(Suspension)]),
        ("03_03", &[Says(Start), Says(Suspension), Refused(Completion)]),
        ("03_04", &[Says(Start), Says(End), Refused(Start)]),
        ("03_05", &[Says(Start), Says(End), Refused(Suspension)]),
        ("03_06", &[Says(Start), Says(End), Refused(Completion)]),
    ],
};

/// Tests without steps: one question and its answer.
const QUESTIONS: [&str; 4] =
    ["Metadata01Test.cat_01_01", "Catalog01Test.cat_01_01", "Catalog01Test.cat_01_02", "Catalog01Test.cat_01_03"];

impl Group {
    fn is_transfer(&self) -> bool {
        self.method.starts_with("tp")
    }

    /// As the kit's report names it.
    fn id(&self, test: &str) -> String {
        let chapter: String = test.chars().take(2).collect();
        format!("{}{chapter}Test.{}_{test}", self.class, self.method)
    }

    /// Plays all of its tests side by side against one connector.
    async fn play(&self) {
        let subject = Subject::start();
        let runs = self.tests.iter().map(|(test, steps)| async {
            let peer = Peer::start().await;
            let outcome = Run::play(self, &subject.kontor, &peer, test, steps).await;
            (self.id(test), peer, outcome)
        });
        let runs = join_all(runs).await;
        tokio::time::sleep(QUIET).await;
        let mut failed = Vec::new();
        for (id, peer, outcome) in &runs {
            failed.extend(outcome.as_ref().err().map(|why| format!("{id}: {why}")));
            failed.extend(peer.complaints().into_iter().map(|why| format!("{id}: {why}")));
        }
        assert!(failed.is_empty(), "{} faults:\n{}", failed.len(), failed.join("\n"));
    }
}

/// A scenario on its way.
struct Run<'a> {
    group: &'a Group,
    kontor: &'a Participant,
    peer: &'a Peer,
    /// The dataset or agreement that it is about.
    about: String,
    /// The connector's process id, and the kit's.
    theirs: String,
    ours: String,
}

impl<'a> Run<'a> {
    fn new(group: &'a Group, kontor: &'a Participant, peer: &'a Peer, test: &str) -> Self {
        Self { group, kontor, peer, about: subject(group.prefix, test), theirs: String::new(), ours: urn() }
    }

    async fn play(
        group: &'a Group,
        kontor: &'a Participant,
        peer: &'a Peer,
        test: &str,
        steps: &[Step],
    ) -> Result<(), String> {
        let mut run = Self::new(group, kontor, peer, test);
        if group.provides {
            run.ask().await?
        } else {
            run.be_asked().await?
        }
        let mut state = "REQUESTED";
        for (at, step) in steps.iter().enumerate() {
            let known = |why: String| format!("step {}, {step:?}: {why}", at + 1);
            match *step {
                Comes(message) => {
                    run.comes(message).await.map_err(known)?;
                    state = message.state();
                }
                Says(message) => {
                    let told = run.says(message).await.map_err(known)?;
                    if !(200..300).contains(&told.0) {
                        return Err(known(format!("answered {} {}", told.0, told.1)));
                    }
                    state = message.state();
                    shape::check(&told.1, run.process()).map_err(known)?;
                }
                Refused(message) => {
                    let (status, body) = run.says(message).await.map_err(known)?;
                    if !(400..500).contains(&status) || status == 404 {
                        return Err(known(format!("answered {status} {body}")));
                    }
                    let error = if group.is_transfer() { "TransferError" } else { "ContractNegotiationError" };
                    shape::check(&body, error).map_err(known)?;
                }
            }
            if !matches!(steps.get(at + 1), Some(Comes(_))) {
                run.is(state).await.map_err(known)?;
            }
        }
        Ok(())
    }

    fn machine(&self) -> &'static str {
        if self.group.is_transfer() { "transfers" } else { "negotiations" }
    }

    /// The `@type` of an answer.
    fn process(&self) -> &'static str {
        if self.group.is_transfer() { "TransferProcess" } else { "ContractNegotiation" }
    }

    fn pids(&self) -> Value {
        let (consumer, provider) =
            if self.group.provides { (&self.ours, &self.theirs) } else { (&self.theirs, &self.ours) };
        json!({ "@id": urn(), "consumerPid": consumer, "providerPid": provider })
    }

    /// The kit consumes: it asks.
    async fn ask(&mut self) -> Result<(), String> {
        let request = if self.group.is_transfer() {
            json!({ "agreementId": self.about, "format": "HttpData-PULL" })
        } else {
            json!({ "offer": self.offer() })
        };
        let kind = if self.group.is_transfer() { "TransferRequestMessage" } else { "ContractRequestMessage" };
        let mut request = message(kind, request);
        request["@id"] = json!(urn());
        request["consumerPid"] = json!(self.ours);
        request["callbackAddress"] = json!(self.peer.base);
        let url = format!("{}/{}/request", self.kontor.address(), self.machine());
        let told = self.peer.post(&url, &request).await?;
        if !(200..300).contains(&told.status) {
            return Err(format!("the request was answered {} {}", told.status, told.body));
        }
        shape::check(&told.body, self.process())?;
        self.theirs = told.body["providerPid"].as_str().unwrap_or_default().to_owned();
        if told.body["state"] != "REQUESTED" || told.body["consumerPid"] != self.ours {
            return Err(format!("the request was answered {}", told.body));
        }
        Ok(())
    }

    /// The kit provides: it says "begin now", and is asked.
    async fn be_asked(&mut self) -> Result<(), String> {
        let (own, kind) = (self.ours.clone(), self.process());
        let expected = self.peer.expect_with(format!("/{}/request", self.machine()), move |request| {
            let pids = json!({ "consumerPid": request["consumerPid"], "providerPid": own, "state": "REQUESTED" });
            bare(&message(kind, pids))
        });
        let base = &self.peer.base;
        let begin = if self.group.is_transfer() {
            json!({ "agreementId": self.about, "format": "HttpData-PULL" })
        } else {
            json!({ "offerId": format!("offer{}", self.about), "datasetId": self.about })
        };
        let mut begin = begin;
        begin["providerId"] = json!(KIT);
        begin["connectorAddress"] = json!(base);
        let url = format!("{}/{}/requests", self.kontor.initiation(), self.machine());
        let told = self.peer.post(&url, &begin).await?;
        if !(200..300).contains(&told.status) {
            return Err(format!("the webhook answered {} {}", told.status, told.body));
        }
        let request = expected.body().await?;
        let kind = if self.group.is_transfer() { "TransferRequestMessage" } else { "ContractRequestMessage" };
        shape::check(&request, kind)?;
        if request["callbackAddress"] != self.kontor.address() {
            return Err(format!("the callback is {}", request["callbackAddress"]));
        }
        let about = if self.group.is_transfer() {
            request["agreementId"] == self.about && request["format"] == "HttpData-PULL"
        } else {
            request["offer"]["@id"] == format!("offer{}", self.about) && request["offer"]["target"] == self.about
        };
        if !about {
            return Err(format!("that was not asked for: {request}"));
        }
        self.theirs = request["consumerPid"].as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    fn offer(&self) -> Value {
        let id = if self.group.provides { offer_id(&self.about) } else { format!("offer{}", self.about) };
        let mut offer = open();
        offer["@type"] = json!("Offer");
        offer["@id"] = json!(id);
        offer["target"] = json!(self.about);
        offer
    }

    async fn comes(&self, wanted: Message) -> Result<(), String> {
        let path = format!("/{}/{}/{}", self.machine(), self.ours, wanted.path());
        let body = self.peer.expect(path).body().await?;
        shape::check(&body, wanted.kind(self.group))?;
        let pids = self.pids();
        for name in ["consumerPid", "providerPid"] {
            if body[name] != pids[name] {
                return Err(format!("`{name}` is not {} in {body}", pids[name]));
            }
        }
        let whole = match wanted {
            Offer => body["offer"]["@id"] == offer_id(&self.about) && body["offer"]["target"] == self.about,
            Counter => body["offer"]["target"] == self.about,
            Accepted => body["eventType"] == "ACCEPTED",
            Finalized => body["eventType"] == "FINALIZED",
            Agreement => {
                let agreement = &body["agreement"];
                let names = agreement["assigner"] == OWN && agreement["assignee"] == KIT;
                names && agreement["target"] == self.about
            }
            Verification | Start | Suspension | Completion | End => true,
        };
        if whole { Ok(()) } else { Err(format!("that does not belong here: {body}")) }
    }

    async fn says(&self, what: Message) -> Result<(u16, Value), String> {
        let mut members = self.pids();
        match what {
            Offer => members["offer"] = self.offer(),
            Counter => {
                members["offer"] = self.offer();
                members["offer"]["assignee"] = json!(KIT);
            }
            Accepted | Finalized => members["eventType"] = json!(what.state()),
            Agreement => {
                let mut agreement = self.offer();
                agreement["@id"] = json!(urn());
                agreement["@type"] = json!("Agreement");
                agreement["assigner"] = json!(KIT);
                agreement["assignee"] = json!(OWN);
                agreement["timestamp"] = json!("2026-01-01T10:00:00+01:00");
                members["agreement"] = agreement;
                // The kit's agreement carries this, which no schema forbids.
                members["callbackAddress"] = json!(self.peer.base);
            }
            End => members["code"] = json!("1"),
            Start if !self.group.provides => {
                members["dataAddress"] = json!({
                    "@type": "DataAddress", "endpointType": "HTTP", "endpoint": "http://example.com",
                    "endpointProperties": [],
                });
            }
            Verification | Start | Suspension | Completion => {}
        }
        let body = message(what.kind(self.group), members);
        let url = format!("{}/{}/{}/{}", self.kontor.address(), self.machine(), self.theirs, what.path());
        let told = self.peer.post(&url, &body).await?;
        Ok((told.status, told.body))
    }

    async fn is(&self, state: &str) -> Result<(), String> {
        let url = format!("{}/{}/{}", self.kontor.address(), self.machine(), self.theirs);
        let asked = Instant::now();
        let mut told = self.peer.get(&url).await?;
        // Who asks waits for a receipt, but not for ever: where the machine was too slow for it, it is asked again.
        while told.body["state"] != state && asked.elapsed() > RECEIPT_WAIT && asked.elapsed() < PATIENCE {
            told = self.peer.get(&url).await?;
        }
        if told.status != 200 || told.body["state"] != state {
            return Err(format!("it is not {state}: {} {}", told.status, told.body));
        }
        shape::check(&told.body, self.process())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn negotiations_that_we_provide_for_pass_the_kits_tests() {
    CN.play().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn negotiations_that_we_consume_by_pass_the_kits_tests() {
    CN_C.play().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_that_we_provide_pass_the_kits_tests() {
    TP.play().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_that_we_consume_pass_the_kits_tests() {
    TP_C.play().await;
}

#[tokio::test]
async fn metadata_and_catalogue_pass_the_kits_tests() {
    let subject = Subject::start();
    let peer = Peer::start().await;
    let address = subject.kontor.address();
    let base = address.strip_suffix("/2025-1").unwrap();
    for id in QUESTIONS {
        match id {
            "Metadata01Test.cat_01_01" => {
                let told = peer.get(&format!("{base}/.well-known/dspace-version")).await.unwrap();
                assert_eq!(told.status, 200, "{id}");
                crate::schemas::valid_as("protocol-version-schema", &told.body).unwrap();
                let versions = told.body["protocolVersions"].as_array().unwrap();
                let version = versions.iter().find(|version| version["version"] == "2025-1").unwrap();
                assert!(version["path"].is_string() && version["binding"] == "HTTPS", "{id}: {version}");
            }
            "Catalog01Test.cat_01_01" => {
                let mut request = message("CatalogRequestMessage", json!({ "filter": [] }));
                request["@id"] = json!(urn());
                let told = peer.post(&format!("{address}/catalog/request"), &request).await.unwrap();
                assert_eq!(told.status, 200, "{id}: {}", told.body);
                shape::check(&told.body, "Catalog").unwrap();
                assert!(told.body.get("hasPolicy").is_none(), "{id}: a catalogue has no policy itself");
                let datasets = told.body["dataset"].as_array().unwrap();
                let dataset = datasets.iter().find(|dataset| dataset["@id"] == "CAT0101").unwrap();
                for offer in dataset["hasPolicy"].as_array().unwrap() {
                    assert!(offer.get("target").is_none() && offer["permission"].is_array(), "{id}: {offer}");
                }
            }
            "Catalog01Test.cat_01_02" => {
                let told = peer.get(&format!("{address}/catalog/datasets/CAT0102")).await.unwrap();
                assert_eq!(told.status, 200, "{id}: {}", told.body);
                shape::check(&told.body, "Dataset").unwrap();
                assert_eq!(told.body["@id"], "CAT0102", "{id}");
            }
            _ => {
                let told = peer.get(&format!("{address}/catalog/datasets/CAT0103")).await.unwrap();
                assert_eq!(told.status, 404, "{id}: {}", told.body);
                shape::check(&told.body, "CatalogError").unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_rule_that_counts_visits_remembers_them_over_a_restart() {
    let mut subject = Subject::start();
    let peer = Peer::start().await;
    let mut run = Run::new(&CN, &subject.kontor, &peer, "01_02");
    run.ask().await.unwrap();
    run.comes(Offer).await.unwrap();
    run.is("OFFERED").await.unwrap();
    let (theirs, ours) = (run.theirs, run.ours);
    subject.kontor.restart();
    // The first time that it was asked it offered; the second time it ends the negotiation.
    let run = Run { theirs, ours, ..Run::new(&CN, &subject.kontor, &peer, "01_02") };
    let (status, body) = run.says(Counter).await.unwrap();
    assert_eq!(status, 200, "{body}");
    run.comes(End).await.unwrap();
    assert_eq!(peer.complaints(), [""; 0]);
}

#[test]
fn the_tests_are_those_that_the_kit_passed() {
    let groups = [&CN, &CN_C, &TP, &TP_C];
    let mut here: BTreeSet<String> = QUESTIONS.iter().map(|id| (*id).to_owned()).collect();
    for group in groups {
        here.extend(group.tests.iter().map(|(test, _)| group.id(test)));
    }
    let passed = include_str!("../conformance/dsp/passed.txt");
    let there: BTreeSet<String> = passed.lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(here, there);
}
