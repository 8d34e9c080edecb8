//! The handshake frames HELLO and HELLO_OK: tag, length, value.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::config::Limits;
use crate::error::ProtocolError;
use crate::frame::{HEADER_BYTES, Header, StreamId, kind};

/// Version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// Longest handshake frame in bytes, header included; more is not read from a stranger.
pub const MAX_HELLO_BYTES: usize = 1024;

/// What a connection point says first on a new link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// What the connection point allows the instance.
    pub limits: Limits,
    /// The instance that it means to reach, 0..=15.
    pub instance: u8,
    /// Which of the instance's shards the channel is for, 0..=15.
    pub ordinal: u8,
    /// Names this run of the connection point's process.
    pub boot_id: [u8; 16],
}

/// The instance's answer; with it the channel exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HelloOk {
    /// What the instance allows the connection point.
    pub limits: Limits,
    /// Shards of the instance, 1..=16: as many channels it wants from each connection point.
    pub shards: u8,
    /// Names this run of the instance's process.
    pub boot_id: [u8; 16],
    /// Names the channel, in logs of both ends and when it is resumed. Its first byte is the
    /// instance's index, so that an instance knows a channel of another one.
    pub channel_id: [u8; 16],
    /// What both ends prove to know when the channel is resumed.
    pub secret: Secret,
}

/// The key by which a channel is resumed; never shown.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

mod tag {
    pub(super) const VERSION: u8 = 1;
    pub(super) const MAX_STREAMS: u8 = 2;
    pub(super) const WINDOW: u8 = 3;
    pub(super) const INSTANCE: u8 = 4;
    pub(super) const ORDINAL: u8 = 5;
    pub(super) const BOOT_ID: u8 = 6;
    pub(super) const CHANNEL_ID: u8 = 7;
    pub(super) const SHARDS: u8 = 8;
    pub(super) const SECRET: u8 = 9;
}

impl Hello {
    /// The whole frame.
    #[must_use]
    pub fn encode(&self) -> BytesMut {
        let mut frame = Writer::new(self.limits);
        frame.put(tag::INSTANCE, &[self.instance]);
        frame.put(tag::ORDINAL, &[self.ordinal]);
        frame.put(tag::BOOT_ID, &self.boot_id);
        frame.finish(kind::HELLO)
    }

    /// Reads the body of a HELLO.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Version`] for another version, [`ProtocolError::Malformed`] for a body that
    /// lacks a value or holds an impossible one. Unknown tags are skipped.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let fields = Fields::read("HELLO", body)?;
        Ok(Self {
            limits: fields.limits()?,
            instance: fields.byte(fields.instance, 0..=15)?,
            ordinal: fields.byte(fields.ordinal, 0..=15)?,
            boot_id: fields.required(fields.boot_id)?,
        })
    }
}

impl HelloOk {
    /// The whole frame.
    #[must_use]
    pub fn encode(&self) -> BytesMut {
        let mut frame = Writer::new(self.limits);
        frame.put(tag::SHARDS, &[self.shards]);
        frame.put(tag::BOOT_ID, &self.boot_id);
        frame.put(tag::CHANNEL_ID, &self.channel_id);
        frame.put(tag::SECRET, &self.secret.0);
        frame.finish(kind::HELLO_OK)
    }

    /// Reads the body of a HELLO_OK.
    ///
    /// # Errors
    ///
    /// As [`Hello::decode`].
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let fields = Fields::read("HELLO_OK", body)?;
        Ok(Self {
            limits: fields.limits()?,
            shards: fields.byte(fields.shards, 1..=16)?,
            boot_id: fields.required(fields.boot_id)?,
            channel_id: fields.required(fields.channel_id)?,
            secret: fields.required(fields.secret)?,
        })
    }
}

struct Writer(BytesMut);

impl Writer {
    fn new(limits: Limits) -> Self {
        let mut frame = Self(BytesMut::zeroed(HEADER_BYTES));
        frame.put(tag::VERSION, &PROTOCOL_VERSION.to_le_bytes());
        frame.put(tag::MAX_STREAMS, &limits.max_streams.to_le_bytes());
        frame.put(tag::WINDOW, &limits.window_bytes.to_le_bytes());
        frame
    }

    fn put(&mut self, tag: u8, value: &[u8]) {
        self.0.put_u8(tag);
        self.0.put_u16_le(u16::try_from(value.len()).expect("values are at most 32 bytes"));
        self.0.put_slice(value);
    }

    fn finish(mut self, kind: u8) -> BytesMut {
        let length = u32::try_from(self.0.len() - HEADER_BYTES).expect("a handshake is short");
        let header = Header { length, kind, flags: 0, stream: StreamId::CHANNEL };
        self.0[..HEADER_BYTES].copy_from_slice(&header.encode());
        self.0
    }
}

/// The values of one handshake frame, before it is known which of them it needs.
#[derive(Default)]
struct Fields {
    frame: &'static str,
    version: Option<u16>,
    max_streams: Option<u32>,
    window: Option<u32>,
    instance: Option<u8>,
    ordinal: Option<u8>,
    shards: Option<u8>,
    boot_id: Option<[u8; 16]>,
    channel_id: Option<[u8; 16]>,
    secret: Option<Secret>,
}

