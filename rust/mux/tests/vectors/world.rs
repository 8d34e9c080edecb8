//! Two ends that a conversation is replayed into, and what their applications see.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{HEADER_BYTES, Header, kind};
use cmgmux_mux::{
    Application, Channel, Claim, CloseCode, Config, Hello, HelloOk, ProtocolError, Resume,
    ResumeCode, Resumed, Side, StreamCode, StreamId, StreamKind, Timestamp, Token,
};
use serde_json::{Value, json};

use crate::{from_hex, to_hex};

/// A stream as the vectors name it.
pub(crate) fn name_of(id: StreamId) -> String {
    if id == StreamId::CHANNEL { "0".to_owned() } else { id.to_string() }
}

/// What one end's application saw since somebody last looked.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) events: Vec<Value>,
    streams: Vec<StreamId>,
}

impl Events {
    fn add(&mut self, id: StreamId) -> Token {
        self.streams.push(id);
        Token(u32::try_from(self.streams.len() - 1).unwrap())
    }

    fn name(&self, token: Token) -> String {
        name_of(self.streams[token.0 as usize])
    }

    fn find(&self, name: &Value) -> StreamId {
        let found = self.streams.iter().find(|id| *name == name_of(**id));
        *found.unwrap_or_else(|| panic!("no stream {name}"))
    }
}

impl Application for Events {
    fn opened(&mut self, id: StreamId, kind: StreamKind) -> Token {
        let kind = if kind == StreamKind::Control { "control" } else { "exchange" };
        self.events.push(json!({ "event": "opened", "stream": name_of(id), "kind": kind }));
        self.add(id)
    }

    fn data(&mut self, stream: Token, data: Bytes, end: cmgmux_mux::End) {
        let (stream, data, end) = (self.name(stream), to_hex(&data), end_name(end));
        self.events.push(json!({ "event": "data", "stream": stream, "data": data, "end": end }));
    }

    fn reset(&mut self, stream: Token, code: StreamCode) {
        let stream = self.name(stream);
        self.events.push(json!({ "event": "reset", "stream": stream, "code": code.0 }));
    }

    fn stopped(&mut self, stream: Token, code: StreamCode) {
        let stream = self.name(stream);
        self.events.push(json!({ "event": "stopped", "stream": stream, "code": code.0 }));
    }

    fn tickets(&mut self) {
        self.events.push(json!({ "event": "tickets" }));
    }

    fn draining(&mut self, code: CloseCode, grace: Duration) {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap();
        self.events.push(json!({ "event": "draining", "code": code.0, "grace_ms": grace_ms }));
    }

    fn closed(&mut self, code: CloseCode, text: &str) {
        self.events.push(json!({ "event": "closed", "code": code.0, "text": text }));
    }

    // Of memory and of the sending half, which no frame tells.
    fn unread(&self, _stream: Token, _id: StreamId) -> u64 {
        0
    }
    fn too_slow(&mut self, _stream: Token) {}
    fn writable(&mut self, _stream: Token) {}
    fn retired(&mut self, _stream: Token) {}
}

fn end_name(end: cmgmux_mux::End) -> &'static str {
    match end {
        cmgmux_mux::End::None => "none",
        cmgmux_mux::End::Part => "part",
        cmgmux_mux::End::Stream => "stream",
    }
}

/// One end of the channel.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) channel: Channel,
    pub(crate) app: Events,
    pub(crate) input: BytesMut,
    /// Frames written and not taken by anybody.
    output: VecDeque<Vec<u8>>,
}

impl End {
    pub(crate) fn new(side: Side, config: Config) -> Self {
        Self {
            channel: Channel::new(side, config, Timestamp::ZERO),
            app: Events::default(),
            input: BytesMut::new(),
            output: VecDeque::new(),
        }
    }

    /// The next frame that this end has to send.
    pub(crate) fn next_frame(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        if self.output.is_empty() {
            self.write_batch(now);
        }
        self.output.pop_front()
    }

    fn write_batch(&mut self, now: Timestamp) {
        if !self.channel.poll_output(now, &mut self.app) {
            return;
        }
        let mut batch: Vec<u8> = self.channel.output().flatten().copied().collect();
        self.channel.handle_written(now);
        while let Some(header) = Header::decode(&batch).unwrap() {
            let rest = batch.split_off(header.frame_bytes());
            self.output.push_back(std::mem::replace(&mut batch, rest));
        }
    }

    fn lose_link(&mut self) {
        self.output.clear();
        self.input.clear();
    }
}

/// A conversation under way.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    hello: Option<Hello>,
    pub(crate) ends: Option<[End; 2]>,
    /// The connection point's last claim, and the instance's last answer.
    pub(crate) claim: Option<Claim>,
    pub(crate) answer: Option<Resumed>,
}

