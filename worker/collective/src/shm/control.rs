//! The words that ranks of a host share: who has arrived where, what each is about to do, and why it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::thread::futex;

use super::region::Region;
use super::rounds::{self, Words};
use crate::error::Operation;
use crate::exchange::Call;
use crate::frame::{MAX_NOTICE, Notice};

/// The words of one rank, on cache lines that no other rank's words touch.
#[repr(C, align(128))]
struct Slot {
    posted: AtomicU32,
    /// The core on which it was last seen.
    core: AtomicU32,
    /// What begins in an even and in an odd round. Two, since a rank that has left a round may begin the next
    /// operation while others still read what it did in this one.
    heads: [[AtomicU64; 3]; 2],
    /// Counts up while the rank waits for another host, to show that it is not itself late.
    beats: AtomicU32,
    bell: Bell,
}

#[repr(C, align(64))]
struct Bell(AtomicU32);

/// The last words of the first rank that failed.
#[repr(C, align(128))]
struct Grave {
    /// 0: nobody; 1: being written; 2: written.
    state: AtomicU32,
    length: AtomicU32,
    text: [AtomicU64; GRAVE_WORDS],
}

const GRAVE_WORDS: usize = (MAX_NOTICE + crate::frame::HEADER) / 8;

const NOBODY: u32 = 0;
const BEING_WRITTEN: u32 = 1;
const WRITTEN: u32 = 2;

/// What a rank is about to do, in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The operation.
    pub(crate) call: Call,
    /// Number of the shared buffer; 0 where the caller's own memory is copied.
    pub(crate) buffer: u32,
}

const OPERATIONS: [Operation; 8] = [
    Operation::AllReduce,
    Operation::ReduceScatter,
    Operation::AllGather,
    Operation::Broadcast,
    Operation::GatherBytes,
    Operation::Barrier,
    Operation::MakeBuffer,
    Operation::AllReduceRows,
];

impl Head {
    fn encode(&self) -> [u64; 3] {
        let code = OPERATIONS.iter().position(|operation| *operation == self.call.operation).unwrap_or(0);
        let root = self.call.root as u64 & 0xff_ffff;
        [code as u64 | root << 8 | u64::from(self.buffer) << 32, self.call.total, self.call.sequence]
    }

    /// `None` where no rank of ours wrote it.
    fn decode([what, total, sequence]: [u64; 3]) -> Option<Head> {
        let operation = *OPERATIONS.get((what & 0xff) as usize)?;
        let root = (what >> 8 & 0xff_ffff) as usize;
        Some(Head { call: Call { operation, root, total, sequence }, buffer: (what >> 32) as u32 })
    }

    /// What its rank is doing, for people.
    pub(crate) fn describe(&self) -> String {
        let memory = match self.buffer {
            0 => String::new(),
            number => format!(" in shared buffer {number}"),
        };
        format!("{}{memory}", self.call.describe())
    }
}

/// The shared words of a gang.
pub(crate) struct Control {
    region: Arc<Region>,
    world: usize,
}

impl Control {
    /// Bytes that the words of a gang need.
    pub(crate) fn bytes(world: usize) -> usize {
        size_of::<Grave>() + world * size_of::<Slot>()
    }

    /// The words at the beginning of `region`, which all ranks of the gang share and use in this way only.
    pub(crate) fn new(region: Arc<Region>, world: usize) -> Control {
        assert!(Control::bytes(world) <= region.bytes(), "too little memory for the words of {world} ranks");
        Control { region, world }
    }

    fn grave(&self) -> &Grave {
        // SAFETY: a grave is made of atomics, for which all bits are valid. Nothing else is ever made of these
        // bytes: they are before those that the staging areas get.
        unsafe { &self.region.values::<Grave>(0, 1)[0] }
    }

    fn slot(&self, rank: usize) -> &Slot {
        // SAFETY: as for the grave.
        unsafe { &self.region.values::<Slot>(size_of::<Grave>(), self.world)[rank] }
    }

