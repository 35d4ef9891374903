//! The first words on a new connection: both sides say what they belong to, and prove that they know the
//! token of the job.
//!
//! Each sends a hello (what it belongs to, and a fresh nonce) and then an authentication code, keyed with
//! the token, over its role and both hellos. So the token never travels, a code cannot be replayed or sent
//! back to its maker, and nothing in the hellos can be changed on the way. The side that accepts answers
//! with its code only after it has seen a right one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::circle::{Circle, MAX_NAME};
use crate::error::Difference;
use crate::mac::{hmac_sha256, same};
use crate::topology::Compression;

const MAGIC: &[u8; 8] = b"SQDRING2";

/// Bytes of a hello after the magic and before the name of the job.
const FIXED: usize = 32 + 4 + 4 + 4 + 32 + 1 + 2;

/// Why a connection is not the one that was looked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It broke, or took too long.
    Io(io::Error),
    /// The other side does not speak our protocol.
    Stranger(String),
    /// The other side belongs to something else.
    Differs {
        /// All that differs.
        differences: Vec<Difference>,
        /// Whether the other side has proven that it knows the token.
        proven: bool,
    },
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It connected, and will send data.
    Connector,
    /// It accepted, and will receive data.
    Acceptor,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Role::Connector => b"squad ring 1, connector",
            Role::Acceptor => b"squad ring 1, acceptor",
        }
    }
}

/// A stream whose reads and writes end at a deadline, all together.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<std::time::Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// The system calls an expired time-out "would block".
    fn named(error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(Timed::named)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer).map_err(Timed::named)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a side says it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hello {
    nonce: [u8; 32],
    generation: u32,
    rank: u32,
    world: u32,
    layout: [u8; 32],
    /// Code of the compression.
    compression: u8,
    job: String,
}

