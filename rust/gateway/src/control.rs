//! The control stream: a connection point publishes, the instance answers.

use std::sync::Arc;

use cmgmux_exchange::publication::{MessageReader, Publication, PublicationAnswer};
use cmgmux_net::{End, Incoming, PeerIdentity, StreamCode, StreamError};
use tracing::{debug, error};

use crate::instance::Instance;

/// Serves one control stream to its end.
pub(crate) async fn serve(instance: Arc<Instance>, peer: PeerIdentity, stream: Incoming) {
    let Incoming { mut send, mut recv, .. } = stream;
    let mut reader = MessageReader::new();
    loop {
        let chunk = match recv.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return,
            Err(reason) => {
                debug!(%peer, %reason, "control stream has ended");
                return;
            }
        };
        let message = match reader.handle_piece(chunk.data, chunk.end != End::None) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(cause) => {
                error!(%peer, error = %cause, "control stream is broken");
                recv.stop(StreamCode::CANCELLED);
                return;
            }
        };
        let answer = match Publication::decode(&message) {
            Ok(publication) => instance.sites.publish(&peer, publication),
            Err(cause) => {
                error!(%peer, error = %cause, "publication cannot be read");
                PublicationAnswer::refuse(0, [cause.to_string()])
            }
        };
        if let Err(reason) = say(&mut send, &answer).await {
            debug!(%peer, %reason, "control stream has ended");
            return;
        }
    }
}

async fn say(
    send: &mut cmgmux_net::SendStream,
    answer: &PublicationAnswer,
) -> Result<(), StreamError> {
    let message = answer.encode().unwrap_or_default();
    send.write(message, End::Part).await
}
