#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::{NAMESPACE_BYTES_MAX, NESTING_MAX, Names, OWN_PREFIXES_MAX, PREFIXES, compact, compact_term};
use crate::iri::ODRL;

fn policy() -> Value {
    json!({
        "@type": "Offer", "@id": "urn:offer:1", "target": "urn:data:1",
        "permission": [{
            "action": "use",
            "constraint": [{"leftOperand": "dateTime", "operator": "lteq",
                "rightOperand": {"@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime"}}]
        }]
    })
}

#[test]
fn compact_form_stays_as_it_is() {
    assert_eq!(compact(policy()), policy());
}

#[test]
fn prefixed_and_expanded_spellings_become_compact() {
    let prefixed = json!({
        "@type": "odrl:Offer", "@id": "urn:offer:1", "odrl:target": {"@id": "urn:data:1"},
        "odrl:permission": {
            "odrl:action": {"@id": "odrl:use"},
            "odrl:constraint": {"odrl:leftOperand": {"@id": "odrl:dateTime"}, "odrl:operator": {"@id": "odrl:lteq"},
                "odrl:rightOperand": {"@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime"}}
        }
    });
    assert_eq!(compact(prefixed), policy());
    let o = "http://www.w3.org/ns/odrl/2/";
    let expanded = json!([{
        "@type": [format!("{o}Offer")], "@id": "urn:offer:1",
        format!("{o}target"): [{"@id": "urn:data:1"}],
        format!("{o}permission"): [{
            format!("{o}action"): [{"@id": format!("{o}use")}],
            format!("{o}constraint"): [{
                format!("{o}leftOperand"): [{"@id": format!("{o}dateTime")}],
                format!("{o}operator"): [{"@id": format!("{o}lteq")}],
                format!("{o}rightOperand"): [{"@value": "2030-01-01T00:00:00Z", "@type": "http://www.w3.org/2001/XMLSchema#dateTime"}]
            }]
        }]
    }]);
    assert_eq!(compact(expanded), policy());
}

#[test]
fn messages_become_compact() {
    let message = json!({
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": ["dspace:ContractNegotiationEventMessage"],
        "https://w3id.org/dspace/2025/1/consumerPid": [{"@id": "urn:c"}],
        "dspace:providerPid": {"@value": "urn:p"},
        "dspace:eventType": {"@id": "dspace:ACCEPTED"},
        "dspace:reason": {"@value": "because"},
        "ex:mine": [{"@value": 1}]
    });
    assert_eq!(
        compact(message),
        json!({
            "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
            "@type": "ContractNegotiationEventMessage", "consumerPid": "urn:c", "providerPid": "urn:p",
            "eventType": "ACCEPTED", "reason": ["because"], "ex:mine": [{"@value": 1}]
        })
    );
}

#[test]
fn a_dataset_is_one_id_in_its_request_and_a_set_in_a_catalog() {
    let request = json!({"@type": "DatasetRequestMessage", "dspace:dataset": {"@id": "urn:d"}});
    assert_eq!(compact(request), json!({"@type": "DatasetRequestMessage", "dataset": "urn:d"}));
    let catalog = json!({"@type": "dcat:Catalog", "dcat:dataset": {
        "@id": "urn:d", "@type": "dcat:Dataset", "http://purl.org/dc/terms/title": [{"@value": "Ships"}],
        "dcat:distribution": {"dct:format": {"@id": "HttpData-PULL"}, "dcat:accessService": {"@id": "urn:s"}}
    }});
    assert_eq!(
        compact(catalog),
        json!({"@type": "Catalog", "dataset": [{
            "@id": "urn:d", "@type": "Dataset", "dct:title": "Ships",
            "distribution": [{"format": "HttpData-PULL", "accessService": "urn:s"}]
        }]})
    );
}

#[test]
fn two_spellings_of_one_member_are_merged_and_none_is_dropped() {
    let twice = json!({"permission": [{"action": "use"}], "odrl:permission": [{"action": "read"}], "target": "urn:a", "odrl:target": "urn:b"});
    assert_eq!(
        compact(twice),
        json!({"permission": [{"action": "use"}, {"action": "read"}], "target": ["urn:a", "urn:b"]})
    );
}

#[test]
fn a_prefix_of_the_document_counts_and_one_bound_elsewhere_does_not() {
    let own = json!({"@context": [{"o": "http://www.w3.org/ns/odrl/2/"}], "o:permission": {"o:action": "o:use"}});
    assert_eq!(compact(own)["permission"], json!([{"action": "use"}]));
    let hijacked = json!({"@context": {"odrl": "https://example.org/other/"}, "odrl:permission": [{"action": "use"}]});
    assert!(compact(hijacked).get("permission").is_none());
}

