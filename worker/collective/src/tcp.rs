//! Finding both neighbours: connecting to the next rank while the previous one is waited for.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt;

use crate::circle::Circle;
use crate::error::{CollectiveError, Difference};
use crate::handshake::{Failure, Role, shake};
use crate::link::{Sockets, wait};
use crate::waits::Waits;

/// Most handshakes at one time; more guests than that are strangers.
const MAX_GUESTS: usize = 64;

/// How often a look at the listener is interrupted by a look at the handshakes under way. Fixed: it only paces looks.
const GLANCE: Duration = Duration::from_millis(10);

/// Pauses between attempts to connect: first and longest. Fixed: they only pace attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Size that is asked for the buffers of a connection within one host: two segments. What lies in larger ones falls out of
/// the caches before it is read. The system may give less.
const SOCKET_BUFFER: usize = 1024 * 1024;

/// The place where the previous rank will knock. Made before the rendezvous, which spreads its address.
#[derive(Debug)]
pub struct RingListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl RingListener {
    /// Listens on a free port of the interface with this address.
    ///
    /// # Errors
    /// [`CollectiveError::Bind`] if the interface is not there or has no free port.
    pub fn bind(interface: IpAddr) -> Result<RingListener, CollectiveError> {
        let bound = TcpListener::bind((interface, 0)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(RingListener { listener, address })
        });
        bound.map_err(|cause| CollectiveError::Bind { address: interface, cause: Arc::new(cause) })
    }

    /// Where this rank can be reached from its own host; its port is the one to spread.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// What the threads of a meeting tell the one that waits for them.
enum News {
    /// The connection to the next rank stands, or never will.
    Next(Result<TcpStream, CollectiveError>),
    /// The connection from the previous rank stands.
    Previous(TcpStream),
    /// A guest that is surely meant for us does not fit: nothing better will come.
    Misfit(CollectiveError),
    /// A stranger was sent away.
    Stranger {
        /// Who it was, and why it had to go.
        who: String,
        /// Whether it spoke our protocol; then it may have been the previous rank.
        kin: bool,
    },
}

/// Handshakes under way, which can all be ended at once.
#[derive(Default)]
struct Open {
    streams: HashMap<usize, TcpStream>,
    count: usize,
    over: bool,
}

struct Meeting<'a> {
    circle: &'a Circle,
    waits: Waits,
    started: Instant,
    open: Mutex<Open>,
    guests: AtomicUsize,
}

