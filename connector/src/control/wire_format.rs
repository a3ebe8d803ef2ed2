//! From DSP documents to the machines' alphabets and back. Strict in what we send, tolerant in
//! what we read: prefixed and expanded terms, single values for arrays, unknown members.

use kontor_core::id::{AgreementId, DatasetId, OfferId, ParticipantId, ProcessId};
use kontor_core::negotiation::{self, Agreement, Offer};
use kontor_core::policy;
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer;
use kontor_vocab::context::compact;
use kontor_vocab::dsp;
use kontor_vocab::iri::{EDC, ENDPOINT_TYPE_HTTP};
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A message that was read, with the digest that tells a repeated one.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The document in compact form.
    pub document: dsp::Message,
    /// SHA-256 over the members in order of their names, lower-case hexadecimal.
    pub digest: String,
    /// The same without the message's own identifier.
    pub content: String,
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Fault::Malformed, "message.malformed", message).by("DSP 2025-1, message schemas")
}

/// Reads any JSON body.
///
/// # Errors
/// [`Refusal`] with line and column when it is no JSON (nesting beyond 128 is refused by the
/// parser).
pub fn parse_json(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Err(malformed("the body is empty").cure("a JSON object with `@context` and `@type`"));
    }
    serde_json::from_slice(body)
        .map_err(|error| malformed(format!("the body is not JSON: {error}")).cure("a JSON object"))
}

/// Reads a message and checks its type.
///
/// # Errors
/// [`Refusal`] that names the member, the rule and what would have passed.
pub fn parse(body: &[u8], expected: &str) -> Result<Parsed, Refusal> {
    let value = parse_json(body)?;
    let digest = digest(&value);
    let mut value = compact(value);
    let Some(members) = value.as_object_mut() else {
        return Err(malformed("the body is not a JSON object").cure("one JSON object"));
    };
    let id = members.remove("@id");
    let content = self::digest(&Value::Object(members.clone()));
    members.extend(id.map(|id| ("@id".to_owned(), id)));
    let document: dsp::Message = serde_path_to_error::deserialize(value).map_err(|error| {
        let refusal = malformed(format!("the body is not a `{expected}`: {}", error.inner()));
        let path = error.path().to_string();
        let refusal = if path == "." { refusal } else { refusal.at(path) };
        refusal.cure("see the message's schema")
    })?;
    if document.kind != expected {
        return Err(malformed(format!("`@type` is `{}`", document.kind)).at("@type").cure(format!("`{expected}`")));
    }
    Ok(Parsed { document, digest, content })
}

/// The digest that a message is known by. One without an `@id`, which the protocol does not ask for, can be meant again
/// in the same words, such as a second suspension: it is, where the process may take it `now`.
#[must_use]
pub fn known_as(digest: String, identified: bool, seen: &[String], now: bool) -> String {
    let times = seen.iter().filter(|known| known.starts_with(&digest)).count();
    if identified || !now || times == 0 { digest } else { format!("{digest}:{times}") }
}

/// SHA-256 of a JSON value, independent of the order of members.
#[must_use]
pub fn digest(value: &Value) -> String {
    let mut hash = Sha256::new();
    feed(value, &mut hash);
    hex(&hash.finalize())
}

/// Depth is bounded by the parser.
fn feed(value: &Value, hash: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            hash.update(b"{");
            for key in keys {
                feed(&Value::String(key.clone()), hash);
                if let Some(value) = map.get(key) {
                    feed(value, hash);
                }
            }
            hash.update(b"}");
        }
        Value::Array(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| feed(item, hash));
            hash.update(b"]");
        }
        scalar => {
            hash.update(scalar.to_string().as_bytes());
            hash.update(b",");
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A required text member.
///
/// # Errors
/// [`Refusal`] when it is missing.
pub fn required<'a>(value: &'a Option<String>, field: &str) -> Result<&'a str, Refusal> {
    value.as_deref().ok_or_else(|| malformed(format!("`{field}` is missing")).at(field).cure("a non-empty string"))
}

/// A required process id.
///
/// # Errors
/// [`Refusal`] when it is missing or no identifier.
pub fn required_pid(value: &Option<String>, field: &str) -> Result<ProcessId, Refusal> {
    ProcessId::parse(required(value, field)?).map_err(|error| malformed(error.to_string()).at(field))
}

