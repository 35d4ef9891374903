//! How many connections there are, in all and by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::metrics::Reason;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Full {
    /// There are too many.
    #[error("there are {0} connections, and no more may be; raise --max-connections")]
    All(usize),
    /// There are too many from there.
    #[error(
        "there are {0} connections from that address, and no more may be; raise --max-connections-per-address"
    )]
    Address(usize),
}

impl Full {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::All(_) => Reason::Connections,
            Self::Address(_) => Reason::ConnectionsOfAddress,
        }
    }
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Counts connections. Cloning shares the count.
#[derive(Clone)]
pub(super) struct Crowd {
    most: usize,
    most_of_address: usize,
    counts: Arc<Mutex<Counts>>,
}

/// One connection's place; dropping it frees it.
pub(super) struct Place {
    address: IpAddr,
    counts: Arc<Mutex<Counts>>,
}

/// The address that counts: of IPv6 the network, since whoever has one has all addresses in it.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if !six.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

impl Crowd {
    pub(super) fn new(most: usize, most_of_address: usize) -> Self {
        Self { most, most_of_address, counts: Arc::default() }
    }

    /// Takes a place.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Place, Full> {
        let address = origin(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.most {
            return Err(Full::All(self.most));
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= self.most_of_address {
            return Err(Full::Address(self.most_of_address));
        }
        *of_address += 1;
        counts.all += 1;
        Ok(Place { address, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let crowd = Crowd::new(3, 2);
        let enter = |text: &str| crowd.enter(text.parse().unwrap());
        let (first, _second) = (enter("10.0.0.1").unwrap(), enter("::ffff:10.0.0.1").unwrap());
        assert_eq!(enter("10.0.0.1").err(), Some(Full::Address(2)));
        let _third = enter("fd00::1").unwrap();
        assert_eq!(enter("10.0.0.2").err(), Some(Full::All(3)));
        drop(first);
        let _fourth = enter("fd00::ffff:1").unwrap();
        assert_eq!(crowd.counts.lock().unwrap().by_address.len(), 2, "one network of IPv6 is one address");
    }

    proptest! {
        #[test]
        fn places_are_never_lost(steps in prop::collection::vec((0_u8..4, any::<bool>()), 0..200)) {
            let crowd = Crowd::new(20, 8);
            let mut places = Vec::new();
            for (address, enter) in steps {
                if enter {
                    places.extend(crowd.enter(IpAddr::from([10, 0, 0, address])));
                } else if !places.is_empty() {
                    places.swap_remove(usize::from(address) % places.len());
                }
                let counts = crowd.counts.lock().unwrap();
                prop_assert_eq!(counts.all, places.len());
                prop_assert_eq!(counts.by_address.values().sum::<usize>(), places.len());
                prop_assert!(counts.all <= 20 && counts.by_address.values().all(|count| (1..=8).contains(count)));
            }
        }
    }
}