#[test]
fn prefixes_that_change_nothing_are_not_kept_and_the_others_are_bounded() {
    let kept = |context: Value| Names::of(&json!({ "@context": context })).prefixes.len();
    let many = |iri: &str| (0..90_000).map(|n| (format!("p{n}"), json!(iri))).collect::<serde_json::Map<_, _>>();
    assert_eq!(kept(Value::Object(many(":"))), PREFIXES.len());
    assert_eq!(kept(json!([many("https://example.org/"), { "o": ODRL }])), PREFIXES.len() + 1);
    assert_eq!(kept(Value::Object(many(ODRL))), PREFIXES.len() + OWN_PREFIXES_MAX);
    // One that came too late stays unknown; one of ours that is bound elsewhere is never too late.
    let mut context = many(ODRL);
    context.insert("odrl".to_owned(), json!("https://example.org/other/"));
    let read = compact(json!({
        "@context": context, "p0:target": "urn:a", "p89999:target": "urn:b", "odrl:target": "urn:c"
    }));
    assert_eq!(
        (&read["target"], &read["p89999:target"], &read["https://example.org/other/target"]),
        (&json!("urn:a"), &json!("urn:b"), &json!("urn:c"))
    );
}

#[test]
fn a_prefix_bound_elsewhere_stays_so_without_the_context() {
    let elsewhere = "https://example.org/other/";
    let full = |name: &str| format!("{elsewhere}{name}");
    for context in [
        json!({ "odrl": elsewhere }),
        json!([{ "odrl": { "@id": elsewhere } }]),
        json!({ "odrl": "ex:other/", "ex": "https://example.org/" }),
    ] {
        let mut once = compact(json!({
            "@context": context, "odrl:permission": [{ "odrl:action": "use" }],
            "permission": [{ "action": { "@id": "odrl:use" }, "@type": "odrl:Permission", "constraint": [
                { "leftOperand": "odrl:count", "rightOperand": { "@id": "odrl:policyUsage" } }] }]
        }));
        once.as_object_mut().unwrap().shift_remove("@context");
        let twice = compact(once.clone());
        assert_eq!(twice, once, "{context}");
        let permission = &twice["permission"][0];
        assert!(twice.get(full("permission")).is_some(), "{twice}");
        assert_eq!((&permission["action"], &permission["@type"]), (&json!(full("use")), &json!(full("Permission"))));
        let constraint = &permission["constraint"][0];
        assert_eq!(constraint["leftOperand"], full("count"));
        assert_eq!(constraint["rightOperand"], json!({ "@id": full("policyUsage") }));
    }
    // Bound to nothing, to no namespace, to itself or to more than a name: it is nobody's.
    for nothing in [json!(null), json!({}), json!("per"), json!("odrl:"), json!(format!("urn:{}:", "x".repeat(300)))] {
        let mut once = compact(json!({ "@context": { "odrl": nothing }, "odrl:permission": [], "odrl:mission": 1 }));
        once.as_object_mut().unwrap().shift_remove("@context");
        assert_eq!(compact(once.clone()), once);
        assert_eq!(once, json!({ "_:odrl:permission": [], "_:odrl:mission": 1 }), "{nothing}");
    }
    // What a binding spells out in full is still what it is.
    let around = compact(json!({ "@context": { "odrl": "http://www.w3.org/ns/odrl/" }, "odrl:2/target": "urn:a" }));
    assert_eq!(around["target"], "urn:a");
    let through = compact(json!({ "@context": { "dct": "odrl:" }, "dct:target": "urn:a" }));
    assert_eq!(through["target"], "urn:a");
}

#[test]
fn things_are_named_in_full_where_the_document_has_a_prefix_for_them() {
    let context =
        json!([{ "ex": "https://example.org/", "sub": "ex:sub/", "o": ODRL, "@vocab": "https://example.org/v/" }]);
    let party = json!({ "@id": "ex:club", "@type": "PartyCollection", "partOf": "sub:all", "refinement": [
        { "leftOperand": "spatial", "operator": "eq", "rightOperand": { "@id": "ex:place" } },
        { "leftOperand": "event", "operator": "eq", "rightOperand": { "@id": "o:policyUsage" } },
        { "leftOperand": "purpose", "operator": "eq", "rightOperand": "ex:text" } ] });
    let read = compact(json!({
        "@context": context, "@id": "ex:offer", "target": "ex:data", "assigner": { "@id": "sub:me" }, "assignee": [party, "https://ex:1/"],
        "profile": ["other:one", "urn:x", "ex:"]
    }));
    assert_eq!(read["target"], "https://example.org/data");
    assert_eq!(read["assigner"], "https://example.org/sub/me");
    assert_eq!(read["profile"], json!(["other:one", "urn:x", "ex:"]));
    assert_eq!(read["assignee"][1], "https://ex:1/");
    let club = &read["assignee"][0];
    assert_eq!(
        (&club["@id"], &club["partOf"]),
        (&json!("https://example.org/club"), &json!("https://example.org/sub/all"))
    );
    let values: Vec<&Value> = (0..3).map(|n| &club["refinement"][n]["rightOperand"]).collect();
    let (place, usage) = (json!({ "@id": "https://example.org/place" }), json!({ "@id": "odrl:policyUsage" }));
    assert_eq!(values, [&place, &usage, &json!("ex:text")]);
    assert_eq!(compact(read.clone()), read);
    // So many, and no longer ones: they are written out wherever they stand.
    let named = |context: Value, id: &str| compact(json!({ "@context": context, "target": id }))["target"].clone();
    let many = |count: usize| {
        (0..count).map(|n| (format!("p{n:03}"), json!("https://example.org/"))).collect::<serde_json::Map<_, _>>()
    };
    assert_eq!(named(Value::Object(many(OWN_PREFIXES_MAX)), "p063:a"), "https://example.org/a");
    assert_eq!(named(Value::Object(many(OWN_PREFIXES_MAX + 1)), "p064:a"), "p064:a");
    assert_eq!(named(json!({ "ex": format!("urn:{}:", "x".repeat(NAMESPACE_BYTES_MAX)) }), "ex:a"), "ex:a");
    assert_eq!(named(json!([{ "ex": "https://example.org/" }, { "ex": null }]), "ex:a"), "ex:a");
}