impl Meeting<'_> {
    fn left(&self) -> Duration {
        self.circle.patience.saturating_sub(self.started.elapsed())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nobody panics while holding it, and every state of it is sound.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handshake that ends when the meeting does.
    fn shake(&self, stream: &TcpStream, role: Role, rank: usize, longest: Duration) -> Result<(), Failure> {
        stream.set_nonblocking(false)?;
        tune(stream)?;
        let copy = stream.try_clone()?;
        let number = {
            let mut open = self.open();
            if open.over {
                return Err(Failure::Io(io::ErrorKind::TimedOut.into()));
            }
            open.count += 1;
            let number = open.count;
            open.streams.insert(number, copy);
            number
        };
        let result = shake(stream, self.circle, role, rank, Instant::now() + longest.min(self.left()));
        self.open().streams.remove(&number);
        result
    }

    /// Ends every handshake and every attempt to connect.
    fn end(&self) {
        let mut open = self.open();
        open.over = true;
        for stream in open.streams.values() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    fn missing(&self, peer: usize, detail: String) -> CollectiveError {
        let circle = self.circle;
        let (address, waited) = (circle.peers[peer], self.started.elapsed());
        CollectiveError::Connect { rank: circle.rank, peer, address, waited, detail }
    }

    fn refused(&self, peer: usize, address: SocketAddr, differences: Vec<Difference>) -> CollectiveError {
        CollectiveError::Refused { rank: self.circle.rank, peer, address, differences }
    }

    /// Tries to reach the next rank until patience is over.
    fn reach_next(&self) -> Result<TcpStream, CollectiveError> {
        let peer = self.circle.next();
        let address = self.circle.peers[peer];
        let mut pause = PAUSE.0;
        let mut detail = "no attempt was made".to_owned();
        while !self.left().is_zero() && !self.open().over {
            match self.attempt(address, peer) {
                Ok(stream) => return Ok(stream),
                Err(Failure::Differs { differences, .. }) => {
                    return Err(self.refused(peer, address, differences));
                }
                Err(Failure::Stranger(what)) => {
                    return Err(self.missing(peer, format!("something else answers there: {what}")));
                }
                Err(Failure::Io(error)) => detail = error.to_string(),
            }
            thread::sleep(pause.min(self.left()));
            pause = (pause * 2).min(PAUSE.1);
        }
        Err(self.missing(peer, detail))
    }

    fn attempt(&self, address: SocketAddr, peer: usize) -> Result<TcpStream, Failure> {
        let left = self.left().clamp(Duration::from_nanos(1), self.waits.connect);
        let stream = TcpStream::connect_timeout(&address, left)?;
        // Where nobody listens yet, the system may choose that very port for our end, and we reach ourselves.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(Failure::Io(io::ErrorKind::ConnectionRefused.into()));
        }
        self.shake(&stream, Role::Connector, peer, self.left())?;
        Ok(stream)
    }

    /// Finds out who has come.
    fn receive_guest(&self, stream: TcpStream, address: SocketAddr) -> News {
        let peer = self.circle.previous();
        match self.shake(&stream, Role::Acceptor, peer, self.waits.handshake) {
            Ok(()) => News::Previous(stream),
            Err(Failure::Differs { differences, proven }) => {
                // Someone of another job or generation just has an old address. One of ours that differs in
                // anything else will not come in a better shape.
                let foreign = differences.iter().any(|difference| {
                    matches!(difference, Difference::Job { .. } | Difference::Generation { .. })
                });
                let refused = self.refused(peer, address, differences);
                if proven && !foreign {
                    News::Misfit(refused)
                } else {
                    News::Stranger { who: refused.to_string(), kin: true }
                }
            }
            Err(Failure::Stranger(what)) => {
                News::Stranger { who: format!("{address} does not speak our protocol: {what}"), kin: false }
            }
            Err(Failure::Io(error)) => {
                News::Stranger { who: format!("{address} did not introduce itself: {error}"), kin: false }
            }
        }
    }
}

/// Settings of a ring connection. Small frames must not wait for company.
///
/// Between hosts the system sizes the buffers and controls congestion: it measures the path, and may go beyond what a
/// program can ask for. Within one host there is nothing to measure, and a congestion control that paces what it sends
/// (bbr) only costs time; reno does not, and every Linux has it.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if stream.local_addr()?.ip() == stream.peer_addr()?.ip() {
        sockopt::set_socket_send_buffer_size(stream, SOCKET_BUFFER)?;
        sockopt::set_socket_recv_buffer_size(stream, SOCKET_BUFFER)?;
        if let Err(error) = sockopt::set_tcp_congestion(stream, "reno") {
            tracing::debug!(%error, "a connection within this host keeps the system's congestion control");
        }
    }
    Ok(())
}

/// Connects to the next rank and accepts the previous one, until patience is over.
pub(crate) fn establish(listener: &RingListener, circle: &Circle) -> Result<Sockets, CollectiveError> {
    let meeting = Meeting {
        circle,
        waits: Waits::of(circle.patience),
        started: Instant::now(),
        open: Mutex::default(),
        guests: AtomicUsize::new(0),
    };
    let local = |cause| CollectiveError::local(circle.rank, "connecting the ring", cause);
    let (tell, news) = unbounded();
    let (next, previous) = thread::scope(|scope| {
        let connector = tell.clone();
        let meeting = &meeting;
        let outcome = thread::Builder::new()
            .name("squad-connect".to_owned())
            // The receiver lives longer than this thread.
            .spawn_scoped(scope, move || connector.send(News::Next(meeting.reach_next())).ok())
            .map_err(local)
            .and_then(|_| await_both(meeting, &listener.listener, scope, (&tell, &news)));
        meeting.end();
        outcome
    })?;
    Sockets::new(next, previous).map_err(local)
}

/// What has come of a meeting so far.
#[derive(Default)]
struct Progress {
    next: Option<TcpStream>,
    previous: Option<TcpStream>,
    /// The first error, and when it came.
    failed: Option<(CollectiveError, Instant)>,
    /// Whether it is known of each side if it fits.
    judged_next: bool,
    judged_previous: bool,
    /// The last stranger.
    turned_away: Option<String>,
}

