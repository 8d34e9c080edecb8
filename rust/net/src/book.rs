//! What the handles of a channel's streams see: inboxes, ends, and who waits for what.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::{Application, CloseCode, End, StreamCode, StreamId, StreamKind, Token};

use crate::inbox::{Inbox, Inboxes};
use crate::pages::Pages;
use crate::stream::from_core;

/// The receiving half as its handle sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rx {
    /// More may come.
    Open,
    /// The inbox is all there is.
    Ended,
    /// The peer abandoned its half.
    Reset(StreamCode),
    /// Given up because its reader was too slow.
    TooSlow,
}

/// The sending half as its handle sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tx {
    /// Takes data.
    Open,
    /// Finished by the handle.
    Finished,
    /// Stopped by the peer.
    Stopped(StreamCode),
}

/// One stream with at least one live handle. One cache line: whoever sends or receives a message
/// touches it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) id: StreamId,
    pub(crate) inbox: Inbox,
    pub(crate) rx: Rx,
    pub(crate) tx: Tx,
    /// Live handles: the sending one, the receiving one.
    pub(crate) handles: u8,
    /// Opened by the peer, so that its end is owed to it as a ticket.
    pub(crate) accepted: bool,
    /// Both halves have ended and the id means nothing any more.
    pub(crate) retired: bool,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

impl Entry {
    pub(crate) fn new(id: StreamId, accepted: bool) -> Self {
        Self {
            reader: None,
            writer: None,
            id,
            inbox: Inbox::default(),
            rx: Rx::Open,
            tx: Tx::Open,
            handles: 2,
            accepted,
            retired: false,
        }
    }
}

/// All streams with live handles, and what happened since the driver last looked.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) entries: Pages<Entry>,
    pub(crate) inboxes: Inboxes,
    /// Streams that the peer opened and nobody has taken yet; bounded by the tickets given.
    pub(crate) incoming: VecDeque<(Token, StreamKind)>,
    pub(crate) acceptor: Option<Waker>,
    /// To be woken once the lock has been released.
    pub(crate) wake: VecDeque<Waker>,
    /// Streams can be opened that could not before, or none can be opened any more.
    pub(crate) tickets: bool,
    /// The peer closed the channel.
    pub(crate) closed: Option<(CloseCode, String)>,
}

impl Book {
    /// The key of the entry that `insert` will make.
    pub(crate) fn next_token(&self) -> Token {
        token(self.entries.next_key())
    }

    pub(crate) fn entry(&mut self, stream: Token) -> Option<&mut Entry> {
        self.entries.get_mut(stream.0 as usize)
    }

    /// Forgets the streams that nobody has taken: the channel has ended.
    pub(crate) fn forget_untaken(&mut self) {
        for (token, _) in std::mem::take(&mut self.incoming) {
            if let Some(entry) = self.entries.get_mut(token.0 as usize) {
                self.inboxes.clear(&mut entry.inbox);
            }
            self.entries.remove(token.0 as usize);
        }
    }

    /// Wakes everybody: the channel has ended.
    pub(crate) fn wake_all(&mut self) {
        for entry in self.entries.values_mut() {
            self.wake.extend(entry.reader.take());
            self.wake.extend(entry.writer.take());
        }
        self.wake.extend(self.acceptor.take());
    }
}

fn token(key: usize) -> Token {
    Token(u32::try_from(key).expect("entries are bounded by the stream limits"))
}

impl Application for Book {
    fn opened(&mut self, id: StreamId, kind: StreamKind) -> Token {
        let token = token(self.entries.insert(Entry::new(id, true)));
        self.incoming.push_back((token, kind));
        self.wake.extend(self.acceptor.take());
        token
    }

    fn data(&mut self, stream: Token, data: Bytes, end: End) {
        let Some(entry) = self.entries.get_mut(stream.0 as usize) else {
            return;
        };
        self.inboxes.push(&mut entry.inbox, data, from_core(end));
        if end == End::Stream {
            entry.rx = Rx::Ended;
        }
        self.wake.extend(entry.reader.take());
    }

    fn unread(&self, stream: Token, id: StreamId) -> u64 {
        let entry = self.entries.get(stream.0 as usize).filter(|entry| entry.id == id);
        entry.map_or(0, |entry| u64::from(entry.inbox.charge()))
    }

    fn too_slow(&mut self, stream: Token) {
        let Some(entry) = self.entries.get_mut(stream.0 as usize) else {
            return;
        };
        entry.rx = Rx::TooSlow;
        self.inboxes.clear(&mut entry.inbox);
        self.wake.extend(entry.reader.take());
    }

    fn reset(&mut self, stream: Token, code: StreamCode) {
        let Some(entry) = self.entries.get_mut(stream.0 as usize) else {
            return;
        };
        entry.rx = Rx::Reset(code);
        self.inboxes.clear(&mut entry.inbox);
        self.wake.extend(entry.reader.take());
    }

    fn stopped(&mut self, stream: Token, code: StreamCode) {
        let Some(entry) = self.entries.get_mut(stream.0 as usize) else {
            return;
        };
        entry.tx = Tx::Stopped(code);
        self.wake.extend(entry.writer.take());
    }

    fn writable(&mut self, stream: Token) {
        let Some(entry) = self.entries.get_mut(stream.0 as usize) else {
            return;
        };
        self.wake.extend(entry.writer.take());
    }

    fn retired(&mut self, stream: Token) {
        let Some(entry) = self.entries.get_mut(stream.0 as usize) else {
            return;
        };
        entry.retired = true;
    }

    fn tickets(&mut self) {
        self.tickets = true;
    }

    fn draining(&mut self, _code: CloseCode, _grace: Duration) {
        self.tickets = true;
    }

    fn closed(&mut self, code: CloseCode, text: &str) {
        self.closed.get_or_insert_with(|| (code, text.to_owned()));
    }
}
