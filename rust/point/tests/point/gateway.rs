//! A gateway instance, played by hand: it accepts links, and opens exchanges on their channels.

use std::cell::RefCell;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::head::{RequestHead, ResponseHead};
use cmgmux_exchange::parts::{self, Event, Reader};
use cmgmux_exchange::publication::{MessageReader, Publication, PublicationAnswer};
use cmgmux_exchange::target::Target;
use cmgmux_net::tls::{Trust, channel_acceptor};
use cmgmux_net::{
    Arrival, Channel, CloseCode, End, HandshakeError, Id, Limits, Offer, RecvStream, ResumeCode,
    SendStream, StreamError, StreamKind,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};

use crate::pki::Pki;

/// What a gateway says of a client with a certificate.
pub(crate) const CLIENT: (&str, &str) =
    ("cmgmux-identity", "certificate;subject=\"CN=PC1\";principal=device");

pub(crate) struct Gateway {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    trust: Trust,
    /// A second descriptor of the socket of each link.
    sockets: RefCell<Vec<std::net::TcpStream>>,
}

/// A channel and the task that drives it.
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) ordinal: u8,
    driver: JoinHandle<()>,
    socket: std::net::TcpStream,
}

/// The two halves of an exchange's stream, the head of the request sent.
pub(crate) struct Exchange {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    reader: Reader<ResponseHead>,
}

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Gateway {
    pub(crate) async fn start(pki: &Pki) -> Self {
        let trust = pki.trust();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = channel_acceptor(&pki.credentials(), &trust);
        Self { listener, tls, trust, sockets: RefCell::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next link for a new channel. Old channels are unknown, as to a process that has started anew.
    pub(crate) async fn offer(&self) -> Result<Offer, HandshakeError> {
        loop {
            match self.arrival().await? {
                Arrival::Hello(offer) => return Ok(offer),
                Arrival::Resume(offer) => offer.refuse(ResumeCode::UNKNOWN_CHANNEL).await,
            }
        }
    }

    /// The next link.
    pub(crate) async fn arrival(&self) -> Result<Arrival, HandshakeError> {
        let (socket, _) = self.listener.accept().await.unwrap();
        let socket = socket.into_std().unwrap();
        self.sockets.borrow_mut().push(socket.try_clone().unwrap());
        let socket = TcpStream::from_std(socket).unwrap();
        Arrival::receive(socket, Arc::clone(&self.tls), &self.trust).await
    }

    /// Breaks every link that there is.
    pub(crate) fn cut_links(&self) {
        for socket in self.sockets.borrow_mut().drain(..) {
            // One that is gone already is as broken.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Takes the next link, as an instance of `shards` shards.
    pub(crate) async fn link(&self, shards: u8) -> Link {
        self.link_of_run(shards, Id([2; 16])).await
    }

    /// The same, as another run of the instance's process.
    pub(crate) async fn link_of_run(&self, shards: u8, boot_id: Id) -> Link {
        let offer = self.offer().await.unwrap();
        let ordinal = offer.hello.ordinal;
        let established =
            offer.accept(Limits::default(), shards, boot_id, Id::random()).await.unwrap();
        let (channel, driver) = Channel::start(established, &Arc::default()).unwrap();
        let driver = spawn_local(async move {
            driver.await;
        });
        let socket = self.sockets.borrow().last().unwrap().try_clone().unwrap();
        Link { channel, ordinal, driver, socket }
    }

    /// Refuses the next link.
    pub(crate) async fn refuse(&self, code: CloseCode, words: &str) {
        self.offer().await.unwrap().refuse(code, words).await;
    }
}

impl Link {
    /// Dies as a process does: without a word.
    pub(crate) fn die(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
        self.driver.abort();
    }

    /// Takes the publication and answers it. The control stream lives as long as what is returned.
    pub(crate) async fn publication(
        &self,
        answer: impl FnOnce(&Publication) -> PublicationAnswer,
    ) -> (Publication, (SendStream, RecvStream)) {
        let mut incoming = self.channel.accept().await.unwrap();
        assert_eq!(incoming.kind, StreamKind::Control);
        let mut reader = MessageReader::new();
        let message = loop {
            let chunk = incoming.recv.chunk().await.unwrap().unwrap();
            if let Some(message) = reader.handle_piece(chunk.data, chunk.end != End::None).unwrap()
            {
                break message;
            }
        };
        let publication = Publication::decode(&message).unwrap();
        publication.validate().unwrap();
        let answer = answer(&publication).encode().unwrap();
        incoming.send.write(answer, End::Part).await.unwrap();
        (publication, (incoming.send, incoming.recv))
    }

    /// Opens an exchange of a client with a certificate; `end` says what follows the head.
    pub(crate) fn open(&self, method: &str, target: &str, end: End) -> Exchange {
        self.open_with(method, target, &[CLIENT], end)
    }

    pub(crate) fn open_with(
        &self,
        method: &str,
        target: &str,
        fields: &[(&'static str, &str)],
        end: End,
    ) -> Exchange {
        let mut head = RequestHead {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            target: Target::parse(target).unwrap(),
            fields: HeaderMap::new(),
        };
        head.fields.insert("host", HeaderValue::from_static("cmg.example"));
        for &(name, value) in fields {
            head.fields.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let mut wire = BytesMut::new();
        head.encode(&mut wire).unwrap();
        self.open_raw(&head.method, wire.freeze(), end)
    }

    /// Opens an exchange that asks to switch to WebSocket.
    pub(crate) fn open_switch(&self, target: &str) -> Exchange {
        let fields = [CLIENT, ("upgrade", "websocket"), ("sec-websocket-key", "x")];
        let exchange = self.open_with("GET", target, &fields, End::Part);
        Exchange { reader: Reader::response_to_switch(), ..exchange }
    }

    pub(crate) fn open_raw(&self, method: &Method, head: Bytes, end: End) -> Exchange {
        let (mut send, recv) = self.channel.try_open(StreamKind::Exchange).unwrap();
        send.send(head, end).unwrap();
        Exchange { send, recv, reader: Reader::response(method) }
    }

    /// A whole exchange without a body in the request.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.open("GET", target, End::Stream).answer().await.unwrap()
    }
}

impl Exchange {
    /// Sends a piece of the request's body.
    pub(crate) async fn say(&mut self, data: &[u8], end: End) -> Result<(), StreamError> {
        self.send.write(Bytes::copy_from_slice(data), end).await
    }

    /// The next event of the answer, and whether it is the last; nothing behind the end.
    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<(Option<Event<ResponseHead>>, bool)>, StreamError> {
        let Some(chunk) = self.recv.chunk().await? else {
            return Ok(None);
        };
        let end = match chunk.end {
            End::None => parts::End::None,
            End::Part => parts::End::Part,
            End::Stream => parts::End::Stream,
        };
        let received = self.reader.handle_piece(chunk.data, end).expect("well-formed parts");
        Ok(Some((received.event, received.complete)))
    }

    /// The head of the answer.
    pub(crate) async fn head(&mut self) -> Result<ResponseHead, StreamError> {
        loop {
            if let Some((Some(Event::Head(head)), _)) = self.next().await? {
                return Ok(head);
            }
        }
    }

    /// The rest of the answer's body and its trailers.
    pub(crate) async fn rest(&mut self) -> Result<(Vec<u8>, HeaderMap), StreamError> {
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        while let Some((event, _)) = self.next().await? {
            match event {
                Some(Event::Data(data)) => body.extend_from_slice(&data),
                Some(Event::Trailers(received)) => trailers = received,
                other => assert!(other.is_none(), "{other:?}"),
            }
        }
        Ok((body, trailers))
    }

    /// The whole answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer, StreamError> {
        let head = self.head().await?;
        let (body, trailers) = self.rest().await?;
        Ok(Answer { head, body, trailers })
    }
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.head.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
