//! The classes of usage control in both vocabularies: S31 and S32 of `SEMANTICS.md`.

use kontor_vocab::odrl::PolicyDocument;
use serde_json::json;

use super::class::{CLASSES, Verdict, class_table};
use super::*;
use crate::id::{AgreementId, DatasetId, OfferId};
use crate::negotiation::{Offer, agreement_from};

/// S31.
#[test]
fn every_class_means_the_same_in_both_vocabularies() {
    for class in CLASSES {
        let odrl = parse(&class.document().unwrap()).unwrap_or_else(|problems| panic!("{}: {problems:?}", class.name));
        if class.ids.is_empty() {
            continue;
        }
        let document = class.ids_document().unwrap_or_else(|| panic!("{} is no JSON", class.name));
        let ids = parse(&document).unwrap_or_else(|problems| panic!("{}: {problems:?}", class.name));
        assert_eq!(terms_digest(&odrl), terms_digest(&ids), "{}: {odrl:#?} {ids:#?}", class.name);
        let whole = class
            .ids
            .replace("\"ids:", "\"https://w3id.org/idsa/core/")
            .replace("\"idsc:", "\"https://w3id.org/idsa/code/");
        let whole: PolicyDocument = serde_json::from_str(&whole).unwrap();
        assert_eq!(terms_digest(&odrl), terms_digest(&parse(&whole).unwrap()), "{} in whole IRIs", class.name);
    }
}

/// S16, S31.
#[test]
fn an_offer_in_the_words_of_the_ids_can_be_agreed_to() {
    let party = |id: &str| ParticipantId::parse(id).unwrap();
    let stamp = json!({"@value": "2029-01-01T00:00:00Z", "@type": "xsd:dateTimeStamp"});
    let rule = |action: &str| json!([{"ids:action": [{"@id": action}]}]);
    for prefix in ["ids:", "https://w3id.org/idsa/core/"] {
        let name = |member: &str| format!("{prefix}{member}");
        let offer = json!({
            "@type": "ids:ContractOffer", name("permission"): rule("idsc:USE"), name("contractDate"): stamp,
            name("provider"): {"@id": "did:web:p.example"}, name("consumer"): [{"@id": "did:web:any.example"}],
            name("target"): {"@id": "urn:data:1"}
        });
        let document = PolicyDocument::from_value(offer).unwrap();
        let dated = parse(&document).unwrap();
        assert_eq!(dated.timestamp, Some("2029-01-01T00:00:00Z".parse().unwrap()));
        let offer = Offer {
            id: OfferId::parse("urn:offer:1").unwrap(),
            target: DatasetId::parse("urn:data:1").unwrap(),
            policy: document.clone(),
        };
        let (id, now) = (AgreementId::parse("urn:agreement:1").unwrap(), "2030-01-01T00:00:00Z".parse().unwrap());
        let agreement =
            agreement_from(&offer, id, &party("did:web:p.example"), &party("did:web:me.example"), now).policy;
        assert_eq!(same_terms(&document, &agreement), Ok(()), "{prefix}");
        let agreed = parse(&agreement).unwrap();
        let said = (agreed.kind, agreed.timestamp, agreed.assignee.as_deref(), agreed.assigner.as_deref());
        assert_eq!(
            said,
            (model::PolicyKind::Agreement, Some(now), Some("did:web:me.example"), Some("did:web:p.example"))
        );
    }
    for (timestamp, fine) in [
        (stamp, true),
        (json!({"@value": "2029-01-01T00:00:00Z", "@type": "http://www.w3.org/2001/XMLSchema#dateTime"}), true),
        (json!({"@value": "2029-01-01T00:00:00Z", "@type": "xsd:date"}), false),
        (json!({"@value": "2029-01-01", "@type": "xsd:dateTime"}), false),
        (json!(["2029-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]), false),
    ] {
        let document = json!({"permission": [{"action": "use"}], "timestamp": timestamp});
        let document = PolicyDocument::from_value(document).unwrap();
        assert_eq!(parse(&document).is_ok(), fine, "{timestamp}");
        assert_eq!(document.timestamp().is_some(), !timestamp.is_array());
    }
}

/// S31.
#[test]
fn what_the_ids_has_alone_is_refused_with_its_path() {
    let rule = |constraint: serde_json::Value| {
        let document = json!({"@type": "ids:ContractOffer", "ids:permission": [{
            "ids:action": [{"@id": "idsc:USE"}], "ids:constraint": [constraint]}]});
        parse(&PolicyDocument::from_value(document).unwrap()).unwrap_err().remove(0).path
    };
    let constraint = |left: &str, operator: &str| json!({"ids:leftOperand": {"@id": left}, "ids:operator": {"@id": operator}, "ids:rightOperand": "1"});
    assert_eq!(rule(constraint("idsc:COUNT", "idsc:OVERLAPS")), "permission[0].constraint[0].operator");
    assert_eq!(rule(constraint("idsc:MOOD", "idsc:EQ")), "permission[0].constraint[0].leftOperand");
}

/// S32.
#[test]
fn a_class_is_enforced_where_its_plan_refuses_nothing() {
    let held = |capabilities: &Capabilities| -> Vec<u8> {
        CLASSES
            .iter()
            .filter(|class| matches!(class.verdict(capabilities), Verdict::Enforced(_)))
            .map(|class| class.number)
            .collect()
    };
    assert_eq!(held(&Capabilities::default()), [0, 1, 9, 10, 11]);
    let all = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29];
    assert_eq!(held(&Capabilities::all()), all);
    for class in CLASSES {
        if let Verdict::Refused(why) = class.verdict(&Capabilities::all()) {
            assert!(why.len() > 20, "{}: {why}", class.name);
        }
    }
}

/// S32. A page that differs is shown as it should be.
#[test]
fn the_page_of_classes_says_what_the_plans_say() {
    let page = include_str!("CLASSES.md");
    for (title, capabilities) in
        [("By the core alone", Capabilities::default()), ("With every part switched on", Capabilities::all())]
    {
        let section = format!("## {title}\n\n{}", class_table(&capabilities));
        assert!(page.contains(&section), "CLASSES.md should have:\n{section}");
    }
}
