//! What is tried with EDC, one function for each check; each says what it found, or what went wrong.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::Checked;
use super::space::{ASSET, DATASETS, EDC, KONTOR, PROTOCOL, RULELESS, Space, data, offer_of};

/// Negotiations in each direction.
const NEGOTIATIONS: usize = 50;
/// How many of them run at once.
const AT_ONCE: usize = 8;

macro_rules! check {
    ($space:expr, $found:expr, $($id:literal => $check:expr),+ $(,)?) => {
        $(
            let began = std::time::Instant::now();
            let outcome = $check($space).await;
            let seconds = began.elapsed().as_secs_f64();
            match &outcome {
                Ok(note) => println!("  passed   {} ({seconds:.1} s): {note}", $id),
                Err(error) => println!("  failed   {} ({seconds:.1} s): {error:#}", $id),
            }
            $found.push(Checked { id: $id, outcome });
        )+
    };
}

/// Runs every check, in order.
pub(crate) async fn all(space: &Space) -> Vec<Checked> {
    let mut found = Vec::new();
    check!(space, found,
        "version.edc-document" => edc_version,
        "version.kontor-document" => kontor_version,
        "catalogue.kontor-reads-edc" => kontor_reads_catalogue,
        "catalogue.edc-reads-kontor" => edc_reads_catalogue,
        "catalogue.edc-reads-kontor-in-parts" => edc_reads_parts,
        "catalogue.edc-asks-kontor-for-one" => edc_filters,
        "catalogue.gzip" => gzip,
        "dataset.kontor-reads-edc" => kontor_reads_dataset,
        "dataset.edc-reads-kontor" => edc_reads_dataset,
        "negotiation.kontor-consumes" => kontor_consumes,
        "negotiation.edc-consumes" => edc_consumes,
        "negotiation.fifty-kontor-consumes" => fifty_kontor_consumes,
        "negotiation.fifty-edc-consumes" => fifty_edc_consumes,
        "rejection.kontor-asks-for-other-terms" => kontor_asks_for_other_terms,
        "rejection.kontor-asks-for-what-is-not-offered" => kontor_asks_for_nothing,
        "rejection.kontor-refuses-an-offer-without-rules" => ruleless,
        "rejection.edc-asks-for-what-is-not-offered" => edc_asks_for_nothing,
        "rejection.edc-asks-for-other-terms-and-kontor-ends" => kontor_ends,
        "rejection.edc-asks-for-other-terms-and-edc-ends" => edc_ends,
        "transfer.edc-pulls-from-kontor" => edc_pulls,
        "transfer.edc-suspends-and-resumes" => edc_suspends,
        "transfer.edc-terminates" => edc_terminates,
        "transfer.kontor-pulls-from-edc" => kontor_pulls,
        "transfer.edc-asks-for-push" => edc_pushes,
        "transfer.kontor-asks-for-push" => kontor_pushes,
    );
    found
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("`{name}` is not there: {value}"))
}

fn many(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

fn ids(catalogue: &Value) -> Vec<String> {
    many(&catalogue["dataset"]).iter().filter_map(|dataset| dataset["@id"].as_str().map(str::to_owned)).collect()
}

// ── versions ──

async fn version_document(space: &Space, base: &str) -> Result<Value> {
    // Nobody says here who asks.
    let answer = space.http.get(format!("{base}/.well-known/dspace-version")).send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "{status}");
    Ok(answer.json().await?)
}

async fn edc_version(space: &Space) -> Result<String> {
    let base = space.edc_protocol.trim_end_matches("/2025-1");
    let document = version_document(space, base).await?;
    let ours = many(&document["protocolVersions"]).into_iter().find(|version| version["version"] == "2025-1");
    let path = ours.as_ref().and_then(|version| version["path"].as_str()).context("no 2025-1")?.to_owned();
    ensure!(format!("{base}{path}") == space.edc_protocol, "the path is `{path}`");
    Ok(format!("2025-1 at `{path}`"))
}

