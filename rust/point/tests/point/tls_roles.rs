//! Roles behind https URLs.

use std::sync::Arc;

use cmgmux_exchange::publication::PublicationAnswer;
use cmgmux_net::tls::front_acceptor;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::gateway::Gateway;
use crate::pki::Pki;
use crate::stage::{Point, config, run};

/// Accepts one TLS connection of the connection point.
async fn accept(listener: &TcpListener, pki: &Pki) -> std::io::Result<TlsStream<TcpStream>> {
    let (socket, _) = listener.accept().await.unwrap();
    TlsAcceptor::from(Arc::clone(&front_acceptor(&pki.credentials()))).accept(socket).await
}

async fn head(connection: &mut TlsStream<TcpStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_role_is_reached_by_tls_and_its_certificate_must_be_vouched_for() {
    run(async {
        let pki = Pki::new("tls-roles");
        let gateway = Gateway::start(&pki).await;
        let role = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = role.local_addr().unwrap().port();
        let mapping = |name: &str, host: &str, ca: &str| {
            let internal = format!("https://{host}:{port}/base");
            json!({"external": format!("/{name}"), "internal": internal, "upstream_ca": pki.path(ca)})
        };
        let mut settings = config(&pki, &gateway);
        settings["mappings"] = json!([
            mapping("good", "localhost", "gateway-ca.pem"),
            mapping("foreign", "localhost", "site-ca.pem"),
            mapping("misnamed", "127.0.0.1", "gateway-ca.pem"),
        ]);
        let _point = Point::start(settings);
        let link = gateway.link(1).await;
        let accepted = |publication: &cmgmux_exchange::publication::Publication| {
            let published = serde_json::to_string(&publication.mappings).unwrap();
            assert!(!published.contains("upstream_ca"), "{published}");
            PublicationAnswer::accept(publication.serial)
        };
        let (_, _control) = link.publication(accepted).await;

        // Twice over one connection.
        let serving = async {
            let mut connection = accept(&role, &pki).await.unwrap();
            assert_eq!(connection.get_ref().1.server_name(), Some("localhost"));
            for _ in 0..2 {
                let head = head(&mut connection).await;
                assert!(head.starts_with("GET /base/x HTTP/1.1\r\n"), "{head}");
                assert!(head.contains(&format!("host: localhost:{port}\r\n")), "{head}");
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                connection.write_all(answer).await.unwrap();
                connection.flush().await.unwrap();
            }
        };
        let asking = async {
            for _ in 0..2 {
                assert_eq!(link.get("/good/x").await.text(), "ok");
            }
        };
        tokio::join!(serving, asking);

        for (target, words) in [("/foreign/x", "trusted CA"), ("/misnamed/x", "localhost")] {
            let (refused, answer) = tokio::join!(accept(&role, &pki), link.get(target));
            assert!(refused.is_err());
            assert_eq!(answer.head.status, 502);
            let status = answer.field("proxy-status");
            assert!(status.contains("error=tls_certificate_error"), "{status}");
            assert!(answer.text().contains("role-untrusted"), "{}", answer.text());
            assert!(answer.text().contains(words), "{}", answer.text());
        }

        // A role that speaks no TLS.
        let speaking = async {
            let (mut socket, _) = role.accept().await.unwrap();
            let mut hello = [0; 5];
            socket.read_exact(&mut hello).await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            while socket.read(&mut hello).await.is_ok_and(|read| read > 0) {}
        };
        let ((), answer) = tokio::join!(speaking, link.get("/good/x"));
        assert!(answer.text().contains("role-tls-failed"), "{}", answer.text());
        assert!(answer.field("proxy-status").contains("error=tls_protocol_error"));
    });
}
