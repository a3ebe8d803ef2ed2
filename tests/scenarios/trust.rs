//! Who is not who they should be is refused, with a message that tells an operator what to fix.

use std::time::Duration;

use kontor_tests::participant::eventually;
use kontor_tests::space::request;
use kontor_tests::terms::{self, open};
use kontor_tests::{DataSpace, FakePeer, Participant, Reply};
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::tls::TlsFiles;
use serde_json::json;

/// An ordinary TLS client, with any certificate that OpenSSL takes.
fn client(space: &DataSpace, files: Option<&TlsFiles>) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(space.authority().certificate_pem().as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([ca]);
    if let Some(files) = files {
        let certificate = std::fs::read(&files.certificate).unwrap();
        let key = std::fs::read(&files.key).unwrap();
        builder = builder.identity(reqwest::Identity::from_pkcs8_pem(&certificate, &key).unwrap());
    }
    builder.build().unwrap()
}

/// Calls a connector with a certificate; the connector's log must contain the words.
async fn refused(space: &DataSpace, provider: &Participant, files: Option<&TlsFiles>, words: &[&str]) {
    let url = format!("{}/.well-known/dspace-version", provider.origin());
    let answer = client(space, files).get(url).send().await;
    assert!(answer.is_err(), "answered: {answer:?}");
    for word in words {
        provider.wait_log(word).await;
    }
}

#[tokio::test]
async fn a_good_certificate_is_answered() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let files = space.issue("good", &request("urn:story:good"));
    let url = format!("{}/.well-known/dspace-version", provider.origin());
    assert_eq!(client(&space, Some(&files)).get(url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn callers_without_a_proper_certificate_are_refused_and_the_log_says_what_to_fix() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    refused(&space, &provider, None, &["showed no certificate", "started with a certificate"]).await;

    let other = Authority::generate("Foreign authority").unwrap();
    let folder = space.path().join("elsewhere");
    std::fs::create_dir_all(&folder).unwrap();
    let foreign = other.issue(&request("urn:story:foreign")).unwrap().save(&folder, "foreign", &other).unwrap();
    refused(&space, &provider, Some(&foreign), &["Foreign authority", "trust"]).await;

    let old = space.issue("old", &CertificateRequest { days: -1, ..request("urn:story:old") });
    refused(&space, &provider, Some(&old), &["urn:story:old` expired on", "issue a new one"]).await;

    let early = space.issue("early", &CertificateRequest { not_before_days: 2, ..request("urn:story:early") });
    refused(&space, &provider, Some(&early), &["urn:story:early` is valid only from", "check the clocks"]).await;

    let nobody = space.issue("nobody", &CertificateRequest { participant: None, ..request("urn:story:x") });
    refused(&space, &provider, Some(&nobody), &["CN=127.0.0.1` has no URI", "exactly one, the participant"]).await;

    let double = space
        .issue("double", &CertificateRequest { more_uris: vec!["urn:story:second".into()], ..request("urn:story:d") });
    refused(&space, &provider, Some(&double), &["urn:story:d` has 2 URIs"]).await;

    let server = space.issue("server", &CertificateRequest { client_auth: false, ..request("urn:story:server") });
    refused(&space, &provider, Some(&server), &["urn:story:server` may not authenticate a client", "clientAuth"]).await;

    // And it still serves those that are in order.
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let catalog = terms::message("CatalogRequestMessage", json!({}));
    peer.post(&provider, "/catalog/request", &catalog).await.ok();
}

#[tokio::test]
async fn nothing_is_said_to_a_peer_that_is_not_who_it_should_be() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let ask = |counterparty: &str, peer: &FakePeer| json!({ "counterparty": counterparty, "address": peer.address, "dataset": "urn:story:dataset:x" });
    // Another participant listens at the address.
    let mallory = space.fake("mallory", |_| Reply::Json(200, json!({}))).await;
    let answer = consumer.post("/negotiations", ask("urn:story:provider", &mallory)).await;
    assert!(answer.status >= 500, "{answer:?}");
    let text = answer.body.to_string();
    assert!(text.contains("is `urn:story:mallory`, not `urn:story:provider`"), "{text}");
    assert!(mallory.seen().is_empty(), "a request left for the wrong peer");

    // The right participant, under a host that its certificate does not name.
    let elsewhere = CertificateRequest { hosts: vec!["elsewhere.example".into()], ..request("urn:story:provider") };
    let files = space.issue("elsewhere", &elsewhere);
    let moved = FakePeer::start("urn:story:provider", &files, |_| Reply::Json(200, json!({}))).await;
    let answer = consumer.post("/negotiations", ask("urn:story:provider", &moved)).await;
    let text = answer.body.to_string();
    assert!(text.contains("not for the host `127.0.0.1`") && text.contains("elsewhere.example"), "{text}");
    assert!(moved.seen().is_empty());

    // The right name, by an authority that nobody trusts.
    let other = Authority::generate("Foreign authority").unwrap();
    let folder = space.path().join("elsewhere");
    std::fs::create_dir_all(&folder).unwrap();
    let files = other.issue(&request("urn:story:provider")).unwrap().save(&folder, "provider", &other).unwrap();
    let forged = FakePeer::start("urn:story:provider", &files, |_| Reply::Json(200, json!({}))).await;
    let answer = consumer.post("/negotiations", ask("urn:story:provider", &forged)).await;
    let text = answer.body.to_string();
    assert!(text.contains("trust bundle"), "{text}");
    assert!(forged.seen().is_empty());
}

