//! All-reduce and friends, through shared memory between the ranks of one host, over a ring of TCP connections, or
//! both.
//!
//! Ranks `0..world` stand in a ring: each sends to the next rank and receives from the previous one. An
//! operation is a pure schedule (who sends which span at which step); it is executed in segments, so
//! that a segment is summed and forwarded while the following one is still arriving.
//!
//! When the ring stands and all ranks find that they are on one host, they go on through memory that all of
//! them map, unless [`Topology::transport`] says otherwise. Then each rank sums a share of every buffer, in
//! place, straight from the memory of all ranks, if the buffer came from [`Collective::buffer`]; what is in the
//! caller's own memory is copied, a segment at a time. The connections remain, to tell of a rank's death.
//!
//! When they are on several hosts, and some have several of them, the ranks of each host sum what they have in memory, and
//! rings between the hosts do the rest. Over TCP, gradients may be rounded to 16 bits ([`Topology::compression`]).
//!
//! # Order of summation
//!
//! The buffer is cut into [`spans`], one for each rank. Span `k` is summed in the order of ranks `k+1, k+2,
//! ..., world-1, 0, ..., k`, from left to right, whoever computes it. So all ranks hold the same bits, a run gives
//! the same bits as the run before it, and TCP the same as shared memory. (Which of several NaN comes out is
//! not said.) On several hosts the ranks of each are summed first, from the lowest to the highest, and then the hosts'
//! sums in such an order; there, too, all ranks hold the same bits, in every run.
//!
//! # Failure
//!
//! Every wait has a deadline that comes from [`Topology::patience`]. The first error poisons the ring: it
//! tells the others who is to blame, closes the connections, and is the answer to every later operation. After
//! an error the contents of the buffers are unspecified. Shared memory has no name, and is gone when the last
//! process that maps it is.
//!
//! # Trust
//!
//! Neighbours prove to each other that they know the token of the job; what follows is neither encrypted
//! nor signed, so the ring belongs into a network whose packets nobody else can forge. Ranks that share memory
//! belong to one user, and trust each other with their buffers.

#![deny(unsafe_code)]

mod abort;
mod background;
pub mod bench;
mod buffer;
mod circle;
mod error;
mod exchange;
mod frame;
mod handshake;
mod hosts;
mod lanes;
mod link;
mod mac;
#[cfg(feature = "nccl")]
pub mod nccl;
mod pace;
mod payload;
mod ring;
mod rows;
mod schedule;
mod server;
mod shm;
mod solo;
mod tcp;
mod topology;
mod upgrade;
mod waits;
mod wire;

use std::ops::Range;
use std::sync::Arc;

use circle::Circle;
use pace::Pace;

pub use abort::AbortHandle;
pub use background::{Background, Pending, Reduced, Settled};
pub use buffer::Buffer;
pub use error::{CollectiveError, Difference, Operation, Scene};
pub use rows::Rows;
pub use schedule::spans;
pub use tcp::RingListener;
pub use topology::{Compression, Fence, Topology, Transport};
pub use waits::Waits;

/// What is done with bytes that come over a connection of the ring, for fuzzers: a hello, a header of a frame, a notice.
#[doc(hidden)]
pub fn hostile(bytes: &[u8]) {
    handshake::read_hello(bytes);
    if let Some((first, rest)) = bytes.split_first_chunk::<{ frame::HEADER }>() {
        let fence = first.last_chunk::<8>().map_or(0, |fence| u64::from_le_bytes(*fence));
        if let Ok(header) = frame::Header::decode(first, fence) {
            // What is understood is what is said.
            assert_eq!(frame::Header::decode(&header.encode(), fence).as_ref(), Ok(&header));
            assert!(!header.describe().is_empty());
        }
        if let Some(notice) = frame::Notice::decode(rest) {
            assert!(notice.payload().len() <= frame::MAX_NOTICE);
        }
    }
}

/// Operations in which all ranks of a world take part.
///
/// All ranks call the same operations in the same order with buffers of the same length; where they do not,
/// the operation fails with [`CollectiveError::Disagreement`] and never gives a wrong sum.
pub trait Collective: Send {
    /// Number of this rank, in `0..world`.
    fn rank(&self) -> usize;

    /// Number of ranks, at least 1.
    fn world(&self) -> usize;

    /// What carries the bytes: `"solo"`, `"tcp"`, `"shm"`, `"hierarchical"` or `"server"`.
    fn transport(&self) -> &'static str;

    /// Replaces `buffer` by its sum over all ranks, with the same bits on all ranks.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn all_reduce(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError>;

