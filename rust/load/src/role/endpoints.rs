//! What the role answers to each request.

use std::sync::Arc;
use std::time::Duration;

use cmgmux_net::shard::Shard;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::counters::{Endpoint, RequestCounters};
use super::registry::{HeldStream, Lasting, Registry, Superseded};
use super::reply::{Reply, ReplyBody, problem, reply_json};
use super::websocket;

/// Most bytes of a pushed message.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Longest client id.
const MAX_CLIENT_BYTES: usize = 128;
/// The most that `/bytes` gives.
const MAX_RUN_BYTES: u64 = 1 << 40;
/// Longest wait for the next piece of an echoed body, and for the whole of a message.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The whole answer of `/hello`: 100 bytes.
const HELLO: &str = "hello from the sample role; this answer is one hundred bytes long, \
    to measure small exchanges......\n";

/// The state that all connections of a role share.
#[derive(Debug)]
pub(super) struct Endpoints {
    registry: Arc<Registry>,
    requests: RequestCounters,
    poll_timeout: Duration,
}

/// The request's body broke off or stalled, so there is nobody to answer.
#[derive(Debug, thiserror::Error)]
#[error("request body: {0}")]
pub(super) struct BrokenBody(Box<dyn std::error::Error + Send + Sync>);

impl Endpoints {
    /// Endpoints over `registry` whose polls end after `poll_timeout`.
    pub(super) fn new(registry: Arc<Registry>, poll_timeout: Duration) -> Self {
        Self { registry, requests: RequestCounters::default(), poll_timeout }
    }

    /// The polls that are held.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Requests so far, by endpoint.
    pub(super) fn requests(&self) -> &RequestCounters {
        &self.requests
    }

    /// Answers one request, on `shard`. Cancelling abandons a held stream.
    ///
    /// # Errors
    ///
    /// [`BrokenBody`] if the request never became complete.
    pub(super) async fn answer(
        &self,
        shard: &Shard,
        request: Request<Incoming>,
    ) -> Result<Reply, BrokenBody> {
        let endpoint = Endpoint::of_path(request.uri().path());
        self.requests.count(endpoint);
        let is_get = *request.method() == Method::GET;
        let reply = match endpoint {
            Endpoint::Notifications if is_get => self.hold(shard, request).await,
            Endpoint::Push if request.method() == Method::POST => self.push(request).await?,
            Endpoint::Hello if is_get || *request.method() == Method::HEAD => hello(),
            Endpoint::Bytes if is_get => run_of_bytes(&request),
            Endpoint::Log if is_get => self.log(),
            Endpoint::Echo => echo(request).await?,
            Endpoint::Notifications | Endpoint::Log | Endpoint::Bytes => wrong_method("GET"),
            Endpoint::Push => wrong_method("POST"),
            Endpoint::Hello => wrong_method("GET, HEAD"),
            Endpoint::Other => problem(
                StatusCode::NOT_FOUND,
                "no such endpoint: there are /notifications, /push, /hello, /bytes, /echo and /log",
            ),
        };
        Ok(reply)
    }

    /// Holds a notification stream, of the kind that the request asks for.
    async fn hold(&self, shard: &Shard, mut request: Request<Incoming>) -> Reply {
        let Some(client) = client_of(&request).map(str::to_owned) else {
            return bad_client();
        };
        let is_websocket = websocket::is_asked_for(&request);
        let is_lasting = is_websocket || accepts_events(&request);
        let lasting = if is_lasting { Lasting::Open } else { Lasting::OneMessage };
        let Ok(stream) = self.registry.hold(&client, lasting) else {
            let mut reply = problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "the role holds as many streams as max_held allows",
            );
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return reply;
        };
        if is_websocket {
            shard.spawn(websocket::serve(hyper::upgrade::on(&mut request), stream));
            return websocket::consent(&request);
        }
        // The head's buffers are not needed while the stream is held.
        drop(request);
        if is_lasting { events(stream) } else { self.message(stream).await }
    }

    /// The answer to a long-poll.
    async fn message(&self, stream: HeldStream) -> Reply {
        let client = stream.client().to_owned();
        match stream.only(self.poll_timeout).await {
            Some(Ok(message)) => {
                let mut reply = Response::new(ReplyBody::from(message.to_json(&client)));
                let json = HeaderValue::from_static("application/json");
                reply.headers_mut().insert(CONTENT_TYPE, json);
                reply
            }
            Some(Err(Superseded)) => {
                problem(StatusCode::CONFLICT, "the same client holds another stream now")
            }
            None => {
                let mut reply = Response::new(ReplyBody::Whole(None));
                *reply.status_mut() = StatusCode::NO_CONTENT;
                reply
            }
        }
    }

    async fn push(&self, request: Request<Incoming>) -> Result<Reply, BrokenBody> {
        let to_all = query_value(request.uri().query(), "client") == Some("*");
        let client = if to_all { Some("*") } else { client_of(&request) };
        let Some(client) = client.map(str::to_owned) else {
            return Ok(bad_client());
        };
        let body = Limited::new(request.into_body(), MAX_MESSAGE_BYTES).collect();
        let body = match within(BODY_TIMEOUT, body).await? {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Ok(problem(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &format!("message larger than {MAX_MESSAGE_BYTES} bytes"),
                ));
            }
            Err(error) => return Err(BrokenBody(error)),
        };
        let Ok(message) = String::from_utf8(body.into()) else {
            return Ok(problem(StatusCode::BAD_REQUEST, "the message must be UTF-8 text"));
        };
        let delivered = if to_all {
            self.registry.push_to_all(|client| format!("{message} {client}"))
        } else {
            u64::from(self.registry.push(&client, message))
        };
        Ok(if delivered == 0 && !to_all {
            reply_json(
                StatusCode::NOT_FOUND,
                &json!({ "error": "this client holds no stream now, or does not take what it was sent", "client": client }),
            )
        } else {
            reply_json(StatusCode::ACCEPTED, &json!({ "client": client, "delivered": delivered }))
        })
    }

    fn log(&self) -> Reply {
        reply_json(StatusCode::OK, &json!({ "requests": self.requests.snapshot() }))
    }
}

