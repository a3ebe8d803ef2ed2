//! W3C trace context, in and out.

use std::future::Future;

use ::http::HeaderName;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use tracing::Instrument as _;

use crate::token::hex;

/// The header of W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Where a request stands in a trace: the `traceparent` header, version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

impl TraceContext {
    /// Starts a trace.
    #[must_use]
    pub fn start() -> Self {
        Self { trace: random(), span: random(), sampled: true }
    }

    /// Reads a `traceparent` header. Later versions are read by the rules of version 00, as the specification says.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let [_] = from_hex::<1>(version)?;
        let (trace, span, [flags]) = (from_hex::<16>(trace)?, from_hex::<8>(span)?, from_hex::<1>(flags)?);
        // All zeroes are invalid, by the specification.
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: random(), ..*self }
    }

    /// The trace's id in hex, for logs.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }

    /// The value of the `traceparent` header.
    #[must_use]
    pub fn to_header(&self) -> String {
        format!("00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), u8::from(self.sampled))
    }

    /// The context of the running task, if one was set.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Runs a future with this context; peers that it calls see it.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // An id of zeroes is invalid; without randomness the trace is merely useless, so it is not worth a failure.
    if openssl::rand::rand_bytes(&mut bytes).is_err() || bytes == [0; N] {
        bytes = [1; N];
    }
    bytes
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Takes the trace of each request, or starts one, and runs the request in a span that carries it. The context is also
/// a request extension.
pub fn traced(router: Router) -> Router {
    router.layer(from_fn(|mut request: Request, next: Next| async move {
        let given = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let context = given.and_then(TraceContext::parse).map_or_else(TraceContext::start, |context| context.child());
        request.extensions_mut().insert(context);
        let span = tracing::info_span!(
            "request",
            method = %request.method(),
            path = request.uri().path(),
            trace.id = %context.trace_id(),
        );
        context.scope(next.run(request)).instrument(span).await
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).unwrap();
        assert_eq!(context.to_header(), text);
        assert_eq!(context.child().trace_id(), context.trace_id());
        assert_ne!(context.child().to_header(), text);
        assert_eq!(TraceContext::parse(&TraceContext::start().to_header()).map(|_| ()), Some(()));
    }

    #[test]
    fn what_is_no_trace_is_ignored() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
