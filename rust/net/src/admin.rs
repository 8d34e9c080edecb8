//! The admin server: a process's counters and state as JSON, over HTTP on a Unix socket.
//!
//! `GET /status` answers with the snapshot that the process's closure returns. The socket file is
//! readable and writable by its owner alone: the file system is the access control.

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::Semaphore;

use crate::service::{ConfigError, ServiceError};
use crate::shard::{Shard, Shards};

/// The setting that names the socket.
const KEY: &str = "admin_socket";

/// Connections served at a time; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 16;

/// Connections that may wait.
const BACKLOG: i32 = 64;

/// What one connection may take altogether: reading its request, the snapshot, writing the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait before accepting again when the system has run out of something.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Takes a snapshot of a process's counters and state.
pub type Status = Arc<dyn Fn() -> Value + Send + Sync>;

/// A running admin server, on a thread of its own. Dropping it stops it and removes the socket file.
pub struct AdminServer {
    thread: Shards,
    file: SocketFile,
}

impl AdminServer {
    /// Serves `status` on a new socket at `path`. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about `admin_socket`: a running process serves there, the path holds something
    /// else than a socket, or the system refuses to make it.
    pub fn start(path: &Path, status: Status) -> Result<Self, ConfigError> {
        let failed = |why: String| ConfigError::new(KEY, format!("{}: {why}", path.display()));
        remove_stale(path).map_err(failed)?;
        let (listener, file) = listen(path).map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::AddrInUse => IN_USE.to_owned(),
                io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
                _ => error.to_string(),
            })
        })?;
        let thread = Shards::start_one("admin")?;
        thread.spawn_on(0, move |shard| serve(shard, listener, status));
        Ok(Self { thread, file })
    }

    /// As [`start`](Self::start), for the optional setting `admin_socket`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_if_set(
        path: Option<&Path>,
        status: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Result<Option<Self>, ConfigError> {
        path.map(|path| Self::start(path, Arc::new(status))).transpose()
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Removes the socket file and stops the server; what it is answering is cut off. Returns at once.
    pub fn request_stop(&self) {
        self.file.remove();
        self.thread.request_stop(Duration::ZERO);
    }

    /// Blocks until the server has stopped, which it does only when asked to.
    ///
    /// # Errors
    ///
    /// [`ServiceError`] if it ended by itself, or if a snapshot panicked.
    pub fn wait(&self) -> Result<(), ServiceError> {
        self.thread.wait()
    }
}

/// Waits until `shards` have ended, then ends `admin`, which shows their state until then.
///
/// # Errors
///
/// [`ServiceError`] if either ended by itself.
pub fn wait_to_the_end(shards: &Shards, admin: Option<&AdminServer>) -> Result<(), ServiceError> {
    let ended = shards.wait();
    let Some(admin) = admin else { return ended };
    admin.request_stop();
    ended.and(admin.wait())
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.request_stop();
    }
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AdminServer").field("path", &self.file.path).finish_non_exhaustive()
    }
}

const IN_USE: &str = "already in use by a running process";

/// Makes way for a new socket, unless somebody answers on the old one. Errors are in words.
fn remove_stale(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(found) if !found.file_type().is_socket() => {
            return Err("exists and is not a socket; remove it or choose another path".to_owned());
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(IN_USE.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| format!("cannot replace the old socket: {error}"))
        }
        Err(error) => Err(format!("cannot tell whether the socket is in use: {error}")),
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let owner_only = Permissions::from_mode(0o600);
    let socket: OwnedFd = Socket::new(Domain::UNIX, Type::STREAM, None)?.into();
    // Linux gives the file the mode that the socket has when it is bound: it is never open to others.
    let socket = File::from(socket);
    socket.set_permissions(owner_only.clone())?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, owner_only)?;
    let bound = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), inode: (bound.dev(), bound.ino()) };
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// The file of our socket, to be removed as long as it is still ours.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn remove(&self) {
        let Ok(found) = fs::symlink_metadata(&self.path) else {
            return;
        };
        if (found.dev(), found.ino()) == self.inode
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

async fn serve(shard: Shard, listener: UnixListener, status: Status) -> Result<(), String> {
    let lost = |error: io::Error| format!("cannot listen: {error}");
    let listener = tokio::net::UnixListener::from_std(listener).map_err(lost)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept admin connections for now");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let status = Arc::clone(&status);
        shard.spawn(async move {
            let service = service_fn(|request| std::future::ready(answer(&request, &status)));
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "admin connection failed"),
                Err(_) => tracing::debug!("admin connection timed out"),
            }
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, status: &Status) -> Result<Response<Full<Bytes>>, Infallible> {
    let (code, body) = if request.uri().path() != "/status" {
        (StatusCode::NOT_FOUND, json!({"error": "no such resource; there is only /status"}))
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, json!({"error": "only GET is allowed"}))
    } else {
        (StatusCode::OK, status())
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests;
