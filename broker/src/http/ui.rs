//! Pages for people: plain HTML, no scripts, everything escaped.

use std::fmt::Write as _;

use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Response};
use http::{StatusCode, header};
use kontor_wire::problem::Problem;
use serde::Deserialize;
use serde_json::Value;

use super::catalog::{Asked, asked, bad_parameter, end, find, list_datasets, list_participants};
use super::registry::instant;
use super::{Broker, sparql};
use crate::store::{GraphFormat, QueryTask, ResultFormat};

const EXAMPLE: &str = "PREFIX dcat: <http://www.w3.org/ns/dcat#>
PREFIX dct: <http://purl.org/dc/terms/>
PREFIX dspace: <https://w3id.org/dspace/2025/1/>
SELECT ?title ?participant ?endpoint ?dataset WHERE {
  ?catalog dcat:dataset ?dataset ; dspace:participantId ?participant ;
           dcat:service/dcat:endpointURL ?endpoint .
  ?dataset dct:title ?title .
} ORDER BY ?title LIMIT 100";

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><link rel=\"stylesheet\" href=\"/style.css\"></head><body>\n{body}\n</body></html>\n",
        title = escape(title)
    ))
}

fn sparql_form(text: &str) -> String {
    format!(
        "<h2>SPARQL</h2><form action=\"/query\"><label for=\"sparql\">Query over all active descriptions</label>\
         <textarea id=\"sparql\" name=\"query\" rows=\"10\" spellcheck=\"false\">{}</textarea><button>Run</button></form>",
        escape(text)
    )
}

pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../ui/style.css")).into_response()
}

pub(super) async fn index(
    State(broker): State<Broker>,
    parameters: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Html<String>, Problem> {
    let (asked, window) = asked(parameters, &["q"])?;
    let text = asked.q.unwrap_or_default();
    // Where each list goes on that does.
    let mut ends = Vec::new();
    let mut body = format!(
        "<h1>Kontor broker</h1><p><code>{}</code> · connectors register at <code>{}</code></p>\
         <form action=\"/\"><label for=\"q\">Search titles, descriptions and keywords</label>\
         <input id=\"q\" name=\"q\" type=\"search\" value=\"{}\"><button>Search</button></form>",
        escape(&broker.participant),
        escape(&broker.registry_url),
        escape(&text)
    );
    if !text.is_empty() {
        let found = find(broker.clone(), &text, window).await?;
        ends.extend(end(&found, window));
        let _ = write!(body, "<h2>{} found</h2><ul>", found.total);
        for item in &found.items {
            let _ = write!(
                body,
                "<li><strong>{}</strong> {}<br><code>{}</code> from <code>{}</code> at <code>{}</code></li>",
                escape(item.title.as_deref().unwrap_or("without a title")),
                escape(item.description.as_deref().unwrap_or_default()),
                escape(item.dataset.as_deref().unwrap_or("participant")),
                escape(&item.participant),
                escape(&item.endpoint)
            );
        }
        body.push_str("</ul>");
    }
    let participants = list_participants(broker.clone(), window).await?;
    ends.extend(end(&participants, window));
    let _ = write!(
        body,
        "<h2>Participants ({})</h2><table><tr><th>Title<th>Participant<th>Endpoint<th>Datasets<th>Lease until</tr>",
        participants.total
    );
    for row in &participants.items {
        let _ = write!(
            body,
            "<tr><td>{}<td><code>{}</code><td><code>{}</code><td>{}<td>{}</tr>",
            escape(row.title.as_deref().unwrap_or_default()),
            escape(&row.participant),
            escape(&row.endpoint),
            row.datasets,
            instant(row.lease_until_ms)
        );
    }
    let datasets = list_datasets(broker, None, window).await?;
    ends.extend(end(&datasets, window));
    let _ = write!(
        body,
        "</table><h2>Datasets ({})</h2><table><tr><th>Title<th>Description<th>Keywords<th>Dataset<th>Participant</tr>",
        datasets.total
    );
    for row in &datasets.items {
        let _ = write!(
            body,
            "<tr><td>{}<td>{}<td>{}<td><code>{}</code><td><code>{}</code></tr>",
            escape(&row.title),
            escape(row.description.as_deref().unwrap_or_default()),
            escape(&row.keywords.join(", ")),
            escape(&row.dataset),
            escape(&row.participant)
        );
    }
    body.push_str("</table>");
    // One link for all of them: nothing is left out, and a list that is ahead shows some entries again.
    if let Some(end) = ends.into_iter().min() {
        let next = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("q", &text)
            .append_pair("limit", &window.limit.to_string())
            .append_pair("offset", &end.to_string())
            .finish();
        let _ = write!(body, "<p><a href=\"/?{}\">more</a></p>", escape(&next));
    }
    body.push_str(&sparql_form(EXAMPLE));
    Ok(page("Kontor broker", &body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asking {
    query: Option<String>,
}

pub(super) async fn query(
    State(broker): State<Broker>,
    parameters: Result<Query<Asking>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let asking = match parameters {
        Ok(Query(asking)) => asking,
        Err(error) => return bad_parameter(error.body_text(), "`query`").into_response(),
    };
    let Some(text) = asking.query else {
        return page("SPARQL", &sparql_form(EXAMPLE)).into_response();
    };
    let task = QueryTask {
        text: text.clone(),
        default_graphs: Vec::new(),
        named_graphs: Vec::new(),
        results: Some(ResultFormat::Json),
        graph: Some(GraphFormat::Turtle),
        rows_max: 1000,
        bytes_max: 1 << 20,
        made_bytes_max: usize::MAX,
        held_values_max: usize::MAX,
    };
    let mut body = "<p><a href=\"/\">Kontor broker</a></p>".to_owned();
    let status = match broker.queries.run(task).await {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.bytes);
            body.push_str(
                &serde_json::from_str(&text)
                    .map_or_else(|_| format!("<pre>{}</pre>", escape(&text)), |json| table(&json)),
            );
            StatusCode::OK
        }
        Err(error) => {
            let _ = write!(body, "<p class=\"refused\">{}</p>", escape(&error.to_string()));
            sparql::refuse(&error).status()
        }
    };
    body.push_str(&sparql_form(&text));
    (status, page("SPARQL", &body)).into_response()
}

/// SPARQL results in JSON as an HTML table.
fn table(results: &Value) -> String {
    if let Some(value) = results["boolean"].as_bool() {
        return format!("<p>{}</p>", if value { "yes" } else { "no" });
    }
    let names: Vec<&str> = results["head"]["vars"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut out = "<table><tr>".to_owned();
    for name in &names {
        let _ = write!(out, "<th>{}", escape(name));
    }
    out.push_str("</tr>");
    for row in results["results"]["bindings"].as_array().into_iter().flatten() {
        out.push_str("<tr>");
        for name in &names {
            let _ = write!(out, "<td>{}", escape(row[*name]["value"].as_str().unwrap_or_default()));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn everything_that_html_reads_is_escaped() {
        assert_eq!(escape("<a href=\"x\" b='y'>&"), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
    }
}