async fn kontor_version(space: &Space) -> Result<String> {
    let base = space.kontor_protocol.trim_end_matches("/dsp/2025-1");
    let document = version_document(space, base).await?;
    let path = text(&document["protocolVersions"][0], "path")?;
    ensure!(format!("{base}{path}") == space.kontor_protocol, "the path is `{path}`");
    Ok(format!("2025-1 at `{path}`, open to everybody"))
}

// ── catalogues ──

async fn edc_catalogue(space: &Space, query: Value) -> Result<Value> {
    let mut body =
        json!({ "counterPartyAddress": space.kontor_protocol, "counterPartyId": KONTOR, "protocol": PROTOCOL });
    if !query.is_null() {
        body["querySpec"] = query;
    }
    space.edc("POST", "/catalog/request", body).await
}

async fn kontor_reads_catalogue(space: &Space) -> Result<String> {
    let asked = json!({ "counterparty": EDC, "address": space.edc_protocol });
    let answer = space.kontor("POST", "/catalog/request", Some(asked)).await?;
    let catalogue = if answer["dataset"].is_null() { &answer["catalog"] } else { &answer };
    let mut found = ids(catalogue);
    found.sort();
    ensure!(found == [ASSET, RULELESS], "{catalogue}");
    Ok("both assets".to_owned())
}

async fn edc_reads_catalogue(space: &Space) -> Result<String> {
    let catalogue = edc_catalogue(space, Value::Null).await?;
    ensure!(ids(&catalogue).len() == DATASETS.len(), "{catalogue}");
    let offers = many(&catalogue["dataset"][0]["hasPolicy"]);
    ensure!(offers.len() == 1 && offers[0].to_string().contains("permission"), "{catalogue}");
    Ok("all datasets, asked for with EDC's own filter".to_owned())
}

async fn edc_reads_parts(space: &Space) -> Result<String> {
    let all = ids(&edc_catalogue(space, Value::Null).await?);
    let mut parts = Vec::new();
    for offset in 0..=all.len() {
        let part = ids(&edc_catalogue(space, json!({ "offset": offset, "limit": 1 })).await?);
        ensure!(part.len() == usize::from(offset < all.len()), "at {offset}: {part:?}");
        parts.extend(part);
    }
    ensure!(parts == all, "{parts:?} is not {all:?}");
    Ok("one by one, by offset and limit".to_owned())
}

async fn edc_filters(space: &Space) -> Result<String> {
    let criterion = |left: &str| json!({ "filterExpression": [{ "@type": "Criterion", "operandLeft": left, "operator": "=", "operandRight": DATASETS[1] }] });
    let found = ids(&edc_catalogue(space, criterion("https://w3id.org/edc/v0.0.1/ns/id")).await?);
    ensure!(found == [DATASETS[1]], "{found:?}");
    let refused = edc_catalogue(space, criterion("https://w3id.org/edc/v0.0.1/ns/name")).await;
    let said = refused.err().context("a condition that is not supported was let through")?.to_string();
    ensure!(said.contains("catalog.filter"), "{said}");
    Ok("by identifier; a condition on anything else is refused by name".to_owned())
}

async fn gzip(space: &Space) -> Result<String> {
    let answer = space
        .http
        .post(format!("{}/catalog/request", space.kontor_protocol))
        .header("authorization", json!({ "region": "eu", "clientId": EDC }).to_string())
        .header("accept-encoding", "gzip")
        .json(
            &json!({ "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage" }),
        )
        .send()
        .await?;
    let encoding = answer.headers().get("content-encoding").cloned();
    ensure!(encoding.as_ref().is_some_and(|encoding| encoding == "gzip"), "{encoding:?}");
    Ok("EDC asks for it in every request, and reads it".to_owned())
}

async fn kontor_reads_dataset(space: &Space) -> Result<String> {
    let asked = json!({ "counterparty": EDC, "address": space.edc_protocol, "dataset": ASSET });
    let dataset = space.kontor("POST", "/catalog/dataset", Some(asked)).await?;
    ensure!(dataset["@id"] == ASSET && !many(&dataset["hasPolicy"]).is_empty(), "{dataset}");
    let formats: Vec<String> =
        many(&dataset["distribution"]).iter().filter_map(|one| one["format"].as_str().map(str::to_owned)).collect();
    ensure!(formats.iter().any(|format| format == "HttpData-PULL"), "{formats:?}");
    Ok(format!("formats {}", formats.join(", ")))
}

