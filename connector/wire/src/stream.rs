//! The streams below and above TLS: few and large system calls, and a memory of what the peer did.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_openssl::SslStream;

/// Bytes gathered before they are written: about eight TLS records of 16 KiB, with their headers and tags.
const GATHER_BYTES: usize = 8 * (16 * 1024 + 64);
/// Bytes read at once below TLS.
const READ_BYTES: usize = 128 * 1024;
/// What a connection that carries only messages makes do with.
const READ_BYTES_FIRST: usize = 16 * 1024;

/// What a connection is doing, as its streams see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When the first bytes of a head came in, while no request was in progress.
    pub(crate) head_since: Option<Instant>,
    /// Since when the peer takes no bytes.
    pub(crate) blocked_since: Option<Instant>,
    /// Requests in progress.
    pub(crate) busy: usize,
    /// Nobody read the body of the latest request to its end.
    pub(crate) unread: bool,
    /// When the last request ended, or the connection was made.
    pub(crate) idle_since: Option<Instant>,
    /// The TLS alert that the peer sent.
    pub(crate) alert: Option<String>,
    /// Nothing that the peer sends counts any more.
    pub(crate) severed: bool,
}

impl Activity {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TCP stream that reads and writes in large pieces. Writes are gathered only after [`Gather::start`], since OpenSSL
/// expects its handshake messages to leave when it flushes.
#[derive(Debug)]
pub(crate) struct Gather<S = TcpStream> {
    tcp: S,
    gathering: bool,
    out: Vec<u8>,
    out_sent: usize,
    input: Vec<u8>,
    input_from: usize,
    input_to: usize,
    activity: Activity,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub(crate) fn new(tcp: S, activity: Activity) -> Self {
        Self {
            tcp,
            gathering: false,
            out: Vec::new(),
            out_sent: 0,
            input: Vec::new(),
            input_from: 0,
            input_to: 0,
            activity,
        }
    }

    pub(crate) fn start(&mut self) {
        self.gathering = true;
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.tcp
    }

    fn buffered(&self) -> usize {
        self.input_to - self.input_from
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.out_sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.out_sent += count;
                    self.activity.lock().blocked_since = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.activity.lock().blocked_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        self.out.clear();
        self.out_sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffered() == 0 {
            if this.input.is_empty() {
                this.input.resize(READ_BYTES_FIRST, 0);
            } else if this.input_to == this.input.len() && this.input.len() < READ_BYTES {
                // The last read filled the buffer: this is bulk.
                this.input.resize(READ_BYTES, 0);
            }
            this.input_from = 0;
            this.input_to = 0;
            let mut space = ReadBuf::new(&mut this.input);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut space))?;
            this.input_to = space.filled().len();
        }
        let count = this.buffered().min(buf.remaining());
        if let Some(bytes) = this.input.get(this.input_from..this.input_from + count) {
            buf.put_slice(bytes);
            this.input_from += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.gathering {
            return Pin::new(&mut this.tcp).poll_write(cx, bytes);
        }
        if this.out.len() >= GATHER_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        // Never more than one gather in memory, whatever the caller hands over.
        let count = bytes.len().min(GATHER_BYTES);
        this.out.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// What hyper reads and writes: plain or TLS, watched.
#[derive(Debug)]
pub(crate) struct Wire {
    inner: Inner,
    closing: bool,
    activity: Activity,
    failed: Option<io::Error>,
}

#[derive(Debug)]
enum Inner {
    Plain(Gather),
    Tls(Box<SslStream<Gather>>),
}

impl Wire {
    pub(crate) fn plain(mut stream: Gather, activity: Activity) -> Self {
        stream.start();
        Self { inner: Inner::Plain(stream), closing: false, activity, failed: None }
    }

    pub(crate) fn tls(mut stream: Box<SslStream<Gather>>, activity: Activity) -> Self {
        stream.get_mut().start();
        Self { inner: Inner::Tls(stream), closing: false, activity, failed: None }
    }

    pub(crate) fn gather(&mut self) -> &mut Gather {
        match &mut self.inner {
            Inner::Plain(stream) => stream,
            Inner::Tls(stream) => stream.get_mut(),
        }
    }

    /// Ends the connection so that nobody takes what was sent for whole: no TLS close alert; without TLS a reset.
    pub(crate) async fn abort(mut self) {
        let plain = matches!(self.inner, Inner::Plain(_));
        let gather = self.gather();
        let _ = tokio::io::AsyncWriteExt::flush(gather).await;
        if plain {
            let _ = gather.get_ref().set_zero_linger();
        }
    }

    fn poll_read_once(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }

    fn more_at_hand(&self) -> bool {
        match &self.inner {
            Inner::Plain(_) => false,
            Inner::Tls(stream) => stream.ssl().pending() > 0 || stream.get_ref().buffered() > 0,
        }
    }

    fn noted(&self, error: io::Error) -> io::Error {
        if let Some(alert) = alert_of(&error) {
            self.activity.lock().alert.get_or_insert(alert);
        }
        error
    }
}

/// The alert inside an error of OpenSSL, in its words.
pub(crate) fn alert_of(error: &io::Error) -> Option<String> {
    let ssl = error.get_ref()?.downcast_ref::<openssl::ssl::Error>()?;
    alert_in(ssl)
}

pub(crate) fn alert_in(error: &openssl::ssl::Error) -> Option<String> {
    // OpenSSL numbers the reasons of received alerts from 1000 on (SSL_AD_REASON_OFFSET).
    let entry = error.ssl_error()?.errors().iter().find(|entry| (1000..1256).contains(&entry.reason_code()))?;
    Some(entry.reason().map_or_else(|| format!("alert {}", entry.reason_code() - 1000), str::to_owned))
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error));
        }
        if this.activity.lock().severed {
            let reason = "the peer's certificate is of no authority that is trusted now";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)));
        }
        let before = buf.filled().len();
        loop {
            let start = buf.filled().len();
            match this.poll_read_once(cx, buf) {
                Poll::Ready(Ok(())) => {
                    let end = buf.filled().len();
                    if end == start || buf.remaining() == 0 || !this.more_at_hand() {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => {
                    let error = this.noted(error);
                    if start == before {
                        return Poll::Ready(Err(error));
                    }
                    this.failed = Some(error);
                    break;
                }
                Poll::Pending if start == before => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if buf.filled().len() > before {
            let mut seen = this.activity.lock();
            if seen.busy == 0 {
                seen.head_since.get_or_insert_with(Instant::now);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = match &mut this.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        };
        done.map_err(|error| this.noted(error))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().gather()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(Pin::new(this.gather()).poll_flush(cx))?;
            if let Inner::Tls(stream) = &mut this.inner {
                // The alert goes into the empty gather, so this neither blocks nor has to be asked again: a second
                // SSL_shutdown would wait for the peer's own alert.
                this.closing = true;
                return Pin::new(stream.as_mut()).poll_shutdown(cx);
            }
            this.closing = true;
        }
        Pin::new(this.gather()).poll_shutdown(cx)
    }
}