#[tokio::test]
async fn a_stolen_token_opens_nothing_with_another_certificate() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let owner = space.fake("owner", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = crate::transfer::agreed(&provider, &owner, &dataset).await;
    let granted = crate::transfer::granted(&provider, &owner, &agreement).await;
    let (endpoint, token) = (granted.endpoint.as_str(), granted.token.as_str());

    let thief = space.fake("thief", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let (status, body) = thief.fetch(&provider, endpoint, token).await;
    assert_eq!(status, 403, "{body:?}");
    // The same participant with a renewed certificate and key: the token is bound to the old one.
    let renewed = space.fake("owner", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let (status, body) = renewed.fetch(&provider, endpoint, token).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 403 && text.contains("certificate"), "{status} {text}");
    for wrong in ["", "x", &terms::urn()] {
        let (status, _) = owner.fetch(&provider, endpoint, wrong).await;
        assert_eq!(status, 401);
    }
    let (status, body) = owner.fetch(&provider, endpoint, token).await;
    assert_eq!(status, 200);
    assert_eq!(body, std::fs::read(provider.source().join("fairs")).unwrap());

    // As the refusal says: suspended and started again by the renewed certificate, the token is for that one alone.
    let pids = json!({ "consumerPid": granted.consumer_pid, "providerPid": granted.provider_pid });
    let at = |what: &str| format!("/transfers/{}/{what}", granted.provider_pid);
    let suspension = terms::message("TransferSuspensionMessage", pids.clone());
    renewed.post(&provider, &at("suspension"), &suspension).await.ok();
    renewed.post(&provider, &at("start"), &terms::message("TransferStartMessage", pids)).await.ok();
    let (status, body) = renewed.fetch(&provider, endpoint, token).await;
    assert_eq!(status, 200, "{body:?}");
    let (status, _) = owner.fetch(&provider, endpoint, token).await;
    assert_eq!(status, 403, "it still opens for the old one");
}

#[tokio::test]
async fn a_pull_goes_on_with_a_renewed_certificate() {
    let space = DataSpace::new();
    let (mut provider, consumer) = space.pair();
    let bytes = crate::transfer::RESUMED_BYTES;
    let stream = crate::transfer::running(&provider, &consumer, &crate::transfer::in_its_time(), bytes).await;
    space.reissue("consumer", &request(&consumer.id));
    consumer.wait_log("certificate and trust bundle reloaded").await;
    // Asked for by hand as well, which ends nothing.
    let pid = consumer.pid().unwrap().to_string();
    assert!(std::process::Command::new("sh").args(["-c", "kill -HUP $0", &pid]).status().unwrap().success());
    consumer.wait_log("certificates were read again").await;
    // What runs goes on; what is asked for next comes from the new certificate.
    provider.restart();
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    provider.wait_transfer(&stream.there, "COMPLETED").await;
    assert_eq!(std::fs::metadata(consumer.received().join("stream.bin")).unwrap().len(), bytes);
    assert!(consumer.log().contains("started again with the certificate in use"), "it was not asked by the new one");
}

#[tokio::test]
async fn the_management_api_opens_with_its_token_alone() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let http = reqwest::Client::new();
    let url = format!("{}/status", provider.management());
    for token in ["", "wrong", &provider.token()[1..]] {
        let answer = http.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(http.get(&url).send().await.unwrap().status(), 401);
    assert!(provider.get("/status").await.ok()["participant"] == provider.id);
    assert!(!provider.log().contains(provider.token()), "the token is in the log");
}

#[tokio::test]
async fn a_certificate_for_somebody_else_keeps_the_program_from_starting() {
    let space = DataSpace::new();
    let files = space.issue("wrong", &request("urn:story:other"));
    let folder = space.path().join("wrong");
    std::fs::create_dir_all(&folder).unwrap();
    let settings = format!(
        "participant_id = \"urn:story:me\"\ndata_dir = \"state\"\n[tls]\ncertificate = {:?}\nkey = {:?}\ntrust = {:?}\n",
        files.certificate, files.key, files.trust
    );
    let file = folder.join("kontor.toml");
    std::fs::write(&file, settings).unwrap();
    let program = &kontor_tests::programs::programs().connector;
    let run = tokio::process::Command::new(program).arg("serve").arg("--config").arg(&file).output();
    let output = tokio::time::timeout(Duration::from_secs(20), run).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("urn:story:me") && text.contains("urn:story:other") && text.contains("must be the same"),
        "{text}"
    );
}

