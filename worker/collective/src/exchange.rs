//! Executes a plan over the two sockets of a rank: sending and receiving go on at the same time, in one
//! thread, segment by segment. Neither waits for the other, so no size of message can lock the ring up.

use std::time::{Duration, Instant};

use crate::error::{CollectiveError, Operation};
use crate::frame::{HEADER, Header, Kind};
use crate::link::{Interest, Moved, Sockets, read_some, write_some};
use crate::pace::Direction;
use crate::payload::Payload;
use crate::schedule::Plan;
use crate::wire::{Segment, Wire, order};

mod failure;

/// Longest sleep without a look at the abort flag. Aborting wakes the sleeper anyway. Fixed: it only paces looks.
const SLICE: Duration = Duration::from_secs(1);

/// Longest sleep of a rank that has others to look after as well. Fixed: it only paces looks.
pub(crate) const WATCH: Duration = Duration::from_millis(10);

/// Longest wait without sleep, where each rank of this host has a core. Fixed: the wait goes on after it, asleep.
const SPIN: Duration = Duration::from_micros(60);

/// Longest time for which a rank that shares its core looks again whenever the others have had it. Falling asleep and
/// being woken costs more than the turn of a rank that has nothing to do. Fixed, as the one before.
const YIELD: Duration = Duration::from_micros(300);

/// What stays the same for the life of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) rank: usize,
    pub(crate) next: usize,
    pub(crate) previous: usize,
    pub(crate) fence: u64,
    pub(crate) patience: Duration,
    /// Whether more ranks are on this host than it has cores.
    pub(crate) crowded: bool,
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

/// Looks after what else can end an operation, while its rank waits for bytes.
pub(crate) trait Watch: Send + Sync {
    /// What has happened elsewhere that ends `call`.
    fn look(&self, call: &Call) -> Result<(), CollectiveError>;
}

/// One frame on its way: its header, and how many bytes of header and payload have passed.
#[derive(Default)]
struct Frame {
    header: Vec<u8>,
    passed: usize,
}

/// One operation under way.
pub(crate) struct Exchange<'a, P> {
    terms: Terms,
    sockets: &'a Sockets,
    wire: &'a mut Wire,
    watch: Option<&'a dyn Watch>,
    call: Call,
    payload: &'a mut P,
    outgoing: Vec<Segment>,
    incoming: Vec<Segment>,
    /// Segments that have left and arrived, entirely.
    sent: usize,
    received: usize,
    sending: Frame,
    receiving: Frame,
    bytes_sent: u64,
    bytes_received: u64,
    can_write: bool,
    can_read: bool,
    /// When a byte last passed in either direction.
    progress: Instant,
    /// When the previous rank last said that it waits itself.
    excused: Instant,
    /// Whether the next rank has been told so.
    told: bool,
}

impl<'a, P: Payload> Exchange<'a, P> {
    pub(crate) fn new(
        (terms, sockets): (Terms, &'a Sockets),
        wire: &'a mut Wire,
        watch: Option<&'a dyn Watch>,
        call: Call,
        plan: &Plan,
        payload: &'a mut P,
    ) -> Exchange<'a, P> {
        let (outgoing, incoming) = order(plan, |span| payload.size(span));
        Exchange {
            terms,
            sockets,
            wire,
            watch,
            call,
            payload,
            outgoing,
            incoming,
            sent: 0,
            received: 0,
            sending: Frame::default(),
            receiving: Frame { header: vec![0; HEADER], passed: 0 },
            bytes_sent: 0,
            bytes_received: 0,
            can_write: true,
            can_read: true,
            progress: Instant::now(),
            excused: Instant::now(),
            told: false,
        }
    }

    /// Carries the operation out. After an error the connections are of no further use.
    pub(crate) fn run(mut self) -> Result<(), CollectiveError> {
        let result = self.pass_all();
        if result.is_err() {
            self.keep_unsent();
        }
        result
    }

    fn pass_all(&mut self) -> Result<(), CollectiveError> {
        loop {
            let sent = self.send()?;
            let received = self.receive()?;
            if self.sent == self.outgoing.len() && self.received == self.incoming.len() {
                return Ok(());
            }
            if sent || received {
                self.progress = Instant::now();
                self.told = false;
            } else if self.looks_again() {
                (self.can_read, self.can_write) = (true, true);
            } else {
                self.wait()?;
            }
        }
    }

    /// Whether another look is worth more than sleep, so soon after bytes passed.
    fn looks_again(&self) -> bool {
        let waited = self.progress.elapsed();
        if !self.terms.crowded {
            return waited < SPIN;
        }
        let soon = waited < YIELD;
        if soon {
            std::thread::yield_now();
        }
        soon
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
        self.outgoing.get(self.sent).is_some_and(|segment| segment.needs <= self.received)
    }

    /// Writes once, if there is something to write and room. Answers whether bytes passed.
    fn send(&mut self) -> Result<bool, CollectiveError> {
        if !self.can_write || !self.has_to_send() || !self.sockets.held(Direction::Out).is_zero() {
            return Ok(false);
        }
        if self.wire.next_closed {
            return Err(self.lost_next("the other side closed it".to_owned()));
        }
        let segment = self.outgoing[self.sent];
        if self.sending.passed == 0 {
            self.sending.header = self.header(self.sent, segment.length).encode().to_vec();
            if self.payload.lying(&segment).is_none() {
                let out: &mut [u8] = bytemuck::cast_slice_mut(&mut self.wire.outgoing);
                self.payload.encode(&segment, &mut out[..segment.length]);
            }
        }
        let passed = self.sending.passed;
        let made = || &bytemuck::cast_slice(&self.wire.outgoing)[..segment.length];
        let payload = self.payload.lying(&segment).unwrap_or_else(made);
        let (header, payload) = rest(&self.sending.header, payload, passed);
        match write_some(&self.sockets.next, header, payload) {
            Moved::Bytes(count) => {
                self.sockets.pass(Direction::Out, count);
                self.bytes_sent += (count - count.min(header.len())) as u64;
                self.sending.passed += count;
                if self.sending.passed == HEADER + segment.length {
                    self.sending.passed = 0;
                    self.sent += 1;
                }
                Ok(true)
            }
            Moved::Nothing => {
                self.can_write = false;
                Ok(false)
            }
            Moved::Closed(cause) => Err(self.lost_next(cause)),
        }
    }

