//! The links that are being checked: how many there may be, and who has to go when there are more.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use cmgmux_net::shard::MAX_SHARDS;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Links under way from accept until they are handed to their shard.
#[derive(Default)]
pub(super) struct Arrivals {
    state: RefCell<State>,
    /// One has left.
    left: Notify,
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
    since: Instant,
    crowded_out: Rc<Notify>,
}

impl Arrivals {
    /// Most links under way.
    pub(super) const MOST: usize = 512;
    /// Time that a stranger has when others wait.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Waits until there is a place, and enters a link that has been accepted.
    ///
    /// If all places are taken, a stranger has to go, so that strangers keep out nobody but one another:
    /// the oldest one from where most of them come, at once if they are more than the shards of a
    /// connection point; otherwise the oldest of all, once it has had its time.
    pub(super) async fn enter(self: &Rc<Self>, address: IpAddr) -> Place {
        loop {
            let left = self.left.notified();
            let Err(due) = self.state.borrow_mut().make_room(Instant::now()) else { break };
            tokio::select! {
                () = left => {}
                () = sleep_until(due) => {}
            }
        }
        self.place(address)
    }

    fn place(self: &Rc<Self>, address: IpAddr) -> Place {
        let mut state = self.state.borrow_mut();
        state.accepted += 1;
        let (number, crowded_out) = (state.accepted, Rc::new(Notify::new()));
        let stranger = Stranger {
            origin: origin(address),
            since: Instant::now(),
            crowded_out: Rc::clone(&crowded_out),
        };
        state.strangers.insert(number, stranger);
        Place { arrivals: Rc::clone(self), number, crowded_out, is_known: false }
    }
}

impl State {
    /// Sees to it that a place is free; if none can be now, says when to try again.
    fn make_room(&mut self, now: Instant) -> Result<(), Instant> {
        if self.strangers.len() + self.known < Arrivals::MOST {
            return Ok(());
        }
        let mut crowds: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (&number, stranger) in &self.strangers {
            crowds.entry(stranger.origin).or_insert((0, number)).0 += 1;
        }
        let largest = crowds.into_values().max_by_key(|&(count, oldest)| (count, Reverse(oldest)));
        let leaving = match (largest, self.strangers.first_key_value()) {
            (Some((count, oldest)), _) if count > MAX_SHARDS => oldest,
            (_, Some((&oldest, stranger))) => {
                let due = stranger.since + Arrivals::PATIENCE;
                if now < due {
                    return Err(due);
                }
                oldest
            }
            (_, None) => return Err(now + Arrivals::PATIENCE),
        };
        if let Some(stranger) = self.strangers.remove(&leaving) {
            stranger.crowded_out.notify_one();
        }
        Ok(())
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
        drop(state);
        self.arrivals.left.notify_one();
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

    fn make_room(arrivals: &Arrivals, after: Duration) -> bool {
        arrivals.state.borrow_mut().make_room(Instant::now() + after).is_ok()
    }

    #[test]
    fn the_oldest_stranger_from_where_many_come_from_makes_room_at_once() {
        let arrivals = Rc::new(Arrivals::default());
        let honest = arrivals.place(address("192.0.2.1"));
        let mut crowd: Vec<Place> =
            (2..Arrivals::MOST).map(|_| arrivals.place(address("192.0.2.2"))).collect();
        assert!(make_room(&arrivals, Duration::ZERO));
        crowd.push(arrivals.place(address("::ffff:192.0.2.2")));
        assert!(!crowd.iter().any(is_crowded_out), "that was the last place");
        assert!(make_room(&arrivals, Duration::ZERO));
        assert!(is_crowded_out(&crowd[0]) && !is_crowded_out(&honest));
        assert!(make_room(&arrivals, Duration::ZERO), "it is free");
        assert!(!crowd.iter().any(is_crowded_out));
    }

    #[test]
    fn where_few_come_from_each_place_the_oldest_goes_once_it_has_had_its_time() {
        let arrivals = Rc::new(Arrivals::default());
        let number = |number: usize| address(&format!("2001:db8:{:x}::{number:x}", number / 16));
        let places: Vec<Place> = (0..Arrivals::MOST).map(|at| arrivals.place(number(at))).collect();
        assert!(!make_room(&arrivals, Duration::ZERO));
        assert!(!places.iter().any(is_crowded_out));
        assert!(make_room(&arrivals, Arrivals::PATIENCE));
        assert!(is_crowded_out(&places[0]) && !places[1..].iter().any(is_crowded_out));
    }

    #[test]
    fn the_addresses_of_one_network_count_as_one() {
        let arrivals = Rc::new(Arrivals::default());
        let _others: Vec<Place> = (0..Arrivals::MOST - 17)
            .map(|number| arrivals.place(address(&format!("2001:db8:{number:x}::1"))))
            .collect();
        let crowd: Vec<Place> = (0..17)
            .map(|host| arrivals.place(address(&format!("2001:db8:ffff::{host:x}"))))
            .collect();
        assert!(make_room(&arrivals, Duration::ZERO));
        assert!(is_crowded_out(&crowd[0]));
    }

    #[test]
    fn who_is_known_stays_and_a_place_that_is_left_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let arrivals = Rc::new(Arrivals::default());
        let mut known: Vec<Place> =
            (0..Arrivals::MOST).map(|_| arrivals.place(address("192.0.2.1"))).collect();
        known.iter_mut().for_each(Place::note_known);
        let mut entering = Box::pin(arrivals.enter(address("192.0.2.2")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut cx).is_pending(), "nobody can go");
        assert!(!known.iter().any(is_crowded_out));
        known.pop();
        assert!(entering.as_mut().poll(&mut cx).is_ready());
    }
}