#[tokio::test]
async fn a_certificate_that_is_swapped_while_connections_are_open_counts_from_the_next_request() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let asked = json!({ "counterparty": provider.id, "address": provider.address() });
    consumer.post("/catalog/request", asked.clone()).await.ok();
    let elsewhere = CertificateRequest { hosts: vec!["elsewhere.example".into()], ..request(&provider.id) };
    space.reissue("provider", &elsewhere);
    let told = eventually(|| async {
        let answer = consumer.post("/catalog/request", asked.clone()).await;
        (answer.status >= 400 && answer.body.to_string().contains("elsewhere.example")).then_some(())
    })
    .await;
    assert!(told.is_some(), "the old certificate is still used");
    // Mended without a restart, too.
    space.reissue("provider", &request(&provider.id));
    let mended =
        eventually(|| async { (consumer.post("/catalog/request", asked.clone()).await.status < 300).then_some(()) })
            .await;
    assert!(mended.is_some(), "the new certificate is not used");
}

#[tokio::test]
async fn whose_authority_is_trusted_no_more_is_cut_in_the_middle_of_a_stream() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish_sparse("stream", crate::transfer::STREAM_BYTES, &open()).await;
    // A partner by an authority of its own, that all trust for a while.
    let other = Authority::generate("Foreign authority").unwrap();
    let folder = space.path().join("elsewhere");
    std::fs::create_dir_all(&folder).unwrap();
    let mut files = other.issue(&request("urn:story:partner")).unwrap().save(&folder, "partner", &other).unwrap();
    files.trust = space.path().join("pki/ca.pem");
    let trust = |authorities: &[&Authority]| {
        let text: String = authorities.iter().map(|authority| authority.certificate_pem()).collect();
        std::fs::write(&files.trust, text).unwrap();
    };
    trust(&[space.authority(), &other]);
    provider.wait_log("trust bundle reloaded").await;
    let partner = FakePeer::start("urn:story:partner", &files, |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = crate::transfer::agreed(&provider, &partner, &dataset).await;
    let granted = crate::transfer::granted(&provider, &partner, &agreement).await;
    let mut body = partner.open(&provider, &granted.endpoint, &granted.token).await.into_body();
    crate::transfer::read_until(&mut body, 1024 * 1024).await.unwrap();
    let catalog = terms::message("CatalogRequestMessage", json!({}));
    partner.post(&provider, "/catalog/request", &catalog).await.ok();

    trust(&[space.authority()]);
    provider.wait_log("connection cut: the peer's certificate is of no authority").await;
    let (rest, broken) = crate::transfer::drain(&mut body).await;
    assert!(broken && rest < crate::transfer::IN_FLIGHT_MAX, "{rest} bytes came after the cut, broken: {broken}");
    let flows = provider.wait_flows(&granted.provider_pid, 1).await;
    assert_ne!(flows[0]["outcome"]["name"], "whole", "{flows:#?}");
    // Neither the kept connection nor a new one is of use.
    let refused = partner.try_send(&provider, "POST", "/catalog/request", catalog.to_string().into()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("refused our certificate") && refused.contains("unknown ca"), "{refused}");
    provider.wait_log("Foreign authority").await;
    // Those of the authority that is left are served as before.
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    peer.post(&provider, "/catalog/request", &catalog).await.ok();
}
