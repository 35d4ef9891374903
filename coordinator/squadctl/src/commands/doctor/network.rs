//! Ports and addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::Check;

/// A daemon's ports where nothing else is said: for squadctl and workers, and the page.
const PORTS: [u16; 2] = [7311, 7312];

pub(super) fn checks() -> Vec<Check> {
    vec![loopback(), daemon(), address()]
}

/// What `run` needs.
fn loopback() -> Check {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(_) => Check::ok("loopback", "127.0.0.1 gives free ports; run needs no others"),
        Err(error) => Check::bad(
            "loopback",
            format!("no port can be listened on: {error}"),
            "bring 127.0.0.1 up (ip link set lo up)",
        ),
    }
}

/// What a daemon needs.
fn daemon() -> Check {
    let taken =
        |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).err().map(|error| (*port, error));
    let taken: Vec<String> =
        PORTS.iter().filter_map(taken).map(|(port, error)| format!("{port}: {error}")).collect();
    if taken.is_empty() {
        return Check::ok("daemon's ports", "7311 and 7312 are free");
    }
    let remedy =
        "a daemon has them already, or give the next one others with --listen and --web; run needs neither";
    Check::warning("daemon's ports", taken.join("; "), remedy)
}

/// Where workers of other machines would reach those of this one.
fn address() -> Check {
    // An address that is for documentation, and of no machine. Connecting a datagram socket sends nothing: it only
    // chooses the route.
    let outside = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    let route = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(outside)?;
        socket.local_addr()
    });
    match route {
        Ok(own) => Check::ok(
            "peers' address",
            format!("{} to other machines, 127.0.0.1 among those of this one", own.ip()),
        ),
        Err(_) => Check::ok("peers' address", "127.0.0.1; no route leads to other machines"),
    }
}
