//! One rank of three whose neighbours are played by the test, byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::frame::{HEADER, Header, Kind};
use crate::wire::SEGMENT;
use crate::{Fence, Topology};

/// Rank 1 of 3, and the far ends of its connections: those of rank 0 and of rank 2.
struct Stage {
    ring: Ring,
    previous: TcpStream,
    next: TcpStream,
    fence: u64,
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (listener.accept().unwrap().0, far)
}

fn stage(patience: Duration) -> Stage {
    let topology = Topology {
        rank: 1,
        world: 3,
        peers: vec![SocketAddr::from(([127, 0, 0, 1], 1)); 3],
        fence: Fence { job: "job".into(), generation: 1, token: "secret".into(), layout: [0; 32] },
        patience,
        transport: crate::Transport::Tcp,
        compression: crate::Compression::None,
        host: None,
    };
    let circle = Circle::of_all(&topology);
    let ((near_next, next), (near_previous, previous)) = (pair(), pair());
    let ring = Ring::new(Sockets::new(near_next, near_previous).unwrap(), &circle);
    Stage { ring, previous, next, fence: circle.frame_fence() }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

impl Stage {
    /// A frame as the first operation expects it from rank 0.
    fn header(&self, operation: Operation, total: u64, payload: u32) -> Header {
        let (kind, fence) = (Kind::Segment(operation), self.fence);
        Header { kind, root: 0, payload, sequence: 1, total, segment: 0, fence }
    }

    /// Rank 0 sends `bytes`; rank 1 reduces 6 elements, and fails.
    fn reduce_after(mut self, bytes: &[u8]) -> (CollectiveError, Stage) {
        self.previous.write_all(bytes).unwrap();
        let start = Instant::now();
        let error = self.ring.all_reduce(&mut [1.0; 6]).unwrap_err();
        assert!(start.elapsed() < LONG / 2, "{error} came late");
        (error, self)
    }
}

#[test]
fn garbage_is_told() {
    let (error, _) = stage(LONG).reduce_after(b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n and so on");
    assert!(matches!(error, CollectiveError::Garbage { .. }), "{error}");
    assert_eq!(error.blamed(), Some(0));
}

#[test]
fn a_frame_of_another_generation_is_garbage() {
    let stage = stage(LONG);
    let stale = Header { fence: stage.fence ^ 1, ..stage.header(Operation::AllReduce, 6, 24) };
    let (error, _) = stage.reduce_after(&stale.encode());
    assert!(matches!(error, CollectiveError::Garbage { .. }), "{error}");
    assert!(error.to_string().contains("generation"), "{error}");
}

#[test]
fn a_frame_out_of_turn_is_garbage() {
    let stage = stage(LONG);
    let late = Header { segment: 3, ..stage.header(Operation::AllReduce, 6, 24) };
    let (error, _) = stage.reduce_after(&late.encode());
    assert!(matches!(error, CollectiveError::Garbage { .. }), "{error}");
}

#[test]
fn disagreement_is_told() {
    let stage1 = stage(LONG);
    let base = stage1.header(Operation::AllReduce, 6, 24);
    drop(stage1);
    for (other, word) in [
        (Header { total: 7, ..base }, "size 7"),
        (Header { kind: Kind::Segment(Operation::Barrier), ..base }, "barrier"),
        (Header { kind: Kind::Segment(Operation::Broadcast), root: 2, ..base }, "from rank 2"),
        (Header { sequence: 9, ..base }, "no. 9"),
    ] {
        let (error, _) = stage(LONG).reduce_after(&other.encode());
        let text = error.to_string();
        assert!(matches!(error, CollectiveError::Disagreement { .. }), "{text}");
        assert!(text.contains(word) && text.contains("all-reduce of size 6 as no. 1"), "{text}");
    }
}

#[test]
fn a_lost_neighbour_is_told_with_bytes() {
    let mut stage = stage(LONG);
    let header = stage.header(Operation::AllReduce, 6, 24).encode();
    stage.previous.write_all(&[&header[..], &[0; 5]].concat()).unwrap();
    stage.previous.shutdown(std::net::Shutdown::Both).unwrap();
    let error = stage.ring.all_reduce(&mut [1.0; 6]).unwrap_err();
    let CollectiveError::PeerLost { scene, .. } = error else { panic!("{error}") };
    assert_eq!((scene.rank, scene.peer, scene.operation), (1, 0, Operation::AllReduce));
    assert_eq!((scene.bytes_done, scene.bytes_total), (5, 2 * 24));
    assert_eq!(scene.address, stage.previous.local_addr().unwrap());
}

#[test]
fn a_stalled_neighbour_is_told_with_bytes() {
    let stage = stage(SHORT);
    let header = stage.header(Operation::AllReduce, 6, 24).encode();
    let (error, _) = stage.reduce_after(&[&header[..], &[0; 7]].concat());
    let CollectiveError::PeerStalled { scene, waited } = error else { panic!("{error}") };
    assert_eq!((scene.peer, scene.bytes_done), (0, 7));
    assert!(waited >= SHORT);
}

#[test]
fn a_neighbour_that_does_not_read_is_told() {
    let mut stage = stage(SHORT);
    let error = stage.ring.broadcast(&mut vec![1.0; 64 * SEGMENT], 1).unwrap_err();
    let CollectiveError::PeerStalled { scene, .. } = error else { panic!("{error}") };
    assert_eq!((scene.peer, scene.bytes_total), (2, 256 * SEGMENT as u64));
    assert!(scene.bytes_done > 0 && scene.bytes_done < scene.bytes_total, "{scene}");
}

#[test]
fn a_next_rank_that_left_is_told() {
    let mut stage = stage(LONG);
    drop(stage.next);
    let error = stage.ring.all_reduce(&mut [1.0; 6]).unwrap_err();
    assert!(matches!(error, CollectiveError::PeerLost { .. }), "{error}");
    assert_eq!(error.blamed(), Some(2));
}

#[test]
fn a_next_rank_that_left_after_its_part_does_not_disturb() {
    let mut stage = stage(LONG);
    let header = stage.header(Operation::Barrier, 0, 0);
    stage.previous.write_all(&header.encode()).unwrap();
    let (mut previous, next) = (stage.previous, stage.next);
    let rank = std::thread::spawn(move || stage.ring.barrier());
    let mut frames = [0; 2 * HEADER];
    (&next).read_exact(&mut frames).unwrap();
    drop(next);
    std::thread::sleep(Duration::from_millis(50));
    previous.write_all(&Header { segment: 1, ..header }.encode()).unwrap();
    rank.join().unwrap().unwrap();
}

#[test]
fn a_notice_names_the_culprit_and_travels_on() {
    let stage = stage(LONG);
    let notice = Notice { reporter: 0, blamed: 2, cause: "rank 2 is asleep".into() };
    let (error, mut stage) = stage.reduce_after(&notice.encode(stage_fence()));
    let CollectiveError::Reported { rank: 1, reporter: 0, blamed: 2, ref cause, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(cause, "rank 2 is asleep");
    let mut rest = Vec::new();
    stage.next.read_to_end(&mut rest).unwrap();
    // Before the notice comes the frame that had been sent already: a header and six floats.
    assert_eq!(rest[HEADER + 24..], notice.encode(stage.fence));
    let mut back = Vec::new();
    stage.previous.read_to_end(&mut back).unwrap();
    assert_eq!(back, notice.encode(stage.fence));
}

fn stage_fence() -> u64 {
    stage(LONG).fence
}

#[test]
fn a_notice_comes_against_the_ring_too() {
    let mut stage = stage(LONG);
    let notice = Notice { reporter: 2, blamed: 0, cause: "no more memory".into() };
    let bytes = notice.encode(stage.fence);
    // In two pieces, the second one while the rank waits.
    let (first, second) = bytes.split_at(HEADER + 3);
    stage.next.write_all(first).unwrap();
    let mut next = stage.next.try_clone().unwrap();
    let second = second.to_vec();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        next.write_all(&second).unwrap();
    });
    let error = stage.ring.all_reduce(&mut [1.0; 6]).unwrap_err();
    sender.join().unwrap();
    assert!(matches!(error, CollectiveError::Reported { reporter: 2, .. }), "{error}");
    assert_eq!(error.blamed(), Some(0));
}

#[test]
fn half_a_notice_still_ends_the_operation() {
    let stage = stage(LONG);
    let notice = Notice { reporter: 0, blamed: 2, cause: "cut short".into() }.encode(stage.fence);
    let (error, _) = stage.reduce_after(&notice[..HEADER + 2]);
    assert!(matches!(error, CollectiveError::PeerLost { .. }), "{error}");
}

#[test]
fn the_first_error_is_the_answer_to_everything_after_it() {
    let (error, mut stage) = stage(LONG).reduce_after(&[0xee; HEADER]);
    let start = Instant::now();
    let later = [
        stage.ring.barrier().unwrap_err(),
        stage.ring.gather_bytes(vec![1]).unwrap_err(),
        stage.ring.reduce_scatter(&mut [0.0]).unwrap_err(),
    ];
    assert!(start.elapsed() < Duration::from_secs(1));
    for later in later {
        assert_eq!(later.to_string(), error.to_string());
    }
}

#[test]
fn an_absurd_length_is_refused() {
    let mut stage = stage(LONG);
    let header = stage.header(Operation::GatherBytes, 3, 8);
    let mut bytes = Vec::new();
    for segment in 0..2 {
        bytes.extend(Header { segment, ..header }.encode());
        bytes.extend(u64::MAX.to_le_bytes());
    }
    stage.previous.write_all(&bytes).unwrap();
    let error = stage.ring.gather_bytes(vec![1, 2]).unwrap_err();
    assert!(matches!(error, CollectiveError::Garbage { .. }), "{error}");
}

#[test]
fn a_root_outside_the_world_breaks_nothing() {
    let mut stage = stage(LONG);
    let error = stage.ring.broadcast(&mut [1.0], 3).unwrap_err();
    assert!(matches!(error, CollectiveError::Usage { .. }), "{error}");
    let header = stage.header(Operation::Barrier, 0, 0);
    for segment in 0..2 {
        stage.previous.write_all(&Header { segment, ..header }.encode()).unwrap();
    }
    stage.ring.barrier().unwrap();
}