async fn edc_reads_dataset(space: &Space) -> Result<String> {
    let asked = json!({ "@type": "DatasetRequest", "@id": DATASETS[0], "counterPartyAddress": space.kontor_protocol,
        "counterPartyId": KONTOR, "protocol": PROTOCOL });
    let dataset = space.edc("POST", "/catalog/dataset/request", asked).await?;
    ensure!(dataset["@id"] == DATASETS[0], "{dataset}");
    Ok("with its offer".to_owned())
}

// ── negotiations ──

const NEGOTIATION_ENDS: [&str; 2] = ["FINALIZED", "TERMINATED"];

/// Kontor asks EDC for its open asset; returns Kontor's identifier.
async fn kontor_asks(space: &Space) -> Result<String> {
    let asked = json!({ "counterparty": EDC, "address": space.edc_protocol, "dataset": ASSET });
    let begun = space.kontor("POST", "/negotiations", Some(asked)).await?;
    Ok(text(&begun, "id")?.to_owned())
}

/// EDC asks Kontor; returns EDC's identifier.
async fn edc_asks(space: &Space, offer: &str, dataset: &str, permission: Value) -> Result<String> {
    let policy = json!({ "@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Offer", "@id": offer,
        "assigner": KONTOR, "target": dataset, "permission": [permission] });
    let asked = json!({ "counterPartyAddress": space.kontor_protocol, "counterPartyId": KONTOR, "protocol": PROTOCOL,
        "policy": policy });
    let begun = space.edc("POST", "/contractnegotiations", asked).await?;
    Ok(text(&begun, "@id")?.to_owned())
}

async fn edc_asks_for(space: &Space, dataset: &str) -> Result<String> {
    edc_asks(space, &offer_of(dataset), dataset, json!({ "action": "use" })).await
}

/// Terms that Kontor does not offer, and understands.
fn other_terms() -> Value {
    json!({ "action": "use", "constraint": [
        { "leftOperand": "dateTime", "operator": "lt", "rightOperand": "2999-01-01T00:00:00Z" },
    ] })
}

/// An agreement in force, as each side calls it.
struct Agreed {
    kontor: String,
    /// EDC's own record of it.
    edc: String,
}

/// How one negotiation ended on both sides.
enum Ended {
    Finalized(Agreed),
    /// EDC ended it and both know, or it forgot what it took.
    ByEdc(String),
    /// Everything else is ours.
    Lost(String),
}

async fn judge(space: &Space, kontor: &Value, edc: &Value) -> Result<Ended> {
    let (ours, theirs) = (text(kontor, "state")?, text(edc, "state")?);
    let refused_itself = edc["errorDetail"].as_str().is_some_and(|why| why.contains("must not send"));
    if (ours, theirs) == ("FINALIZED", "TERMINATED") && refused_itself {
        let why = "sent the same move twice, and ended what was FINALIZED when the second was refused";
        return Ok(Ended::ByEdc(why.to_owned()));
    }
    if ours != theirs {
        return Ok(Ended::Lost(format!("Kontor says {ours}, EDC says {theirs}: {kontor} {edc}")));
    }
    if ours == "FINALIZED" {
        let ours = text(&kontor["agreement"], "id")?;
        let path = format!("/contractnegotiations/{}/agreement", text(edc, "@id")?);
        let agreement = space.edc("GET", &path, Value::Null).await?;
        let theirs = text(&agreement, "agreementId")?;
        if ours != theirs {
            return Ok(Ended::Lost(format!("Kontor's agreement is {ours}, EDC's {theirs}")));
        }
        return Ok(Ended::Finalized(Agreed { kontor: ours.to_owned(), edc: text(&agreement, "@id")?.to_owned() }));
    }
    if kontor["why"]["by"] == kontor["role"] {
        return Ok(Ended::Lost(format!("Kontor ended it: {}", kontor["why"])));
    }
    // Behind the colon follows what the peer answered, in full.
    let why = edc["errorDetail"].as_str().and_then(|why| why.split(':').next());
    Ok(Ended::ByEdc(why.unwrap_or("without a reason").to_owned()))
}

