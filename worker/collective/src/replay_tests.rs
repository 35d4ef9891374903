//! What somebody recorded of a handshake opens nothing when it is sent again.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Failure, Role, shake};
use crate::circle::Circle;
use crate::topology::{Fence, Topology};

fn circle(rank: usize) -> Circle {
    Circle::of_all(&Topology {
        rank,
        world: 2,
        peers: vec![SocketAddr::from(([127, 0, 0, 1], 1)); 2],
        fence: Fence { job: "job".into(), generation: 1, token: "secret".into(), layout: [1; 32] },
        patience: Duration::from_secs(5),
        transport: Default::default(),
        compression: Default::default(),
        host: None,
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Passes bytes on until the sender is done; gives what they were.
fn pass(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut all, mut bytes) = (Vec::new(), [0; 256]);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        all.extend(&bytes[..count]);
        to.write_all(&bytes[..count]).unwrap();
    }
    to.shutdown(Shutdown::Write).ok();
    all
}

/// All that the connecting and the accepting side say in a handshake that succeeds.
fn recorded() -> (Vec<u8>, Vec<u8>) {
    let (acceptor, between) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (far, near) = (acceptor.local_addr().unwrap(), between.local_addr().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = acceptor.accept().unwrap();
            shake(&stream, &circle(1), Role::Acceptor, 0, soon()).unwrap();
        });
        scope.spawn(move || {
            let stream = TcpStream::connect(near).unwrap();
            shake(&stream, &circle(0), Role::Connector, 1, soon()).unwrap();
        });
        let (connector, _) = between.accept().unwrap();
        let acceptor = TcpStream::connect(far).unwrap();
        let (back_from, back_to) = (acceptor.try_clone().unwrap(), connector.try_clone().unwrap());
        let back = scope.spawn(move || pass(back_from, back_to));
        let there = pass(connector, acceptor);
        (there, back.join().unwrap())
    })
}

/// Plays what was recorded to a side of the ring that is new; gives what that side finds, and what it says.
fn play(recording: &[u8], role: Role) -> (Result<(), Failure>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let side = scope.spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let (rank, expected) = if role == Role::Acceptor { (1, 0) } else { (0, 1) };
            shake(&stream, &circle(rank), role, expected, soon())
        });
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.write_all(recording).unwrap();
        let mut heard = Vec::new();
        stranger.read_to_end(&mut heard).ok();
        (side.join().unwrap(), heard)
    })
}

#[test]
fn a_recorded_handshake_opens_nothing() {
    let (connector, acceptor) = recorded();
    assert!(connector.len() > 100 && acceptor.len() > 100, "{} {}", connector.len(), acceptor.len());
    for (recording, role) in [(&connector, Role::Acceptor), (&acceptor, Role::Connector)] {
        let (found, _) = play(recording, role);
        let Err(Failure::Differs { differences, proven: false }) = &found else {
            panic!("{role:?}: {found:?}")
        };
        assert!(format!("{differences:?}").contains("Token"), "{role:?}: {differences:?}");
    }
    // The side that accepts proves nothing to whoever has not proven anything: its code is zeros.
    let (_, heard) = play(&connector, Role::Acceptor);
    assert!(heard.ends_with(&[0; 32]) && !acceptor.ends_with(&[0; 32]));
    // Nor does what was said serve the other role.
    assert!(play(&connector, Role::Connector).0.is_err() && play(&acceptor, Role::Acceptor).0.is_err());
}
