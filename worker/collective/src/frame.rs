//! What goes over a connection once it stands: frames of a header and one segment, and the notice with
//! which a failing rank tells its neighbours why.

use crate::error::{CollectiveError, Operation};
use crate::exchange::Call;

/// Bytes of a header on the wire.
pub(crate) const HEADER: usize = 48;

/// Largest payload of a notice.
pub(crate) const MAX_NOTICE: usize = 512;

/// First bytes of every frame: "SQF1".
const MAGIC: u32 = u32::from_le_bytes(*b"SQF1");

/// What a frame is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A segment of an operation.
    Segment(Operation),
    /// Its sender lives, and waits itself for what it is to send.
    Wait,
    /// The last word of a rank that has done its part and goes: the sequence is that of its last operation.
    Leave,
    /// The last words of a failing rank.
    Notice,
}

const KINDS: [(u32, Kind); 11] = [
    (1, Kind::Segment(Operation::AllReduce)),
    (2, Kind::Segment(Operation::ReduceScatter)),
    (3, Kind::Segment(Operation::AllGather)),
    (4, Kind::Segment(Operation::Broadcast)),
    (5, Kind::Segment(Operation::GatherBytes)),
    (6, Kind::Segment(Operation::Barrier)),
    (7, Kind::Segment(Operation::AllReduceRows)),
    (8, Kind::Segment(Operation::MakeBuffer)),
    (253, Kind::Wait),
    (254, Kind::Leave),
    (255, Kind::Notice),
];

/// Says what follows, so completely that two ranks which do different things cannot miss it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Root of a broadcast, digest of the rows that are reduced, else 0.
    pub(crate) root: u32,
    /// Bytes that follow the header.
    pub(crate) payload: u32,
    /// Number of the operation since the ring was made.
    pub(crate) sequence: u64,
    /// Size of the whole operation: elements, or bytes for a gather of bytes.
    pub(crate) total: u64,
    /// Number of the frame within the operation and connection.
    pub(crate) segment: u64,
    /// [`crate::Topology::frame_fence`].
    pub(crate) fence: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or(0, |(code, _)| *code);
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.root.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.total.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.fence.to_le_bytes());
        bytes
    }

    /// Reads a header of the ring with this fence. The error says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8; HEADER], fence: u64) -> Result<Header, String> {
        if long(bytes, 0) as u32 != MAGIC {
            return Err(format!("no frame begins with {:02x?}", &bytes[..16]));
        }
        if long(bytes, 40) != fence {
            return Err("a frame of another job, generation, world or layout".to_owned());
        }
        let code = (long(bytes, 0) >> 32) as u32;
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == code) else {
            return Err(format!("a frame of unknown kind {code}"));
        };
        Ok(Header {
            kind: *kind,
            root: long(bytes, 8) as u32,
            payload: (long(bytes, 8) >> 32) as u32,
            sequence: long(bytes, 16),
            total: long(bytes, 24),
            segment: long(bytes, 32),
            fence,
        })
    }

    /// What the sender of this header is doing, for people.
    pub(crate) fn describe(&self) -> String {
        match self.kind {
            Kind::Notice => "notice of failure".to_owned(),
            Kind::Leave => "leave".to_owned(),
            Kind::Wait => "wait".to_owned(),
            Kind::Segment(operation) => {
                let (root, total, sequence) = (self.root as usize, self.total, self.sequence);
                Call { operation, root, total, sequence }.describe()
            }
        }
    }
}

fn long(bytes: &[u8; HEADER], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// Who failed first, whom it blames, and why. Passed on unchanged around the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) reporter: usize,
    pub(crate) blamed: usize,
    pub(crate) cause: String,
}

impl Notice {
    /// What `rank` tells its neighbours when it fails with `error`.
    pub(crate) fn of(error: &CollectiveError, rank: usize) -> Notice {
        if let CollectiveError::Reported { reporter, blamed, cause, .. } = error {
            return Notice { reporter: *reporter, blamed: *blamed, cause: cause.clone() };
        }
        Notice { reporter: rank, blamed: error.blamed().unwrap_or(rank), cause: error.to_string() }
    }

    /// The error of `rank`, which hears of it while it is about `operation`.
    pub(crate) fn reported(self, rank: usize, operation: Operation) -> CollectiveError {
        let Notice { reporter, blamed, cause } = self;
        CollectiveError::Reported { rank, operation, reporter, blamed, cause }
    }

    /// The whole frame.
    pub(crate) fn encode(&self, fence: u64) -> Vec<u8> {
        let bytes = self.payload();
        let payload = bytes.len() as u32;
        let header =
            Header { kind: Kind::Notice, root: 0, payload, sequence: 0, total: 0, segment: 0, fence };
        [&header.encode(), bytes.as_slice()].concat()
    }

    /// What follows the header, or lies in shared memory: at most [`MAX_NOTICE`] bytes.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut end = self.cause.len().min(MAX_NOTICE - 8);
        while !self.cause.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = (self.reporter as u32).to_le_bytes().to_vec();
        bytes.extend((self.blamed as u32).to_le_bytes());
        bytes.extend(&self.cause.as_bytes()[..end]);
        bytes
    }

    /// Reads the payload of a notice. `None` if it is none.
    pub(crate) fn decode(payload: &[u8]) -> Option<Notice> {
        let (reporter, rest) = payload.split_first_chunk::<4>()?;
        let (blamed, cause) = rest.split_first_chunk::<4>()?;
        Some(Notice {
            reporter: u32::from_le_bytes(*reporter) as usize,
            blamed: u32::from_le_bytes(*blamed) as usize,
            cause: String::from_utf8_lossy(cause).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_survives_the_wire(
            kind in 0_usize..KINDS.len(), root: u32, payload: u32, numbers: [u64; 4]
        ) {
            let [sequence, total, segment, fence] = numbers;
            let header = Header { kind: KINDS[kind].1, root, payload, sequence, total, segment, fence };
            prop_assert_eq!(Header::decode(&header.encode(), fence), Ok(header));
            prop_assert!(Header::decode(&header.encode(), fence ^ 1).is_err());
        }

        #[test]
        fn garbage_is_no_header(bytes: [u8; 32]) {
            let mut frame = [0; HEADER];
            frame[..32].copy_from_slice(&bytes);
            prop_assume!(&bytes[..4] != b"SQF1");
            prop_assert!(Header::decode(&frame, 0).is_err());
        }

        #[test]
        fn a_notice_survives_the_wire(reporter: u16, blamed: u16, cause in ".{0,100}") {
            let notice = Notice { reporter: reporter.into(), blamed: blamed.into(), cause };
            prop_assert_eq!(Notice::decode(&notice.encode(5)[HEADER..]), Some(notice));
        }
    }

    #[test]
    fn a_long_cause_is_cut_between_characters() {
        let notice = Notice { reporter: 1, blamed: 2, cause: "ä".repeat(1000) };
        let bytes = notice.encode(0);
        assert!(bytes.len() <= HEADER + MAX_NOTICE);
        let back = Notice::decode(&bytes[HEADER..]).unwrap();
        assert!(back.cause.chars().all(|c| c == 'ä') && back.cause.len() > 400);
        assert_eq!(Notice::decode(&bytes[HEADER..HEADER + 7]), None);
    }
}
