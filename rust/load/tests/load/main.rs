//! The sample role and the client swarm, each alone and against each other over TLS.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

mod gateway;
mod http;
mod role;
mod swarm;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cmgmux_load::{RoleConfig, SampleRole};
use cmgmux_net::Service;
use serde_json::Value;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a role with the given settings beside the defaults.
fn start_role(settings: Value) -> SampleRole {
    let config: RoleConfig = serde_json::from_value(settings).unwrap();
    SampleRole::start(config).unwrap()
}

/// Ends a service at once and expects that it ran well.
fn end(service: &impl Service) {
    service.request_stop(Duration::ZERO);
    service.wait().unwrap();
}

/// Waits until the number `key` of a status is `expected`.
fn await_count(service: &impl Service, key: &str, expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = service.status();
        if status[key].as_u64() == Some(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{key} never became {expected}: {status:#}");
        std::thread::yield_now();
    }
}

/// A fresh folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("cmgmux-load-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