/// An offer out of a message.
///
/// # Errors
/// [`Refusal`] when `@id` or `target` are missing.
pub fn offer(document: PolicyDocument) -> Result<Offer, Refusal> {
    let id =
        document.id().ok_or_else(|| malformed("the offer has no `@id`").at("offer.@id").cure("the id of an offer"))?;
    let target = document.target().ok_or_else(|| {
        malformed("the offer has no `target`").at("offer.target").cure("the id of the dataset that the offer is for")
    })?;
    if let Some(kind) = document.kind()
        && kind != "Offer"
    {
        return Err(malformed(format!("`@type` is `{kind}`")).at("offer.@type").cure("`Offer`"));
    }
    Ok(Offer {
        id: OfferId::parse(id).map_err(|error| malformed(error.to_string()).at("offer.@id"))?,
        target: DatasetId::parse(target).map_err(|error| malformed(error.to_string()).at("offer.target"))?,
        policy: document,
    })
}

/// An agreement out of a message.
///
/// # Errors
/// [`Refusal`] when a member is missing or no identifier.
pub fn agreement(document: PolicyDocument, now: jiff::Timestamp) -> Result<Agreement, Refusal> {
    let get = |value: Option<&str>, field: &str| {
        value
            .map(str::to_owned)
            .ok_or_else(|| malformed(format!("the agreement has no `{field}`")).at(format!("agreement.{field}")))
    };
    let bad = |field: &str| {
        let field = format!("agreement.{field}");
        move |error: kontor_core::id::IdError| malformed(error.to_string()).at(field)
    };
    if document.kind() != Some("Agreement") {
        return Err(malformed("`@type` is not `Agreement`").at("agreement.@type").cure("`Agreement`"));
    }
    let agreed_at = match document.timestamp() {
        None => now,
        Some(text) => text.parse().map_err(|_| {
            malformed(format!("`{text}` is not an xsd:dateTime with a zone"))
                .at("agreement.timestamp")
                .cure("`2026-01-01T00:00:00Z`")
        })?,
    };
    Ok(Agreement {
        id: AgreementId::parse(get(document.id(), "@id")?).map_err(bad("@id"))?,
        target: DatasetId::parse(get(document.target(), "target")?).map_err(bad("target"))?,
        assigner: ParticipantId::parse_insecure(get(document.assigner(), "assigner")?).map_err(bad("assigner"))?,
        assignee: ParticipantId::parse_insecure(get(document.assignee(), "assignee")?).map_err(bad("assignee"))?,
        agreed_at,
        policy: document,
    })
}

/// Reasons in words, whatever shape they came in; bounded, since they are shown and stored.
#[must_use]
pub fn reasons(values: &[Value]) -> Vec<String> {
    const REASONS_MAX: usize = 16;
    const REASON_CHARS_MAX: usize = 500;
    values
        .iter()
        .take(REASONS_MAX)
        .map(|value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Object(map) => ["@value", "message", "reason"]
                    .iter()
                    .find_map(|key| map.get(*key).and_then(Value::as_str))
                    .map_or_else(|| value.to_string(), str::to_owned),
                other => other.to_string(),
            };
            text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
        })
        .collect()
}

/// The member of a transfer request that says what the data is for: an extension of ours.
pub const PURPOSE: &str = "http://www.w3.org/ns/odrl/2/purpose";
/// Most purposes that one request declares.
pub const PURPOSES_MAX: usize = 16;
/// Longest name of a purpose, in bytes.
pub const PURPOSE_BYTES_MAX: usize = 2048;

/// What a transfer request declares that the data is for; empty: it does not say.
///
/// # Errors
/// [`Refusal`] when it is no name or array of names, or too much.
pub fn purpose(document: &dsp::Message) -> Result<Vec<String>, Refusal> {
    let spellings = [PURPOSE, "purpose", "odrl:purpose"];
    let Some(value) = spellings.iter().find_map(|name| document.extra.get(*name)) else { return Ok(Vec::new()) };
    let all = match value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let named = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(map) => ["@id", "@value"].iter().find_map(|key| map.get(*key)?.as_str()).map(str::to_owned),
        _ => None,
    };
    let purposes: Option<Vec<String>> = all.iter().take(PURPOSES_MAX + 1).map(named).collect();
    let purposes =
        purposes.ok_or_else(|| malformed("a purpose is no name").at(PURPOSE).cure("a URI, or an array of URIs"))?;
    check_purpose(&purposes)?;
    Ok(purposes)
}

