//! What a rank sees of other hosts, and of its own, while it waits for something else.
//!
//! A rank that fails tells its neighbours in every ring why; one that has done its part and goes says so with the
//! number of its last operation. A connection that ends without either is that of a dead process.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::error::{CollectiveError, Scene};
use crate::exchange::{Call, Terms, Watch};
use crate::frame::{HEADER, Header, Kind, Notice};
use crate::link::{Sockets, wait};
use crate::shm::Control;

/// Most bytes of what has arrived that are looked at.
const SIGHT: usize = 64 * 1024;

/// One ring that nobody uses at present.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) sockets: Arc<Sockets>,
    pub(super) terms: Terms,
    /// Whether a segment of the operation under way, in this ring, means that its sender does something else.
    pub(super) idle: bool,
}

/// The words of this host, and rings that are not used at present.
pub(super) struct Lookout {
    /// Place of this rank in its host.
    pub(super) position: usize,
    pub(super) rank: usize,
    pub(super) control: Arc<Control>,
    pub(super) lines: Vec<Line>,
    /// Bytes of the operation under way that are done.
    pub(super) done: Arc<AtomicU64>,
}

impl Watch for Lookout {
    fn look(&self, call: &Call) -> Result<(), CollectiveError> {
        self.control.beat(self.position);
        if let Some(notice) = self.control.epitaph() {
            return Err(notice.reported(self.rank, call.operation));
        }
        let done = self.done.load(Ordering::Relaxed);
        self.lines.iter().try_for_each(|line| line.look(call, done))
    }
}

/// What stands in a connection, as far as it has arrived.
enum Seen {
    /// Nothing that ends an operation.
    Nothing,
    /// Nothing either, and nothing more will come.
    End,
    /// More than can be looked at.
    TooMuch,
    /// The other side says that it goes, after the operation of this number.
    Leave(u64),
    Notice(Notice),
    /// A segment of the operation under way.
    Segment(Header),
    Garbage(String),
}

impl Line {
    fn look(&self, call: &Call, done: u64) -> Result<(), CollectiveError> {
        let Line { sockets, terms, .. } = self;
        let previous = (terms.previous, sockets.previous_address);
        self.judge((call, done), previous, self.see(&sockets.previous, call))?;
        let next = (terms.next, sockets.next_address);
        let seen = match sockets.next_left.load(Ordering::SeqCst) {
            0 => self.see(&sockets.next, call),
            left => Seen::Leave(left),
        };
        self.judge((call, done), next, seen)
    }

    /// Looks at frames without taking them: those of a later operation are for that one.
    fn see(&self, stream: &TcpStream, call: &Call) -> Seen {
        let mut header = [0; HEADER];
        let first = match stream.peek(&mut header) {
            Ok(0) => return Seen::End,
            Ok(first) => first,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Seen::Nothing;
            }
            Err(_) => return Seen::End,
        };
        // One frame alone is what nearly always stands here, if anything does.
        let mut bytes = vec![0; if first < HEADER { HEADER } else { SIGHT }];
        let arrived = stream.peek(&mut bytes).unwrap_or(0);
        let mut rest = &bytes[..arrived];
        while let Some((header, behind)) = rest.split_first_chunk::<HEADER>() {
            let header = match Header::decode(header, self.terms.fence) {
                Ok(header) => header,
                Err(detail) => return Seen::Garbage(detail),
            };
            let payload = header.payload as usize;
            match header.kind {
                Kind::Leave => return Seen::Leave(header.sequence),
                Kind::Notice => match behind.get(..payload).map(Notice::decode) {
                    Some(Some(notice)) => return Seen::Notice(notice),
                    Some(None) => return Seen::Garbage("a notice that says nothing".to_owned()),
                    None => break,
                },
                Kind::Segment(_) if self.idle && header.sequence == call.sequence => {
                    return Seen::Segment(header);
                }
                Kind::Segment(_) | Kind::Wait => rest = behind.get(payload..).unwrap_or_default(),
            }
        }
        if arrived == SIGHT {
            return Seen::TooMuch;
        }
        if has_ended(stream) { Seen::End } else { Seen::Nothing }
    }

    fn judge(
        &self,
        (call, done): (&Call, u64),
        (peer, address): (usize, SocketAddr),
        seen: Seen,
    ) -> Result<(), CollectiveError> {
        let (rank, operation) = (self.terms.rank, call.operation);
        let total = call.total.saturating_mul(size_of::<f32>() as u64);
        let scene = Scene { rank, peer, address, operation, bytes_done: done, bytes_total: total };
        let lost = |cause: &str| CollectiveError::PeerLost { scene, cause: cause.to_owned() };
        Err(match seen {
            Seen::Nothing | Seen::TooMuch => return Ok(()),
            Seen::Leave(last) if last >= call.sequence => return Ok(()),
            Seen::Leave(_) => lost("it has left"),
            Seen::End => lost("the other side closed it"),
            Seen::Notice(notice) => notice.reported(self.terms.rank, call.operation),
            Seen::Garbage(detail) => CollectiveError::Garbage { scene, detail },
            Seen::Segment(header) => {
                let detail = format!("here {}, there {}", call.describe(), header.describe());
                CollectiveError::Disagreement { scene, detail }
            }
        })
    }
}

/// Whether nothing more will come, whatever is still to be read.
fn has_ended(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    wait(&mut fds, Duration::ZERO).is_ok() && fds[0].revents().intersects(ends)
}
