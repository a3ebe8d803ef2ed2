//! SPARQL 1.1 Protocol, query operation only.

use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use kontor_wire::problem::Problem;

use super::{Broker, bounded, failed};
use crate::query::QueryRefusal;
use crate::store::{Answer, GraphFormat, QueryError, QueryTask, ResultFormat};

/// Graphs that a request can name, of each kind.
const GRAPHS_MAX: usize = 16;

pub(super) async fn get(
    State(broker): State<Broker>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let asked = Asked::read(query.as_deref().unwrap_or_default())?;
    answer(&broker, asked, &headers).await
}

pub(super) async fn post(State(broker): State<Broker>, request: Request) -> Result<Response, Response> {
    let (parts, body) = request.into_parts();
    let bytes = bounded(body, broker.registry.ingest_limits().bytes_max).await.map_err(Problem::into_response)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("body", "the body is not UTF-8", "UTF-8 text"))?;
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let asked = match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Asked::read(text)?,
        "application/sparql-query" => {
            Asked { query: Some(text.to_owned()), ..Asked::read(parts.uri.query().unwrap_or_default())? }
        }
        "application/sparql-update" => return Err(refuse(&QueryError::Update.into())),
        _ => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media-type",
                format!("`{kind}` is no query"),
            )
            .at("Content-Type")
            .by("SPARQL 1.1 Protocol, 2.1")
            .cure("`application/sparql-query` or `application/x-www-form-urlencoded`")
            .into_response());
        }
    };
    answer(&broker, asked, &parts.headers).await
}

#[derive(Default)]
struct Asked {
    query: Option<String>,
    default_graphs: Vec<String>,
    named_graphs: Vec<String>,
}

impl Asked {
    fn read(pairs: &str) -> Result<Self, Response> {
        let mut asked = Self::default();
        for (name, value) in url::form_urlencoded::parse(pairs.as_bytes()) {
            match name.as_ref() {
                "query" if asked.query.is_some() => {
                    return Err(bad("query", "there is more than one query", "exactly one `query`"));
                }
                "query" => asked.query = Some(value.into_owned()),
                "default-graph-uri" => asked.default_graphs.push(value.into_owned()),
                "named-graph-uri" => asked.named_graphs.push(value.into_owned()),
                "update" => return Err(refuse(&QueryError::Update.into())),
                other => {
                    let cure = "`query`, `default-graph-uri` or `named-graph-uri`";
                    return Err(bad(other, &format!("`{other}` means nothing here"), cure));
                }
            }
        }
        if asked.default_graphs.len().max(asked.named_graphs.len()) > GRAPHS_MAX {
            let cure = format!("at most {GRAPHS_MAX}, or `FROM` and `GRAPH` in the query");
            return Err(bad("default-graph-uri", "too many graphs are named", &cure));
        }
        Ok(asked)
    }
}

fn bad(field: &str, detail: &str, cure: &str) -> Response {
    Problem::new(StatusCode::BAD_REQUEST, "bad-query-request", detail)
        .at(field)
        .by("SPARQL 1.1 Protocol, 2.1")
        .cure(cure)
        .into_response()
}

async fn answer(broker: &Broker, asked: Asked, headers: &HeaderMap) -> Result<Response, Response> {
    let Some(text) = asked.query else {
        return Err(bad("query", "there is no query", "`/sparql?query=` and a SPARQL 1.1 query"));
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    let task = QueryTask {
        text,
        default_graphs: asked.default_graphs,
        named_graphs: asked.named_graphs,
        results: negotiate(accept, RESULTS),
        graph: negotiate(accept, GRAPHS),
        rows_max: usize::MAX,
        bytes_max: usize::MAX,
        made_bytes_max: usize::MAX,
        held_values_max: usize::MAX,
    };
    let Answer { media_type, bytes, .. } = broker.queries.run(task).await.map_err(|error| refuse(&error))?;
    Ok(([(header::CONTENT_TYPE, media_type), (header::VARY, "Accept")], bytes).into_response())
}

const RESULTS: &[(&str, ResultFormat)] = &[
    ("application/sparql-results+json", ResultFormat::Json),
    ("application/json", ResultFormat::Json),
    ("application/sparql-results+xml", ResultFormat::Xml),
    ("application/xml", ResultFormat::Xml),
    ("text/csv", ResultFormat::Csv),
    ("text/tab-separated-values", ResultFormat::Tsv),
];
const GRAPHS: &[(&str, GraphFormat)] = &[
    ("text/turtle", GraphFormat::Turtle),
    ("application/n-triples", GraphFormat::NTriples),
    ("text/plain", GraphFormat::NTriples),
    ("application/ld+json", GraphFormat::JsonLd),
    ("application/json", GraphFormat::JsonLd),
];

/// The offer that the caller likes best; where it likes several the same, the first of ours.
fn negotiate<T: Copy>(accept: &str, offers: &[(&str, T)]) -> Option<T> {
    let mut best: Option<(f32, T)> = None;
    for (media_type, offer) in offers {
        // RFC 9110, 12.5.1: the most specific range decides an offer's quality.
        let mut found: Option<(u8, f32)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality =
                parts.find_map(|part| part.strip_prefix("q=")).and_then(|text| text.parse().ok()).unwrap_or(1.0_f32);
            let group = media_type.split('/').next().unwrap_or_default();
            let specific = match name.as_str() {
                "*/*" | "" => 1,
                name if name == *media_type => 3,
                name if name.strip_suffix("/*") == Some(group) => 2,
                _ => 0,
            };
            if specific > found.map_or(0, |(specific, _)| specific) {
                found = Some((specific, quality));
            }
        }
        let quality = found.map_or(0.0, |(_, quality)| quality);
        if quality > best.map_or(0.0, |(quality, _)| quality) {
            best = Some((quality, *offer));
        }
    }
    best.map(|(_, offer)| offer)
}

