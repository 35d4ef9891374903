//! How connections come in: how many, within what time, and whether encrypted.
//!
//! Everything that is listened on is served through here, so that one set of rules holds for squadctl, workers and
//! browsers. Nothing is read of a request before its connection has been counted and, with TLS, has been encrypted.

mod connection;
mod crowd;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::limits::Limits;
use crate::metrics::{Reason, Refusals};
use crowd::{Crowd, Place};

pub use tls::{Tls, TlsError};

/// How long to wait when the system gives no more connections. Fixed, as the next: they belong to no job.
const BREATH: Duration = Duration::from_millis(200);
/// After so long without a word the system asks whether the other machine is still there. It answers for a process
/// that is stopped or busy, which is no reason to hang up.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Who is at the other end of a connection. Every request carries it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where.
    pub(crate) address: SocketAddr,
    /// Whether a certificate of the users' authority was shown.
    pub(crate) certified: bool,
    /// Whether anything that was shown has proven right.
    trusted: Arc<AtomicBool>,
}

impl Peer {
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self { address, certified: false, trusted: Arc::default() }
    }

    /// Somebody who is known: from now on the connection may rest between requests.
    pub(crate) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }

    fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/2 from the first byte on: gRPC.
    Two,
    /// HTTP/1.1: browsers, Prometheus, probes.
    One,
}

/// An address that is listened on, and its rules.
pub(crate) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    speech: Speech,
    limits: Limits,
    refusals: Refusals,
}

impl Door {
    /// Opens a port; 0 takes a free one.
    ///
    /// # Errors
    /// When the system refuses the address.
    pub(crate) async fn open(address: SocketAddr, speech: Speech, limits: Limits) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tls: None, speech, limits, refusals: Refusals::default() })
    }

    /// The same door, encrypted.
    pub(crate) fn with_tls(mut self, tls: Option<&Tls>) -> Self {
        let protocol: &[u8] = if self.speech == Speech::Two { b"h2" } else { b"http/1.1" };
        self.tls = tls.map(|tls| tls.acceptor(protocol));
        self
    }

    /// The same door, whose refusals are counted there.
    pub(crate) fn counting(mut self, refusals: Refusals) -> Self {
        self.refusals = refusals;
        self
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `closing` holds true; then takes no more connections, lets open requests end, and returns when
    /// all have. Dropping the future ends everything at once.
    pub(crate) async fn serve(self, router: Router, mut closing: watch::Receiver<bool>) {
        let crowd = Crowd::new(self.limits.connections, self.limits.connections_per_address);
        let door = Arc::new(self);
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = door.listener.accept() => accepted,
                Some(_) = open.join_next() => continue,
                _ = closing.wait_for(|closing| *closing) => break,
            };
            match accepted {
                Ok((stream, address)) => match crowd.enter(address.ip()) {
                    Ok(place) => {
                        let guest = Guest { stream, address, place };
                        open.spawn(Arc::clone(&door).host(guest, router.clone(), closing.clone()));
                    }
                    // Dropping the stream hangs up: there is no word that every protocol would understand.
                    Err(full) => door.refuse(address, full.reason(), &full.to_string()),
                },
                Err(error) => {
                    tracing::warn!("{}: no connection can be taken: {error}", door.address);
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        while open.join_next().await.is_some() {}
    }

    /// From the first byte of a connection to its end.
    async fn host(self: Arc<Self>, guest: Guest, router: Router, closing: watch::Receiver<bool>) {
        let Guest { stream, address, place } = guest;
        let _place = place;
        if let Err(error) = prepare(&stream) {
            tracing::debug!("{address}: {error}");
        }
        let mut peer = Peer::of(address);
        let Some(tls) = &self.tls else {
            return self.converse(stream, peer, router, closing).await;
        };
        match tokio::time::timeout(self.limits.first_request, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                // What was shown has been verified by then.
                peer.certified =
                    stream.get_ref().1.peer_certificates().is_some_and(|shown| !shown.is_empty());
                self.converse(stream, peer, router, closing).await;
            }
            Ok(Err(error)) => self.refuse(address, Reason::Handshake, &format!("no TLS: {error}")),
            Err(_) => self.refuse(address, Reason::Slow, "no TLS handshake in time"),
        }
    }

    fn refuse(&self, address: SocketAddr, reason: Reason, why: &str) {
        self.refusals.count(reason);
        // An attack must not fill the disk: the counter tells of every one.
        tracing::debug!("refused {address}: {why}");
    }
}

/// A connection that was counted.
struct Guest {
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
}

/// Sets what a connection needs before anything is said.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    Ok(sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 4)?)
}
