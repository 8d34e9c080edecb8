//! Every order of events in which a channel can lose its link and move to another.
//!
//! Two ends of the real core, two streams that one of them opens, and an adversary who delivers one frame at a
//! time, kills links, has new ones claimed while the old one lives, and repeats claims. The search goes
//! depth first; a state is reached by playing its events again from the beginning, and known by
//! a hash of everything that is in it.

mod scene;

use std::collections::HashSet;
use std::fmt;

use cmgmux_mux::Side;

use self::scene::Scene;

/// How much may happen in one run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The end that opens both streams.
    pub opener: Side,
    /// Frames of data that it sends on each.
    pub frames: u8,
    /// Links that die.
    pub deaths: u8,
    /// Links on which the connection point claims the channel.
    pub claims: u8,
    /// Claims that arrive a second time, on a link that nobody reads.
    pub repeats: u8,
}

impl Size {
    /// What fits into every test run: three frames a stream, the answer being one of them.
    #[must_use]
    pub const fn small(opener: Side) -> Self {
        Self { opener, frames: 2, deaths: 2, claims: 2, repeats: 0 }
    }

    /// One size larger: a claim may arrive again.
    #[must_use]
    pub const fn large(opener: Side) -> Self {
        Self { repeats: 1, ..Self::small(opener) }
    }
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// An application says its next word, and its end writes.
    Say(usize),
    /// An end writes what else it has.
    Flush(usize),
    /// The next frame on a link arrives at an end.
    Deliver(usize, usize),
    /// An end loses its link. What it wrote may still arrive; what does not is never delivered.
    Lose(usize),
    /// The connection point claims the channel on a new link.
    Dial,
    /// A claim arrives once more, on a link of its own.
    Repeat(usize),
}

/// What a search saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Different states.
    pub states: u64,
    /// Steps between them.
    pub steps: u64,
    /// Events of the longest run.
    pub depth: usize,
    /// Different states in which the connection point moved to a new link.
    pub moves: u64,
    /// States in which nothing was left to happen.
    pub terminal: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, moves, terminal } = self;
        write!(f, "{states} states, {terminal} of them terminal, {moves} moves, {steps} steps, ")?;
        write!(f, "at most {depth} events deep")
    }
}

/// Visits every state of the configuration and lets the conversation complete from those in which
/// nothing else can happen.
///
/// # Panics
///
/// When an invariant is broken; the events that led there are printed.
#[must_use]
pub fn check(size: Size) -> Report {
    let mut report = Report::default();
    let mut seen = HashSet::new();
    let mut path = Path::default();
    let mut open = vec![path.visit(size, &mut seen, &mut report)];
    while let Some(events) = open.last_mut() {
        let Some(event) = events.pop() else {
            open.pop();
            path.0.pop();
            continue;
        };
        report.steps += 1;
        path.0.push(event);
        open.push(path.visit(size, &mut seen, &mut report));
    }
    report
}

/// The events from the beginning on.
#[derive(Default)]
struct Path(Vec<Event>);

impl Path {
    /// Plays the events, and returns what can happen next if that led to a new state.
    fn visit(&self, size: Size, seen: &mut HashSet<u64>, report: &mut Report) -> Vec<Event> {
        let _told = Told(&self.0);
        let mut scene = Scene::new(size);
        for event in &self.0 {
            scene.handle(*event);
        }
        let digest = scene.digest();
        if !seen.insert(digest) {
            return Vec::new();
        }
        let events = scene.events();
        report.states += 1;
        report.depth = report.depth.max(self.0.len());
        report.moves += u64::from(scene.has_moved());
        scene.try_stale(digest);
        if events.is_empty() {
            report.terminal += 1;
            scene.complete();
        }
        events
    }
}

/// Says which events led to a panic.
struct Told<'a>(&'a [Event]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}", self.0);
        }
    }
}