    /// Zeros, `len` of them, in the memory that [`Collective::all_reduce_buffer`] reduces fastest. All ranks
    /// make the same buffers in the same order.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn buffer(&mut self, len: usize) -> Result<Buffer, CollectiveError> {
        Ok(Buffer::heap(len))
    }

    /// Replaces the first `len` elements of `buffer` by their sums over all ranks, with the same bits on all ranks.
    /// They are those of [`Collective::all_reduce`], unless values are compressed on their way
    /// ([`Topology::compression`]): then what is beyond [`Buffer::keep_exact`] alone is as exact.
    ///
    /// # Errors
    /// [`CollectiveError::Usage`] if there are fewer elements (the ring stays whole), else whatever broke the
    /// ring.
    fn all_reduce_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        check_length(buffer, len)?;
        self.all_reduce(&mut buffer[..len])
    }

    /// Replaces in the first `len` elements of `buffer` the chosen rows of the table that it begins with, and all that
    /// lies behind the table, by their sums over all ranks. The table's other rows stay as they are. Row `r` is summed
    /// in the order of ranks `r + 1, r + 2, ..., r` (modulo `world`), so its bits do not depend on which rows are chosen;
    /// what lies behind the table has the bits that [`Collective::all_reduce`] gives it. (Where a transport does not
    /// promise an order, it does not here.)
    ///
    /// # Errors
    /// [`CollectiveError::Usage`] if the buffer is too short (the ring stays whole), else whatever broke the ring.
    fn all_reduce_table(
        &mut self,
        buffer: &mut Buffer,
        len: usize,
        rows: &Rows,
    ) -> Result<(), CollectiveError> {
        rows::all_reduce_by_copies(self, buffer, len, rows)
    }

    /// As [`Collective::all_reduce`], with consecutive spans of other lengths, one for each rank, of values that may be
    /// compressed. All ranks give the same `digest`, of up to 24 bits, or the operation fails. A transport with an
    /// order of its own may keep it.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn all_reduce_spans(
        &mut self,
        buffer: &mut [f32],
        _spans: Vec<Range<usize>>,
        _digest: usize,
    ) -> Result<(), CollectiveError> {
        self.all_reduce(buffer)
    }

    /// As [`Collective::all_reduce_buffer`], for the elements `range`, which are in the buffer.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn all_reduce_range(&mut self, buffer: &mut Buffer, range: Range<usize>) -> Result<(), CollectiveError> {
        self.all_reduce(&mut buffer[range])
    }

    /// Replaces the first `len` elements of `buffer` by their mean over all ranks, with the same bits on all ranks: by
    /// what [`Collective::all_reduce_buffer`] gives, times 1 / world, rounded once more.
    ///
    /// # Errors
    /// As [`Collective::all_reduce_buffer`].
    fn average_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        self.all_reduce_buffer(buffer, len)?;
        lanes::scale(&mut buffer[..len], 1.0 / self.world() as f32);
        Ok(())
    }

    /// Sums over all ranks this rank's span of `buffer` (see [`spans`]), in place, and returns that span.
    /// Elements outside of it are unspecified afterwards.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError>;

    /// Gives every rank every span: rank `r` contributes span `r` of `spans(buffer.len(), world)`.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn all_gather(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError>;

    /// Copies the buffer of `root` to all ranks.
    ///
    /// # Errors
    /// [`CollectiveError::Usage`] if `root` is no rank (the ring stays whole), else whatever broke the ring.
    fn broadcast(&mut self, buffer: &mut [f32], root: usize) -> Result<(), CollectiveError>;

    /// Gives every rank the bytes of all ranks, in rank order; lengths may differ, up to 4 GiB each.
    ///
    /// # Errors
    /// [`CollectiveError::Usage`] if `mine` is too long, else whatever broke the ring.
    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// Whatever broke the ring; see [`CollectiveError`].
    fn barrier(&mut self) -> Result<(), CollectiveError>;

    /// A handle that ends a blocked operation from another thread.
    fn abort_handle(&self) -> AbortHandle;
}

/// What is reduced must be there.
fn check_length(buffer: &Buffer, len: usize) -> Result<(), CollectiveError> {
    if len <= buffer.len() {
        return Ok(());
    }
    let problem = format!("{len} elements to reduce in a buffer of {}", buffer.len());
    Err(CollectiveError::Usage { problem })
}

/// The table must be there, and what lies behind it.
fn check_table(buffer: &Buffer, len: usize, rows: &Rows) -> Result<(), CollectiveError> {
    check_length(buffer, len)?;
    if rows.table_elements() <= len {
        return Ok(());
    }
    let problem = format!("a table of {} elements in {len} elements to reduce", rows.table_elements());
    Err(CollectiveError::Usage { problem })
}

/// Joins the ring that `topology` describes, and returns once all of it stands. A world of one needs no
/// connection.
///
/// Neighbours are looked for until `topology.patience` has passed, since they start at different times.
/// Connections of strangers to the listener are dropped and do not disturb.
///
/// # Errors
/// [`CollectiveError::Topology`] if the topology contradicts itself, [`CollectiveError::Refused`] if a
/// neighbour belongs to something else, [`CollectiveError::Connect`] if one cannot be had in time, and what
/// broke the ring if it broke at once.
pub fn connect(listener: RingListener, topology: Topology) -> Result<Box<dyn Collective>, CollectiveError> {
    connect_at(listener, topology, None)
}

/// The same with a link of this speed.
fn connect_at(
    listener: RingListener,
    topology: Topology,
    pace: Option<Arc<Pace>>,
) -> Result<Box<dyn Collective>, CollectiveError> {
    topology.check()?;
    if topology.world == 1 {
        return Ok(Box::new(solo::Solo::new()));
    }
    let circle = Circle::of_all(&topology);
    let sockets = tcp::establish(&listener, &circle)?.paced(pace);
    let mut ring = ring::Ring::new(sockets, &circle);
    ring.meet()?;
    if topology.transport == Transport::Server {
        return Ok(Box::new(server::start(ring, &listener, &topology)?));
    }
    upgrade::upgrade(ring, &listener, &topology)
}
