//! The control stream: what the site is, told to one instance, and what the instance says to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_exchange::publication::{MessageReader, PublicationAnswer};
use cmgmux_net::{Channel, End, OpenError, RecvStream, SendStream, StreamKind};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::instance::{Instance, Publication};
use crate::plan::Plan;

/// How long an instance may think about a publication.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before publishing again on a channel whose control stream has failed.
const RETRY: Duration = Duration::from_secs(10);

/// Publishes on one channel, for as long as the channel lives.
pub(crate) struct Publisher {
    pub(crate) plan: Arc<Plan>,
    pub(crate) instance: Arc<Instance>,
    pub(crate) channel: Channel,
}

impl Publisher {
    /// Publishes, and again if the control stream fails on a channel that lives. Ends with the channel,
    /// and when either end drains it, so that the control stream does not keep it open.
    pub(crate) async fn run(self) {
        let publishing = async {
            loop {
                self.instance.note_publication(Publication::Unsent);
                let cause = self.publish().await;
                let instance = self.instance.endpoint.index;
                warn!(instance, cause, "the control stream has failed");
                sleep(RETRY).await;
            }
        };
        tokio::select! {
            biased;
            () = self.channel.drains() => debug!("no more to publish to"),
            () = publishing => {}
        }
        self.instance.note_publication(Publication::Unsent);
    }

    /// Publishes on a new control stream and listens to it. Tells why that came to an end.
    async fn publish(&self) -> String {
        let (mut send, mut recv) = match self.open().await {
            Ok(halves) => halves,
            Err(error) => return error.to_string(),
        };
        let message = self.plan.publication.clone();
        if let Err(error) = send.write(message, End::Part).await {
            return error.to_string();
        }
        self.instance.note_publication(Publication::Sent);
        let mut reader = MessageReader::new();
        let first = match timeout(ANSWER_TIMEOUT, answer(&mut recv, &mut reader)).await {
            Ok(first) => first,
            Err(_) => return format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        let mut next = first;
        loop {
            match next {
                Ok(answer) => self.take(answer),
                Err(cause) => return cause,
            }
            next = answer(&mut recv, &mut reader).await;
        }
    }

    async fn open(&self) -> Result<(SendStream, RecvStream), OpenError> {
        loop {
            let possible = self.channel.opens_possible();
            match self.channel.try_open(StreamKind::Control) {
                Err(OpenError::NoTicket) => possible.await,
                other => return other,
            }
        }
    }

    fn take(&self, answer: PublicationAnswer) {
        let instance = self.instance.endpoint.index;
        let (serial, ours) = (answer.serial, self.plan.serial);
        if answer.accepted {
            info!(instance, serial, "publication accepted");
            return self.instance.note_publication(Publication::Accepted);
        }
        let reasons = answer.reasons;
        error!(instance, serial, ours, reasons = reasons.join("; "), "publication refused");
        self.instance.note_publication(Publication::Refused(reasons));
    }
}

/// The next message of the instance.
async fn answer(
    recv: &mut RecvStream,
    reader: &mut MessageReader,
) -> Result<PublicationAnswer, String> {
    loop {
        let chunk = match recv.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Err("the instance closed it".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let message: Option<Bytes> = reader
            .handle_piece(chunk.data, chunk.end != End::None)
            .map_err(|error| error.to_string())?;
        if let Some(message) = message {
            return PublicationAnswer::decode(&message).map_err(|error| error.to_string());
        }
    }
}
