//! What a neighbour that fails, leaves or does something else looks like in the middle of an operation.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Exchange;
use crate::error::{CollectiveError, Scene};
use crate::frame::{HEADER, Header, Kind, MAX_NOTICE, Notice};
use crate::link::{Interest, Moved, read_some, write_some};
use crate::payload::Payload;
use crate::waits::Waits;
use crate::wire::{Segment, bytes};

impl<P: Payload> Exchange<'_, P> {
    /// Looks whether the frame that has begun is the one that is due.
    pub(super) fn check_header(&mut self, segment: &Segment) -> Result<(), CollectiveError> {
        let due = self.header(self.received, segment.length);
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&self.receiving.header);
        let found = match Header::decode(&bytes, self.terms.fence) {
            Ok(found) if found == due => return Ok(()),
            Ok(found) => found,
            Err(detail) => return Err(CollectiveError::Garbage { scene: self.scene_of_previous(), detail }),
        };
        let scene = self.scene_of_previous();
        match found.kind {
            Kind::Notice => return Err(self.notice_of_previous(segment, found.payload as usize)),
            Kind::Leave => {
                return Err(CollectiveError::PeerLost { scene, cause: "it has left".to_owned() });
            }
            Kind::Wait => {
                self.pass_over_header(segment);
                self.excused = Instant::now();
                return if self.receiving.passed < HEADER { Ok(()) } else { self.check_header(segment) };
            }
            Kind::Segment(_) => {}
        }
        let same_call = Header { segment: due.segment, payload: due.payload, ..found } == due;
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

    /// Takes what has come behind a header that had no payload for the beginning of the segment's frame.
    fn pass_over_header(&mut self, segment: &Segment) {
        let arrived = self.receiving.passed - HEADER;
        let payload = match self.payload.place(segment) {
            Some(place) => place,
            None => bytemuck::cast_slice_mut::<f32, u8>(&mut self.wire.incoming),
        };
        let header = arrived.min(HEADER);
        self.receiving.header[..header].copy_from_slice(&payload[..header]);
        payload.copy_within(header..arrived, 0);
        self.receiving.passed = arrived;
    }

    /// Tells the next rank, once, that this one waits itself. It is told between two frames only.
    pub(super) fn tell_next(&mut self) -> Result<(), CollectiveError> {
        if self.told || self.sending.passed > 0 || self.wire.next_closed {
            return Ok(());
        }
        let word = Header { kind: Kind::Wait, payload: 0, segment: 0, ..self.header(0, 0) }.encode();
        let mut written = 0;
        while written < word.len() {
            match write_some(&self.sockets.next, &word[written..], &[]) {
                Moved::Bytes(count) => written += count,
                Moved::Closed(cause) => return Err(self.lost_next(cause)),
                Moved::Nothing if written == 0 => return Ok(()),
                Moved::Nothing => {
                    let interest = Interest { read_previous: false, write_next: true, hear_next: false };
                    let ready = self.sockets.wait(interest, Waits::of(self.terms.patience).last_words);
                    if !ready.is_ok_and(|ready| ready.write_next) {
                        return Err(self.lost_next("it took half a frame".to_owned()));
                    }
                }
            }
        }
        self.told = true;
        Ok(())
    }

    /// Reads the rest of the previous rank's notice, whose beginning has come where a segment was due. Without
    /// it that rank is just lost.
    fn notice_of_previous(&mut self, segment: &Segment, length: usize) -> CollectiveError {
        let begun = self.receiving.passed - HEADER;
        let mut notice = match self.payload.place(segment) {
            Some(place) => place[..begun].to_vec(),
            None => bytemuck::cast_slice::<f32, u8>(&self.wire.incoming)[..begun].to_vec(),
        };
        let deadline = Instant::now() + Waits::of(self.terms.patience).last_words;
        let mut buffer = [0; MAX_NOTICE];
        while notice.len() < length.min(MAX_NOTICE) {
            let room = &mut buffer[..length.min(MAX_NOTICE) - notice.len()];
            match read_some(&self.sockets.previous, room, &mut []) {
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

    /// Reads what the next rank says: only ever a notice of failure, or its end. An end alone is no error
    /// here: a rank that has finished the last operation may go while others still exchange segments.
    pub(super) fn hear_next(&mut self) -> Result<(), CollectiveError> {
        let mut buffer = [0; HEADER + MAX_NOTICE];
        loop {
            match read_some(&self.sockets.next, &mut buffer, &mut []) {
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
            Ok(Header { kind: Kind::Leave, sequence, .. }) => {
                self.sockets.next_left.store(sequence, Ordering::SeqCst);
                self.wire.next_closed = true;
                Ok(())
            }
            Ok(_) => garbage(self.scene_of_next(), "data against the direction of the ring"),
            Err(detail) => garbage(self.scene_of_next(), &detail),
        }
    }

    /// The next rank's connection broke; a notice that it has left behind says more than the break.
    pub(super) fn lost_next(&mut self, cause: String) -> CollectiveError {
        match self.hear_next() {
            Err(reported) => reported,
            Ok(()) => CollectiveError::PeerLost { scene: self.scene_of_next(), cause },
        }
    }

    fn reported(&self, notice: Notice) -> CollectiveError {
        notice.reported(self.terms.rank, self.call.operation)
    }

    pub(super) fn scene_of_previous(&self) -> Scene {
        let progress = (self.bytes_received, bytes(&self.incoming));
        self.scene(self.terms.previous, self.sockets.previous_address, progress)
    }

    pub(super) fn scene_of_next(&self) -> Scene {
        let progress = (self.bytes_sent, bytes(&self.outgoing));
        self.scene(self.terms.next, self.sockets.next_address, progress)
    }

    fn scene(&self, peer: usize, address: SocketAddr, (bytes_done, bytes_total): (u64, u64)) -> Scene {
        let (rank, operation) = (self.terms.rank, self.call.operation);
        Scene { rank, peer, address, operation, bytes_done, bytes_total }
    }
}
