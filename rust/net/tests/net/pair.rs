//! Both ends of a channel over real TLS, and the way between them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use cmgmux_net::tls::server_name;
use cmgmux_net::{Channel, HandshakeError, Ledger, OpenError, StreamKind};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::relay::Relay;
use crate::world::{Pki, accept_all, check_echo, listener};

/// Both ends; the instance accepts every proven link.
pub(crate) struct World {
    pub(crate) pki: Rc<Pki>,
    pub(crate) relay: Relay,
    pub(crate) point: Channel,
    pub(crate) instance: Channel,
    /// Of both.
    pub(crate) ledger: Arc<Ledger>,
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        let pki = Rc::new(Pki::new(name));
        let (listener, address) = listener();
        let relay = Relay::to(address);
        let ledger = Arc::default();
        let mut started = accept_all(&pki, listener, Arc::clone(&ledger));
        let agreed = pki.dial(relay.address, "point").await.unwrap();
        let (point, driver) = Channel::start(agreed, &ledger).unwrap();
        spawn_local(driver);
        let instance = started.recv().await.unwrap();
        Self { pki, relay, point, instance, ledger }
    }

    /// Resumes the channel whenever its link is lost.
    pub(crate) fn keep(&self) {
        let (pki, point, address) = (Rc::clone(&self.pki), self.point.clone(), self.relay.address);
        spawn_local(async move {
            loop {
                point.needs_link().await;
                // An attempt whose link is cut is made again.
                let _ = resume(&pki, &point, address, "point").await;
            }
        });
    }

    pub(crate) async fn resume(&self) -> Result<(), HandshakeError> {
        resume(&self.pki, &self.point, self.relay.address, "point").await
    }

    /// Waits until both ends have a link, and have moved `resumes` times.
    pub(crate) async fn wait_resumed(&self, resumes: u64) {
        for end in [&self.point, &self.instance] {
            while end.outage().is_some() || end.stats().resumes < resumes {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends and echoes bytes and compares them.
    pub(crate) async fn echo(&self, bytes: usize, seed: u8) {
        let opened = loop {
            let possible = self.instance.opens_possible();
            match self.instance.try_open(StreamKind::Exchange) {
                Err(OpenError::Detached) => possible.await,
                opened => break opened.unwrap(),
            }
        };
        check_echo(opened, bytes, seed).await;
    }

    pub(crate) fn serve_echoes(&self) {
        let point = self.point.clone();
        spawn_local(async move {
            while let Some(incoming) = point.accept().await {
                let (mut send, mut recv) = (incoming.send, incoming.recv);
                spawn_local(async move {
                    while let Some(chunk) = recv.chunk().await.unwrap() {
                        send.write(chunk.data, chunk.end).await.unwrap();
                    }
                });
            }
        });
    }
}

pub(crate) async fn resume(
    pki: &Pki,
    point: &Channel,
    address: SocketAddr,
    who: &str,
) -> Result<(), HandshakeError> {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = server_name("localhost", "server_name").unwrap();
    point.resume_over(socket, pki.dialer(who), name).await
}