async fn one_that_kontor_begins(space: &Space) -> Result<Ended> {
    let here = kontor_asks(space).await?;
    let ours = space.kontor_in("negotiations", &here, &NEGOTIATION_ENDS).await?;
    compare(space, &ours).await
}

async fn one_that_edc_begins(space: &Space) -> Result<Ended> {
    let there = edc_asks_for(space, DATASETS[0]).await?;
    let here = space.kontor_of("negotiations", &there).await?;
    match space.kontor_unless_edc_left(&here, &there, &NEGOTIATION_ENDS).await? {
        Ok(ours) => compare(space, &ours).await,
        Err(why) => Ok(Ended::ByEdc(why)),
    }
}

/// What EDC says of a negotiation that has ended for Kontor, every message of it taken.
async fn compare(space: &Space, ours: &Value) -> Result<Ended> {
    let there = text(ours, "peer_pid")?;
    match space.edc_soon_in("contractnegotiations", there, &NEGOTIATION_ENDS).await? {
        Ok(theirs) => judge(space, ours, &theirs).await,
        // Its own sender writes the state that it had before over the one that our message led to.
        Err(state) => Ok(Ended::ByEdc(format!("took Kontor's last message and forgot it, stays {state}"))),
    }
}

/// An agreement in force. EDC loses some of its negotiations, so there may be several attempts.
async fn agreed<F: Future<Output = Result<Ended>>>(negotiate: impl Fn() -> F) -> Result<Agreed> {
    const ATTEMPTS_MAX: usize = 5;
    let mut lost = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        match negotiate().await? {
            Ended::Finalized(agreed) => return Ok(agreed),
            Ended::ByEdc(why) => lost.push(why),
            Ended::Lost(why) => anyhow::bail!("{why}"),
        }
    }
    anyhow::bail!("EDC ended {ATTEMPTS_MAX} in a row: {lost:?}")
}

async fn kontor_consumes(space: &Space) -> Result<String> {
    agreed(|| one_that_kontor_begins(space)).await?;
    Ok("FINALIZED on both sides, under the same agreement".to_owned())
}

async fn edc_consumes(space: &Space) -> Result<String> {
    agreed(|| one_that_edc_begins(space)).await?;
    Ok("FINALIZED on both sides, under the same agreement".to_owned())
}

async fn fifty<F: Future<Output = Result<Ended>>>(space: &Space, negotiate: impl Fn() -> F) -> Result<String> {
    let conflicts = |log: &str| log.lines().filter(|line| line.contains("409 Conflict")).count();
    let before = conflicts(&space.log());
    let ended: Vec<Result<Ended>> =
        stream::iter((0..NEGOTIATIONS).map(|_| negotiate())).buffer_unordered(AT_ONCE).collect().await;
    let (mut finalized, mut by_edc) = (0, BTreeMap::<String, usize>::new());
    for one in ended {
        match one? {
            Ended::Finalized(_) => finalized += 1,
            Ended::ByEdc(why) => *by_edc.entry(why).or_default() += 1,
            Ended::Lost(why) => anyhow::bail!("lost on our side: {why}"),
        }
    }
    let lost: usize = by_edc.values().sum();
    ensure!(finalized > lost, "only {finalized} of {NEGOTIATIONS} were finalized: {by_edc:?}");
    let told_again = conflicts(&space.log()).saturating_sub(before);
    let why =
        if lost == 0 { String::new() } else { format!(" ({})", by_edc.keys().cloned().collect::<Vec<_>>().join("; ")) };
    Ok(format!(
        "{finalized} of {NEGOTIATIONS} FINALIZED on both sides, {lost} lost by EDC{why}, 0 lost by Kontor; \
         EDC answered 409 {told_again} times and was told again"
    ))
}

