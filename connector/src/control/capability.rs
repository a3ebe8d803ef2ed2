//! What we enforce, as a document for our operator and our peers; and what a peer says that it
//! enforces, where a policy leaves a part to it alone.

use bytes::Bytes;
use kontor_core::effect::Record;
use kontor_core::id::ParticipantId;
use kontor_core::negotiation::{Negotiation, Role};
use kontor_core::policy::{self, Capabilities, CapabilityDocument};
use kontor_core::refusal::{Fault, Refusal};
use serde::{Deserialize, Serialize};

use super::Control;
use super::error::ControlError;

/// A capability document and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Whose.
    pub participant: ParticipantId,
    /// What they enforce.
    #[serde(flatten)]
    pub document: CapabilityDocument,
}

impl Control {
    /// What we can hold to, for the operator's questions: as provider, who writes the policies.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.parts.capabilities
    }

    /// What this connector enforces, on either side.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        // Asked of the engine term by term, once: the settings stay as they are.
        self.statement.get_or_init(|| Statement {
            participant: self.participant().clone(),
            document: policy::describe(&self.parts.capabilities),
        })
    }

    /// Where peers read it: beside the messages of the protocol, which knows no such document.
    #[must_use]
    pub fn capabilities_url(&self) -> String {
        format!("{}/capabilities", self.protocol_base())
    }
}

/// What is known of a consumer's connector before an agreement that needs it.
pub(super) enum Assurance {
    /// The policy leaves nothing to the consumer's connector alone.
    NotNeeded,
    /// Agree, and keep this in the record.
    Given(Record),
    /// Do not agree.
    Refused(Refusal),
}

impl Control {
    /// Whether the consumer's connector says that it enforces what the terms on the table leave to
    /// it alone. Asks the peer over the network where there is such a part, and only then.
    ///
    /// # Cancellation
    /// Nothing was changed.
    pub(super) async fn assurance(&self, negotiation: &Negotiation) -> Result<Assurance, ControlError> {
        let Some(offer) = negotiation.offer().filter(|_| negotiation.role == Role::Provider) else {
            return Ok(Assurance::NotNeeded);
        };
        let capabilities = self.capable(Role::Provider);
        let terms = policy::enforceable(&offer.policy, &capabilities)?;
        let needs = policy::needs(&terms, &policy::plan(&terms, &capabilities), Role::Consumer);
        if needs.is_empty() {
            return Ok(Assurance::NotNeeded);
        }
        let list = |needs: &[&policy::Need]| needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let all: Vec<&policy::Need> = needs.iter().collect();
        let record = |words: String| Assurance::Given(Record::new("negotiation.peer-capability", words));
        match self.peer_statement(&negotiation.counterparty, &negotiation.peer_address).await {
            Ok(statement) => {
                let missing: Vec<&policy::Need> =
                    needs.iter().filter(|need| !statement.document.claims(need, Role::Consumer)).collect();
                if missing.is_empty() {
                    return Ok(record(format!("the consumer's connector says that it enforces {}", list(&all))));
                }
                let message = format!("the consumer's connector does not say that it enforces {}", list(&missing));
                Ok(Assurance::Refused(unassured(message)))
            }
            // The one thing that is taken on trust, by name and on record.
            Err(why) if self.parts.consumers_on_trust.contains(&negotiation.counterparty) => Ok(record(format!(
                "nobody knows whether the consumer's connector enforces {} ({why}); the setting \
                 `policy.consumers_on_trust` takes it on trust",
                list(&all)
            ))),
            Err(why) => {
                let message =
                    format!("it is not known whether the consumer's connector enforces {} ({why})", list(&all));
                Ok(Assurance::Refused(unassured(message)))
            }
        }
    }

    /// What a peer says that it enforces.
    async fn peer_statement(&self, peer: &ParticipantId, address: &str) -> Result<Statement, String> {
        let request = http::Request::get(format!("{address}/capabilities"))
            .header(http::header::ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(|error| error.to_string())?;
        let response = self.parts.client.send(peer, request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("asked for its capability document, it answered {}", response.status()));
        }
        let statement: Statement = serde_json::from_slice(response.body())
            .map_err(|error| format!("its capability document cannot be read: {error}"))?;
        if statement.document.version != policy::CAPABILITIES_VERSION {
            return Err(format!("its capability document has the unknown version {}", statement.document.version));
        }
        if statement.participant != *peer {
            return Err(format!("its capability document is that of `{}`", statement.participant));
        }
        Ok(statement)
    }
}

fn unassured(message: String) -> Refusal {
    Refusal::new(Fault::Unenforceable, "policy.peer-capability", message)
        .by("what cannot be enforced is refused before an agreement")
        .cure(
            "a connector whose capability document names it, or an entry in the provider's `policy.consumers_on_trust`",
        )
}
