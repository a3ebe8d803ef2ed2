//! Streams N MiB from memory over mutual TLS on loopback and prints the throughput:
//! `cargo run --release -p kontor-wire --example stream -- 4096`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

use std::time::Instant;

use ::http::Request;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use kontor_core::id::ParticipantId;
use kontor_wire::client::{ClientLimits, PeerClient};
use kontor_wire::egress::EgressFilter;
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::serve::{ServeLimits, serve_mutual_tls};
use kontor_wire::tls::TlsIdentity;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PIECE: usize = 128 * 1024;

#[tokio::main]
async fn main() {
    let mebibytes: usize = std::env::args().nth(1).map_or(1024, |text| text.parse().unwrap());
    let dir = std::env::temp_dir().join(format!("kontor-stream-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let ca = Authority::generate("Stream CA").unwrap();
    let own = ParticipantId::parse("did:web:stream.example").unwrap();
    let request = CertificateRequest::new(own.clone(), vec!["127.0.0.1".to_owned()]);
    let files = ca.issue(&request).unwrap().save(&dir, "stream", &ca).unwrap();
    let identity = TlsIdentity::load(&files).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();

    let piece = Bytes::from(vec![7; PIECE]);
    let pieces = mebibytes * 1024 * 1024 / PIECE;
    let router = Router::new().route(
        "/",
        get(move || async move {
            Body::from_stream(stream::iter((0..pieces).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve_mutual_tls(listener, identity.clone(), router, ServeLimits::default(), shutdown));

    let egress = EgressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let client = PeerClient::mutual_tls(identity, egress, ClientLimits::default());
    for _ in 0..3 {
        let start = Instant::now();
        let request = Request::get(format!("https://{address}/")).body(Bytes::new()).unwrap();
        let mut body = client.open(&own, request).await.unwrap().into_body();
        let (mut bytes, mut frames) = (0, 0);
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
            frames += 1;
        }
        let rate = f64::from(u32::try_from(bytes >> 20).unwrap()) / start.elapsed().as_secs_f64();
        println!("{} MiB in {} frames: {rate:.0} MiB/s", bytes >> 20, frames);
    }
}
