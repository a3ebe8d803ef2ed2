//! The alphabet of the transfer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::AgreementId;

/// What either side may say in a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "message")]
pub enum Message {
    /// Consumer: asks for the data of an agreement. Spec: Transfer Request Message.
    Request {
        /// Under which agreement.
        agreement: AgreementId,
        /// In which format (`HttpData-PULL`).
        format: String,
        /// Where to push to, for push formats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_address: Option<DataAddress>,
        /// What the data is for, as the consumer declares it. An extension of ours.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        purpose: Vec<String>,
    },
    /// Provider: the data is available; either: goes on after a suspension. Spec: Transfer Start Message.
    Start {
        /// Where to pull from, for pull formats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_address: Option<DataAddress>,
    },
    /// Either: all data was moved. Spec: Transfer Completion Message.
    Completion,
    /// Either: pauses. Spec: Transfer Suspension Message.
    Suspension {
        /// Implementation-specific code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Reasons in words.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        reason: Vec<String>,
    },
    /// Either: ends it. Spec: Transfer Termination Message.
    Termination {
        /// Implementation-specific code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Reasons in words.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        reason: Vec<String>,
    },
}

impl Message {
    /// The name of the message, as the specification spells it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().as_str()
    }
}

/// Where data is, and what opens it. The token does not print.
///
/// Spec: DSP 2025-1, Transfer Process, DataAddress.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataAddress {
    /// `endpointType`.
    pub endpoint_type: String,
    /// `endpoint`: an absolute URL.
    pub endpoint: Option<String>,
    /// The value of the endpoint property `authorization`: a bearer token.
    pub token: Option<String>,
    /// The other endpoint properties, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for DataAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DataAddress")
            .field("endpoint_type", &self.endpoint_type)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .finish_non_exhaustive()
    }
}
