//! Executes a plan over the two sockets of a rank: sending and receiving go on at the same time, in one
//! thread, segment by segment. Neither waits for the other, so no size of message can lock the ring up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::{CollectiveError, Operation, Scene};
use crate::frame::{HEADER, Header, Kind, MAX_NOTICE, Notice};
use crate::link::{Interest, Moved, Sockets, read_some, write_some};
use crate::payload::Payload;
use crate::schedule::{Absorb, Plan};
use crate::wire::{Segment, Wire, bytes, cut};

/// Longest sleep without a look at the abort flag. Aborting wakes the sleeper anyway.
const SLICE: Duration = Duration::from_secs(1);

/// How long the rest of a notice may take to arrive once it has begun.
const NOTICE_WAIT: Duration = Duration::from_millis(500);

/// What stays the same for the life of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) rank: usize,
    pub(crate) next: usize,
    pub(crate) previous: usize,
    pub(crate) fence: u64,
    pub(crate) patience: Duration,
}

/// Which operation this is; equal on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) root: usize,
    pub(crate) total: u64,
    pub(crate) sequence: u64,
}

impl Call {
    /// What a rank that makes this call is doing, for people.
    pub(crate) fn describe(&self) -> String {
        let Call { operation, root, total, sequence } = self;
        match operation {
            Operation::Broadcast => {
                format!("broadcast of {total} elements from rank {root} as no. {sequence}")
            }
            _ => format!("{operation} of size {total} as no. {sequence}"),
        }
    }
}

/// One operation under way.
pub(crate) struct Exchange<'a, P> {
    terms: Terms,
    sockets: &'a Sockets,
    wire: &'a mut Wire,
    call: Call,
    payload: &'a mut P,
    outgoing: Vec<Segment>,
    incoming: Vec<Segment>,
    /// How many of `outgoing` need nothing to have been received.
    own: usize,
    /// Segments that have left and arrived, entirely.
    sent: usize,
    received: usize,
    bytes_sent: u64,
    bytes_received: u64,
    can_write: bool,
    can_read: bool,
    /// When a byte last passed in either direction.
    progress: Instant,
}