/// Whether these can be declared as purposes.
///
/// # Errors
/// [`Refusal`] that names the limit.
pub fn check_purpose(purposes: &[String]) -> Result<(), Refusal> {
    if purposes.len() > PURPOSES_MAX {
        return Err(malformed("too many purposes").at("purpose").cure(format!("at most {PURPOSES_MAX}")));
    }
    let good = |purpose: &String| {
        !purpose.is_empty() && purpose.len() <= PURPOSE_BYTES_MAX && !purpose.chars().any(char::is_control)
    };
    if purposes.iter().all(good) {
        return Ok(());
    }
    Err(malformed("a purpose is empty, too long, or has control characters")
        .at("purpose")
        .cure(format!("a URI of at most {PURPOSE_BYTES_MAX} bytes")))
}

/// A data address out of a message. Eclipse EDC names the properties by its own IRIs, and gives the endpoint as one of
/// them instead of as a member.
#[must_use]
pub fn data_address(document: dsp::DataAddress) -> transfer::DataAddress {
    let mut endpoint = document.endpoint;
    let mut token = None;
    let mut properties = Vec::new();
    for dsp::EndpointProperty { name, value, .. } in document.endpoint_properties {
        let known = name.strip_prefix(EDC).or_else(|| name.strip_prefix("edc:")).unwrap_or(&name);
        match known {
            "authorization" => token = Some(value),
            "endpoint" if endpoint.as_ref().is_none_or(|known| *known == value) => endpoint = Some(value),
            "authType" if known.len() < name.len() => {
                if !properties.iter().any(|(name, _)| name == known) {
                    properties.push((known.to_owned(), value));
                }
            }
            _ => properties.push((name, value)),
        }
    }
    transfer::DataAddress { endpoint_type: document.endpoint_type, endpoint, token, properties }
}

fn address_document(address: &transfer::DataAddress) -> dsp::DataAddress {
    let property = |name: &str, value: &str| dsp::EndpointProperty {
        kind: "EndpointProperty".to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut endpoint_properties = Vec::new();
    if let Some(token) = &address.token {
        endpoint_properties.push(property("authorization", token));
        if !address.properties.iter().any(|(name, _)| name == "authType") {
            endpoint_properties.push(property("authType", "bearer"));
        }
    }
    // EDC reads the properties alone, not the member `endpoint`, and knows them by its own names.
    if let (Some(endpoint), Some(token)) = (&address.endpoint, &address.token) {
        for (name, value) in [("endpoint", endpoint.as_str()), ("authorization", token), ("authType", "bearer")] {
            endpoint_properties.push(property(&format!("{EDC}{name}"), value));
        }
    }
    endpoint_properties.extend(address.properties.iter().map(|(name, value)| property(name, value)));
    dsp::DataAddress {
        kind: "DataAddress".to_owned(),
        endpoint_type: address.endpoint_type.clone(),
        endpoint: address.endpoint.clone(),
        endpoint_properties,
    }
}

/// The data address of a pull, as we hand it out.
#[must_use]
pub fn pull_address(endpoint: String, token: String) -> transfer::DataAddress {
    transfer::DataAddress {
        endpoint_type: ENDPOINT_TYPE_HTTP.to_owned(),
        endpoint: Some(endpoint),
        token: Some(token),
        properties: Vec::new(),
    }
}

/// A message ready to be sent: the path below the peer's base, and the body.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Appended to the peer's base address.
    pub path: String,
    /// The JSON body.
    pub body: Value,
}

/// Whom a letter is from and to.
#[derive(Debug, Clone, Copy)]
pub struct Pids<'a> {
    /// `consumerPid`.
    pub consumer: Option<&'a ProcessId>,
    /// `providerPid`.
    pub provider: Option<&'a ProcessId>,
    /// The counterparty's, for the path.
    pub peer: Option<&'a ProcessId>,
    /// Where we listen: sent with first messages.
    pub callback: &'a str,
    /// `@id` of the message.
    pub id: &'a str,
}

fn base(kind: &str, pids: Pids<'_>) -> dsp::Message {
    let mut document = dsp::Message::new(kind);
    document.id = Some(pids.id.to_owned());
    document.consumer_pid = pids.consumer.map(ToString::to_string);
    document.provider_pid = pids.provider.map(ToString::to_string);
    document
}