async fn fifty_kontor_consumes(space: &Space) -> Result<String> {
    fifty(space, || one_that_kontor_begins(space)).await
}

async fn fifty_edc_consumes(space: &Space) -> Result<String> {
    fifty(space, || one_that_edc_begins(space)).await
}

// ── rejections ──

async fn kontor_asks_with(space: &Space, offer: &str, permission: Value) -> Result<Value> {
    let offer = json!({ "@type": "Offer", "@id": offer, "target": ASSET, "assigner": EDC, "permission": [permission] });
    let asked = json!({ "counterparty": EDC, "address": space.edc_protocol, "offer": offer });
    let begun = space.kontor("POST", "/negotiations", Some(asked)).await?;
    space.kontor_in("negotiations", text(&begun, "id")?, &NEGOTIATION_ENDS).await
}

async fn kontor_asks_for_other_terms(space: &Space) -> Result<String> {
    let asked = json!({ "counterparty": EDC, "address": space.edc_protocol, "dataset": ASSET });
    let dataset = space.kontor("POST", "/catalog/dataset", Some(asked)).await?;
    let offer = text(&many(&dataset["hasPolicy"])[0], "@id")?.to_owned();
    let ours = kontor_asks_with(space, &offer, other_terms()).await?;
    ensure!(ours["state"] == "TERMINATED", "{ours}");
    space.edc_in("contractnegotiations", text(&ours, "peer_pid")?, &["TERMINATED"]).await?;
    Ok("EDC looks at the offer's id alone and agrees to its own terms; Kontor does not take an agreement over other terms \
        than it asked for; TERMINATED on both sides"
        .to_owned())
}

async fn kontor_asks_for_nothing(space: &Space) -> Result<String> {
    let ours = kontor_asks_with(space, "bm9uZQ==:bm9uZQ==:bm9uZQ==", json!({ "action": "use" })).await?;
    ensure!(ours["state"] == "TERMINATED", "{ours}");
    Ok("TERMINATED".to_owned())
}

async fn ruleless(space: &Space) -> Result<String> {
    let asked = json!({ "counterparty": EDC, "address": space.edc_protocol, "dataset": RULELESS });
    let refused = space.kontor("POST", "/negotiations", Some(asked)).await;
    let said = refused.err().context("an offer without any rule was asked for")?.to_string();
    ensure!(said.contains("400") && said.contains("permission"), "{said}");
    Ok("an offer without a rule permits nothing (ODRL 2.2); the cure, a permission to `use`, is named".to_owned())
}

async fn edc_asks_for_nothing(space: &Space) -> Result<String> {
    let there = edc_asks(space, "urn:conformance:offer:none", DATASETS[0], json!({ "action": "use" })).await?;
    let theirs = space.edc_in("contractnegotiations", &there, &["TERMINATED"]).await?;
    ensure!(theirs["errorDetail"].to_string().contains("offer"), "{theirs}");
    Ok("EDC is told why, and is TERMINATED".to_owned())
}

/// EDC asks for terms that a person at Kontor would have to decide on; both identifiers.
async fn counter(space: &Space) -> Result<(String, String)> {
    let there = edc_asks(space, &offer_of(DATASETS[0]), DATASETS[0], other_terms()).await?;
    let here = space.kontor_of("negotiations", &there).await?;
    space.kontor_in("negotiations", &here, &["REQUESTED"]).await?;
    space.edc_in("contractnegotiations", &there, &["REQUESTED"]).await?;
    Ok((here, there))
}

async fn kontor_ends(space: &Space) -> Result<String> {
    let (here, there) = counter(space).await?;
    let reason = json!({ "reason": "these are not our terms" });
    space.kontor("POST", &format!("/negotiations/{here}/terminate"), Some(reason)).await?;
    space.kontor_in("negotiations", &here, &["TERMINATED"]).await?;
    space.edc_in("contractnegotiations", &there, &["TERMINATED"]).await?;
    Ok("held for a person, TERMINATED on both sides (EDC takes the reason, and does not show it)".to_owned())
}

