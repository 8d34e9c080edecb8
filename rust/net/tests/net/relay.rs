//! A way between the two ends that can be cut.

use std::cell::{Cell, RefCell};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

use crate::world::listener;

/// How a link ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Both ends see it closed.
    Fin,
    /// Both ends see it reset.
    Rst,
    /// Nothing passes any more, and neither end is told.
    Freeze,
    /// A bit of the next byte is another one, and all else passes.
    Flip,
    /// The next byte is missing, and all else passes.
    Drop,
}

/// A direction through the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// From the one that dials to the one that listens.
    Forth,
    /// From the one that listens to the one that dials.
    Back,
}

/// Passes connections on to one address, for as long as the test runs.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    links: RefCell<Vec<Link>>,
    /// Bytes that may still pass, and what happens then.
    fuse: Cell<Option<(usize, Cut)>>,
    /// The way on which nothing passes for now.
    stalled: Cell<Option<Way>>,
    healed: Notify,
}

/// Both sockets of a link, beside the tasks that copy.
struct Link {
    sockets: [TcpStream; 2],
    copying: [AbortHandle; 2],
}

impl Relay {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let (listener, address) = listener();
        let relay = Self { address, state: Rc::default() };
        let accepting = relay.clone();
        spawn_local(async move {
            while let Ok((near, _)) = listener.accept().await {
                if let Ok(far) = tokio::net::TcpStream::connect(target).await {
                    accepting.join(near, far);
                }
            }
        });
        relay
    }

    fn join(&self, near: tokio::net::TcpStream, far: tokio::net::TcpStream) {
        let (near, far) = (near.into_std().unwrap(), far.into_std().unwrap());
        let sockets = [near.try_clone().unwrap(), far.try_clone().unwrap()];
        let [near, far] = [near, far].map(|socket| {
            socket.set_nodelay(true).unwrap();
            tokio::io::split(tokio::net::TcpStream::from_std(socket).unwrap())
        });
        let copying = [
            self.clone().copy(Way::Forth, near.0, far.1),
            self.clone().copy(Way::Back, far.0, near.1),
        ];
        let copying = copying.map(|copy| spawn_local(copy).abort_handle());
        self.state.links.borrow_mut().push(Link { sockets, copying });
    }

    /// Cuts every link that there is.
    pub(crate) fn cut(&self, cut: Cut) {
        for Link { sockets, copying } in self.state.links.borrow_mut().drain(..) {
            copying.iter().for_each(AbortHandle::abort);
            for socket in sockets {
                match cut {
                    Cut::Fin => drop(socket.shutdown(Shutdown::Both)),
                    Cut::Rst => SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(),
                    Cut::Freeze => std::mem::forget(socket),
                    Cut::Flip | Cut::Drop => unreachable!("what is damaged is not cut"),
                }
            }
        }
    }

    /// Cuts the links once `bytes` more have passed.
    pub(crate) fn cut_after(&self, bytes: usize, cut: Cut) {
        self.state.fuse.set(Some((bytes, cut)));
    }

    /// Whether what [`cut_after`](Self::cut_after) asked for has been done.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.fuse.get().is_none()
    }

    /// Stops reading on this way, of every link that there is and will be.
    pub(crate) fn stall(&self, way: Way) {
        self.state.stalled.set(Some(way));
    }

    /// Goes on where it has stalled.
    pub(crate) fn heal(&self) {
        self.state.stalled.set(None);
        self.state.healed.notify_waiters();
    }

    async fn copy(
        self,
        way: Way,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            while self.state.stalled.get() == Some(way) {
                self.state.healed.notified().await;
            }
            let Ok(length @ 1..) = read else { break };
            let fuse = self.state.fuse.take();
            let (passed, cut) = match fuse {
                Some((left, cut)) if left < length => (left, Some(cut)),
                Some((left, cut)) => {
                    self.state.fuse.set(Some((left - length, cut)));
                    (length, None)
                }
                None => (length, None),
            };
            if to.write_all(&buffer[..passed]).await.is_err() {
                return;
            }
            let rest = match cut {
                Some(Cut::Flip) => {
                    buffer[passed] ^= 0x10;
                    &buffer[passed..length]
                }
                Some(Cut::Drop) => &buffer[passed + 1..length],
                Some(cut) => {
                    self.cut(cut);
                    &[]
                }
                None => &[],
            };
            if to.write_all(rest).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }
}
