//! The frames RESUME and RESUMED: a channel asks to go on over a new link, and the answer.

use bytes::{BufMut, BytesMut};

use crate::error::{ProtocolError, ResumeCode};
use crate::frame::{Body, HEADER_BYTES, Header, StreamId, kind};

/// Bytes of a RESUME's body.
const RESUME_BODY: usize = 16 + 4 + 8 + 8 + 8 + 32;
/// Bytes of a RESUMED's body.
const RESUMED_BODY: usize = 4 + 4 + 8 + 8;

/// Where an end of the channel stands when it asks for a new link.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Claim {
    /// The number of the attempt, greater than any before. From 1; the first link has 0.
    pub epoch: u32,
    /// Position up to which it has applied the other end's frames.
    pub rx_pos: u64,
    /// First position of its own frames that it still has.
    pub tx_first: u64,
}

/// What a connection point says first on a link that an existing channel is to move to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resume {
    /// The channel, as HELLO_OK named it.
    pub channel_id: [u8; 16],
    /// Where the connection point stands.
    pub claim: Claim,
    /// Makes each proof another one.
    pub nonce: [u8; 8],
    /// Shows that the sender knows the channel's secret; the core does not look at it.
    pub proof: [u8; 32],
}

/// The instance's answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Resumed {
    /// [`ResumeCode::ACCEPTED`], or why not; then nothing has changed and the rest means nothing.
    pub code: ResumeCode,
    /// The RESUME's.
    pub epoch: u32,
    /// Position up to which the instance has applied the connection point's frames. The connection
    /// point goes on from there.
    pub rx_pos: u64,
    /// Position from which the instance goes on.
    pub tx_start: u64,
}

impl Resume {
    /// The whole frame.
    #[must_use]
    pub fn encode(&self) -> BytesMut {
        let mut frame = begin(kind::RESUME, RESUME_BODY);
        frame.put_slice(&self.channel_id);
        frame.put_u32_le(self.claim.epoch);
        frame.put_u64_le(self.claim.rx_pos);
        frame.put_u64_le(self.claim.tx_first);
        frame.put_slice(&self.nonce);
        frame.put_slice(&self.proof);
        frame
    }

    /// Reads the body of a RESUME.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Malformed`] for a body of another length.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new("RESUME", body);
        let resume = Self {
            channel_id: body.array()?,
            claim: Claim { epoch: body.u32()?, rx_pos: body.u64()?, tx_first: body.u64()? },
            nonce: body.array()?,
            proof: body.array()?,
        };
        body.finish()?;
        Ok(resume)
    }
}

impl Resumed {
    /// The answer to a RESUME that is not accepted.
    #[must_use]
    pub fn refusal(epoch: u32, code: ResumeCode) -> Self {
        Self { code, epoch, rx_pos: 0, tx_start: 0 }
    }

    /// The whole frame.
    #[must_use]
    pub fn encode(&self) -> BytesMut {
        let mut frame = begin(kind::RESUMED, RESUMED_BODY);
        frame.put_u32_le(self.code.0);
        frame.put_u32_le(self.epoch);
        frame.put_u64_le(self.rx_pos);
        frame.put_u64_le(self.tx_start);
        frame
    }

    /// Reads the body of a RESUMED.
    ///
    /// # Errors
    ///
    /// As [`Resume::decode`].
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut body = Body::new("RESUMED", body);
        let resumed = Self {
            code: ResumeCode(body.u32()?),
            epoch: body.u32()?,
            rx_pos: body.u64()?,
            tx_start: body.u64()?,
        };
        body.finish()?;
        Ok(resumed)
    }
}

fn begin(kind: u8, body_bytes: usize) -> BytesMut {
    let length = u32::try_from(body_bytes).expect("a handshake is short");
    let header = Header { length, kind, flags: 0, stream: StreamId::CHANNEL };
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body_bytes);
    frame.put_slice(&header.encode());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume() -> Resume {
        Resume {
            channel_id: [3; 16],
            claim: Claim { epoch: 7, rx_pos: 1 << 40, tx_first: 12 },
            nonce: [4; 8],
            proof: [5; 32],
        }
    }

    #[test]
    fn both_frames_survive_the_wire() {
        let frame = resume().encode();
        let header = Header::decode(&frame).unwrap().unwrap();
        assert_eq!((header.kind, header.frame_bytes()), (kind::RESUME, frame.len()));
        assert_eq!(Resume::decode(&frame[HEADER_BYTES..]), Ok(resume()));
        let resumed =
            Resumed { code: ResumeCode::ACCEPTED, epoch: 7, rx_pos: 8, tx_start: u64::MAX };
        let frame = resumed.encode();
        let header = Header::decode(&frame).unwrap().unwrap();
        assert_eq!((header.kind, header.frame_bytes()), (kind::RESUMED, frame.len()));
        assert_eq!(Resumed::decode(&frame[HEADER_BYTES..]), Ok(resumed));
    }

    #[test]
    fn a_body_of_another_length_is_malformed() {
        let body = resume().encode().split_off(HEADER_BYTES);
        for cut in 0..body.len() {
            assert!(Resume::decode(&body[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = body.clone();
        longer.put_u8(0);
        assert!(Resume::decode(&longer).is_err());
    }
}
