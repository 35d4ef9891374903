//! The part of a hierarchical all-reduce that happens inside a host.
//!
//! The elements are cut into as many parts, of whole cache lines, as there are rings between the hosts. The rank at
//! position `c` of each host *keeps* part `c`: there the host's sum of it is made, there the ring turns it into the
//! sum of all hosts, and from there the other ranks of the host copy it.

use std::ops::Range;
use std::sync::Arc;

use super::area::{Area, Areas};
use super::control::{Control, Head};
use super::region::Region;
use super::sum::{Order, into_one, share};
use super::{Outside, SLOTS, Shm, words_bytes};
use crate::Topology;
use crate::error::CollectiveError;
use crate::exchange::{Call, Watch};
use crate::link::Sockets;

/// Floats of the memory through which values go that lie in the caller's own.
pub(crate) const SCRATCH: usize = 1 << 20;

const SCRATCH_BYTES: usize = SCRATCH * size_of::<f32>();

impl Shm {
    /// Bytes that `world` ranks of a host need before they make buffers.
    pub(crate) fn bytes_of_host(world: usize) -> usize {
        let parts = [SLOTS, SCRATCH_BYTES].map(|bytes| Areas::bytes(world, bytes).unwrap_or(usize::MAX));
        parts.into_iter().fold(words_bytes(world), usize::saturating_add)
    }

    /// The rank at `position` among the ranks `members` of a host, which share `region`, and its part of memory for
    /// values of the caller. `watch` makes of the words that they share what looks after the other hosts.
    pub(crate) fn of_host(
        (members, position): (Vec<usize>, usize),
        sockets: Arc<Sockets>,
        region: Region,
        watch: impl FnOnce(&Arc<Control>) -> Arc<dyn Watch>,
        topology: &Topology,
    ) -> (Shm, Area) {
        let (region, world) = (Arc::new(region), members.len());
        let outside = Outside::Hosts(watch(&Arc::new(Control::new(Arc::clone(&region), world))));
        let before = words_bytes(world) + Areas::bytes(world, SLOTS).unwrap_or(usize::MAX);
        let areas = Areas::new(Arc::clone(&region), before, SCRATCH_BYTES);
        let mut shm = Shm::of_members((members, position), sockets, outside, region, topology);
        // A rank of this host that is missing is known here before other hosts give this one up.
        shm.patience = topology.patience / 4 * 3;
        let gang = Arc::clone(&shm.control);
        // SAFETY: the region is new, and these bytes of it are used for nothing else. Each rank makes an area of its
        // own part only, and touches the others only in operations on it.
        let scratch = unsafe { Area::new(areas, gang, 0, position, SCRATCH) };
        (shm, scratch)
    }

    /// Number of ranks on this host.
    pub(crate) fn ranks(&self) -> usize {
        self.world
    }

    /// The words that the ranks of this host share.
    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Whether `area` is a part of this host's memory.
    pub(crate) fn owns(&self, area: &Area) -> bool {
        Arc::ptr_eq(&area.gang, &self.control)
    }

    /// A part of a new region; see [`Shm::area_in`].
    pub(crate) fn area_of_host(&mut self, region: Region, len: usize) -> Area {
        self.area_in(region, len)
    }

    /// Says what this rank is about to do, in shared buffer no. `buffer`, or 0.
    pub(crate) fn begin(&mut self, call: Call, buffer: u32) {
        self.head = Head { call, buffer };
        self.done = 0;
    }

    /// Returns when all ranks of the host have begun the same.
    pub(crate) fn meet_host(&mut self) -> Result<(), CollectiveError> {
        self.check_alive()?;
        self.meet()
    }

    /// Returns when all ranks of the host have called it.
    pub(crate) fn meet_again(&mut self) -> Result<(), CollectiveError> {
        self.round()
    }

    /// Sums this rank's share of the first `len` elements over the ranks of this host, in their order, where they are
    /// kept. All must have begun.
    pub(crate) fn sum_for_keepers(&mut self, area: &mut Area, len: usize, rings: usize) {
        let own = share(len, self.rank, self.world);
        for keeper in 0..rings {
            let part = share(len, keeper, rings);
            let part = part.start.max(own.start)..part.end.min(own.end);
            if self.world > 1 && !part.is_empty() {
                let order = Order { first: 0, world: self.world };
                // SAFETY: all ranks of the host have given their parts to this operation, and touch no other share
                // than their own before they meet again. Where the keeper goes on without meeting, it keeps what it
                // has summed itself.
                unsafe { into_one(&area.areas, part, order, keeper) };
            }
        }
        self.done += (own.len() * size_of::<f32>()) as u64;
    }

    /// The elements that this rank keeps. Nobody else touches them between the meeting after
    /// [`Shm::sum_for_keepers`] and the next one.
    pub(crate) fn kept<'a>(
        &self,
        area: &'a mut Area,
        len: usize,
        rings: usize,
    ) -> (Range<usize>, &'a mut [f32]) {
        let part = share(len, self.rank, rings);
        // SAFETY: as the documentation says; the area is borrowed exclusively on this rank.
        let values = unsafe { area.areas.write::<f32>(self.rank, part.clone()) };
        (part, values)
    }

    /// Copies what other ranks of the host keep. They must not change it before all have met again.
    pub(crate) fn copy_from_keepers(&mut self, area: &mut Area, len: usize, rings: usize) {
        for keeper in (0..rings).filter(|keeper| *keeper != self.rank) {
            let part = share(len, keeper, rings);
            // SAFETY: all have met, so it is finished; until they meet again it is only read.
            let from = unsafe { area.areas.read::<f32>(keeper, part.clone()) };
            // SAFETY: nobody reads this rank's copy of what another one keeps.
            unsafe { area.areas.write::<f32>(self.rank, part.clone()) }.copy_from_slice(from);
            self.done += (part.len() * size_of::<f32>()) as u64;
        }
    }
}
