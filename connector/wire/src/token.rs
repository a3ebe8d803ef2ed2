//! Tokens: made, digested, compared, required.

use std::sync::Arc;

use ::http::{HeaderValue, StatusCode, header};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use openssl::base64::encode_block;
use secrecy::{ExposeSecret as _, SecretString};

use crate::problem::Problem;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A new token: 256 random bits from OpenSSL, base64url without padding (43 characters).
///
/// # Panics
/// When OpenSSL has no randomness. There is nothing sensible to do then: a token that can be guessed is worse.
#[must_use]
#[expect(clippy::panic, reason = "a program without randomness must not go on")]
pub fn random_token() -> SecretString {
    let mut bytes = [0; TOKEN_BYTES];
    if let Err(error) = openssl::rand::rand_bytes(&mut bytes) {
        panic!("OpenSSL has no randomness: {error}");
    }
    SecretString::from(encode_block(&bytes).replace('+', "-").replace('/', "_").replace('=', ""))
}

/// SHA-256 of a token in lower-case hex, to be stored in its place.
#[must_use]
pub fn token_digest(token: &str) -> String {
    hex(&openssl::sha::sha256(token.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares two secrets (or digests) in a time that does not depend on where they differ.
#[must_use]
pub fn same_secret(one: &str, other: &str) -> bool {
    // Digests first: the comparison then has one length, and says nothing about the secret's.
    openssl::memcmp::eq(&openssl::sha::sha256(one.as_bytes()), &openssl::sha::sha256(other.as_bytes()))
}

/// Puts a router behind `Authorization: Bearer <token>`; without it: 401 as a problem. Unknown paths answer the same,
/// so that nothing can be probed.
pub fn require_bearer(router: Router, token: SecretString) -> Router {
    let token = Arc::new(token);
    // A fallback of the router's own stays; `layer` covers it too.
    router.layer(from_fn(move |request: Request, next: Next| {
        let token = Arc::clone(&token);
        async move {
            let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let bearer = shown.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| {
                // RFC 9110, section 11.1: the scheme is case-insensitive.
                scheme.eq_ignore_ascii_case("bearer")
            });
            match bearer {
                Some((_, given)) if same_secret(given.trim(), token.expose_secret()) => next.run(request).await,
                Some(_) => unauthorised("the token is not the one of this program"),
                None => unauthorised("the request carries no token"),
            }
        }
    }))
}

fn unauthorised(detail: &str) -> Response {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthorised", detail)
        .at("header Authorization")
        .cure("`Authorization: Bearer <token>` with the token that the program printed or was configured with")
        .into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use axum::routing::get;
    use tower::ServiceExt as _;

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, other) = (random_token(), random_token());
        assert_eq!(one.expose_secret().len(), 43);
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert!(same_secret(one.expose_secret(), one.expose_secret()));
        assert!(!same_secret(one.expose_secret(), other.expose_secret()));
        assert_eq!(token_digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[tokio::test]
    async fn only_the_right_bearer_token_opens() {
        let router = require_bearer(Router::new().route("/", get(|| async { "in" })), SecretString::from("right"));
        let table = [
            (None, "/", 401),
            (Some("Bearer wrong"), "/", 401),
            (Some("Basic right"), "/", 401),
            (Some("right"), "/", 401),
            (None, "/unknown", 401),
            (Some("bearer right"), "/", 200),
            (Some("Bearer right"), "/unknown", 404),
        ];
        for (header, path, status) in table {
            let mut request = Request::builder().uri(path);
            if let Some(value) = header {
                request = request.header("authorization", value);
            }
            let response = router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{header:?} {path}");
        }
    }
}
