//! The bodies of the role's answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use super::registry::HeldStream;

/// What a run of bytes is made of.
static FILLER: [u8; 64 * 1024] = [b'.'; 64 * 1024];

/// An answer of the role.
pub(super) type Reply = Response<ReplyBody>;

/// The body of an answer.
pub(super) enum ReplyBody {
    /// All there.
    Whole(Option<Bytes>),
    /// As many bytes as are left.
    Run(u64),
    /// Server-sent events, until the client leaves or holds another stream.
    Events(HeldStream),
}

impl From<String> for ReplyBody {
    fn from(text: String) -> Self {
        Self::Whole((!text.is_empty()).then(|| text.into()))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Whole(body) => body.take(),
            Self::Run(left) => {
                let next = usize::try_from(*left).unwrap_or(usize::MAX).min(FILLER.len());
                *left -= next as u64;
                (next > 0).then(|| Bytes::from_static(&FILLER[..next]))
            }
            Self::Events(stream) => match ready!(stream.poll_next(cx)) {
                Ok(message) => {
                    Some(format!("data: {}\n\n", message.to_json(stream.client())).into())
                }
                Err(_superseded) => None,
            },
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Run(0))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Run(left) => SizeHint::with_exact(*left),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// An answer with a JSON body.
pub(super) fn reply_json(status: StatusCode, value: &Value) -> Reply {
    let mut reply = Response::new(ReplyBody::from(value.to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// An answer that says what is wrong.
pub(super) fn problem(status: StatusCode, message: &str) -> Reply {
    reply_json(status, &json!({ "error": message }))
}