    /// Says what `rank` begins in `round`. Seen by all who complete that round.
    pub(crate) fn announce(&self, rank: usize, round: u32, head: &Head) {
        let words = &self.slot(rank).heads[round as usize % 2];
        for (word, value) in words.iter().zip(head.encode()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// What `rank` began in `round`, which is complete. `None` where it wrote nonsense.
    pub(crate) fn announced(&self, rank: usize, round: u32) -> Option<Head> {
        let [what, total, sequence] = &self.slot(rank).heads[round as usize % 2];
        Head::decode([what, total, sequence].map(|word| word.load(Ordering::Relaxed)))
    }

    /// Says on which core `rank` is about to arrive in a round.
    pub(crate) fn set_core(&self, rank: usize, core: usize) {
        self.slot(rank).core.store(core as u32, Ordering::Relaxed);
    }

    /// The core on which `rank` was when it last arrived in a round.
    pub(crate) fn core(&self, rank: usize) -> usize {
        self.slot(rank).core.load(Ordering::Relaxed) as usize
    }

    /// Shows that `rank` lives, though it may be long in coming.
    pub(crate) fn beat(&self, rank: usize) {
        self.slot(rank).beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How often `rank` has shown that it lives.
    pub(crate) fn beats(&self, rank: usize) -> u32 {
        self.slot(rank).beats.load(Ordering::Relaxed)
    }

    /// Ends the gang's life with `notice`, unless somebody was first. All who sleep are woken.
    pub(crate) fn bury(&self, notice: &Notice) {
        let grave = self.grave();
        let first = grave.state.compare_exchange(NOBODY, BEING_WRITTEN, Ordering::AcqRel, Ordering::Relaxed);
        if first.is_ok() {
            let bytes = notice.payload();
            for (word, bytes) in grave.text.iter().zip(bytes.chunks(8)) {
                let mut eight = [0; 8];
                eight[..bytes.len()].copy_from_slice(bytes);
                word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
            }
            grave.length.store(bytes.len() as u32, Ordering::Relaxed);
            grave.state.store(WRITTEN, Ordering::Release);
        }
        self.fence();
        rounds::ring_all(self);
    }

    /// Why the gang ended, if it did.
    pub(crate) fn epitaph(&self) -> Option<Notice> {
        let grave = self.grave();
        if grave.state.load(Ordering::Acquire) != WRITTEN {
            return None;
        }
        let bytes: Vec<u8> =
            grave.text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        Notice::decode(bytes.get(..grave.length.load(Ordering::Relaxed) as usize)?)
    }

    /// Whether [`Control::epitaph`] has something to say.
    pub(crate) fn is_over(&self) -> bool {
        self.grave().state.load(Ordering::Acquire) == WRITTEN
    }
}

impl Words for Control {
    fn world(&self) -> usize {
        self.world
    }

    fn post(&self, rank: usize, round: u32) {
        self.slot(rank).posted.store(round, Ordering::Release);
    }

    fn posted(&self, rank: usize) -> u32 {
        self.slot(rank).posted.load(Ordering::Acquire)
    }

    fn set_bell(&self, rank: usize, set: bool) -> bool {
        self.slot(rank).bell.0.swap(u32::from(set), Ordering::Relaxed) == 1
    }

    fn bell(&self, rank: usize) -> bool {
        self.slot(rank).bell.0.load(Ordering::Relaxed) == 1
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn sleep(&self, rank: usize, longest: Duration) {
        let timeout =
            futex::Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        // Not private: the one who wakes us is in another process. Whatever ends the sleep, the caller looks.
        futex::wait(&self.slot(rank).bell.0, futex::Flags::empty(), 1, Some(&timeout)).ok();
    }

    fn wake(&self, rank: usize) {
        // Fails only for addresses that are none.
        futex::wake(&self.slot(rank).bell.0, futex::Flags::empty(), u32::MAX >> 1).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn control(world: usize) -> Control {
        let (_, region) = Region::create(Control::bytes(world), &[0; 32]).unwrap();
        Control::new(Arc::new(region), world)
    }

    proptest! {
        #[test]
        fn a_head_survives_shared_memory(
            operation in 0..OPERATIONS.len(), root in 0_usize..65_536, total: u64, sequence: u64, buffer: u32, round: u32
        ) {
            let call = Call { operation: OPERATIONS[operation], root, total, sequence };
            let (control, head) = (control(3), Head { call, buffer });
            control.announce(1, round, &head);
            control.announce(1, round.wrapping_add(1), &Head { buffer: !buffer, ..head });
            prop_assert_eq!(control.announced(1, round), Some(head));
            prop_assert_ne!(control.announced(0, round), Some(head));
        }
    }

    #[test]
    fn nonsense_is_no_head() {
        assert_eq!(Head::decode([77, 0, 0]), None);
    }

    #[test]
    fn the_first_who_fails_has_the_word() {
        let control = control(2);
        assert!(control.epitaph().is_none() && !control.is_over());
        let first = Notice { reporter: 1, blamed: 0, cause: "ä".repeat(251) };
        control.bury(&first);
        control.bury(&Notice { reporter: 0, blamed: 1, cause: "later".into() });
        assert_eq!(control.epitaph(), Some(first));
        assert!(control.is_over());
    }

    #[test]
    fn each_rank_s_words_lie_on_lines_of_their_own() {
        assert_eq!(size_of::<Slot>() % 128, 0);
        assert_eq!(std::mem::offset_of!(Slot, bell) % 64, 0);
        assert!(std::mem::offset_of!(Slot, beats) < 64);
    }
}