async fn edc_ends(space: &Space) -> Result<String> {
    let (here, there) = counter(space).await?;
    let end = json!({ "@type": "TerminateNegotiation", "@id": there, "reason": "we thought again" });
    space.edc("POST", &format!("/contractnegotiations/{there}/terminate"), end).await?;
    let ours = space.kontor_in("negotiations", &here, &["TERMINATED"]).await?;
    ensure!(ours.to_string().contains("we thought again"), "{ours}");
    space.edc_in("contractnegotiations", &there, &["TERMINATED"]).await?;
    Ok("TERMINATED on both sides with EDC's reason".to_owned())
}

// ── transfers ──

/// EDC asks for a transfer of Kontor's data; returns EDC's identifier.
async fn edc_requests(space: &Space, format: &str) -> Result<String> {
    let agreement = agreed(|| one_that_edc_begins(space)).await?.edc;
    let asked = json!({
        "counterPartyAddress": space.kontor_protocol, "connectorId": KONTOR, "protocol": PROTOCOL,
        "contractId": agreement, "transferType": format,
        "dataDestination": { "type": "HttpData", "baseUrl": format!("{}/sink", space.desk) },
        "callbackAddresses": [{
            "transactional": false, "uri": format!("{}/events", space.desk), "events": ["transfer.process.started"],
        }],
    });
    Ok(text(&space.edc("POST", "/transferprocesses", asked).await?, "@id")?.to_owned())
}

/// What EDC hands to the application behind it: where the data is, and the token.
struct Reference {
    endpoint: String,
    token: String,
}

async fn reference(space: &Space, transfer: &str, times: usize) -> Result<Reference> {
    let event = space.started(transfer, times).await?;
    let properties = event["payload"]["dataAddress"]["properties"].as_object().cloned().unwrap_or_default();
    let property = |name: &str| {
        let found = properties.iter().find(|(key, _)| key.rsplit('/').next() == Some(name));
        found.and_then(|(_, value)| value.as_str()).map(str::to_owned).with_context(|| format!("no `{name}`: {event}"))
    };
    Ok(Reference { endpoint: property("endpoint")?, token: property("authorization")? })
}