impl Progress {
    fn fail(&mut self, error: CollectiveError) {
        self.failed.get_or_insert((error, Instant::now()));
    }

    fn take(&mut self, news: News, rank: usize) {
        match news {
            News::Next(result) => {
                self.judged_next = true;
                match result {
                    Ok(stream) => self.next = Some(stream),
                    Err(error) => self.fail(error),
                }
            }
            // A second one would be a repetition whose first attempt only seemed to fail: the later counts.
            News::Previous(stream) => {
                self.judged_previous = true;
                self.previous = Some(stream);
            }
            News::Misfit(error) => {
                self.judged_previous = true;
                self.fail(error);
            }
            News::Stranger { who, kin } => {
                tracing::warn!(rank, who, "turned a connection away");
                self.judged_previous |= kin;
                self.turned_away = Some(who);
            }
        }
    }

    /// Whether nothing more is to be waited for. After an error the meeting goes on for a moment, so that the
    /// neighbours, who are perhaps about to find the same difference, find it, and not a closed door.
    fn is_over(&self, left: Duration, linger: Duration) -> bool {
        match &self.failed {
            Some((_, when)) => {
                left.is_zero() || when.elapsed() >= linger || (self.judged_next && self.judged_previous)
            }
            None => left.is_zero() || (self.next.is_some() && self.previous.is_some()),
        }
    }

    fn outcome(self, meeting: &Meeting<'_>) -> Result<(TcpStream, TcpStream), CollectiveError> {
        let circle = meeting.circle;
        if let Some((error, _)) = self.failed {
            return Err(error);
        }
        let peer = match (self.next, self.previous) {
            (Some(next), Some(previous)) => return Ok((next, previous)),
            (_, None) => circle.previous(),
            (None, _) => circle.next(),
        };
        let detail = match self.turned_away {
            Some(who) => format!("it did not come; last turned away: {who}"),
            None => "it did not come".to_owned(),
        };
        Err(meeting.missing(peer, detail))
    }
}

/// Lets guests in until both connections stand, or cannot.
fn await_both<'scope>(
    meeting: &'scope Meeting<'_>,
    listener: &TcpListener,
    scope: &'scope thread::Scope<'scope, '_>,
    (tell, news): (&Sender<News>, &Receiver<News>),
) -> Result<(TcpStream, TcpStream), CollectiveError> {
    let mut progress = Progress::default();
    while !progress.is_over(meeting.left(), meeting.waits.blame) {
        let patience = if progress.previous.is_none() {
            admit(meeting, listener, scope, tell, meeting.left().min(GLANCE));
            Duration::ZERO
        } else {
            meeting.left().min(meeting.waits.blame)
        };
        match news.recv_timeout(patience) {
            Ok(news) => progress.take(news, meeting.circle.rank),
            // This function holds a sender itself, so the channel cannot be closed.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    progress.outcome(meeting)
}

/// Waits a moment for guests and starts a handshake with each.
fn admit<'scope>(
    meeting: &'scope Meeting<'_>,
    listener: &TcpListener,
    scope: &'scope thread::Scope<'scope, '_>,
    tell: &Sender<News>,
    moment: Duration,
) {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    if let Err(error) = wait(&mut fds, moment) {
        tracing::debug!(%error, "waiting for guests");
        thread::sleep(moment);
    }
    loop {
        let (stream, address) = match listener.accept() {
            Ok(guest) => guest,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                // A guest that has left already, or no descriptors at present: neither may end the meeting.
                tracing::warn!(%error, "accepting a ring connection");
                thread::sleep(moment);
                return;
            }
        };
        if meeting.guests.fetch_add(1, Ordering::SeqCst) >= MAX_GUESTS {
            meeting.guests.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let tell = tell.clone();
        let started = thread::Builder::new().name("squad-guest".to_owned()).spawn_scoped(scope, move || {
            // The receiver outlives this thread; news that come after the end are of no interest.
            tell.send(meeting.receive_guest(stream, address)).ok();
            meeting.guests.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = started {
            meeting.guests.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "no thread for a guest");
        }
    }
}
