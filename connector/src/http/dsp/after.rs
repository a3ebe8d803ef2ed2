//! Messages that an answer sets off leave after the answer: the peer reads our acknowledgement
//! before our next message reaches it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::control::Control;
use crate::model::OutboxEntry;

/// Hands the messages to the outbox when the answer's body has been taken by the connection, or
/// the connection is gone.
pub(crate) fn send_after(response: Response, control: Arc<Control>, outgoing: Vec<OutboxEntry>) -> Response {
    if outgoing.is_empty() {
        return response;
    }
    response.map(|inner| Body::new(After { inner, then: Some((control, outgoing)) }))
}

struct After {
    inner: Body,
    then: Option<(Arc<Control>, Vec<OutboxEntry>)>,
}

impl HttpBody for After {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for After {
    fn drop(&mut self) {
        if let Some((control, outgoing)) = self.then.take() {
            control.send(outgoing);
        }
    }
}
