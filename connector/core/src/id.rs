//! Identifiers as types, so that a dataset is never passed for an agreement.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest identifier that we accept from a peer, in bytes.
pub const ID_BYTES_MAX: usize = 2048;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing but blanks, or nothing at all.
    #[error("the identifier is empty; a non-empty string would have passed")]
    Empty,
    /// Longer than [`ID_BYTES_MAX`].
    #[error("the identifier has {0} bytes; at most {ID_BYTES_MAX} would have passed")]
    TooLong(usize),
    /// A control character could forge a line in a log.
    #[error("the identifier contains a control character")]
    Control,
    /// Not a URI where the data space wants one.
    #[error("`{0}` is not a URI; `did:web:example.com` or `urn:…` would have passed")]
    NotUri(String),
}

fn checked(text: &str) -> Result<(), IdError> {
    if text.trim().is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes the text.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long or contains control characters.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                checked(&text)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// One side's identifier of a negotiation or transfer (`consumerPid`, `providerPid`).
    ProcessId
}
identifier! {
    /// A dataset of a catalogue (`dcat:Dataset`).
    DatasetId
}
identifier! {
    /// An offer: a policy that a provider puts up for a dataset.
    OfferId
}
identifier! {
    /// An agreement: a policy that both sides hold.
    AgreementId
}
identifier! {
    /// One message that we sent or received; retries carry the same one (`@id`).
    MessageId
}

/// A participant of the data space: a URI, such as `did:web:provider.example` or `urn:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParticipantId(String);

impl ParticipantId {
    /// Checks and takes a participant's URI. It is compared byte by byte, never normalised.
    ///
    /// # Errors
    /// [`IdError`] when the text has no URI scheme, or is no identifier at all.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        checked(&text)?;
        let scheme_ok = text.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
        if !scheme_ok || text.contains(char::is_whitespace) {
            return Err(IdError::NotUri(text));
        }
        Ok(Self(text))
    }

    /// Takes a name that is no URI, for profiles whose name says `insecure` and for tests of
    /// foreign peers that name themselves so.
    ///
    /// # Errors
    /// [`IdError`] when the text is no identifier at all.
    pub fn parse_insecure(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        checked(&text)?;
        Ok(Self(text))
    }

    /// The participant as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ParticipantId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        // What was stored was parsed before; insecure names must come back from the store too.
        Self::parse_insecure(text)
    }
}

impl From<ParticipantId> for String {
    fn from(id: ParticipantId) -> Self {
        id.0
    }
}

impl fmt::Display for ParticipantId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