    /// What remains of a frame that has begun to leave, for whoever says farewell.
    fn keep_unsent(&mut self) {
        self.wire.unsent.clear();
        let Some(segment) = self.outgoing.get(self.sent).filter(|_| self.sending.passed > 0) else { return };
        let made = || &bytemuck::cast_slice(&self.wire.outgoing)[..segment.length];
        let payload = self.payload.lying(segment).unwrap_or_else(made);
        let (header, payload) = rest(&self.sending.header, payload, self.sending.passed);
        self.wire.unsent = [header, payload].concat();
    }

    /// Reads once, if something is due, and takes in what is complete. Answers whether bytes passed.
    fn receive(&mut self) -> Result<bool, CollectiveError> {
        let done = self.received == self.incoming.len();
        if !self.can_read || done || !self.sockets.held(Direction::In).is_zero() {
            return Ok(false);
        }
        let segment = self.incoming[self.received];
        let (before, due) = (self.receiving.passed, HEADER + segment.length);
        let header = &mut self.receiving.header[before.min(HEADER)..];
        let payload = match self.payload.place(&segment) {
            Some(place) => place,
            None => &mut bytemuck::cast_slice_mut(&mut self.wire.incoming)[..segment.length],
        };
        match read_some(&self.sockets.previous, header, &mut payload[before.saturating_sub(HEADER)..]) {
            Moved::Bytes(count) => {
                self.sockets.pass(Direction::In, count);
                self.receiving.passed += count;
            }
            Moved::Nothing => {
                self.can_read = false;
                return Ok(false);
            }
            Moved::Closed(cause) => {
                return Err(CollectiveError::PeerLost { scene: self.scene_of_previous(), cause });
            }
        }
        if before < HEADER && self.receiving.passed >= HEADER {
            self.check_header(&segment)?;
        }
        // Less than before, if the header was none of a segment.
        let passed = self.receiving.passed;
        self.bytes_received += (passed.max(HEADER) - before.max(HEADER)) as u64;
        if passed == due {
            if self.payload.place(&segment).is_none() {
                let bytes = &bytemuck::cast_slice(&self.wire.incoming)[..segment.length];
                self.payload.absorb(&segment, bytes);
            }
            self.received += 1;
            self.receiving.passed = 0;
        }
        // What is no part of a segment is no progress: ranks that only tell each other that they wait must end, too.
        Ok(passed >= HEADER)
    }

    /// How long a slow link holds back what could pass otherwise; `None` if it does not.
    fn held(&self) -> Option<Duration> {
        let out = (self.can_write && self.has_to_send()).then(|| self.sockets.held(Direction::Out));
        let reads = self.can_read && self.received < self.incoming.len();
        let both = out.into_iter().chain(reads.then(|| self.sockets.held(Direction::In)));
        both.filter(|held| !held.is_zero()).min()
    }

    /// Sleeps until bytes can pass again, a neighbour says something, or patience is over.
    fn wait(&mut self) -> Result<(), CollectiveError> {
        if self.sockets.is_aborted() {
            return Err(CollectiveError::Aborted { rank: self.terms.rank });
        }
        self.watch.map_or(Ok(()), |watch| watch.look(&self.call))?;
        if let Some(held) = self.held() {
            std::thread::sleep(held.min(WATCH));
            return Ok(());
        }
        let waited = self.progress.elapsed();
        let reading = self.received < self.incoming.len();
        let silent = if reading { waited.min(self.excused.elapsed()) } else { waited };
        let left = self.patience().saturating_sub(silent);
        let half = (self.terms.patience / 2).saturating_sub(waited);
        if half.is_zero() && reading {
            self.tell_next()?;
        }
        if left.is_zero() {
            let scene = if reading { self.scene_of_previous() } else { self.scene_of_next() };
            return Err(CollectiveError::PeerStalled { scene, waited });
        }
        let interest = Interest {
            read_previous: self.received < self.incoming.len(),
            write_next: self.has_to_send(),
            hear_next: !self.wire.next_closed,
        };
        let slice = if self.watch.is_some() { WATCH } else { SLICE };
        // Where the next rank cannot be told at once, it is tried again.
        let slice = if self.told || !reading { slice } else { slice.min(half.max(WATCH)) };
        let ready = self
            .sockets
            .wait(interest, left.min(slice))
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

    /// How long nothing may pass. When a rank stalls, the whole ring runs dry. Ranks that wait for something to send on
    /// say so when half of it is over, and are excused for as long again: the one behind the rank that stalls hears
    /// nothing, and so speaks first. Those that have received more wait up to a quarter longer.
    fn patience(&self) -> Duration {
        let share = self.received as f64 / self.incoming.len().max(1) as f64;
        self.terms.patience.saturating_add((self.terms.patience / 4).mul_f64(share))
    }
}

/// Header and payload of a frame, without their first `passed` bytes.
fn rest<'a>(header: &'a [u8], payload: &'a [u8], passed: usize) -> (&'a [u8], &'a [u8]) {
    (&header[passed.min(HEADER)..], &payload[passed.saturating_sub(HEADER).min(payload.len())..])
}
