//! The protocol's context as a table: which member is a set, a reference, a term or a text.

use crate::iri::{DCAT, DCT, DSPACE};

/// What the context says of a member's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A set of nodes: always an array.
    Nodes,
    /// One node.
    Node,
    /// One IRI (`@type: @id`).
    Reference,
    /// One term or IRI (`@type: @vocab`).
    Term,
    /// One text.
    Text,
    /// A set of texts: always an array.
    Texts,
    /// A right operand: a text, a typed value, an IRI, or several.
    Operand,
}

/// The shape of a member, by its bare term.
pub(super) fn shape_of(term: &str) -> Option<Shape> {
    Some(match term {
        "permission" | "prohibition" | "obligation" | "duty" | "remedy" | "consequence" | "constraint"
        | "refinement" | "and" | "or" | "xone" | "andSequence" | "hasPolicy" | "distribution" | "dataset"
        | "catalog" | "service" | "endpointProperties" => Shape::Nodes,
        "offer" | "agreement" | "dataAddress" => Shape::Node,
        "target"
        | "assigner"
        | "assignee"
        | "profile"
        | "consumerPid"
        | "providerPid"
        | "agreementId"
        | "participantId"
        | "accessService"
        | "inheritFrom"
        | "attributedParty"
        | "attributingParty"
        | "compensatedParty"
        | "compensatingParty"
        | "consentedParty"
        | "consentingParty"
        | "contractedParty"
        | "contractingParty"
        | "informedParty"
        | "informingParty"
        | "trackedParty"
        | "trackingParty"
        | "output"
        | "relation"
        | "unit"
        | "source"
        | "partOf"
        | "rightOperandReference" => Shape::Reference,
        "action" | "operator" | "leftOperand" | "eventType" | "state" | "format" | "endpointType" | "conflict"
        | "dataType" | "rdf:value" => Shape::Term,
        "callbackAddress"
        | "code"
        | "timestamp"
        | "endpoint"
        | "name"
        | "value"
        | "endpointURL"
        | "endpointDescription"
        | "uid" => Shape::Text,
        "reason" | "filter" => Shape::Texts,
        "rightOperand" | "status" => Shape::Operand,
        _ => return None,
    })
}

/// Whether the name in the namespace has a bare term in the protocol's context.
pub(super) fn is_bare(namespace: &str, name: &str) -> bool {
    match namespace {
        DSPACE => DSPACE_TERMS.contains(&name),
        DCAT => DCAT_TERMS.contains(&name),
        DCT => name == "format",
        _ => false,
    }
}

const DCAT_TERMS: &[&str] = &[
    "Catalog",
    "DataService",
    "Dataset",
    "Distribution",
    "accessService",
    "catalog",
    "dataset",
    "distribution",
    "endpointDescription",
    "endpointURL",
    "service",
];

const DSPACE_TERMS: &[&str] = &[
    "ACCEPTED",
    "AGREED",
    "COMPLETED",
    "CatalogError",
    "CatalogRequestMessage",
    "CatalogService",
    "ContractAgreementMessage",
    "ContractAgreementVerificationMessage",
    "ContractNegotiation",
    "ContractNegotiationError",
    "ContractNegotiationEventMessage",
    "ContractNegotiationTerminationMessage",
    "ContractOfferMessage",
    "ContractRequestMessage",
    "DataAddress",
    "DatasetRequestMessage",
    "EndpointProperty",
    "FINALIZED",
    "OFFERED",
    "REQUESTED",
    "STARTED",
    "SUSPENDED",
    "TERMINATED",
    "TransferCompletionMessage",
    "TransferError",
    "TransferProcess",
    "TransferRequestMessage",
    "TransferStartMessage",
    "TransferSuspensionMessage",
    "TransferTerminationMessage",
    "VERIFIED",
    "VersionsError",
    "agreement",
    "agreementId",
    "callbackAddress",
    "code",
    "consumerPid",
    "dataAddress",
    "dataset",
    "endpoint",
    "endpointProperties",
    "endpointType",
    "eventType",
    "filter",
    "name",
    "offer",
    "participantId",
    "providerPid",
    "reason",
    "state",
    "timestamp",
    "value",
];
