use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("cmgmux-admin-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn answer_seven() -> Status {
    Arc::new(|| json!({"clients": 7}))
}

fn ask(path: &Path, request: &str) -> (String, Value) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: admin\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    let status = head.split_whitespace().nth(1).unwrap().to_owned();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn the_status_is_the_snapshot_of_the_process() {
    let folder = Folder::new();
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    assert_eq!(ask(server.path(), "GET /status"), ("200".to_owned(), json!({"clients": 7})));
    assert_eq!(ask(server.path(), "GET /status?verbose").0, "200");
}

#[test]
fn other_paths_and_methods_are_refused_in_json() {
    let folder = Folder::new();
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    assert_eq!(ask(server.path(), "GET /").0, "404");
    assert_eq!(ask(server.path(), "GET /status/x").0, "404");
    assert_eq!(ask(server.path(), "POST /status").0, "405");
}

#[test]
fn only_the_owner_may_connect() {
    let folder = Folder::new();
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    assert_eq!(fs::metadata(server.path()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn stopping_removes_the_socket() {
    let folder = Folder::new();
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    server.request_stop();
    server.wait().unwrap();
    assert!(!folder.socket().exists());
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    drop(server);
    assert!(!folder.socket().exists());
}

#[test]
fn a_socket_of_a_dead_process_is_replaced() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.socket()).unwrap());
    assert!(folder.socket().exists(), "the file outlives its listener");
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    assert_eq!(ask(server.path(), "GET /status").0, "200");
}

#[test]
fn a_socket_of_a_running_process_is_left_alone() {
    let folder = Folder::new();
    let first = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    let error = AdminServer::start(&folder.socket(), answer_seven()).expect_err("it is in use");
    assert_eq!(error.key, "admin_socket");
    assert!(error.message.ends_with("already in use by a running process"), "{error}");
    assert_eq!(ask(first.path(), "GET /status").0, "200");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    fs::write(folder.socket(), "precious").unwrap();
    let error = AdminServer::start(&folder.socket(), answer_seven()).expect_err("not a socket");
    assert!(error.message.contains("not a socket"), "{error}");
    assert_eq!(fs::read_to_string(folder.socket()).unwrap(), "precious");
}

#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::new();
    let path = folder.0.join("missing").join("admin.sock");
    let error = AdminServer::start(&path, answer_seven()).expect_err("nowhere to put it");
    assert!(error.message.contains("folder does not exist"), "{error}");
}

#[test]
fn a_successor_keeps_its_socket_when_the_old_server_stops() {
    let folder = Folder::new();
    let old = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    fs::remove_file(folder.socket()).unwrap();
    let new = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    drop(old);
    assert_eq!(ask(new.path(), "GET /status").0, "200");
}

#[test]
fn silent_connections_beyond_the_limit_only_make_others_wait() {
    let folder = Folder::new();
    let server = AdminServer::start(&folder.socket(), answer_seven()).unwrap();
    let mut silent: Vec<_> =
        (0..MAX_CONNECTIONS).map(|_| UnixStream::connect(server.path()).unwrap()).collect();
    let path = server.path().to_owned();
    let waiting = std::thread::spawn(move || ask(&path, "GET /status").0);
    silent.pop();
    assert_eq!(waiting.join().unwrap(), "200");
}

#[test]
fn a_snapshot_that_panics_is_reported_and_the_next_one_is_served() {
    let folder = Folder::new();
    let calls = AtomicU64::new(0);
    let status: Status = Arc::new(move || {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "first call");
        json!({})
    });
    let server = AdminServer::start(&folder.socket(), status).unwrap();
    let mut stream = UnixStream::connect(server.path()).unwrap();
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: admin\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    assert_eq!(ask(server.path(), "GET /status").0, "200");
    server.request_stop();
    let error = server.wait().expect_err("the panic is not swallowed");
    assert_eq!(error.what, "a task of admin thread");
}