#[test]
fn of_several_bindings_of_a_prefix_the_last_counts() {
    let read = |contexts: Value| compact(json!({ "@context": contexts, "o:target": "urn:a", "odrl:target": "urn:b" }));
    let elsewhere = json!({ "o": "https://example.org/", "odrl": "https://example.org/" });
    let ours = json!({ "o": ODRL, "odrl": ODRL });
    assert!(read(json!([ours, elsewhere])).get("target").is_none());
    assert_eq!(read(json!([elsewhere, ours]))["target"], json!(["urn:a", "urn:b"]));
}

#[test]
fn types_and_spellings_keep_their_order_and_types_come_once() {
    let read = compact(json!({
        "@type": ["odrl:Offer", 1, "x", "Offer", { "a": 1 }, "x", { "a": 1 }, 1],
        "odrl:permission": [{ "action": "use" }], "target": "urn:a",
        "permission": { "@list": [{ "action": "read" }, { "action": "print" }] },
        "http://www.w3.org/ns/odrl/2/permission": { "action": "play" }
    }));
    assert_eq!(read["@type"], json!(["Offer", 1, "x", { "a": 1 }]));
    let actions: Vec<&str> =
        read["permission"].as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["use", "read", "print", "play"]);
    assert_eq!(read.as_object().unwrap().keys().collect::<Vec<_>>(), ["@type", "permission", "target"]);
}

#[test]
fn terms_by_table() {
    for (given, expected) in [
        ("odrl:use", "use"),
        ("http://www.w3.org/ns/odrl/2/use", "use"),
        ("use", "use"),
        ("odrl:nonsense", "odrl:nonsense"),
        ("http://www.w3.org/ns/odrl/2/nonsense", "odrl:nonsense"),
        ("http://purl.org/dc/terms/title", "dct:title"),
        ("dct:format", "format"),
        ("http://www.w3.org/2001/XMLSchema#date", "xsd:date"),
        ("https://w3id.org/dspace/2025/1/FINALIZED", "FINALIZED"),
        ("did:web:example.org", "did:web:example.org"),
        ("odrl:", "odrl:"),
        ("https://example.org/use", "https://example.org/use"),
    ] {
        assert_eq!(compact_term(given), expected, "{given}");
    }
}

#[test]
fn a_graph_of_one_node_is_the_node() {
    let graph = json!({"@context": "urn:c", "@graph": [{"@id": "urn:p", "odrl:permission": []}]});
    assert_eq!(compact(graph), json!({"@context": "urn:c", "@id": "urn:p", "permission": []}));
}

#[test]
fn deep_nesting_is_bounded() {
    // Text: `serde_json` stops at 128 levels.
    let text = format!("{}1{}", "{\"and\":[".repeat(10_000), "]}".repeat(10_000));
    assert!(serde_json::from_str::<Value>(&text).is_err());
    // Values built in memory: left alone below the limit.
    let mut value = json!({"odrl:action": "odrl:use"});
    for _ in 0..10_000 {
        // Not `json!`, which would walk the whole value each time.
        value = Value::Object(serde_json::Map::from_iter([("odrl:and".to_owned(), Value::Array(vec![value]))]));
    }
    let mut value = compact(value);
    let mut compacted = 0;
    while let Value::Object(map) = &mut value {
        let next = map.shift_remove("and").inspect(|_| compacted += 1).or_else(|| map.shift_remove("odrl:and"));
        let Some(Value::Array(mut inner)) = next else { break };
        value = inner.pop().unwrap();
    }
    assert_eq!(compacted, NESTING_MAX);
}

#[test]
fn compacting_twice_changes_nothing_more() {
    for document in [
        policy(),
        json!({"odrl:action": [{"@id": "odrl:use"}, {"rdf:value": {"@id": "odrl:print"}, "odrl:refinement": {"@list": [1, 2]}}]}),
        json!({"rightOperand": [{"@value": "a", "@type": "xsd:string"}, {"@id": "odrl:use"}], "target": [["x"]]}),
        json!({"@type": ["odrl:Offer", "Offer"], "reason": {"@value": "x", "@language": "en"}}),
    ] {
        let once = compact(document);
        assert_eq!(compact(once.clone()), once);
    }
}
