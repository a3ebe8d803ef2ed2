//! This tool as a participant: a consumer that speaks the protocol itself, so that it holds a data
//! address and can read a stream without a connector of its own between.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::extract::State;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use kontor_core::id::ParticipantId;
use kontor_wire::client::{ClientLimits, PeerClient};
use kontor_wire::egress::EgressFilter;
use kontor_wire::serve::{ServeLimits, serve_mutual_tls};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::space::{PROVIDER, Space};

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The participant.
pub(crate) struct Peer {
    pub(crate) client: PeerClient,
    provider: ParticipantId,
    /// The base of the provider's protocol endpoint.
    endpoint: String,
    callback: String,
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, Value)>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Peer {
    /// Listens for messages.
    pub(crate) async fn listen(space: &Space, endpoint: &str) -> Result<Self> {
        let identity = space.identity("meter")?;
        let egress = EgressFilter::new(vec!["127.0.0.0/8".parse()?]);
        let client = PeerClient::mutual_tls(identity.clone(), egress, ClientLimits::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let callback = format!("https://{}/dsp", listener.local_addr()?);
        let (sender, received) = mpsc::unbounded_channel();
        let router = Router::new().fallback(take).with_state(sender);
        let stop = CancellationToken::new();
        tokio::spawn(serve_mutual_tls(listener, identity, router, ServeLimits::default(), stop.clone()));
        Ok(Self {
            client,
            provider: ParticipantId::parse(PROVIDER)?,
            endpoint: endpoint.to_owned(),
            callback,
            received: tokio::sync::Mutex::new(received),
            _stop: stop.drop_guard(),
        })
    }

    /// Sends a message and reads the answer.
    pub(crate) async fn say(&self, path: &str, kind: &str, mut message: Value) -> Result<Value> {
        message["@context"] = json!(["https://w3id.org/dspace/2025/1/context.jsonld"]);
        message["@type"] = json!(kind);
        let request = Request::post(format!("{}{path}", self.endpoint))
            .header("content-type", "application/json")
            .body(Bytes::from(message.to_string()))?;
        let answer = self.client.send(&self.provider, request).await?;
        let text = String::from_utf8_lossy(answer.body());
        ensure!(answer.status().is_success(), "{kind} was answered {}: {text}", answer.status());
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// Waits for a message to a path that ends like this.
    async fn wait(&self, end: &str) -> Result<Value> {
        let mut received = self.received.lock().await;
        let found = async {
            while let Some((path, message)) = received.recv().await {
                if path.ends_with(end) {
                    return Ok(message);
                }
            }
            bail!("the listener ended")
        };
        tokio::time::timeout(ANSWER_MAX, found).await.with_context(|| format!("no message to …{end} came"))?
    }

    /// Negotiates for a whole offer, with its `target`; the agreement's id.
    pub(crate) async fn agree(&self, offer: &Value) -> Result<String> {
        let own = format!("urn:uuid:{}", uuid::Uuid::new_v4());
        let message = json!({ "consumerPid": own, "offer": offer, "callbackAddress": self.callback });
        let begun = self.say("/negotiations/request", "ContractRequestMessage", message).await?;
        let theirs = begun["providerPid"].as_str().context("no providerPid")?;
        let agreement = self.wait("/agreement").await?;
        let path = format!("/negotiations/{theirs}/agreement/verification");
        let message = json!({ "consumerPid": own, "providerPid": theirs });
        let began = Instant::now();
        // The provider may still be taking up our receipt of its agreement.
        while let Err(error) = self.say(&path, "ContractAgreementVerificationMessage", message.clone()).await {
            ensure!(began.elapsed() < Duration::from_secs(1), "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.wait("/events").await?;
        Ok(agreement["agreement"]["@id"].as_str().context("the agreement has no id")?.to_owned())
    }

    /// Asks for the data: its address and token.
    pub(crate) async fn data_address(&self, agreement: &str) -> Result<(String, String)> {
        let own = format!("urn:uuid:{}", uuid::Uuid::new_v4());
        let message = json!({
            "consumerPid": own, "agreementId": agreement, "format": "HttpData-PULL", "callbackAddress": self.callback,
        });
        self.say("/transfers/request", "TransferRequestMessage", message).await?;
        let started = self.wait("/start").await?;
        let address = &started["dataAddress"];
        let endpoint = address["endpoint"].as_str().context("the data address has no endpoint")?;
        let properties = address["endpointProperties"].as_array().context("the data address has no properties")?;
        let token = properties.iter().find(|property| property["name"] == "authorization");
        let token = token.and_then(|property| property["value"].as_str()).context("the data address has no token")?;
        Ok((endpoint.to_owned(), token.to_owned()))
    }

    /// Reads a stream to its end and throws it away: how many bytes, in which time.
    pub(crate) async fn drain(&self, peer: &str, url: &str, token: Option<&str>) -> Result<(u64, Duration)> {
        let mut request = Request::get(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let began = Instant::now();
        let response = self.client.open(&ParticipantId::parse(peer)?, request.body(Bytes::new())?).await?;
        ensure!(response.status().is_success(), "{url} was answered {}", response.status());
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((bytes, began.elapsed()))
    }
}

async fn take(
    State(sender): State<mpsc::UnboundedSender<(String, Value)>>,
    uri: http::Uri,
    body: Bytes,
) -> &'static str {
    // Only this tool's own waiting depends on it.
    let _ = sender.send((uri.path().to_owned(), serde_json::from_slice(&body).unwrap_or(Value::Null)));
    "{}"
}
