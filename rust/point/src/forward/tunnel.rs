//! A connection that has switched protocols: raw bytes both ways, until both ends are heard out or
//! one breaks.
//!
//! Nothing is held but what is on its way. Each direction ends for itself, as WebSocket's closing
//! handshake wants it; who says nothing is left alone.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_exchange::fields::{WEBSOCKET, names_websocket};
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::{End, PartsError, Writer};
use cmgmux_net::{SendStream, StreamCode};
use http::{Response, header};
use hyper::body::Incoming;
use hyper::upgrade::{self, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::answer::{Broken, bad_head, end_to_end, say, unless_broken};
use crate::counters::Counters;
use crate::upstream::{Failure, RequestParts};

/// Bytes read from a role at a time.
const READ_BYTES: usize = 16 * 1024;
/// How long a role may take none of what the client says.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the connection may take to change hands after the role's consent.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);

type Io = TokioIo<Upgraded>;

/// Passes a role's consent to switch on, and then what both ends say.
pub(super) async fn run(
    send: &mut SendStream,
    parts: RequestParts,
    response: Response<Incoming>,
    counters: &Counters,
) -> Result<(), Broken> {
    let mut writer = Writer::response_to_switch();
    let head = consent(&response)?;
    let head = writer.response_head(&head, false).map_err(|error| bad_head(&error))?;
    let broken = || Broken::Role(StreamCode(code::ROLE_BROKEN));
    let switching = timeout(SWITCH_TIMEOUT, upgrade::on(response));
    let io = switching.await.map_err(|_| broken())?.map_err(|_| broken())?;
    let (from_role, to_role) = split(TokioIo::new(io));
    say(send, head).await?;
    let mut asking = std::pin::pin!(ask(parts, to_role, counters));
    let mut answering = std::pin::pin!(answer(send, &mut writer, from_role, counters));
    tokio::select! {
        // The role has said all: whatever the client still has to say, nobody listens.
        answered = &mut answering => answered,
        asked = &mut asking => match asked {
            Ok(()) => answering.await,
            Err(error) => Err(error),
        },
    }
}

/// The head of the consent as it travels.
fn consent(response: &Response<Incoming>) -> Result<ResponseHead, Broken> {
    let upgrade = response.headers().get(header::UPGRADE);
    if !upgrade.is_some_and(names_websocket) {
        return Err(bad_head(&PartsError::SwitchesProtocols));
    }
    let mut fields = end_to_end(response.headers().clone());
    fields.remove(header::CONTENT_LENGTH);
    fields.insert(header::UPGRADE, WEBSOCKET);
    Ok(ResponseHead { status: response.status(), fields })
}

/// Passes what the client says to the role.
async fn ask(
    mut parts: RequestParts,
    mut to_role: WriteHalf<Io>,
    counters: &Counters,
) -> Result<(), Broken> {
    loop {
        let data = match parts.data().await {
            Ok(Some(data)) => data,
            Ok(None) => break,
            Err(Failure::Gone) => return Err(Broken::Left),
            Err(failure) => return Err(Broken::Role(failure.code())),
        };
        counters.request_bytes.add(data.len() as u64);
        match timeout(STALL_TIMEOUT, to_role.write_all(&data)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Broken::Role(StreamCode(code::ROLE_BROKEN))),
            Err(_) => return Err(Broken::Role(StreamCode(code::TIMED_OUT))),
        }
    }
    // A role that has closed already says so in what it answers.
    let _ = timeout(STALL_TIMEOUT, to_role.shutdown()).await;
    Ok(())
}

/// Passes what the role says to the client.
async fn answer(
    send: &mut SendStream,
    writer: &mut Writer,
    mut from_role: ReadHalf<Io>,
    counters: &Counters,
) -> Result<(), Broken> {
    loop {
        send.ready().await.map_err(|_| Broken::Left)?;
        let reading = poll_fn(|cx| {
            // On the stack, so that a silent connection holds no buffer.
            let mut buffer = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut from_role).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Bytes::copy_from_slice(read.filled()))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        });
        let data = match unless_broken(send, None, reading).await {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => return Err(Broken::Role(StreamCode(code::ROLE_BROKEN))),
            Err(_) => return Err(Broken::Left),
        };
        counters.response_bytes.add(data.len() as u64);
        let end = if data.is_empty() { End::Stream } else { End::None };
        say(send, writer.data(data, end)?).await?;
        if end == End::Stream {
            return Ok(());
        }
    }
}
