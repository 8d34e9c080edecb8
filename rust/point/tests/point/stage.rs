//! Everything that a test of forwarding needs: an instance, a role, a connection point between them.

use std::time::Duration;

use cmgmux_exchange::publication::PublicationAnswer;
use cmgmux_net::{RecvStream, SendStream, Service};
use cmgmux_point::{ConnectionPoint, PointConfig};
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::gateway::{Gateway, Link};
use crate::pki::Pki;
use crate::role::Role;

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    pub(crate) role: Role,
    pub(crate) link: Link,
    pub(crate) point: Point,
    pub(crate) gateway: Gateway,
    _control: (SendStream, RecvStream),
    _pki: Pki,
}

/// A connection point that ends with its test.
pub(crate) struct Point(ConnectionPoint);

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(DEADLINE, test).await.expect("in time");
    });
}

/// Runs a test with everything set up. The role is at these mappings: `/mp` for clients with a
/// certificate, `/open` for all, `/quick` with a response timeout of 500 ms, `/held` without any,
/// `/small` for bodies of 10 bytes.
pub(crate) fn with_stage<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Stage) -> F) {
    run(async {
        let pki = Pki::new(name);
        let role = Role::start().await;
        let gateway = Gateway::start(&pki).await;
        let internal = format!("http://{}/base", role.address());
        let mut config = config(&pki, &gateway);
        config["mappings"] = json!([
            {"external": "/mp", "internal": internal},
            {"external": "/open", "internal": internal, "authentication": "none"},
            {"external": "/quick", "internal": internal, "response_timeout_s": 0.5},
            {"external": "/held", "internal": internal, "hold": true, "response_timeout_s": 0.05},
            {"external": "/small", "internal": internal, "max_body_bytes": 10},
        ]);
        let point = Point::start(config);
        let link = gateway.link(1).await;
        let accept = |publication: &_| {
            let cmgmux_exchange::publication::Publication { serial, .. } = publication;
            PublicationAnswer::accept(*serial)
        };
        let (_, control) = link.publication(accept).await;
        test(Stage { role, link, point, gateway, _control: control, _pki: pki }).await;
    });
}

/// The configuration of a connection point without mappings.
pub(crate) fn config(pki: &Pki, gateway: &Gateway) -> Value {
    json!({
        "site": "NYC",
        "certificate": pki.path("point.pem"),
        "key": pki.path("point.key"),
        "gateway_ca": pki.path("gateway-ca.pem"),
        "client_roots": [pki.path("site-ca.pem")],
        "shards": 2,
        "serial": 7,
        "reconnect_min_s": 0.001,
        "reconnect_max_s": 0.01,
        "instances": [
            {"index": 0, "address": gateway.address().to_string(), "server_name": "localhost"},
        ],
        "mappings": [],
    })
}

impl Point {
    pub(crate) fn start(config: Value) -> Self {
        let config: PointConfig = serde_json::from_value(config).unwrap();
        Self(ConnectionPoint::start(config).unwrap())
    }

    pub(crate) fn status(&self) -> Value {
        self.0.status()
    }

    pub(crate) fn request_stop(&self, grace: Duration) {
        self.0.request_stop(grace);
    }

    /// Blocks until the connection point has ended, as it must: without a failure.
    pub(crate) fn wait(&self) {
        self.0.wait().unwrap();
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let status = self.status();
            if is_wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        self.0.request_stop(Duration::ZERO);
        let ended = self.0.wait();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}