/// The one place where a query's refusals become HTTP.
pub(super) fn refuse(error: &QueryRefusal) -> Response {
    let detail = error.to_string();
    let too_much = |kind: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, detail.clone()).at("query");
    let problem = match error {
        QueryRefusal::TextTooLong(max) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "query-too-long", detail)
            .at("query")
            .by("limits.query_text_bytes")
            .cure(format!("at most {max} bytes")),
        QueryRefusal::Nesting(max) => {
            too_much("query-nested-too-deep").by("limits.query_nesting").cure(format!("at most {max} levels"))
        }
        QueryRefusal::Joints(max) => {
            too_much("query-too-joined").by("limits.query_joints").cure(format!("at most {max} of them"))
        }
        QueryRefusal::Time(_) => too_much("query-too-slow").by("limits.query_ms").cure("a narrower pattern"),
        QueryRefusal::Busy(_) => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
                .by("limits.concurrent_queries")
                .cure("the same query in a second");
            return ([(header::RETRY_AFTER, "1")], problem).into_response();
        }
        QueryRefusal::Evaluation(error) => match error {
            QueryError::Syntax(_) => Problem::new(StatusCode::BAD_REQUEST, "not-sparql", detail)
                .at("query")
                .by("SPARQL 1.1 Query Language")
                .cure("a query that the grammar allows"),
            QueryError::Update => Problem::new(StatusCode::FORBIDDEN, "read-only", detail)
                .at("query")
                .by("descriptions change only through `/v1/self-description`, by their owner")
                .cure("SELECT, ASK, CONSTRUCT or DESCRIBE"),
            QueryError::Service => Problem::new(StatusCode::FORBIDDEN, "no-federation", detail)
                .at("query")
                .by("the broker sends no requests for its callers")
                .cure("the same query without `SERVICE`"),
            QueryError::GraphName(_) => Problem::new(StatusCode::BAD_REQUEST, "bad-graph", detail)
                .at("default-graph-uri")
                .cure("the URI of a participant"),
            QueryError::NotAcceptable(_) => Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail)
                .at("Accept")
                .cure(
                    "`application/sparql-results+json`, `application/sparql-results+xml`, `text/csv` or `text/tab-separated-values` \
                     for SELECT and ASK; `text/turtle`, `application/n-triples` or `application/ld+json` for CONSTRUCT and DESCRIBE",
                ),
            QueryError::TooManyRows(max) => {
                too_much("too-many-rows").by("limits.query_rows").cure(format!("`LIMIT {max}` or less"))
            }
            QueryError::TooManyBytes(max) => {
                too_much("answer-too-large").by("limits.query_bytes").cure(format!("a `LIMIT` that fits {max} bytes"))
            }
            QueryError::LongText(max) => {
                too_much("query-makes-too-much").by("limits.query_made_bytes").cure(format!("texts of at most {max} bytes"))
            }
            QueryError::LongReplace(text, replacement) => too_much("query-makes-too-much")
                .by("`REPLACE` looks through short texts, because what it makes can be as long as their product")
                .cure(format!(
                    "texts of at most {text} bytes (such as `IF(STRLEN(?x) < {}, REPLACE(?x, …), ?x)`) and \
                     replacements of at most {replacement}",
                    text / 4
                )),
            QueryError::TooMuchText(max) => too_much("query-makes-too-much")
                .by("limits.query_made_bytes")
                .cure(format!("at most {max} bytes over all rows: fewer rows or shorter texts")),
            QueryError::OpenPath(_) => too_much("query-path-open")
                .by("the pairs that `*` and `+`, and sequences within `|` and `?`, join everywhere are held all at once")
                .cure("an end of the path that is bound in the same braces: by its IRI, a triple pattern or `VALUES`"),
            QueryError::TooManyHeld(max) => too_much("query-holds-too-much")
                .by("limits.query_held_values")
                .cure(format!(
                    "at most {max}, rows times variables, in ORDER BY, DISTINCT, GROUP BY, OPTIONAL, MINUS, parts in braces and \
                     products of patterns that share no variable: a narrower pattern"
                )),
            QueryError::Cancelled => too_much("query-too-slow").by("limits.query_ms").cure("a narrower pattern"),
            QueryError::Failed(_) => failed(error),
        },
    };
    problem.into_response()
}
