//! Two hosts with a network between them: network namespaces joined by a pair of virtual links. Needs root and `ip`;
//! where they are missing this says so, and passes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may fail by panicking, in its helpers too, and says why it does nothing"
)]

mod gang;

use std::process::Command;
use std::time::{Duration, Instant};

use gang::process::{Rank, Role, SOON, live, start};
use squad_collective::Transport;

/// Not a test of its own: what the ranks of the others run.
#[test]
fn a_rank() {
    live();
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Two namespaces; they and the link between them end with this value.
struct Network {
    names: [String; 2],
}

impl Network {
    fn new(which: &str) -> Result<Network, String> {
        let number = std::process::id();
        let network = Network { names: ['a', 'b'].map(|side| format!("squad-{number}-{which}-{side}")) };
        let [a, b] = &network.names;
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!("link add link0 netns {a} type veth peer name link0 netns {b}"))?;
        for (name, last) in [(a, 1), (b, 2)] {
            ip(&format!("-n {name} address add 10.213.7.{last}/30 dev link0"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set link0 up"))?;
        }
        Ok(network)
    }

    /// A network, unless there can be none here; then the test's log says so.
    fn or_skip(which: &str) -> Option<Network> {
        Network::new(which)
            .inspect_err(|error| {
                eprintln!("SKIPPED: no network namespaces here, nothing was tested: {error}")
            })
            .ok()
    }

    /// Ranks 0 and 2 on one host, 1 and 3 on the other.
    fn start(&self, transport: Transport, patience: Duration) -> Vec<Rank> {
        let roles: Vec<_> = (0..4)
            .map(|rank| Role {
                transport,
                patience,
                host: ['a', 'b'][rank % 2],
                interface: [10, 213, 7, 1 + rank as u8 % 2].into(),
                network: Some(self.names[rank % 2].clone()),
            })
            .collect();
        start(&roles, |_| {})
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns delete {name}")).ok();
        }
    }
}

/// What all ranks say of their sums: equal bits, and how far from the exact ones.
fn sums(ranks: &[Rank]) -> (String, f64) {
    let said: Vec<_> = ranks.iter().map(|rank| rank.hear("sums ")).collect();
    assert!(said.iter().all(|sums| *sums == said[0]), "{said:?}");
    let (bits, furthest) = said[0].split_once(' ').unwrap();
    (bits.to_owned(), furthest.parse().unwrap())
}

#[test]
fn two_hosts_sum_alike_from_run_to_run_and_near_what_a_flat_ring_sums() {
    let Some(network) = Network::or_skip("sums") else { return };
    let [one, again, flat] = [Transport::Hierarchical, Transport::Hierarchical, Transport::Tcp]
        .map(|transport| sums(&network.start(transport, SOON)));
    assert_eq!(one, again);
    // The documented bound: (ranks - 1) roundings of partial sums, none larger than 4 here.
    let bound = 3.0 * 4.0 * f64::from(f32::EPSILON) / 2.0;
    assert!(one.1 <= bound && flat.1 <= bound, "{} and {} of {bound}", one.1, flat.1);
}

#[test]
fn a_link_that_is_taken_down_ends_all_ranks_within_the_deadline() {
    let Some(network) = Network::or_skip("down") else { return };
    for transport in [Transport::Hierarchical, Transport::Tcp] {
        let patience = Duration::from_secs(2);
        let ranks = network.start(transport, patience);
        ranks.iter().for_each(|rank| drop(rank.hear("sums ")));
        std::thread::sleep(Duration::from_millis(50));
        ip(&format!("-n {} link set link0 down", network.names[0])).unwrap();
        let down = Instant::now();
        for (number, rank) in ranks.iter().enumerate() {
            let end = rank.hear("ended ");
            assert!(end.contains(" with rank ") && end.contains(" at 10.213.7."), "rank {number}: {end}");
        }
        let took = down.elapsed();
        assert!(took < patience * 2 + Duration::from_secs(8), "{transport}: {took:?}");
        println!("{transport}: all ranks ended {took:.1?} after the link, with a patience of {patience:?}");
        ip(&format!("-n {} link set link0 up", network.names[0])).unwrap();
    }
}