/// The index of an end by its name.
pub(crate) fn index(name: &Value) -> usize {
    match name.as_str() {
        Some("connection_point") => 0,
        Some("instance") => 1,
        _ => panic!("{name} is no end"),
    }
}

impl World {
    pub(crate) fn end(&mut self, name: &Value) -> &mut End {
        &mut self.ends.as_mut().expect("the handshake comes first")[index(name)]
    }

    /// Carries out one call of an application.
    pub(crate) fn call(&mut self, call: &Value) {
        let now = self.now;
        let end = self.end(&call["at"]);
        let End { channel, app, .. } = &mut *end;
        let code = || u32::try_from(call["code"].as_u64().unwrap()).unwrap();
        let id = match call["do"].as_str().unwrap() {
            "open" | "complete" | "claim" | "go_away" | "close" => None,
            _ => Some(app.find(&call["stream"])),
        };
        match (call["do"].as_str().unwrap(), id) {
            ("open", _) => {
                let control = call["kind"] == "control";
                let kind = if control { StreamKind::Control } else { StreamKind::Exchange };
                let token = app.add(StreamId::CHANNEL);
                let id = channel.open(kind, token).unwrap();
                *app.streams.last_mut().unwrap() = id;
                assert_eq!(call["stream"], name_of(id));
            }
            ("send", Some(id)) => {
                let end = match call["end"].as_str().unwrap() {
                    "none" => cmgmux_mux::End::None,
                    "part" => cmgmux_mux::End::Part,
                    _ => cmgmux_mux::End::Stream,
                };
                channel.send(id, from_hex(&call["data"]).into(), end).unwrap();
            }
            ("consume", Some(id)) => {
                channel.consume(id, usize::try_from(call["bytes"].as_u64().unwrap()).unwrap());
            }
            ("reset", Some(id)) => channel.reset(id, StreamCode(code())),
            ("stop", Some(id)) => channel.stop(id, StreamCode(code())),
            ("complete", _) => channel.complete(),
            ("claim", _) => self.claim = Some(channel.claim()),
            ("go_away", _) => {
                let grace = Duration::from_millis(call["grace_ms"].as_u64().unwrap());
                channel.go_away(CloseCode(code()), grace);
                // Its count is of now.
                end.write_batch(now);
            }
            ("close", _) => channel.close(CloseCode(code()), call["text"].as_str().unwrap()),
            other => panic!("unknown call {other:?}"),
        }
    }

    /// Lets time pass, which may make probes and acknowledgements due.
    pub(crate) fn advance(&mut self, micros: u64) {
        self.now = self.now.after(Duration::from_micros(micros));
        for end in self.ends.as_mut().unwrap() {
            assert_eq!(end.channel.handle_timeout(self.now), None);
        }
    }

    pub(crate) fn lose_link(&mut self) {
        for end in self.ends.as_mut().unwrap() {
            end.lose_link();
            end.channel.handle_link_lost(self.now);
        }
    }

    /// Delivers one frame and says what the application at the other end saw.
    pub(crate) fn deliver(
        &mut self,
        from: &Value,
        frame: &[u8],
    ) -> Result<Vec<Value>, ProtocolError> {
        let header = Header::decode(frame)?.unwrap();
        let body = &frame[HEADER_BYTES..];
        match header.kind {
            kind::HELLO => self.hello = Some(Hello::decode(body)?),
            kind::HELLO_OK => self.begin(&HelloOk::decode(body)?),
            kind::RESUME => {
                let now = self.now;
                let claim = Resume::decode(body)?.claim;
                let instance = &mut self.ends.as_mut().unwrap()[1];
                let answer = instance.channel.handle_claim(now, &claim)?;
                if answer.code == ResumeCode::ACCEPTED {
                    instance.lose_link();
                }
                self.answer = Some(answer);
            }
            kind::RESUMED => {
                let (now, resumed) = (self.now, Resumed::decode(body)?);
                let point = &mut self.ends.as_mut().unwrap()[0];
                if resumed.code == ResumeCode::ACCEPTED {
                    point.lose_link();
                    assert!(point.channel.handle_resumed(now, &resumed)?);
                }
            }
            _ => {
                let now = self.now;
                let ends = self.ends.as_mut().expect("the handshake comes first");
                let End { channel, app, input, .. } = &mut ends[1 - index(from)];
                input.extend_from_slice(frame);
                let result = channel.handle_input(now, input, app);
                let events = std::mem::take(&mut app.events);
                return result.map(|()| events);
            }
        }
        Ok(Vec::new())
    }

    fn begin(&mut self, ok: &HelloOk) {
        let hello = self.hello.expect("HELLO comes before HELLO_OK");
        let config = |local, peer| Config { local, peer, ..Config::default() };
        self.ends = Some([
            End::new(Side::ConnectionPoint, config(hello.limits, ok.limits)),
            End::new(Side::Instance, config(ok.limits, hello.limits)),
        ]);
    }
}
