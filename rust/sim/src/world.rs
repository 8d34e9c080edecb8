//! One run: both ends, their applications and links in virtual time.

mod apps;
mod book;
mod ends;
mod faults;
mod link;
mod openings;
mod watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use cmgmux_mux::{Claim, Timestamp};
use fastrand::Rng;

use self::book::Book;
use self::ends::Process;
use self::link::Link;
use crate::audit::Audit;
use crate::plan::{Net, Plan};
use crate::report::Report;

const POINT: usize = 0;
const INSTANCE: usize = 1;
const SIDES: [usize; 2] = [POINT, INSTANCE];
/// More than this many events mean that something goes round in circles.
const MAX_EVENTS: u64 = 30_000_000;

/// What happens at a time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// A stream is to be opened.
    Start(usize),
    /// The application of a stream at an end has something to do.
    Turn(usize, usize),
    /// A fault of the plan.
    Fault(usize),
    /// The next piece on a link arrives at an end.
    Arrive(usize, usize),
    /// Something is due at an end.
    Timer(usize),
    /// The connection point makes a new link.
    Dial,
    /// Who still waits for the first frame of a link gives up.
    GiveUp(usize),
    /// The faults are over.
    Heal,
    /// A look at whether everything goes on.
    Watch,
}

/// Everything that is at a moment.
pub(crate) struct World<'a> {
    plan: &'a Plan,
    /// Whether every event is printed.
    is_told: bool,
    now: Timestamp,
    events: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    scheduled: u64,
    rng: Rng,
    net: Net,
    processes: [Process; 2],
    links: Vec<Link>,
    /// The link that the connection point dialled last, and whether it is going to dial.
    dialled: Option<usize>,
    dials: bool,
    no_link_until: Timestamp,
    /// Cuts of links that have not been made yet.
    cuts: VecDeque<[u32; 2]>,
    /// Claims made, with their channels.
    claims: Vec<(usize, Claim)>,
    book: Book,
    /// The account of each channel.
    audits: Vec<Audit>,
    /// By stream, what it had done when it was last seen to go on.
    progress: Vec<(u64, Timestamp)>,
    is_healed: bool,
    is_complete: bool,
    report: Report,
}

impl<'a> World<'a> {
    /// Plays the plan to its end.
    ///
    /// # Panics
    ///
    /// When an invariant is broken.
    pub(crate) fn run(plan: &'a Plan, is_told: bool) -> Report {
        let mut world = Self::new(plan, is_told);
        while !world.is_complete {
            let Reverse((at, _, event)) = world.events.pop().expect("a watch is always due");
            world.now = at;
            world.report.events += 1;
            assert!(world.report.events < MAX_EVENTS, "the run does not end");
            world.handle(event);
        }
        world.report.seeds = 1;
        world.report.virtual_ms = world.now.as_micros() / 1_000;
        world.report.compared_bytes = world.book.compared_bytes;
        world.report.too_slow = world.book.too_slow;
        world.report
    }

    fn new(plan: &'a Plan, is_told: bool) -> Self {
        let mut world = Self {
            plan,
            is_told,
            now: Timestamp::ZERO,
            events: BinaryHeap::new(),
            scheduled: 0,
            rng: Rng::with_seed(plan.seed ^ 0x5eed),
            net: plan.net.clone(),
            processes: Default::default(),
            links: Vec::new(),
            dialled: None,
            dials: false,
            no_link_until: Timestamp::ZERO,
            cuts: VecDeque::new(),
            claims: Vec::new(),
            book: Book::new(plan),
            audits: Vec::new(),
            progress: vec![(0, Timestamp::ZERO); plan.streams.len()],
            is_healed: false,
            is_complete: false,
            report: Report::default(),
        };
        for (number, stream) in plan.streams.iter().enumerate() {
            world.schedule(Timestamp::from_micros(stream.at_us), Event::Start(number));
        }
        for (number, fault) in plan.faults.iter().enumerate() {
            world.schedule(Timestamp::from_micros(fault.at_us), Event::Fault(number));
        }
        world.schedule(Timestamp::from_micros(u64::from(plan.heal_ms) * 1_000), Event::Heal);
        world.schedule(Timestamp::ZERO, Event::Watch);
        world.need_link();
        world
    }

    fn schedule(&mut self, at: Timestamp, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at.max(self.now), self.scheduled, event)));
    }

    fn in_us(&self, micros: u64) -> Timestamp {
        Timestamp::from_micros(self.now.as_micros() + micros)
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:>12.6} {}", self.now.as_micros() as f64 / 1e6, what());
        }
    }

    /// The process whose event it is.
    fn side_of(&self, event: Event) -> Option<usize> {
        match event {
            Event::Start(stream) => Some(self.plan.streams[stream].opener),
            Event::Turn(_, side) | Event::Arrive(_, side) | Event::Timer(side) => Some(side),
            Event::Dial => Some(POINT),
            Event::Fault(_) | Event::GiveUp(_) | Event::Heal | Event::Watch => None,
        }
    }

    fn handle(&mut self, event: Event) {
        let paused_until = self.side_of(event).map(|side| self.processes[side].paused_until);
        if let Some(until) = paused_until.filter(|until| *until > self.now) {
            self.schedule(until, event);
            return;
        }
        match event {
            Event::Start(stream) => {
                let side = self.plan.streams[stream].opener;
                self.processes[side].waiting.push_back(stream);
                self.book.sides[side].has_tickets = true;
                self.drive(side);
            }
            Event::Turn(stream, side) => {
                self.book.touch(side, stream);
                self.drive(side);
            }
            Event::Fault(number) => {
                if !self.is_healed {
                    self.make_fault(number);
                }
            }
            Event::Arrive(link, side) => self.arrive(link, side),
            Event::Timer(side) => {
                self.processes[side].timer_at = None;
                self.drive(side);
            }
            Event::Dial => self.redial(),
            Event::GiveUp(link) => self.give_up(link),
            Event::Heal => self.heal(),
            Event::Watch => self.watch(),
        }
        self.need_link();
    }
}
