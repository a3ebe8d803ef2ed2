//! A peer as the conformance kit is one: plain HTTP, who it is in a header, handlers that serve one message and are
//! gone, answers without a content type, a new connection for every call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::stream;
use http_body_util::BodyExt as _;
use kontor_tests::participant::PATIENCE;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::seed::{KIT, OWN};

/// How long a call of ours may take, as in the kit.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// What a handler answers, given the message.
type Answer = Box<dyn FnOnce(&Value) -> Response + Send>;

struct Handler {
    path: String,
    answer: Answer,
    taken: oneshot::Sender<Value>,
}

#[derive(Default)]
struct Desk {
    handlers: Mutex<Vec<Handler>>,
    /// Messages that nobody waited for.
    unexpected: Mutex<Vec<(String, Value)>>,
    faults: Mutex<Vec<String>>,
}

/// The kit's side of one scenario.
pub(crate) struct Peer {
    /// The base that messages are sent to.
    pub(crate) base: String,
    http: reqwest::Client,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

/// A message that is to come.
pub(crate) struct Expected {
    path: String,
    taken: oneshot::Receiver<Value>,
}

impl Expected {
    /// Waits for it.
    pub(crate) async fn body(self) -> Result<Value, String> {
        match tokio::time::timeout(PATIENCE, self.taken).await {
            Ok(Ok(body)) => Ok(body),
            _ => Err(format!("nothing came at `{}`", self.path)),
        }
    }
}

/// An answer of the connector.
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let desk = Arc::new(Desk::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(desk.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(CALL_TIME_MAX).build().unwrap();
        Self { base, http, desk, serving }
    }

    /// Waits at a path for one message, which is answered with 200 and an empty body.
    pub(crate) fn expect(&self, path: String) -> Expected {
        self.expect_with(path, |_| {
            // As the kit does: chunks without any.
            Response::new(Body::from_stream(stream::empty::<Result<bytes::Bytes, std::io::Error>>()))
        })
    }

    /// Waits at a path for one message, which is answered like this.
    pub(crate) fn expect_with(
        &self,
        path: String,
        answer: impl FnOnce(&Value) -> Response + Send + 'static,
    ) -> Expected {
        let (tell, taken) = oneshot::channel();
        let handler = Handler { path: path.clone(), answer: Box::new(answer), taken: tell };
        self.desk.handlers.lock().unwrap().push(handler);
        Expected { path, taken }
    }

    /// Posts a message as the kit does.
    pub(crate) async fn post(&self, url: &str, body: &Value) -> Result<Told, String> {
        let request = self.http.post(url).header("content-type", "application/json; charset=utf-8");
        self.call(request.body(body.to_string())).await
    }

    /// Asks.
    pub(crate) async fn get(&self, url: &str) -> Result<Told, String> {
        self.call(self.http.get(url)).await
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<Told, String> {
        let claim = json!({ "clientId": KIT }).to_string();
        let answer = request.header("authorization", claim).send().await.map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        Ok(Told { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    /// Everything that came and should not have, or came otherwise than it should.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut all = self.desk.faults.lock().unwrap().clone();
        let unexpected = self.desk.unexpected.lock().unwrap();
        all.extend(unexpected.iter().map(|(path, body)| format!("`{}` came unasked at `{path}`", body["@type"])));
        all
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A JSON body without a content type.
pub(crate) fn bare(body: &Value) -> Response {
    Response::new(Body::from(body.to_string()))
}

async fn take(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Other peers want more of a claim than who we are; the kit reads nothing else of it.
    let claim: Value = serde_json::from_str(header("authorization")).unwrap_or(Value::Null);
    for (what, found, wanted) in [
        ("method", head.method.as_str(), "POST"),
        ("content-type", header("content-type"), "application/json"),
        ("authorization", claim["clientId"].as_str().unwrap_or_default(), OWN),
    ] {
        if found != wanted {
            let fault = format!("`{path}`: the {what} is `{found}`, not `{wanted}`");
            desk.faults.lock().unwrap().push(fault);
        }
    }
    let handler = {
        let mut handlers = desk.handlers.lock().unwrap();
        let found = handlers.iter().position(|handler| handler.path == path);
        found.map(|at| handlers.remove(at))
    };
    let Some(handler) = handler else {
        desk.unexpected.lock().unwrap().push((path, body));
        let mut refused = Response::new(Body::from("No handler registered on this endpoint"));
        *refused.status_mut() = http::StatusCode::NOT_FOUND;
        return refused;
    };
    // A message that was a little too early came again.
    desk.unexpected.lock().unwrap().retain(|(known, message)| (known, message) != (&path, &body));
    let answer = (handler.answer)(&body);
    let _ = handler.taken.send(body);
    answer
}
