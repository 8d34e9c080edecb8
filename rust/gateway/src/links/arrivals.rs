//! The links that are being checked: how many there may be, and who has to go when there are more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use tokio::sync::Notify;

/// Links under way from accept until they are handed to their shard.
#[derive(Default)]
pub(super) struct Arrivals {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    accepted: u64,
    /// Those that have not shown who they are, in the order in which they came.
    strangers: BTreeMap<u64, Stranger>,
    known: usize,
}

struct Stranger {
    origin: IpAddr,
    crowded_out: Rc<Notify>,
}

impl Arrivals {
    /// Most links under way.
    pub(super) const MOST: usize = 512;

    /// Enters one that has just been accepted. If that is one too many, a stranger has to go: of those
    /// from where most of them come the oldest, so that strangers keep out nobody but one another.
    pub(super) fn enter(self: &Rc<Self>, address: IpAddr) -> Place {
        let mut state = self.state.borrow_mut();
        state.accepted += 1;
        let number = state.accepted;
        let crowded_out = Rc::new(Notify::new());
        let stranger = Stranger { origin: origin(address), crowded_out: Rc::clone(&crowded_out) };
        state.strangers.insert(number, stranger);
        if state.strangers.len() + state.known > Self::MOST {
            state.crowd_out();
        }
        Place { arrivals: Rc::clone(self), number, crowded_out, is_known: false }
    }
}

impl State {
    fn crowd_out(&mut self) {
        let mut crowds: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (&number, stranger) in &self.strangers {
            crowds.entry(stranger.origin).or_insert((0, number)).0 += 1;
        }
        let largest = crowds.into_values().max_by_key(|&(strangers, _)| strangers);
        let oldest = largest.and_then(|(_, oldest)| self.strangers.remove(&oldest));
        oldest.into_iter().for_each(|stranger| stranger.crowded_out.notify_one());
    }
}

/// The place of one link among those under way, until it is dropped.
pub(super) struct Place {
    arrivals: Rc<Arrivals>,
    number: u64,
    crowded_out: Rc<Notify>,
    is_known: bool,
}

impl Place {
    /// Waits until the link has to make room for others.
    pub(super) async fn crowded_out(&self) {
        self.crowded_out.notified().await;
    }

    /// The link has shown who it is, and stays.
    pub(super) fn note_known(&mut self) {
        let mut state = self.arrivals.state.borrow_mut();
        state.strangers.remove(&self.number);
        state.known += 1;
        self.is_known = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.arrivals.state.borrow_mut();
        state.strangers.remove(&self.number);
        state.known -= usize::from(self.is_known);
    }
}

/// Where a link comes from: of an IPv6 address the network, of which one host has all addresses.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_crowded_out(place: &Place) -> bool {
        pin!(place.crowded_out()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_stranger_from_where_most_come_from_makes_room() {
        let arrivals = Rc::new(Arrivals::default());
        let honest = arrivals.enter(address("192.0.2.1"));
        let mut crowd: Vec<Place> =
            (1..Arrivals::MOST).map(|_| arrivals.enter(address("192.0.2.2"))).collect();
        assert!(!crowd.iter().any(is_crowded_out));
        crowd.push(arrivals.enter(address("::ffff:192.0.2.2")));
        assert!(is_crowded_out(&crowd[0]) && !is_crowded_out(&honest));
        crowd.push(arrivals.enter(address("192.0.2.3")));
        assert!(is_crowded_out(&crowd[1]));
        assert_eq!(crowd.iter().filter(|place| is_crowded_out(place)).count(), 0);
    }

    #[test]
    fn the_addresses_of_one_network_count_as_one() {
        let arrivals = Rc::new(Arrivals::default());
        let others: Vec<Place> = (0..Arrivals::MOST - 2)
            .map(|number| arrivals.enter(address(&format!("2001:db8:{number:x}::1"))))
            .collect();
        let one = arrivals.enter(address("2001:db8:ffff::1"));
        let _other = arrivals.enter(address("2001:db8:ffff::2"));
        let _newest = arrivals.enter(address("192.0.2.1"));
        assert!(is_crowded_out(&one) && !others.iter().any(is_crowded_out));
    }

    #[test]
    fn who_is_known_stays_and_a_place_that_is_left_is_free() {
        let arrivals = Rc::new(Arrivals::default());
        let mut known: Vec<Place> =
            (0..Arrivals::MOST).map(|_| arrivals.enter(address("192.0.2.1"))).collect();
        known.iter_mut().for_each(Place::note_known);
        assert!(is_crowded_out(&arrivals.enter(address("192.0.2.2"))), "nobody else can go");
        assert!(!known.iter().any(is_crowded_out));
        known.pop();
        assert!(!is_crowded_out(&arrivals.enter(address("192.0.2.2"))));
    }
}