impl<'a, P: Payload> Exchange<'a, P> {
    pub(crate) fn new(
        terms: Terms,
        sockets: &'a Sockets,
        wire: &'a mut Wire,
        call: Call,
        plan: &Plan,
        payload: &'a mut P,
    ) -> Exchange<'a, P> {
        let out = |spans: &[usize]| -> Vec<Segment> {
            spans.iter().flat_map(|span| cut(*span, payload.size(*span), Absorb::Replace)).collect()
        };
        let outgoing = out(&plan.sends);
        let own = out(&plan.sends[..plan.own]).len();
        let incoming =
            plan.receives.iter().flat_map(|(span, how)| cut(*span, payload.size(*span), *how)).collect();
        Exchange {
            terms,
            sockets,
            wire,
            call,
            payload,
            outgoing,
            incoming,
            own,
            sent: 0,
            received: 0,
            bytes_sent: 0,
            bytes_received: 0,
            can_write: true,
            can_read: true,
            progress: Instant::now(),
        }
    }

    /// Carries the operation out. After an error the connections are of no further use.
    pub(crate) fn run(mut self) -> Result<(), CollectiveError> {
        loop {
            let sent = self.send()?;
            let received = self.receive()?;
            if self.sent == self.outgoing.len() && self.received == self.incoming.len() {
                return Ok(());
            }
            if sent || received {
                self.progress = Instant::now();
            } else {
                self.wait()?;
            }
        }
    }

    fn header(&self, segment: usize, length: usize) -> Header {
        Header {
            kind: Kind::Segment(self.call.operation),
            root: self.call.root as u32,
            payload: length as u32,
            sequence: self.call.sequence,
            total: self.call.total,
            segment: segment as u64,
            fence: self.terms.fence,
        }
    }

    /// Whether there is, now, something to write.
    fn has_to_send(&self) -> bool {
        self.sent < self.outgoing.len() && self.sent < self.own + self.received
    }

    /// Writes once, if there is something to write and room. Answers whether bytes passed.
    fn send(&mut self) -> Result<bool, CollectiveError> {
        if !self.can_write || !self.has_to_send() {
            return Ok(false);
        }
        if self.wire.next_closed {
            return Err(self.lost_next("the other side closed it".to_owned()));
        }
        if self.wire.unsent.is_empty() {
            let segment = self.outgoing[self.sent];
            let header = self.header(self.sent, segment.length).encode();
            let frame = &mut self.wire.outgoing[..HEADER + segment.length];
            frame[..HEADER].copy_from_slice(&header);
            self.payload.load(segment.span, segment.offset, &mut frame[HEADER..]);
            self.wire.unsent = 0..frame.len();
        }
        match write_some(&self.sockets.next, self.wire.unsent()) {
            Moved::Bytes(count) => {
                let header = HEADER.saturating_sub(self.wire.unsent.start).min(count);
                self.bytes_sent += (count - header) as u64;
                self.wire.unsent.start += count;
                self.sent += usize::from(self.wire.unsent.is_empty());
                Ok(true)
            }
            Moved::Nothing => {
                self.can_write = false;
                Ok(false)
            }
            Moved::Closed(cause) => Err(self.lost_next(cause)),
        }
    }

    /// Reads once, if something is due, and takes in what is complete. Answers whether bytes passed.
    fn receive(&mut self) -> Result<bool, CollectiveError> {
        if !self.can_read || self.received == self.incoming.len() {
            return Ok(false);
        }
        let segment = self.incoming[self.received];
        let (before, due) = (self.wire.filled, HEADER + segment.length);
        match read_some(&self.sockets.previous, &mut self.wire.incoming[before..due]) {
            Moved::Bytes(count) => self.wire.filled += count,
            Moved::Nothing => {
                self.can_read = false;
                return Ok(false);
            }
            Moved::Closed(cause) => {
                return Err(CollectiveError::PeerLost { scene: self.scene_of_previous(), cause });
            }
        }
        let filled = self.wire.filled;
        if before < HEADER && filled >= HEADER {
            self.check_header(segment.length)?;
        }
        self.bytes_received += (filled.max(HEADER) - before.max(HEADER)) as u64;
        if filled == due {
            let bytes = &self.wire.incoming[HEADER..due];
            self.payload.absorb(segment.span, segment.offset, bytes, segment.how);
            self.received += 1;
            self.wire.filled = 0;
        }
        Ok(true)
    }

    /// Looks whether the frame that has begun is the one that is due.
    fn check_header(&mut self, length: usize) -> Result<(), CollectiveError> {
        let due = self.header(self.received, length);
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&self.wire.incoming[..HEADER]);
        let found = match Header::decode(&bytes, self.terms.fence) {
            Ok(found) if found == due => return Ok(()),
            Ok(found) => found,
            Err(detail) => return Err(CollectiveError::Garbage { scene: self.scene_of_previous(), detail }),
        };
        if found.kind == Kind::Notice {
            return Err(self.notice_of_previous(found.payload as usize));
        }
        let same_call = Header { segment: due.segment, payload: due.payload, ..found } == due;
        let scene = self.scene_of_previous();
        if same_call {
            let detail = format!(
                "frame {} with {} bytes, where frame {} with {} bytes was due",
                found.segment, found.payload, due.segment, due.payload
            );
            return Err(CollectiveError::Garbage { scene, detail });
        }
        let detail = format!("here {}, there {}", due.describe(), found.describe());
        Err(CollectiveError::Disagreement { scene, detail })
    }

    /// Reads the rest of the previous rank's notice. Without it that rank is just lost.
    fn notice_of_previous(&mut self, length: usize) -> CollectiveError {
        let mut notice = self.wire.incoming[HEADER..self.wire.filled].to_vec();
        let deadline = Instant::now() + NOTICE_WAIT;
        let mut buffer = [0; MAX_NOTICE];
        while notice.len() < length.min(MAX_NOTICE) {
            match read_some(&self.sockets.previous, &mut buffer[..length.min(MAX_NOTICE) - notice.len()]) {
                Moved::Bytes(count) => notice.extend(&buffer[..count]),
                Moved::Closed(_) => break,
                Moved::Nothing => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let interest = Interest { read_previous: true, write_next: false, hear_next: false };
                    if left.is_zero() || self.sockets.wait(interest, left).is_err() {
                        break;
                    }
                }
            }
        }
        match Notice::decode(&notice[..notice.len().min(length)]) {
            Some(notice) => self.reported(notice),
            None => {
                let cause = "it failed without saying why".to_owned();
                CollectiveError::PeerLost { scene: self.scene_of_previous(), cause }
            }
        }
    }

    /// Sleeps until bytes can pass again, a neighbour says something, or patience is over.
    fn wait(&mut self) -> Result<(), CollectiveError> {
        if self.sockets.is_aborted() {
            return Err(CollectiveError::Aborted { rank: self.terms.rank });
        }
        let waited = self.progress.elapsed();
        let left = self.patience().saturating_sub(waited);
        if left.is_zero() {
            let reading = self.received < self.incoming.len();
            let scene = if reading { self.scene_of_previous() } else { self.scene_of_next() };
            return Err(CollectiveError::PeerStalled { scene, waited });
        }
        let interest = Interest {
            read_previous: self.received < self.incoming.len(),
            write_next: self.has_to_send(),
            hear_next: !self.wire.next_closed,
        };
        let ready = self
            .sockets
            .wait(interest, left.min(SLICE))
            .map_err(|cause| CollectiveError::local(self.terms.rank, "waiting for the ring", cause))?;
        self.can_read |= ready.read_previous;
        self.can_write |= ready.write_next;
        if ready.hear_next {
            self.hear_next()?;
            if self.wire.next_closed && self.sent < self.outgoing.len() {
                return Err(self.lost_next("the other side closed it".to_owned()));
            }
        }
        Ok(())
    }

    /// How long nothing may pass. When a rank stalls, the whole ring runs dry, and the rank behind it has
    /// received least. Those that have received more wait up to a quarter longer, so that the one that knows
    /// whom to blame speaks first.
    fn patience(&self) -> Duration {
        let share = self.received as f64 / self.incoming.len().max(1) as f64;
        self.terms.patience.saturating_add((self.terms.patience / 4).mul_f64(share))
    }

    /// Reads what the next rank says: only ever a notice of failure, or its end. An end alone is no error
    /// here: a rank that has finished the last operation may go while others still exchange segments.
    fn hear_next(&mut self) -> Result<(), CollectiveError> {
        let mut buffer = [0; HEADER + MAX_NOTICE];
        loop {
            match read_some(&self.sockets.next, &mut buffer) {
                Moved::Bytes(count) => self.wire.heard.extend(&buffer[..count]),
                Moved::Nothing => break,
                Moved::Closed(_) => {
                    self.wire.next_closed = true;
                    break;
                }
            }
            if self.wire.heard.len() > HEADER + MAX_NOTICE {
                break;
            }
        }
        let Some((header, payload)) = self.wire.heard.split_first_chunk::<HEADER>() else {
            return Ok(());
        };
        let garbage =
            |scene, detail: &str| Err(CollectiveError::Garbage { scene, detail: detail.to_owned() });
        match Header::decode(header, self.terms.fence) {
            Ok(Header { kind: Kind::Notice, payload: length, .. }) if length as usize <= MAX_NOTICE => {
                match payload.get(..length as usize).map(Notice::decode) {
                    Some(Some(notice)) => Err(self.reported(notice)),
                    Some(None) => garbage(self.scene_of_next(), "a notice that says nothing"),
                    None => Ok(()),
                }
            }
            Ok(_) => garbage(self.scene_of_next(), "data against the direction of the ring"),
            Err(detail) => garbage(self.scene_of_next(), &detail),
        }
    }

    /// The next rank's connection broke; a notice that it has left behind says more than the break.
    fn lost_next(&mut self, cause: String) -> CollectiveError {
        match self.hear_next() {
            Err(reported) => reported,
            Ok(()) => CollectiveError::PeerLost { scene: self.scene_of_next(), cause },
        }
    }

    fn reported(&self, notice: Notice) -> CollectiveError {
        CollectiveError::Reported {
            rank: self.terms.rank,
            operation: self.call.operation,
            reporter: notice.reporter,
            blamed: notice.blamed,
            cause: notice.cause,
        }
    }

    fn scene_of_previous(&self) -> Scene {
        let progress = (self.bytes_received, bytes(&self.incoming));
        self.scene(self.terms.previous, self.sockets.previous_address, progress)
    }

    fn scene_of_next(&self) -> Scene {
        let progress = (self.bytes_sent, bytes(&self.outgoing));
        self.scene(self.terms.next, self.sockets.next_address, progress)
    }

    fn scene(&self, peer: usize, address: SocketAddr, (bytes_done, bytes_total): (u64, u64)) -> Scene {
        let (rank, operation) = (self.terms.rank, self.call.operation);
        Scene { rank, peer, address, operation, bytes_done, bytes_total }
    }
}
