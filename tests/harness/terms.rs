//! Policies and protocol messages.

use kontor_vocab::dsp::context;
use serde_json::{Value, json};

/// Use, without conditions.
#[must_use]
pub fn open() -> Value {
    json!({ "permission": [{ "action": "use" }] })
}

/// Use, under one condition.
#[must_use]
pub fn under(left: &str, operator: &str, right: &str) -> Value {
    json!({ "permission": [{
        "action": "use",
        "constraint": [{ "leftOperand": left, "operator": operator, "rightOperand": right }],
    }] })
}

/// Use, until some seconds from now.
///
/// # Panics
/// At the end of time.
#[must_use]
pub fn for_seconds(seconds: i64) -> Value {
    let end = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    under("dateTime", "lt", &end.to_string())
}

/// Use, so many times.
#[must_use]
pub fn times(count: u32) -> Value {
    under("count", "lteq", &count.to_string())
}

/// A fresh identifier.
#[must_use]
pub fn urn() -> String {
    format!("urn:uuid:{}", uuid::Uuid::new_v4())
}

/// A policy as an offer inside a message.
#[must_use]
pub fn offer(policy: &Value, id: &str, target: &str, assigner: &str) -> Value {
    let mut offer = json!({ "@type": "Offer", "@id": id, "target": target, "assigner": assigner });
    merge(&mut offer, policy);
    offer
}

/// A policy as an agreement inside a message.
#[must_use]
pub fn agreement(policy: &Value, id: &str, target: &str, assigner: &str, assignee: &str) -> Value {
    let mut agreement = json!({
        "@type": "Agreement", "@id": id, "target": target, "assigner": assigner, "assignee": assignee,
        "timestamp": jiff::Timestamp::now().to_string(),
    });
    merge(&mut agreement, policy);
    agreement
}

fn merge(into: &mut Value, policy: &Value) {
    for (name, value) in policy.as_object().into_iter().flatten() {
        if !name.starts_with('@') {
            into[name] = value.clone();
        }
    }
}

/// A protocol message of a type with further members.
#[must_use]
pub fn message(kind: &str, members: Value) -> Value {
    let mut message = json!({ "@context": context(), "@type": kind });
    for (name, value) in members.as_object().into_iter().flatten() {
        message[name] = value.clone();
    }
    message
}

/// A first contract request.
#[must_use]
pub fn contract_request(consumer_pid: &str, callback: &str, offer: &Value) -> Value {
    message(
        "ContractRequestMessage",
        json!({ "consumerPid": consumer_pid, "callbackAddress": callback, "offer": offer }),
    )
}

/// A transfer request.
#[must_use]
pub fn transfer_request(consumer_pid: &str, callback: &str, agreement: &str) -> Value {
    message(
        "TransferRequestMessage",
        json!({
            "consumerPid": consumer_pid, "callbackAddress": callback, "agreementId": agreement,
            "format": "HttpData-PULL",
        }),
    )
}