impl Hello {
    fn new(circle: &Circle) -> io::Result<Hello> {
        Ok(Hello {
            nonce: nonce()?,
            generation: circle.fence.generation,
            rank: circle.rank as u32,
            world: circle.world as u32,
            layout: circle.fence.layout,
            compression: circle.compression.code(),
            job: circle.fence.job.clone(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.nonce);
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.rank.to_le_bytes());
        bytes.extend(self.world.to_le_bytes());
        bytes.extend(self.layout);
        bytes.push(self.compression);
        bytes.extend((self.job.len() as u16).to_le_bytes());
        bytes.extend(self.job.as_bytes());
        bytes
    }

    /// Reads a hello; returns its bytes too, since the codes are made over them.
    fn read(from: &mut impl Read) -> Result<(Hello, Vec<u8>), Failure> {
        // The magic by itself: a stranger that sends less than a hello must not be waited for.
        let mut bytes = vec![0; MAGIC.len() + FIXED];
        from.read_exact(&mut bytes[..MAGIC.len()])?;
        if &bytes[..MAGIC.len()] != MAGIC {
            return Err(Failure::Stranger(format!("it begins with {:02x?}", &bytes[..MAGIC.len()])));
        }
        from.read_exact(&mut bytes[MAGIC.len()..])?;
        let long = usize::from(u16::from_le_bytes(array(&bytes, MAGIC.len() + FIXED - 2)));
        if long > MAX_NAME {
            return Err(Failure::Stranger(format!("its job's name has {long} bytes")));
        }
        let mut job = vec![0; long];
        from.read_exact(&mut job)?;
        let at = MAGIC.len();
        let hello = Hello {
            nonce: array(&bytes, at),
            generation: u32::from_le_bytes(array(&bytes, at + 32)),
            rank: u32::from_le_bytes(array(&bytes, at + 36)),
            world: u32::from_le_bytes(array(&bytes, at + 40)),
            layout: array(&bytes, at + 44),
            compression: bytes[at + 76],
            job: String::from_utf8_lossy(&job).into_owned(),
        };
        bytes.extend(job);
        Ok((hello, bytes))
    }
}

/// Reads a hello and writes it again, for fuzzers.
pub(crate) fn read_hello(mut bytes: &[u8]) {
    if let Ok((hello, raw)) = Hello::read(&mut bytes) {
        // A name that is no UTF-8 is changed by reading it; the codes are made over what was sent.
        assert!(hello.encode() == raw || hello.job.contains(char::REPLACEMENT_CHARACTER));
    }
}

/// `N` bytes from `at` on.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Bytes that nobody can guess.
pub(crate) fn nonce() -> io::Result<[u8; 32]> {
    let mut nonce = [0; 32];
    let filled = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
    // Up to 256 bytes come whole, once the system has any; the kernel promises so.
    if filled == nonce.len() { Ok(nonce) } else { Err(io::Error::other("too few random bytes")) }
}

/// The code by which `role` proves that it knows the token.
fn proof(circle: &Circle, role: Role, connector: &[u8], acceptor: &[u8]) -> [u8; 32] {
    // Hashed one by one, so that no byte can move from one hello to the other.
    let (connector, acceptor) = (Sha256::digest(connector), Sha256::digest(acceptor));
    hmac_sha256(circle.fence.token.as_bytes(), &[role.label(), &connector, &acceptor])
}

fn differences(circle: &Circle, expected: usize, proven: bool, theirs: &Hello) -> Vec<Difference> {
    let fence = &circle.fence;
    let mut list = Vec::new();
    if theirs.job != fence.job {
        list.push(Difference::Job { here: fence.job.clone(), there: theirs.job.clone() });
    }
    if theirs.generation != fence.generation {
        list.push(Difference::Generation { here: fence.generation, there: theirs.generation });
    }
    if !proven {
        list.push(Difference::Token);
    }
    let (rank, world) = (theirs.rank as usize, theirs.world as usize);
    if world != circle.world {
        list.push(Difference::World { here: circle.world, there: world });
    }
    if rank != expected {
        list.push(Difference::Rank { here: expected, there: rank });
    }
    if theirs.layout != fence.layout {
        list.push(Difference::Layout { here: fence.layout, there: theirs.layout });
    }
    if theirs.compression != circle.compression.code() {
        let there = Compression::of_code(theirs.compression);
        list.push(Difference::Compression { here: circle.compression, there });
    }
    list
}

/// Carries the handshake out on a blocking stream. `expected` is the rank that the other side must be.
pub(crate) fn shake(
    stream: &TcpStream,
    circle: &Circle,
    role: Role,
    expected: usize,
    deadline: Instant,
) -> Result<(), Failure> {
    let mut stream = Timed { stream, deadline };
    let mine = Hello::new(circle)?.encode();
    let (theirs, proven) = match role {
        Role::Connector => {
            stream.write_all(&mine)?;
            let (theirs, raw) = Hello::read(&mut stream)?;
            stream.write_all(&proof(circle, Role::Connector, &mine, &raw))?;
            let mut code = [0; 32];
            stream.read_exact(&mut code)?;
            (theirs, same(&code, &proof(circle, Role::Acceptor, &mine, &raw)))
        }
        Role::Acceptor => {
            let (theirs, raw) = Hello::read(&mut stream)?;
            stream.write_all(&mine)?;
            let mut code = [0; 32];
            stream.read_exact(&mut code)?;
            let proven = same(&code, &proof(circle, Role::Connector, &raw, &mine));
            // Zeros tell the other side that its token is not ours, and nothing else.
            let answer = if proven { proof(circle, Role::Acceptor, &raw, &mine) } else { [0; 32] };
            stream.write_all(&answer)?;
            (theirs, proven)
        }
    };
    let differences = differences(circle, expected, proven, &theirs);
    if differences.is_empty() { Ok(()) } else { Err(Failure::Differs { differences, proven }) }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod replay_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Fence;
    use proptest::prelude::*;
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    fn circle(rank: usize) -> Circle {
        Circle {
            rank,
            world: 3,
            members: vec![0, 1, 2],
            position: rank,
            peers: vec![SocketAddr::from(([127, 0, 0, 1], 1)); 3],
            fence: Fence { job: "job".into(), generation: 2, token: "secret".into(), layout: [1; 32] },
            patience: Duration::from_secs(5),
            compression: Compression::None,
        }
    }

    /// Rank 0 connects to rank 1, which `change` has altered. Answers what each of them finds.
    fn meet(change: impl FnOnce(&mut Circle)) -> [Result<(), Failure>; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut other = circle(1);
        change(&mut other);
        let deadline = Instant::now() + Duration::from_secs(5);
        std::thread::scope(|scope| {
            let acceptor = scope.spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                shake(&stream, &other, Role::Acceptor, 0, deadline)
            });
            let stream = TcpStream::connect(address).unwrap();
            let connector = shake(&stream, &circle(0), Role::Connector, 1, deadline);
            [connector, acceptor.join().unwrap()]
        })
    }

    fn both_find(change: impl FnOnce(&mut Circle), wanted: &str, wanted_proven: bool) {
        for result in meet(change) {
            let Err(Failure::Differs { differences, proven }) = result else { panic!("{result:?}") };
            let text = format!("{differences:?}");
            assert_eq!(differences.len(), 1, "{text}");
            assert!(text.contains(wanted), "{text}");
            assert_eq!(proven, wanted_proven);
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn neighbours_find_each_other() {
        for result in meet(|_| {}) {
            result.unwrap();
        }
    }

    #[test]
    fn both_sides_say_what_differs() {
        both_find(|other| other.fence.token = "another secret".into(), "Token", false);
        both_find(|other| other.fence.generation = 1, "Generation", true);
        both_find(|other| other.fence.layout[0] = 0, "Layout", true);
        both_find(|other| other.fence.job = "another".into(), "Job", true);
        both_find(|other| other.world = 4, "World", true);
        both_find(|other| other.compression = Compression::Bf16, "Compression", true);
    }

    #[test]
    fn the_wrong_rank_is_told() {
        let [connector, acceptor] = meet(|other| other.rank = 2);
        assert!(acceptor.is_ok());
        let Err(Failure::Differs { differences, .. }) = connector else { panic!("{connector:?}") };
        assert_eq!(differences, [Difference::Rank { here: 1, there: 2 }]);
    }

    #[test]
    fn a_code_serves_one_role_and_one_pair_of_hellos() {
        let circle = circle(0);
        let base = proof(&circle, Role::Connector, b"ab", b"c");
        assert_ne!(base, proof(&circle, Role::Acceptor, b"ab", b"c"));
        assert_ne!(base, proof(&circle, Role::Connector, b"a", b"bc"));
        assert_eq!(base, proof(&circle, Role::Connector, b"ab", b"c"));
        assert_ne!(nonce().unwrap(), nonce().unwrap());
    }

    #[test]
    fn a_silent_stranger_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let start = Instant::now();
        let result = shake(&stream, &circle(1), Role::Acceptor, 0, start + Duration::from_millis(100));
        let Err(Failure::Io(error)) = result else { panic!("{result:?}") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    proptest! {
        #[test]
        fn a_hello_survives_the_wire(
            nonce: [u8; 32], numbers: [u32; 3], layout: [u8; 32], job in "[a-zä]{0,100}"
        ) {
            let [generation, rank, world] = numbers;
            let hello = Hello { nonce, generation, rank, world, layout, compression: numbers[0] as u8, job };
            let encoded = hello.encode();
            let (back, raw) = Hello::read(&mut encoded.as_slice()).unwrap();
            prop_assert_eq!(back, hello);
            prop_assert_eq!(raw, encoded);
        }

        #[test]
        fn garbage_is_no_hello(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(!bytes.starts_with(MAGIC));
            prop_assert!(Hello::read(&mut bytes.as_slice()).is_err());
        }
    }
}