/// One path segment, percent-encoded.
#[must_use]
pub fn segment(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        // `:` is legal in a segment and pids are often URNs, which read better so.
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn to_letter(path: String, document: &dsp::Message) -> Letter {
    let body = serde_json::to_value(document).unwrap_or(Value::Null);
    Letter { path, body }
}

/// Writes a negotiation message. Spec: DSP 2025-1, Contract Negotiation HTTPS Binding.
#[must_use]
pub fn negotiation_letter(message: &negotiation::Message, pids: Pids<'_>) -> Letter {
    use negotiation::Message as M;
    let at = |suffix: &str| match pids.peer {
        Some(peer) => format!("/negotiations/{}/{suffix}", segment(peer.as_str())),
        None => format!("/negotiations/{suffix}"),
    };
    match message {
        M::Request { offer } => {
            let mut document = base("ContractRequestMessage", pids);
            document.offer = Some(message_offer(offer));
            if pids.peer.is_none() {
                document.callback_address = Some(pids.callback.to_owned());
            }
            to_letter(at("request"), &document)
        }
        M::Offer { offer } => {
            let mut document = base("ContractOfferMessage", pids);
            document.offer = Some(message_offer(offer));
            if pids.peer.is_none() {
                document.callback_address = Some(pids.callback.to_owned());
            }
            to_letter(at("offers"), &document)
        }
        M::Accepted | M::Finalized => {
            let mut document = base("ContractNegotiationEventMessage", pids);
            let event = if matches!(message, M::Accepted) { "ACCEPTED" } else { "FINALIZED" };
            document.event_type = Some(event.to_owned());
            to_letter(at("events"), &document)
        }
        M::Agreement { agreement } => {
            let mut document = base("ContractAgreementMessage", pids);
            document.agreement = Some(typed_operands(agreement.policy.clone()));
            to_letter(at("agreement"), &document)
        }
        M::Verification => to_letter(at("agreement/verification"), &base("ContractAgreementVerificationMessage", pids)),
        M::Termination { code, reason } => {
            let mut document = base("ContractNegotiationTerminationMessage", pids);
            document.code.clone_from(code);
            document.reason = reason.iter().cloned().map(Value::String).collect();
            to_letter(at("termination"), &document)
        }
    }
}

/// A policy with its right operands as the message schemas want them: a bare number or truth value, which they refuse,
/// becomes a typed value of the same meaning.
#[must_use]
pub fn typed_operands(policy: PolicyDocument) -> PolicyDocument {
    let mut value = policy.to_value();
    type_operands(&mut value);
    PolicyDocument::from_value(value).unwrap_or(policy)
}

/// Depth is bounded by whoever parsed the policy.
fn type_operands(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, member) in map {
                match member {
                    Value::Array(items) if name == "rightOperand" => items.iter_mut().for_each(type_literal),
                    literal if name == "rightOperand" => type_literal(literal),
                    other => type_operands(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(type_operands),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn type_literal(value: &mut Value) {
    let kind = match value {
        Value::Bool(_) => "xsd:boolean",
        Value::Number(number) if number.is_f64() => "xsd:double",
        Value::Number(_) => "xsd:integer",
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => return,
    };
    *value = json!({ "@value": value.to_string(), "@type": kind });
}

/// Inside a message an offer has its type, id and target.
fn message_offer(offer: &Offer) -> PolicyDocument {
    let policy = typed_operands(offer.policy.clone()).with("@type", "Offer").with("@id", offer.id.as_str());
    policy::said_of_all(policy, "target", offer.target.as_str())
}

/// Writes a transfer message. Spec: DSP 2025-1, Transfer Process HTTPS Binding.
#[must_use]
pub fn transfer_letter(message: &transfer::Message, pids: Pids<'_>) -> Letter {
    use transfer::Message as M;
    let at = |suffix: &str| match pids.peer {
        Some(peer) => format!("/transfers/{}/{suffix}", segment(peer.as_str())),
        None => format!("/transfers/{suffix}"),
    };
    match message {
        M::Request { agreement, format, data_address, purpose } => {
            let mut document = base("TransferRequestMessage", pids);
            if !purpose.is_empty() {
                document.extra.insert(PURPOSE.to_owned(), purpose.clone().into());
            }
            document.agreement_id = Some(agreement.to_string());
            document.format = Some(format.clone());
            document.data_address = data_address.as_ref().map(address_document);
            document.callback_address = Some(pids.callback.to_owned());
            to_letter(at("request"), &document)
        }
        M::Start { data_address } => {
            let mut document = base("TransferStartMessage", pids);
            document.data_address = data_address.as_ref().map(address_document);
            to_letter(at("start"), &document)
        }
        M::Completion => to_letter(at("completion"), &base("TransferCompletionMessage", pids)),
        M::Suspension { code, reason } | M::Termination { code, reason } => {
            let suspended = matches!(message, M::Suspension { .. });
            let kind = if suspended { "TransferSuspensionMessage" } else { "TransferTerminationMessage" };
            let mut document = base(kind, pids);
            document.code.clone_from(code);
            document.reason = reason.iter().cloned().map(Value::String).collect();
            to_letter(at(if suspended { "suspension" } else { "termination" }), &document)
        }
    }
}

/// The acknowledgement of a negotiation message, and the answer to a question for its state.
///
/// Spec: DSP 2025-1, Contract Negotiation.
#[must_use]
pub fn negotiation_ack(negotiation: &negotiation::Negotiation) -> Value {
    let mut document = dsp::Message::new("ContractNegotiation");
    document.consumer_pid = negotiation.consumer_pid().map(ToString::to_string);
    document.provider_pid = negotiation.provider_pid().map(ToString::to_string);
    document.state = Some(dsp_state(negotiation.state.name().as_str(), negotiation.role, "OFFERED").to_owned());
    serde_json::to_value(document).unwrap_or(Value::Null)
}

/// The acknowledgement of a transfer message. Spec: DSP 2025-1, Transfer Process.
#[must_use]
pub fn transfer_ack(transfer: &transfer::Transfer) -> Value {
    let mut document = dsp::Message::new("TransferProcess");
    document.consumer_pid = transfer.consumer_pid().map(ToString::to_string);
    document.provider_pid = transfer.provider_pid().map(ToString::to_string);
    document.state = Some(dsp_state(transfer.state.name().as_str(), transfer.role, "REQUESTED").to_owned());
    serde_json::to_value(document).unwrap_or(Value::Null)
}

/// `INITIAL` is ours alone: to the peer, the message that it already has has made the state.
fn dsp_state(name: &'static str, role: negotiation::Role, provider_initial: &'static str) -> &'static str {
    match (name, role) {
        ("INITIAL", negotiation::Role::Provider) => provider_initial,
        ("INITIAL", negotiation::Role::Consumer) => "REQUESTED",
        (name, _) => name,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared(value: Value) -> Result<Vec<String>, Refusal> {
        let body = json!({ "@context": dsp::context(), "@type": "TransferRequestMessage", PURPOSE: value });
        purpose(&parse(body.to_string().as_bytes(), "TransferRequestMessage")?.document)
    }

    #[test]
    fn a_purpose_is_read_however_it_is_written_and_bounded() {
        for written in
            [json!("urn:p:1"), json!(["urn:p:1"]), json!({ "@id": "urn:p:1" }), json!([{ "@value": "urn:p:1" }])]
        {
            assert_eq!(declared(written.clone()).unwrap(), ["urn:p:1"], "{written}");
        }
        assert_eq!(declared(json!([])).unwrap(), Vec::<String>::new());
        for wrong in
            [json!(1), json!([null]), json!(""), json!("a\u{1}b"), json!("x".repeat(3000)), json!(vec!["p"; 17])]
        {
            assert_eq!(declared(wrong.clone()).unwrap_err().fault, Fault::Malformed, "{wrong}");
        }
    }

    #[test]
    fn a_declared_purpose_travels_with_the_request() {
        let message = transfer::Message::Request {
            agreement: AgreementId::parse("urn:a").unwrap(),
            format: "HttpData-PULL".to_owned(),
            data_address: None,
            purpose: vec!["urn:p:1".to_owned(), "urn:p:2".to_owned()],
        };
        let pids = Pids { consumer: None, provider: None, peer: None, callback: "https://c.example", id: "urn:m" };
        let sent = transfer_letter(&message, pids).body;
        let read = parse(sent.to_string().as_bytes(), "TransferRequestMessage").unwrap().document;
        assert_eq!(purpose(&read).unwrap(), ["urn:p:1", "urn:p:2"]);
    }
}
