//! One connection: requests in, answers out, and when it has been quiet for too long.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::{Door, Peer, Speech};
use crate::metrics::Reason;

/// Requests of one connection at once.
const STREAMS: u32 = 128;
/// Largest head of a request, in bytes.
const HEAD: u32 = 16 << 10;
/// How long a connection that is asked to end may take. Fixed: it belongs to no job.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection does: how many requests are open, and since when that is so.
type Work = watch::Sender<(usize, Instant)>;

/// An answer's body; while it is there, its request is open.
struct Counted {
    body: Body,
    _open: Open,
}

/// An open request.
struct Open(Arc<Work>);

impl Open {
    fn new(work: &Arc<Work>) -> Self {
        work.send_modify(|(open, since)| (*open, *since) = (*open + 1, Instant::now()));
        Self(Arc::clone(work))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|(open, since)| (*open, *since) = (*open - 1, Instant::now()));
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Door {
    /// Answers the requests of a connection until either side ends it, or it was quiet for too long.
    pub(super) async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        router: Router,
        mut closing: watch::Receiver<bool>,
    ) {
        let work = Arc::new(Work::new((0, Instant::now())));
        let service = service_fn({
            let (work, peer) = (Arc::clone(&work), peer.clone());
            move |request: Request<Incoming>| {
                let open = Open::new(&work);
                let router = router.clone();
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer.clone());
                async move {
                    let answer = router.oneshot(request).await?;
                    Ok::<Response<Counted>, Infallible>(answer.map(|body| Counted { body, _open: open }))
                }
            }
        });
        let builder = self.builder();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let told = async {
            closing.wait_for(|closing| *closing).await.ok();
        };
        let quiet = tokio::select! {
            // How it ended is the other side's affair.
            _ = connection.as_mut() => return,
            () = self.quiet(&work, &peer) => true,
            () = told => false,
        };
        connection.as_mut().graceful_shutdown();
        if !quiet {
            // Open requests may end; whoever told us waits for that, but not for ever.
            connection.await.ok();
            return;
        }
        let reason = if peer.is_trusted() { Reason::Idle } else { Reason::Slow };
        self.refuse(peer.address, reason, "it was quiet for too long");
        tokio::time::timeout(FAREWELL, connection).await.ok();
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        // After whoever counts it: a connection that rests is a refusal with a reason.
        let longest = self.limits.idle + FAREWELL;
        builder.http1().timer(TokioTimer::new()).header_read_timeout(longest);
        builder.http2().max_concurrent_streams(STREAMS).max_header_list_size(HEAD);
        match self.speech {
            Speech::Two => builder.http2_only(),
            Speech::One => builder.http1_only(),
        }
    }

    /// Ready when no request was open for too long. A connection on which nobody has shown who they are has less
    /// time, counted from its first byte, whatever it asks meanwhile.
    async fn quiet(&self, work: &Arc<Work>, peer: &Peer) {
        let begun = Instant::now();
        let mut changes = work.subscribe();
        loop {
            let (open, since) = *changes.borrow_and_update();
            let until = match (open, peer.is_trusted()) {
                (_, false) => begun + self.limits.first_request,
                (0, true) => since + self.limits.idle,
                // An answer that goes on may take as long as it likes.
                (_, true) => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {
                    let (open, since) = *changes.borrow();
                    let still = if peer.is_trusted() { open == 0 && since.elapsed() >= self.limits.idle } else { true };
                    if still {
                        return;
                    }
                }
                // The connection itself holds the other end.
                _ = changes.changed() => {}
            }
        }
    }
}
