//! Who is connected: each address gets a share, so that one pod that opens connections, or begins reviews and never ends them, does not take
//! the places that the API server needs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many reviews of one peer may be in memory at once; the API server's own take milliseconds each.
const REVIEWS: usize = 3;

/// One address that is connected, shared by its connections.
#[derive(Debug)]
pub(crate) struct Peer {
    connections: Arc<Semaphore>,
    /// A permit for each of its reviews that is being read.
    pub(crate) reviews: Semaphore,
}

/// All that are connected.
pub(crate) struct Peers {
    connections: Arc<Semaphore>,
    per_peer: usize,
    known: HashMap<IpAddr, Weak<Peer>>,
}

/// The place of one connection, given back when it is dropped.
pub(crate) struct Place {
    pub(crate) peer: Arc<Peer>,
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

impl Peers {
    pub(crate) fn new(connections: usize, per_peer: usize) -> Self {
        Self { connections: Arc::new(Semaphore::new(connections)), per_peer, known: HashMap::new() }
    }

    /// A place for one more connection from `address`; `None` when there is none, for it or at all.
    pub(crate) fn admit(&mut self, address: IpAddr) -> Option<Place> {
        let of_all = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        // There are never more than there are connections.
        self.known.retain(|_, peer| peer.strong_count() > 0);
        let address = address.to_canonical();
        let peer = self.known.get(&address).and_then(Weak::upgrade).unwrap_or_else(|| {
            let peer = Arc::new(Peer {
                connections: Arc::new(Semaphore::new(self.per_peer)),
                reviews: Semaphore::new(REVIEWS),
            });
            self.known.insert(address, Arc::downgrade(&peer));
            peer
        });
        let of_peer = Arc::clone(&peer.connections).try_acquire_owned().ok()?;
        Some(Place { peer, _of_all: of_all, _of_peer: of_peer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share_and_gets_it_back() {
        let mut peers = Peers::new(3, 2);
        let [one, two]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let first = peers.admit(one).unwrap();
        let _second = peers.admit(one).unwrap();
        assert!(peers.admit(one).is_none(), "above its share");
        assert!(peers.admit("::ffff:10.0.0.1".parse().unwrap()).is_none(), "the same address, written otherwise");
        let _third = peers.admit(two).unwrap();
        assert!(peers.admit(two).is_none(), "above the sum");
        drop(first);
        assert!(peers.admit(two).is_some());
        assert!(peers.admit(one).is_some());
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let mut peers = Peers::new(3, 2);
        for last in 0..=255 {
            drop(peers.admit(IpAddr::from([10, 0, 0, last])).unwrap());
        }
        assert!(peers.known.len() <= 2);
    }
}
