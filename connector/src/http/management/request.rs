//! What a request says, in its path, its query and its body. What cannot be read is refused as a problem that names
//! the field, the rule and what would have passed.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{self, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use kontor_core::refusal::{Fault, Refusal};
use kontor_wire::problem::Problem;
use serde::de::DeserializeOwned;

use super::Failure;

/// The variables of a path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let extract::Path(path) = extract::Path::from_request_parts(parts, state).await.map_err(|rejection| {
            Refusal::new(Fault::Malformed, "path", rejection.body_text())
                .at("path")
                .by("a path is UTF-8, percent-encoded")
                .cure("an identifier such as `urn:uuid:…`, with `/` as `%2F`")
        })?;
        Ok(Self(path))
    }
}

/// The parameters of a query. Those of a route refuse names that they do not know: a filter that is misspelt would
/// answer with everything.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let extract::Query(query) = extract::Query::try_from_uri(&parts.uri).map_err(|rejection| {
            // axum says first that it is the query, and serde then at which parameter.
            let text = rejection.body_text();
            let told = text.split_once(": ").map_or(text.as_str(), |(_, told)| told);
            let names = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
            let at = told.split_once(": ").filter(|(at, _)| names.into_iter().any(|(name, _)| name == *at));
            let (field, message) = at.map_or((None, told), |(name, message)| (Some(name), message));
            Told::of(message).refusal("query", field)
        })?;
        Ok(Self(query))
    }
}

/// A whole body.
pub(super) fn bytes(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Failure> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(rejection.status(), "too-large", "the body is too large")
            .at("body")
            .by("limits.body_bytes_max")
            .cure("a body of no more bytes than the setting `limits.body_bytes_max`")
            .into(),
        _ => Refusal::new(Fault::Malformed, "body", rejection.body_text())
            .at("body")
            .by("a body comes whole")
            .cure("the same request, sent to its end")
            .into(),
    })
}

/// Reads a JSON body; an unknown member is an error that names it.
pub(crate) fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = bytes(body)?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let mut reader = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        match error.inner().classify() {
            serde_json::error::Category::Data => {
                Told::of(&message).refusal("body", Some(path.as_str()).filter(|path| *path != "."))
            }
            // Where it stopped is in the message, and no member.
            _ => Told { message: &message, name: None, rule: "the body is JSON", cure: "a JSON object".to_owned() }
                .refusal("body", None),
        }
        .into()
    })
}

/// The refusal of a value that serde did not read.
pub(super) fn value(place: &str, at: &str, message: &str) -> Refusal {
    Told::of(message).refusal(place, Some(at))
}

/// What serde says of a value, taken apart.
struct Told<'a> {
    message: &'a str,
    /// The member that is missing or not known.
    name: Option<&'a str>,
    rule: &'static str,
    cure: String,
}

impl<'a> Told<'a> {
    fn of(message: &'a str) -> Self {
        let name = message.split('`').nth(1);
        let expected = message.split_once("expected ").map(|(_, rest)| rest.split(" at line ").next().unwrap_or(rest));
        if let (true, Some(name)) = (message.starts_with("missing field"), name) {
            let rule = "what has no default must be there";
            return Self { message, name: Some(name), rule, cure: format!("the same with `{name}`") };
        }
        if message.starts_with("unknown field") {
            let cure = expected.unwrap_or("none at all").to_owned();
            return Self { message, name, rule: "there is nothing beside what is known here", cure };
        }
        if let (true, Some(name)) = (message.starts_with("duplicate field"), name) {
            return Self { message, name: Some(name), rule: "everything comes once", cure: format!("`{name}` once") };
        }
        let number = ["invalid digit", "number too", "cannot parse integer"];
        let cure = match expected {
            Some(expected) if expected.starts_with("struct ") => "a JSON object".to_owned(),
            Some(expected) => expected.to_owned(),
            None if number.iter().any(|words| message.starts_with(words)) => "a whole number from 0".to_owned(),
            None => "a value as the route describes it".to_owned(),
        };
        Self { message, name: None, rule: "a value is of the kind that the route asks for", cure }
    }

    /// `at` is the path of the value; what is missing is below it, and what is not known may end it already.
    fn refusal(self, place: &str, at: Option<&str>) -> Refusal {
        let field = match (at, self.name) {
            (Some(at), Some(name)) if at != name && !at.ends_with(&format!(".{name}")) => format!("{at}.{name}"),
            (Some(at), _) => at.to_owned(),
            (None, name) => name.unwrap_or(place).to_owned(),
        };
        Refusal::new(Fault::Malformed, place, self.message).at(field).by(self.rule).cure(self.cure)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::body::to_bytes;
    use axum::http::Request;
    use axum::response::{IntoResponse, Response};
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[serde(rename = "limit")]
        _limit: Option<u32>,
        #[serde(rename = "kind")]
        _kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Big,
        Small,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sent {
        #[serde(rename = "count")]
        _count: u32,
        #[serde(default, rename = "inner")]
        _inner: Option<Box<Sent>>,
    }

    async fn problem(response: Response) -> Value {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let status = response.status().as_u16();
        let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 4096).await.unwrap()).unwrap();
        assert_eq!(body["status"], status);
        body
    }

    #[tokio::test]
    async fn a_query_that_is_not_understood_names_parameter_rule_and_cure() {
        for (query, field, cure) in [
            ("limit=x", "limit", "a whole number"),
            ("limit=-1", "limit", "a whole number"),
            ("limt=1", "limt", "`limit`"),
            ("kind=huge", "kind", "`big` or `small`"),
            ("limit=1&limit=2", "limit", "once"),
        ] {
            let (mut parts, ()) = Request::get(format!("/things?{query}")).body(()).unwrap().into_parts();
            let failure = Query::<Asked>::from_request_parts(&mut parts, &()).await.map(|_| ()).unwrap_err();
            let body = problem(failure.into_response()).await;
            assert_eq!((&body["status"], &body["field"]), (&json!(400), &json!(field)), "{query}: {body}");
            assert!(body["rule"].is_string(), "{query}: {body}");
            assert!(body["cure"].as_str().unwrap().contains(cure), "{query}: {body}");
        }
        let (mut parts, ()) = Request::get("/things?limit=3&kind=big").body(()).unwrap().into_parts();
        assert!(Query::<Asked>::from_request_parts(&mut parts, &()).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_is_not_understood_names_member_rule_and_cure() {
        for (text, field, cure) in [
            ("{", "body", "a JSON object"),
            ("[]", "body", "a JSON object"),
            ("{}", "count", "with `count`"),
            (r#"{"count":"1"}"#, "count", "u32"),
            (r#"{"cuont":1}"#, "cuont", "`count` or `inner`"),
            (r#"{"count":1,"inner":{}}"#, "inner.count", "with `count`"),
            (r#"{"count":1,"inner":{"count":1,"x":1}}"#, "inner.x", "`count` or `inner`"),
        ] {
            let failure = read::<Sent>(Ok(Bytes::from_static(text.as_bytes()))).map(|_| ()).unwrap_err();
            let body = problem(failure.into_response()).await;
            assert_eq!((&body["status"], &body["field"]), (&json!(400), &json!(field)), "{text}: {body}");
            assert!(body["rule"].is_string(), "{text}: {body}");
            assert!(body["cure"].as_str().unwrap().contains(cure), "{text}: {body}");
        }
    }
}
