//! A channel that exists moves to a new link: RESUME, RESUMED, and the proof that binds them to it.

use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::BytesMut;
use cmgmux_mux::frame::kind;
use cmgmux_mux::{Claim, ProtocolError, Resume, ResumeCode, Resumed, Secret};
use rustls::{ClientConfig, Connection};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::{DISMISSAL_BYTES, HandshakeError, detach, dial, read_frame, say};
use crate::id::{Id, random_bytes};
use crate::identity::PeerIdentity;
use crate::link::{FinishedTls, Link};

/// What the proof begins with, so that it can be mistaken for nothing else.
const CONTEXT: &[u8] = b"cmgmux resume v1";
/// The label of the TLS exporter (RFC 8446, section 7.5) that ties a proof to one connection.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-cmgmux-resume";

/// A link on which a connection point has asked to go on with a channel. Whose channel that is, and
/// whether the proof is right, is for [`is_proof_of`](Self::is_proof_of) to say.
#[derive(Debug)]
pub struct ResumeOffer {
    link: Link,
    input: BytesMut,
    exporter: [u8; 32],
    /// Whose certificate the link showed.
    pub peer: PeerIdentity,
    resume: Resume,
}

/// A link to move to, and what the two ends said on it.
#[derive(Debug)]
pub(crate) struct NewLink {
    pub(crate) tls: FinishedTls,
    /// Bytes that arrived behind the handshake.
    pub(crate) input: BytesMut,
    pub(crate) step: Step,
}

/// Where the handshake of a new link stands when the channel gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The peer's claim, proven; the answer is owed.
    Claimed(Claim),
    /// The answer to our claim.
    Answered(Resumed),
}

impl NewLink {
    /// Which of several attempts this is.
    pub(crate) fn epoch(&self) -> u32 {
        match self.step {
            Step::Claimed(claim) => claim.epoch,
            Step::Answered(resumed) => resumed.epoch,
        }
    }
}

impl ResumeOffer {
    pub(super) fn new(
        link: Link,
        input: BytesMut,
        peer: PeerIdentity,
        resume: Resume,
    ) -> Result<Self, HandshakeError> {
        let exporter = exporter(link.tls())?;
        Ok(Self { link, input, exporter, peer, resume })
    }

    /// The channel that is meant.
    #[must_use]
    pub fn channel_id(&self) -> Id {
        Id(self.resume.channel_id)
    }

    /// Whether the sender knows `secret`. Takes the same time for a right proof and a wrong one.
    pub(crate) fn is_proof_of(&self, secret: &Secret) -> bool {
        is_proven(&self.resume, &self.exporter, secret)
    }

    /// Does the work of a check whose outcome is known to be no, so that the time of an answer does
    /// not tell which channels there are.
    pub fn check_in_vain(&self) {
        std::hint::black_box(self.is_proof_of(&Secret([0; 32])));
    }

    /// Refuses to go on with the channel over this link, which changes nothing for the channel.
    pub async fn refuse(mut self, code: ResumeCode) {
        let refusal = Resumed::refusal(self.resume.claim.epoch, code);
        if say(&mut self.link, &refusal.encode()).await.is_ok() {
            self.link.dismiss(DISMISSAL_BYTES).await;
        }
    }

    pub(crate) fn accept(self) -> Result<NewLink, HandshakeError> {
        let step = Step::Claimed(self.resume.claim);
        Ok(NewLink { tls: detach(self.link)?, input: self.input, step })
    }
}

/// Performs the dialling side of TLS over a fresh TCP connection and asks to go on with a channel;
/// `claim` is asked for once that is all that is left to do.
///
/// # Errors
///
/// [`HandshakeError`]; [`HandshakeError::NotResumed`] if the instance does not go on.
pub(crate) async fn claim_link(
    socket: TcpStream,
    tls: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    (channel_id, secret): (Id, &Secret),
    claim: impl FnOnce() -> Claim,
) -> Result<NewLink, HandshakeError> {
    let mut link = dial(socket, tls, server_name).await?;
    let exporter = exporter(link.tls())?;
    let mut resume =
        Resume { channel_id: channel_id.0, claim: claim(), nonce: random_bytes(), proof: [0; 32] };
    prove(&mut resume, &exporter, secret);
    say(&mut link, &resume.encode()).await?;
    let mut input = BytesMut::new();
    let (_, body) = read_frame(&mut link, &mut input, &[kind::RESUMED], "RESUMED").await?;
    let resumed = Resumed::decode(&body)?;
    if resumed.code != ResumeCode::ACCEPTED {
        return Err(HandshakeError::NotResumed(resumed.code));
    }
    if resumed.epoch != resume.claim.epoch {
        let what = "it answers another attempt";
        return Err(ProtocolError::Malformed { frame: "RESUMED", what }.into());
    }
    Ok(NewLink { tls: detach(link)?, input, step: Step::Answered(resumed) })
}

fn prove(resume: &mut Resume, exporter: &[u8; 32], secret: &Secret) {
    let proof = hmac::sign(&key(secret), &message(resume, exporter));
    resume.proof.copy_from_slice(proof.as_ref());
}

fn is_proven(resume: &Resume, exporter: &[u8; 32], secret: &Secret) -> bool {
    hmac::verify(&key(secret), &message(resume, exporter), &resume.proof).is_ok()
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

fn message(resume: &Resume, exporter: &[u8; 32]) -> Vec<u8> {
    let Resume { channel_id, claim, nonce, .. } = resume;
    [
        CONTEXT,
        channel_id,
        &claim.epoch.to_le_bytes(),
        &claim.rx_pos.to_le_bytes(),
        &claim.tx_first.to_le_bytes(),
        nonce,
        exporter,
    ]
    .concat()
}

fn exporter(tls: &Connection) -> Result<[u8; 32], HandshakeError> {
    tls.export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|error| HandshakeError::Tls(format!("no keying material to export: {error}")))
}

#[cfg(test)]
mod tests {
    use cmgmux_mux::frame::HEADER_BYTES;

    use super::*;

    /// `bytes` with one bit after the other changed.
    fn changed<const N: usize>(bytes: [u8; N]) -> impl Iterator<Item = (usize, [u8; N])> {
        (0..8 * N).map(move |bit| {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            (bit, changed)
        })
    }

    #[test]
    fn j3_a_resume_with_any_bit_changed_proves_nothing() {
        let (exporter, secret) = (random_bytes(), Secret(random_bytes()));
        let claim = Claim { epoch: 1, rx_pos: 1 << 40, tx_first: 7 };
        let mut resume =
            Resume { channel_id: random_bytes(), claim, nonce: random_bytes(), proof: [0; 32] };
        prove(&mut resume, &exporter, &secret);
        assert!(is_proven(&resume, &exporter, &secret));
        let body: [u8; 76] = resume.encode()[HEADER_BYTES..].try_into().unwrap();
        for (bit, body) in changed(body) {
            let resume = Resume::decode(&body).unwrap();
            assert!(!is_proven(&resume, &exporter, &secret), "bit {bit} of the body");
        }
        for (bit, exporter) in changed(exporter) {
            assert!(!is_proven(&resume, &exporter, &secret), "bit {bit} of the link's key");
        }
        for (bit, secret) in changed(secret.0) {
            assert!(!is_proven(&resume, &exporter, &Secret(secret)), "bit {bit} of the secret");
        }
    }
}
