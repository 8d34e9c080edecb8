//! A connection that has switched protocols: raw bytes both ways, until both ends are heard out or
//! one breaks.
//!
//! Nothing is held but what is on its way. Each direction ends for itself, as WebSocket's closing
//! handshake wants it; who says nothing is left alone.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_exchange::parts::{End, Writer};
use cmgmux_net::{SendStream, StreamCode};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::answer::{Broken, say};
use crate::counters::{Counters, UpstreamCounters};
use crate::upstream::{Call, Failure, Io, RequestParts, Switched};

/// Bytes read from a role at a time.
const READ_BYTES: usize = 16 * 1024;
/// How long a role may take none of what the client says.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Passes on what both ends say after the consent to switch, which has been passed on already.
pub(super) async fn run(
    send: &mut SendStream,
    mut writer: Writer,
    call: Call,
    counters: &Counters,
) -> Result<(), Broken> {
    let Switched { io, said, rest, counted } = call.into_switched();
    let (from_role, to_role) = split(io);
    if !said.is_empty() {
        counters.response_bytes.add(said.len() as u64);
        say(send, writer.data(said.freeze(), End::None)?).await?;
    }
    let mut asking = pin!(ask(rest, to_role, counted.counters()));
    let mut answering = pin!(answer(send, &mut writer, from_role, counters));
    tokio::select! {
        // The role has said all: whatever the client still has to say, nobody listens.
        answered = &mut answering => answered,
        asked = &mut asking => match asked {
            Ok(()) => answering.await,
            Err(error) => Err(error),
        },
    }
}

/// Passes what the client says to the role.
async fn ask(
    mut rest: Option<Box<RequestParts>>,
    mut to_role: WriteHalf<Io>,
    counters: &UpstreamCounters,
) -> Result<(), Broken> {
    while let Some(rest) = &mut rest {
        let data = match rest.data().await {
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
            if send.poll_broken(cx).is_ready() {
                return Poll::Ready(Err(Broken::Left));
            }
            // On the stack, so that a silent connection holds no buffer.
            let mut buffer = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut buffer);
            match Pin::new(&mut from_role).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Bytes::copy_from_slice(read.filled()))),
                Poll::Ready(Err(_)) => {
                    Poll::Ready(Err(Broken::Role(StreamCode(code::ROLE_BROKEN))))
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let data = reading.await?;
        counters.response_bytes.add(data.len() as u64);
        let end = if data.is_empty() { End::Stream } else { End::None };
        say(send, writer.data(data, end)?).await?;
        if end == End::Stream {
            return Ok(());
        }
    }
}