impl Fields {
    fn read(frame: &'static str, mut body: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = |what| ProtocolError::Malformed { frame, what };
        let mut fields = Self { frame, ..Self::default() };
        while let Some((&[tag, low, high], rest)) = body.split_first_chunk::<3>() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            let (value, rest) =
                rest.split_at_checked(length).ok_or_else(|| malformed("value is cut off"))?;
            body = rest;
            let known = match tag {
                tag::VERSION => fixed(value, &mut fields.version, u16::from_le_bytes),
                tag::MAX_STREAMS => fixed(value, &mut fields.max_streams, u32::from_le_bytes),
                tag::WINDOW => fixed(value, &mut fields.window, u32::from_le_bytes),
                tag::INSTANCE => fixed(value, &mut fields.instance, |[byte]| byte),
                tag::ORDINAL => fixed(value, &mut fields.ordinal, |[byte]| byte),
                tag::SHARDS => fixed(value, &mut fields.shards, |[byte]| byte),
                tag::BOOT_ID => fixed(value, &mut fields.boot_id, |id| id),
                tag::CHANNEL_ID => fixed(value, &mut fields.channel_id, |id| id),
                tag::SECRET => fixed(value, &mut fields.secret, Secret),
                _ => Some(()),
            };
            known.ok_or_else(|| malformed("value of a wrong length or given twice"))?;
        }
        if !body.is_empty() {
            return Err(malformed("value is cut off"));
        }
        let theirs = fields.required(fields.version)?;
        if theirs != PROTOCOL_VERSION {
            return Err(ProtocolError::Version { theirs, ours: PROTOCOL_VERSION });
        }
        Ok(fields)
    }

    fn malformed(&self, what: &'static str) -> ProtocolError {
        ProtocolError::Malformed { frame: self.frame, what }
    }

    fn required<T>(&self, value: Option<T>) -> Result<T, ProtocolError> {
        value.ok_or_else(|| self.malformed("a required value is missing"))
    }

    fn byte(
        &self,
        value: Option<u8>,
        allowed: std::ops::RangeInclusive<u8>,
    ) -> Result<u8, ProtocolError> {
        let value = self.required(value)?;
        allowed
            .contains(&value)
            .then_some(value)
            .ok_or_else(|| self.malformed("value out of range"))
    }

    fn limits(&self) -> Result<Limits, ProtocolError> {
        let limits = Limits {
            max_streams: self.required(self.max_streams)?,
            window_bytes: self.required(self.window)?,
        };
        let windows = Limits::MIN_WINDOW_BYTES..=Limits::MAX_WINDOW_BYTES;
        if limits.max_streams > Limits::MAX_STREAMS || !windows.contains(&limits.window_bytes) {
            return Err(self.malformed("value out of range"));
        }
        Ok(limits)
    }
}

/// Stores `value` in `field`; `None` if its length is wrong or the field is taken.
fn fixed<const N: usize, T>(
    value: &[u8],
    field: &mut Option<T>,
    read: impl Fn([u8; N]) -> T,
) -> Option<()> {
    let bytes = <[u8; N]>::try_from(value).ok()?;
    field.replace(read(bytes)).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { limits: Limits::default(), instance: 3, ordinal: 1, boot_id: [7; 16] }
    }

    #[test]
    fn a_hello_survives_the_wire() {
        let frame = hello().encode();
        assert!(frame.len() <= MAX_HELLO_BYTES);
        let header = Header::decode(&frame).unwrap().unwrap();
        assert_eq!((header.kind, header.frame_bytes()), (kind::HELLO, frame.len()));
        assert_eq!(Hello::decode(&frame[HEADER_BYTES..]), Ok(hello()));
    }

    #[test]
    fn a_hello_ok_survives_the_wire() {
        let ok = HelloOk {
            limits: Limits { max_streams: 16, window_bytes: 65_536 },
            shards: 2,
            boot_id: [1; 16],
            channel_id: [2; 16],
            secret: Secret([3; 32]),
        };
        assert_eq!(HelloOk::decode(&ok.encode()[HEADER_BYTES..]), Ok(ok));
        assert!(format!("{ok:?}").ends_with("secret: Secret(..) }"), "{ok:?}");
    }

    #[test]
    fn unknown_tags_are_skipped() {
        let mut body = hello().encode().split_off(HEADER_BYTES);
        body.put_slice(&[200, 2, 0, 9, 9]);
        assert_eq!(Hello::decode(&body), Ok(hello()));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let mut body = hello().encode().split_off(HEADER_BYTES);
        body[3] = 2;
        assert_eq!(Hello::decode(&body), Err(ProtocolError::Version { theirs: 2, ours: 1 }));
    }

    #[test]
    fn cut_doubled_and_impossible_values_are_malformed() {
        let whole = hello().encode().split_off(HEADER_BYTES);
        for cut in 0..whole.len() {
            assert!(Hello::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut doubled = whole.clone();
        doubled.put_slice(&whole);
        assert!(Hello::decode(&doubled).is_err());
        let narrow = Hello { limits: Limits { max_streams: 1, window_bytes: 100 }, ..hello() };
        assert!(Hello::decode(&narrow.encode()[HEADER_BYTES..]).is_err());
        let far = Hello { instance: 16, ..hello() };
        assert!(Hello::decode(&far.encode()[HEADER_BYTES..]).is_err());
    }
}
