//! What a body of ours must look like: the kit's rules, and no member that the message does not have. Checked without
//! the specification's files, so everywhere.

use kontor_vocab::iri::DSPACE_CONTEXT;
use serde_json::{Value, json};

/// Checks a message, acknowledgement or error body of ours by its `@type`, and against the specification's schema
/// where that is at hand.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(document: &Value, kind: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{what} in {document}"));
    if document["@type"] != kind {
        return wrong(format!("`@type` is not `{kind}`"));
    }
    if document["@context"] != json!([DSPACE_CONTEXT]) {
        return wrong("`@context` is not the protocol's, alone, in an array".to_owned());
    }
    if let Some(path) = null_in(document) {
        return wrong(format!("`{path}` is null"));
    }
    let (required, optional): (&[&str], &[&str]) = match kind {
        "ContractRequestMessage" => (&["consumerPid", "offer"], &["providerPid", "callbackAddress"]),
        "ContractOfferMessage" => (&["providerPid", "offer"], &["consumerPid", "callbackAddress"]),
        "ContractAgreementMessage" => (&["providerPid", "consumerPid", "agreement"], &[]),
        "ContractNegotiationEventMessage" => (&["providerPid", "consumerPid", "eventType"], &[]),
        "ContractAgreementVerificationMessage" | "TransferCompletionMessage" => (&["providerPid", "consumerPid"], &[]),
        "ContractNegotiationTerminationMessage"
        | "TransferSuspensionMessage"
        | "TransferTerminationMessage"
        | "ContractNegotiationError"
        | "TransferError" => (&["providerPid", "consumerPid"], &["code", "reason"]),
        "ContractNegotiation" | "TransferProcess" => (&["providerPid", "consumerPid", "state"], &[]),
        "TransferRequestMessage" => (&["consumerPid", "agreementId", "format", "callbackAddress"], &["dataAddress"]),
        "TransferStartMessage" => (&["providerPid", "consumerPid"], &["dataAddress"]),
        "CatalogRequestMessage" => (&[], &["filter"]),
        "CatalogError" => (&[], &["code", "reason"]),
        "Catalog" => (&["@id", "participantId"], &["dataset", "service"]),
        "Dataset" => (&["@id", "hasPolicy", "distribution"], &["title", "description", "keyword"]),
        other => return wrong(format!("nothing is known of `{other}`")),
    };
    let members = document.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    for name in members {
        if !["@context", "@type", "@id"].contains(&name) && !required.contains(&name) && !optional.contains(&name) {
            return wrong(format!("`{name}` is no member of a {kind}"));
        }
    }
    for name in required {
        let there = if matches!(*name, "offer" | "agreement") { document[*name].is_object() } else { true };
        if document.get(*name).is_none() || !there {
            return wrong(format!("`{name}` is missing"));
        }
    }
    for name in ["@id", "consumerPid", "providerPid", "callbackAddress", "state", "eventType", "code", "agreementId"] {
        if document.get(name).is_some_and(|value| value.as_str().is_none_or(str::is_empty)) {
            return wrong(format!("`{name}` is no text"));
        }
    }
    if document.get("reason").is_some_and(|reason| reason.as_array().is_none_or(Vec::is_empty)) {
        return wrong("`reason` is no array with something in it".to_owned());
    }
    match kind {
        "ContractRequestMessage" => one_of(document, "callbackAddress", "providerPid")?,
        "ContractOfferMessage" => one_of(document, "callbackAddress", "consumerPid")?,
        _ => {}
    }
    if let Some(offer) = document.get("offer") {
        policy(offer, "Offer", &["@id", "target"])?;
    }
    if let Some(agreement) = document.get("agreement") {
        policy(agreement, "Agreement", &["@id", "target", "assigner", "assignee"])?;
    }
    if let Some(address) = document.get("dataAddress") {
        data_address(address)?;
    }
    crate::schemas::valid(document)
}

fn one_of(document: &Value, one: &str, other: &str) -> Result<(), String> {
    match (document.get(one).is_some(), document.get(other).is_some()) {
        (true, false) | (false, true) => Ok(()),
        _ => Err(format!("not exactly one of `{one}` and `{other}` in {document}")),
    }
}

fn policy(policy: &Value, kind: &str, required: &[&str]) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{what} in {policy}"));
    if policy["@type"] != kind {
        return wrong(format!("`@type` is not `{kind}`"));
    }
    for name in required {
        if policy[*name].as_str().is_none_or(str::is_empty) {
            return wrong(format!("`{name}` is missing"));
        }
    }
    let rules = ["permission", "prohibition"].iter().filter_map(|name| policy[*name].as_array()).flatten();
    let mut count = 0;
    for rule in rules {
        count += 1;
        if !rule["action"].is_string() {
            return wrong("an `action` is no text".to_owned());
        }
        for constraint in rule["constraint"].as_array().into_iter().flatten() {
            let atomic = constraint.get("leftOperand").is_some();
            let operand = &constraint["rightOperand"];
            if atomic && !(operand.is_string() || operand.is_object() || operand.is_array()) {
                return wrong("a `rightOperand` is no text, object or array".to_owned());
            }
        }
    }
    if count == 0 { wrong("there is no rule".to_owned()) } else { Ok(()) }
}

fn data_address(address: &Value) -> Result<(), String> {
    let typed = address["@type"] == "DataAddress" && address["endpointType"].is_string();
    let properties = address["endpointProperties"].as_array().into_iter().flatten();
    let whole = |property: &Value| {
        property["@type"] == "EndpointProperty" && property["name"].is_string() && property["value"].is_string()
    };
    if typed && properties.into_iter().all(whole) { Ok(()) } else { Err(format!("no data address: {address}")) }
}

/// The path of the first null.
fn null_in(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Object(map) => map.iter().find_map(|(name, member)| Some(format!("{name}.{}", null_in(member)?))),
        Value::Array(items) => items.iter().find_map(|item| Some(format!("[].{}", null_in(item)?))),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
