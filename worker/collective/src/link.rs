//! The two sockets of a rank, without blocking: the next rank is written to, the previous one read from.
//!
//! The other direction of each connection carries nothing but notices of failure.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::abort::AbortHandle;
use crate::pace::{Direction, Pace};

/// What became of one attempt to read or write.
pub(crate) enum Moved {
    /// So many bytes passed, at least one.
    Bytes(usize),
    /// Nothing can pass at present.
    Nothing,
    /// Nothing will ever pass again.
    Closed(String),
}

fn moved(result: io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Closed("the other side closed it".to_owned()),
        Ok(bytes) => Moved::Bytes(bytes),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Moved::Nothing,
        Err(error) => Moved::Closed(error.to_string()),
    }
}

/// Reads what is there, into two places that are not both empty, the first one first.
pub(crate) fn read_some(mut stream: &TcpStream, first: &mut [u8], second: &mut [u8]) -> Moved {
    loop {
        let result = match (first.is_empty(), second.is_empty()) {
            (_, true) => stream.read(first),
            (true, _) => stream.read(second),
            _ => stream.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)]),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return moved(result),
        }
    }
}

/// Writes what fits, from two places that are not both empty, the first one first.
pub(crate) fn write_some(mut stream: &TcpStream, first: &[u8], second: &[u8]) -> Moved {
    loop {
        let result = match (first.is_empty(), second.is_empty()) {
            (_, true) => stream.write(first),
            (true, _) => stream.write(second),
            _ => stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return moved(result),
        }
    }
}

/// Waits for events on `fds`. An interrupted wait counts as one in which nothing happened.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    // Seconds beyond i64 do not occur: patience is a span of waiting.
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One of the two ranks that a rank has a connection with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// The one that it sends to.
    Next,
    /// The one that it receives from.
    Previous,
}

/// What a rank waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    /// Bytes from the previous rank.
    pub(crate) read_previous: bool,
    /// Room towards the next rank.
    pub(crate) write_next: bool,
    /// A notice from the next rank, or its end.
    pub(crate) hear_next: bool,
}

/// Both connections of a rank. Shared with abort handles, which only shut them down.
pub(crate) struct Sockets {
    pub(crate) next: TcpStream,
    pub(crate) previous: TcpStream,
    pub(crate) next_address: SocketAddr,
    pub(crate) previous_address: SocketAddr,
    /// Number of the last operation of the next rank, once it has said that it goes; until then 0.
    pub(crate) next_left: AtomicU64,
    /// Shared by all rings of a rank.
    aborted: Arc<AtomicBool>,
    /// How fast bytes may pass, over all rings of a rank together.
    pace: Option<Arc<Pace>>,
}

impl Sockets {
    /// Takes over two connections and makes them non-blocking.
    pub(crate) fn new(next: TcpStream, previous: TcpStream) -> io::Result<Sockets> {
        next.set_nonblocking(true)?;
        previous.set_nonblocking(true)?;
        let (next_address, previous_address) = (next.peer_addr()?, previous.peer_addr()?);
        let (next_left, aborted) = (AtomicU64::new(0), Arc::default());
        Ok(Sockets { next, previous, next_address, previous_address, next_left, aborted, pace: None })
    }

    /// The same connections, over a link of this speed.
    pub(crate) fn paced(self, pace: Option<Arc<Pace>>) -> Sockets {
        Sockets { pace, ..self }
    }

