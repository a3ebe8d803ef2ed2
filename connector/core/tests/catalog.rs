//! Which offers a peer may see, and how a request relates to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{now, participant, policy};
use jiff::SignedDuration;
use kontor_core::catalog::{Audience, PublishedOffer, relate, visible};
use kontor_core::id::{DatasetId, OfferId};
use kontor_core::negotiation::{Offer, OfferKind, Role};
use kontor_core::policy::{ASSIGNEE_COLLECTIONS, Capabilities, FactValue, Facts, RelationKind, World};
use kontor_core::refusal::Fault;
use serde_json::{Value, json};

fn world() -> World {
    World { now: now(), ..World::default() }
}

fn published(id: &str, audience: Audience, constraint: Value) -> PublishedOffer {
    let mut permission = json!({ "action": "use" });
    if !constraint.is_null() {
        permission["constraint"] = json!([constraint]);
    }
    PublishedOffer {
        id: OfferId::parse(id).unwrap(),
        dataset: DatasetId::parse("urn:data:1").unwrap(),
        policy: policy(json!({ "@id": id, "@type": "Offer", "permission": [permission] })),
        audience,
    }
}

fn until(operator: &str, seconds: i64) -> Value {
    let at = (now() + SignedDuration::from_secs(seconds)).to_string();
    json!({ "leftOperand": "dateTime", "operator": operator, "rightOperand": { "@value": at, "@type": "xsd:dateTime" } })
}

/// The request that takes an offer up as it stands.
fn take(offer: &PublishedOffer) -> Offer {
    Offer {
        id: offer.id.clone(),
        target: offer.dataset.clone(),
        policy: offer.policy.clone().with("target", offer.dataset.as_str()),
    }
}

#[test]
fn an_offer_is_shown_to_its_audience() {
    let peer = participant(Role::Consumer);
    let everyone = published("urn:offer:1", Audience::Everyone, Value::Null);
    assert_eq!(visible(&everyone, &peer, &world(), &Capabilities::default()), Ok(()));
    let only = |who| published("urn:offer:1", Audience::Only(vec![who]), Value::Null);
    assert_eq!(visible(&only(peer.clone()), &peer, &world(), &Capabilities::default()), Ok(()));
    assert_eq!(
        visible(&only(participant(Role::Provider)), &peer, &world(), &Capabilities::default()).unwrap_err().code,
        "catalog.audience"
    );
}

/// Who may use it is for the facts to say, not the collection's own name.
#[test]
fn an_offer_for_a_collection_is_shown_to_who_may_belong_to_it() {
    let peer = participant(Role::Consumer);
    let mut offer = published("urn:offer:1", Audience::Everyone, Value::Null);
    let club = json!({ "@id": "urn:club", "@type": "PartyCollection" });
    offer.policy.0.insert("assignee".to_owned(), club);
    let world = |clubs: &[&str]| {
        let facts = Facts::default().with(ASSIGNEE_COLLECTIONS, FactValue::names(clubs));
        World { facts, ..world() }
    };
    assert_eq!(visible(&offer, &peer, &world(&["urn:club"]), &Capabilities::all()), Ok(()));
    assert!(visible(&offer, &peer, &world(&[]), &Capabilities::all()).is_err());
}

#[test]
fn an_offer_for_somebody_else_is_not_shown() {
    let peer = participant(Role::Consumer);
    let mut offer = published("urn:offer:1", Audience::Everyone, Value::Null);
    offer.policy = offer.policy.with("assignee", "did:web:other.example");
    assert_eq!(visible(&offer, &peer, &world(), &Capabilities::default()).unwrap_err().code, "catalog.assignee");
}

#[test]
fn an_offer_whose_window_ended_is_not_shown_and_one_that_begins_later_is() {
    let peer = participant(Role::Consumer);
    let see = |constraint| {
        visible(&published("urn:offer:1", Audience::Everyone, constraint), &peer, &world(), &Capabilities::default())
    };
    assert_eq!(see(until("lt", -60)).unwrap_err().code, "catalog.over");
    assert_eq!(see(until("lt", 60)), Ok(()));
    assert_eq!(see(until("gteq", 60)), Ok(()));
}

#[test]
fn an_offer_that_cannot_be_enforced_is_not_shown() {
    let unknown = json!({ "leftOperand": "https://example.com/mood", "operator": "eq", "rightOperand": "good" });
    let offer = published("urn:offer:1", Audience::Everyone, unknown);
    assert!(visible(&offer, &participant(Role::Consumer), &world(), &Capabilities::default()).is_err());
}

#[test]
fn a_request_is_published_or_a_counter() {
    let peer = participant(Role::Consumer);
    let offers = [published("urn:offer:1", Audience::Everyone, until("lt", 60))];
    let mut request = take(&offers[0]);
    let relation = |request: &Offer| {
        let related = relate(&offers, request, &peer, &world(), &Capabilities::default()).unwrap();
        (related.kind, related.compared.map(|compared| compared.relation))
    };
    assert_eq!(relation(&request), (OfferKind::Published, Some(RelationKind::Equal)));
    for (seconds, expected) in [(120, RelationKind::Wider), (30, RelationKind::Narrower)] {
        request.policy = policy(json!({
            "@id": "urn:offer:1", "@type": "Offer", "target": "urn:data:1",
            "permission": [{ "action": "use", "constraint": [until("lt", seconds)] }]
        }));
        assert_eq!(relation(&request), (OfferKind::Counter, Some(expected)));
    }
}

#[test]
fn unknown_and_not_for_you_read_the_same() {
    let peer = participant(Role::Consumer);
    let hidden = published("urn:offer:1", Audience::Only(vec![participant(Role::Provider)]), Value::Null);
    let request = take(&hidden);
    let not_for_you =
        relate(std::slice::from_ref(&hidden), &request, &peer, &world(), &Capabilities::default()).unwrap_err();
    let unknown = relate(&[], &request, &peer, &world(), &Capabilities::default()).unwrap_err();
    assert_eq!(not_for_you, unknown);
    assert_eq!(unknown.fault, Fault::NotFound);
}

#[test]
fn a_request_about_another_dataset_is_altered() {
    let offers = [published("urn:offer:1", Audience::Everyone, Value::Null)];
    let mut request = take(&offers[0]);
    request.target = DatasetId::parse("urn:data:2").unwrap();
    let refusal =
        relate(&offers, &request, &participant(Role::Consumer), &world(), &Capabilities::default()).unwrap_err();
    assert_eq!((refusal.fault, refusal.field.as_deref()), (Fault::Altered, Some("offer.target")));
}

#[test]
fn a_request_for_terms_that_cannot_be_enforced_is_refused_by_name() {
    let offers = [published("urn:offer:1", Audience::Everyone, Value::Null)];
    let mut request = take(&offers[0]);
    let mood = json!({ "leftOperand": "https://example.com/mood", "operator": "eq", "rightOperand": "good" });
    request.policy = policy(json!({
        "@id": "urn:offer:1", "@type": "Offer", "target": "urn:data:1",
        "permission": [{ "action": "use", "constraint": [mood] }]
    }));
    let refusal =
        relate(&offers, &request, &participant(Role::Consumer), &world(), &Capabilities::default()).unwrap_err();
    assert_eq!(refusal.fault, Fault::Unenforceable);
    assert!(refusal.sentences().join(" ").contains("mood"), "{refusal:?}");
}