fn hello() -> Reply {
    let mut reply = Response::new(ReplyBody::from(HELLO.to_owned()));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    reply
}

/// Server-sent events; the head goes out at once.
fn events(stream: HeldStream) -> Reply {
    let mut reply = Response::new(ReplyBody::Events(stream));
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// As many bytes as the query asks for.
fn run_of_bytes(request: &Request<Incoming>) -> Reply {
    let wanted = query_value(request.uri().query(), "n").and_then(|n| n.parse::<u64>().ok());
    match wanted.filter(|wanted| *wanted <= MAX_RUN_BYTES) {
        Some(wanted) => {
            let mut reply = Response::new(ReplyBody::Run(wanted));
            let binary = HeaderValue::from_static("application/octet-stream");
            reply.headers_mut().insert(CONTENT_TYPE, binary);
            reply
        }
        None => {
            let why = format!("the query must hold n=BYTES, up to {MAX_RUN_BYTES}");
            problem(StatusCode::BAD_REQUEST, &why)
        }
    }
}

fn accepts_events(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
    let names_events =
        |range: &[u8]| range.trim_ascii().to_ascii_lowercase().starts_with(b"text/event-stream");
    accept.split(|&byte| byte == b',').any(names_events)
}

/// Measures a body of any length piece by piece; takes every method, so that each can be tried.
async fn echo(request: Request<Incoming>) -> Result<Reply, BrokenBody> {
    let method = request.method().clone();
    let mut body = request.into_body();
    let mut digest = Sha256::new();
    let mut length: u64 = 0;
    while !body.is_end_stream() {
        let Some(frame) = within(BODY_TIMEOUT, body.frame()).await? else {
            break;
        };
        if let Ok(data) = frame.map_err(|error| BrokenBody(error.into()))?.into_data() {
            length = length.saturating_add(data.len() as u64);
            digest.update(&data);
        }
    }
    let sha256: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(reply_json(
        StatusCode::OK,
        &json!({ "method": method.as_str(), "length": length, "sha256": sha256 }),
    ))
}

async fn within<T>(limit: Duration, wait: impl Future<Output = T>) -> Result<T, BrokenBody> {
    tokio::time::timeout(limit, wait)
        .await
        .map_err(|_elapsed| BrokenBody(format!("nothing arrived for {} s", limit.as_secs()).into()))
}

/// The value of the first query parameter `name`, as it is written.
fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })
}

/// The `client` parameter, if it is a client id: letters, digits, `.`, `_` and `-`.
fn client_of<B>(request: &Request<B>) -> Option<&str> {
    let client = query_value(request.uri().query(), "client")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    ((1..=MAX_CLIENT_BYTES).contains(&client.len()) && client.bytes().all(allowed))
        .then_some(client)
}

fn bad_client() -> Reply {
    problem(
        StatusCode::BAD_REQUEST,
        &format!(
            "the query must hold client=ID, an id of 1 to {MAX_CLIENT_BYTES} letters, digits, \
             '.', '_' or '-'"
        ),
    )
}

fn wrong_method(allowed: &'static str) -> Reply {
    let mut reply =
        problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this endpoint takes {allowed} only"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(uri: &str) -> Option<String> {
        client_of(&Request::get(uri).body(()).unwrap()).map(str::to_owned)
    }

    #[test]
    fn the_client_id_is_found_among_other_parameters() {
        assert_eq!(client("/notifications?a=b&client=pc-7.x_Y").as_deref(), Some("pc-7.x_Y"));
    }

    #[test]
    fn a_missing_or_strange_client_id_is_refused() {
        for uri in [
            "/notifications",
            "/notifications?client",
            "/notifications?client=",
            "/notifications?client=*",
            "/notifications?client=a%20",
        ] {
            assert_eq!(client(uri), None, "{uri}");
        }
        assert_eq!(client(&format!("/notifications?client={}", "x".repeat(129))), None);
    }

    #[test]
    fn hello_is_one_hundred_bytes() {
        assert_eq!(HELLO.len(), 100);
    }
}