    /// How long nothing may pass in this direction; zero if something may.
    pub(crate) fn held(&self, direction: Direction) -> Duration {
        self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.held(direction))
    }

    /// So many bytes have passed.
    pub(crate) fn pass(&self, direction: Direction, bytes: usize) {
        if let Some(pace) = &self.pace {
            pace.pass(direction, bytes);
        }
    }

    /// The same connections; an abort of `other` aborts these too, and they go over its link.
    pub(crate) fn aborted_with(self, other: &Sockets) -> Sockets {
        Sockets { aborted: Arc::clone(&other.aborted), pace: other.pace.clone(), ..self }
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Shutting down wakes the owner from its wait, and stays visible: no wake-up can be lost. Handles hold
    /// the sockets weakly, so that a handle which outlives the ring does not keep them open. `wake` wakes an
    /// owner that waits for something else.
    pub(crate) fn abort_handle(self: &Arc<Self>, wake: impl Fn() + Send + Sync + 'static) -> AbortHandle {
        let sockets: Weak<Sockets> = Arc::downgrade(self);
        AbortHandle::new(Arc::clone(&self.aborted), move || {
            if let Some(sockets) = sockets.upgrade() {
                sockets.end();
            }
            wake();
        })
    }

    /// Ends both connections, in both directions.
    pub(crate) fn end(&self) {
        // A socket that is closed already is as good.
        self.next.shutdown(Shutdown::Both).ok();
        self.previous.shutdown(Shutdown::Both).ok();
    }

    /// A neighbour whose connection has ended, if there is one, and how. For a time in which nobody sends
    /// anything; what comes nevertheless is dropped.
    pub(crate) fn lost(&self) -> Option<(Neighbour, String)> {
        let sockets = [(Neighbour::Next, &self.next), (Neighbour::Previous, &self.previous)];
        sockets.into_iter().find_map(|(neighbour, socket)| match read_some(socket, &mut [0; 64], &mut []) {
            Moved::Closed(cause) => Some((neighbour, cause)),
            Moved::Bytes(_) | Moved::Nothing => None,
        })
    }

    /// Waits for any of `interest`, and says what has come true. Errors and ends of file count as readiness,
    /// since the attempt that follows shows them.
    pub(crate) fn wait(&self, interest: Interest, timeout: Duration) -> io::Result<Interest> {
        let mut towards_next = PollFlags::empty();
        towards_next.set(PollFlags::OUT, interest.write_next);
        towards_next.set(PollFlags::IN, interest.hear_next);
        let mut fds = Vec::with_capacity(2);
        // poll reports hang-ups on every descriptor it is given; one of no interest would make it spin.
        if !towards_next.is_empty() {
            fds.push(PollFd::new(&self.next, towards_next));
        }
        if interest.read_previous {
            fds.push(PollFd::new(&self.previous, PollFlags::IN));
        }
        wait(&mut fds, timeout)?;
        let of_next = if towards_next.is_empty() { PollFlags::empty() } else { fds[0].revents() };
        let broken = of_next.intersects(PollFlags::ERR | PollFlags::HUP);
        Ok(Interest {
            read_previous: interest.read_previous && fds.last().is_some_and(|fd| !fd.revents().is_empty()),
            write_next: interest.write_next && (broken || of_next.contains(PollFlags::OUT)),
            hear_next: interest.hear_next && (broken || of_next.contains(PollFlags::IN)),
        })
    }

    /// Last words to both neighbours, as far as they can be brought out at once; then both connections end.
    ///
    /// `unsent` is what remains of a frame to the next rank: without it the notice would be taken for a part
    /// of that frame. Only the outgoing halves are closed: closing all of it with unread bytes at hand would
    /// reset the connection and destroy the notice under way.
    pub(crate) fn farewell(&self, unsent: &[u8], notice: &[u8], longest: Duration) {
        // The notice is smaller than an empty socket's buffer; nothing else was ever sent this way.
        if let Moved::Closed(cause) = write_some(&self.previous, notice, &[]) {
            tracing::debug!(cause, "no notice to the previous rank");
        }
        let deadline = Instant::now() + longest;
        let forward = [unsent, notice].concat();
        let mut at = 0;
        while at < forward.len() {
            match write_some(&self.next, &forward[at..], &[]) {
                Moved::Bytes(bytes) => at += bytes,
                Moved::Closed(_) => break,
                Moved::Nothing => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let mut fds = [PollFd::new(&self.next, PollFlags::OUT)];
                    if left.is_zero() || wait(&mut fds, left).is_err() {
                        break;
                    }
                }
            }
        }
        self.next.shutdown(Shutdown::Write).ok();
        self.previous.shutdown(Shutdown::Write).ok();
    }
}
