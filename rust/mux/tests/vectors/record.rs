//! Writes down a conversation while it is held.

use cmgmux_mux::{Claim, Hello, HelloOk, Limits, Resume, Secret, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::conversations::live;
use crate::to_hex;
use crate::world::World;

pub(crate) const POINT: &str = "connection_point";
pub(crate) const INSTANCE: &str = "instance";
const SECRET: [u8; 32] = [0x5e; 32];
const CHANNEL_ID: [u8; 16] = [0xc4; 16];

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) world: World,
    pub(crate) steps: Vec<Value>,
    pub(crate) link: u32,
}

impl Recorder {
    pub(crate) fn greet(&mut self, point: Limits, instance: Limits) {
        let hello = Hello { limits: point, instance: 2, ordinal: 0, boot_id: [0xb1; 16] };
        self.deliver(POINT, &hello.encode(), false);
        let ok = HelloOk {
            limits: instance,
            shards: 2,
            boot_id: [0xb2; 16],
            channel_id: CHANNEL_ID,
            secret: Secret(SECRET),
        };
        self.deliver(INSTANCE, &ok.encode(), false);
    }

    fn deliver(&mut self, from: &str, frame: &[u8], foreign: bool) {
        let mut step = json!({ "link": self.link, "from": from, "frame": to_hex(frame) });
        if foreign {
            step["foreign"] = json!(true);
        }
        match self.world.deliver(&json!(from), frame) {
            Ok(events) => step["events"] = events.into(),
            Err(error) => step["error"] = format!("{:?}", error.code()).into(),
        }
        self.steps.push(step);
    }

    pub(crate) fn call(&mut self, at: &str, mut call: Value) {
        call["at"] = json!(at);
        self.world.call(&call);
        self.steps.push(json!({ "call": call }));
    }

    pub(crate) fn open(&mut self, at: &str, stream: &str) {
        self.call(at, json!({ "do": "open", "stream": stream, "kind": "exchange" }));
    }

    pub(crate) fn send(&mut self, at: &str, stream: &str, data: &[u8], end: &str) {
        let data = to_hex(data);
        self.call(at, json!({ "do": "send", "stream": stream, "data": data, "end": end }));
    }

    pub(crate) fn advance(&mut self, micros: u64) {
        self.world.advance(micros);
        self.steps.push(json!({ "advance_us": micros }));
    }

    fn next_frame(&mut self, from: &str) -> Option<Vec<u8>> {
        let now: Timestamp = self.world.now;
        self.world.end(&json!(from)).next_frame(now)
    }

    /// Delivers at most `most` frames.
    pub(crate) fn deliver_some(&mut self, from: &str, most: usize) {
        for _ in 0..most {
            let Some(frame) = self.next_frame(from) else { return };
            self.deliver(from, &frame, false);
        }
    }

    pub(crate) fn settle(&mut self) {
        let before = self.steps.len();
        self.deliver_some(POINT, usize::MAX);
        self.deliver_some(INSTANCE, usize::MAX);
        if self.steps.len() > before {
            self.settle();
        }
    }

    /// Lets late acknowledgements go out as well, and notes how many streams are left.
    pub(crate) fn finish(&mut self) {
        self.settle();
        self.advance(25_000);
        self.settle();
        self.steps.push(json!({ "live": live(&self.world) }));
    }

    pub(crate) fn foreign(&mut self, from: &str, frame: &[u8]) {
        self.deliver(from, frame, true);
    }

    /// The link dies with all that is under way.
    pub(crate) fn cut(&mut self) {
        for from in [POINT, INSTANCE] {
            while let Some(frame) = self.next_frame(from) {
                let frame = to_hex(&frame);
                self.steps
                    .push(json!({ "link": self.link, "from": from, "frame": frame, "lost": true }));
            }
        }
        self.world.lose_link();
        self.steps.push(json!({ "link_lost": true }));
    }

    pub(crate) fn claim(&mut self) -> Claim {
        self.call(POINT, json!({ "do": "claim" }));
        self.world.claim.unwrap()
    }

    /// RESUME on a fresh link.
    pub(crate) fn ask(&mut self, claim: Claim) {
        self.link += 1;
        let exporter = [u8::try_from(self.link).unwrap(); 32];
        let mut resume = Resume { channel_id: CHANNEL_ID, claim, nonce: [0x90; 8], proof: [0; 32] };
        resume.proof = proof(&resume, &exporter);
        self.deliver(POINT, &resume.encode(), false);
        self.steps.last_mut().unwrap()["exporter"] = to_hex(&exporter).into();
    }

    pub(crate) fn answer(&mut self) {
        let answer = self.world.answer.take().unwrap();
        self.deliver(INSTANCE, &answer.encode(), false);
    }
}

/// HMAC-SHA256 with a key shorter than a block.
fn proof(resume: &Resume, exporter: &[u8; 32]) -> [u8; 32] {
    let Resume { channel_id, claim, nonce, .. } = resume;
    let message = [
        &b"cmgmux resume v1"[..],
        channel_id,
        &claim.epoch.to_le_bytes(),
        &claim.rx_pos.to_le_bytes(),
        &claim.tx_first.to_le_bytes(),
        nonce,
        exporter,
    ]
    .concat();
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(SECRET).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::digest([&pad(0x36)[..], &message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).into()
}