async fn fetch(space: &Space, from: &Reference, authorization: &str) -> Result<(u16, String)> {
    let answer = space.http.get(&from.endpoint).header("authorization", authorization).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// EDC's transfer as started, by both identifiers.
async fn pulling(space: &Space) -> Result<(String, String)> {
    let there = edc_requests(space, "HttpData-PULL").await?;
    space.edc_in("transferprocesses", &there, &["STARTED"]).await?;
    let here = space.kontor_of("transfers", &there).await?;
    space.kontor_in("transfers", &here, &["STARTED"]).await?;
    Ok((here, there))
}

async fn edc_pulls(space: &Space) -> Result<String> {
    let (here, there) = pulling(space).await?;
    let from = reference(space, &there, 1).await?;
    for authorization in [format!("Bearer {}", from.token), from.token.clone()] {
        let (status, body) = fetch(space, &from, &authorization).await?;
        ensure!(status == 200 && body == data("kontor"), "{status}, {} bytes", body.len());
    }
    for nothing in ["Bearer guessed", "guessed"] {
        let (status, _) = fetch(space, &from, nothing).await?;
        ensure!(status == 401, "a guessed token was answered with {status}");
    }
    space.kontor("POST", &format!("/transfers/{here}/complete"), Some(json!({}))).await?;
    space.kontor_in("transfers", &here, &["COMPLETED"]).await?;
    space.edc_in("transferprocesses", &there, &["COMPLETED"]).await?;
    let (status, _) = fetch(space, &from, &from.token).await?;
    ensure!(status == 403, "after the end the token was answered with {status}");
    Ok("the data under the token that EDC hands on, with `Bearer` and bare; COMPLETED on both sides, and the token is \
        worth nothing any more"
        .to_owned())
}

async fn edc_suspends(space: &Space) -> Result<String> {
    let (here, there) = pulling(space).await?;
    let from = reference(space, &there, 1).await?;
    let why = json!({ "@type": "SuspendTransfer", "reason": "a pause" });
    space.edc("POST", &format!("/transferprocesses/{there}/suspend"), why).await?;
    space.kontor_in("transfers", &here, &["SUSPENDED"]).await?;
    space.edc_in("transferprocesses", &there, &["SUSPENDED"]).await?;
    let (status, _) = fetch(space, &from, &from.token).await?;
    ensure!(status == 403, "while suspended the token was answered with {status}");
    space.edc("POST", &format!("/transferprocesses/{there}/resume"), json!({})).await?;
    space.kontor_in("transfers", &here, &["STARTED"]).await?;
    let theirs = space.edc_in("transferprocesses", &there, &["STARTED", "RESUMED"]).await?;
    let (status, body) = fetch(space, &from, &from.token).await?;
    ensure!(status == 200 && body == data("kontor"), "after the resumption: {status}, {} bytes", body.len());
    let state = text(&theirs, "state")?;
    Ok(format!("no byte while suspended, all of them after EDC's start message; EDC says {state}"))
}

async fn edc_terminates(space: &Space) -> Result<String> {
    let (here, there) = pulling(space).await?;
    let from = reference(space, &there, 1).await?;
    let why = json!({ "@type": "TerminateTransfer", "reason": "enough" });
    space.edc("POST", &format!("/transferprocesses/{there}/terminate"), why).await?;
    let ours = space.kontor_in("transfers", &here, &["TERMINATED"]).await?;
    ensure!(ours.to_string().contains("enough"), "{ours}");
    space.edc_in("transferprocesses", &there, &["TERMINATED", "DEPROVISIONED"]).await?;
    let (status, _) = fetch(space, &from, &from.token).await?;
    ensure!(status == 403, "after the end the token was answered with {status}");
    Ok("TERMINATED on both sides with EDC's reason, and the token is worth nothing any more".to_owned())
}

async fn kontor_pulls(space: &Space) -> Result<String> {
    // EDC loses transfers as it loses negotiations: it sends its start twice, and ends when the second is refused.
    const ATTEMPTS_MAX: usize = 5;
    let mut lost = 0;
    let ours = loop {
        let agreement = agreed(|| one_that_kontor_begins(space)).await?.kontor;
        let asked = json!({ "agreement": agreement, "sink": { "type": "file", "path": "from-edc.csv" } });
        let begun = space.kontor("POST", "/transfers", Some(asked)).await?;
        let ours = space.kontor_in("transfers", text(&begun, "id")?, &["COMPLETED", "TERMINATED"]).await?;
        if ours["state"] == "COMPLETED" {
            break ours;
        }
        lost += 1;
        ensure!(ours["why"]["by"] == "provider" && lost < ATTEMPTS_MAX, "{ours}");
    };
    let came = std::fs::read_to_string(space.received("from-edc.csv"))?;
    ensure!(came == data("edc"), "{} bytes came", came.len());
    space.edc_in("transferprocesses", text(&ours, "peer_pid")?, &["COMPLETED", "DEPROVISIONED"]).await?;
    Ok(format!(
        "the file, from the address and with the token that EDC made; COMPLETED on both sides ({lost} ended by EDC before)"
    ))
}

async fn edc_pushes(space: &Space) -> Result<String> {
    let there = edc_requests(space, "HttpData-PUSH").await?;
    let theirs = space.edc_in("transferprocesses", &there, &["TERMINATED", "DEPROVISIONED"]).await?;
    ensure!(theirs["errorDetail"].to_string().contains("not offered"), "{theirs}");
    Ok("refused by name, EDC is told why and ends".to_owned())
}

async fn kontor_pushes(space: &Space) -> Result<String> {
    let agreement = agreed(|| one_that_kontor_begins(space)).await?.kontor;
    let asked = json!({ "agreement": agreement, "format": "HttpData-PUSH" });
    let refused = space.kontor("POST", "/transfers", Some(asked)).await;
    let said = refused.err().context("a push was begun")?.to_string();
    ensure!(said.contains("HttpData-PULL"), "{said}");
    Ok("refused by name before anything is sent".to_owned())
}
