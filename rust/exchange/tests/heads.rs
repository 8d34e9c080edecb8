//! Properties of heads: round trips, agreement with httparse, and no panic on any bytes.

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::fields::{self, Identity};
use cmgmux_exchange::h1::RequestReader;
use cmgmux_exchange::head::{RequestHead, ResponseHead, decode_trailers};
use cmgmux_exchange::publication::{Publication, PublicationAnswer};
use cmgmux_exchange::target::Target;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use proptest::prelude::*;

/// Field lines that may travel anywhere: names that have no meaning to us, values without
/// whitespace at their ends.
fn plain_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = prop_oneof![Just(String::new()), "[!-~]([ -~\t]{0,20}[!-~])?"];
    prop::collection::vec(("p-[a-z0-9-]{1,12}", value), 0..20)
}

fn map_of(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    map
}

proptest! {
    #[test]
    fn a_request_head_survives_the_stream(
        method in "[A-Z_]{1,12}",
        target in "/[a-zA-Z0-9/._-]{0,30}(\\?[a-z=&%{}]{0,20})?",
        fields in plain_fields(),
    ) {
        prop_assume!(Target::parse(&target).is_ok());
        let mut fields = map_of(&fields);
        fields.insert(header::HOST, HeaderValue::from_static("h"));
        let head = RequestHead {
            method: Method::from_bytes(method.as_bytes()).expect("a method"),
            target: Target::parse(&target).expect("a target"),
            fields,
        };
        let mut wire = BytesMut::new();
        head.encode(&mut wire).expect("short");
        prop_assert_eq!(RequestHead::decode(&wire.freeze()), Ok(head));
    }

    #[test]
    fn a_response_head_survives_the_stream(status in 100..1000_u16, fields in plain_fields()) {
        let status = StatusCode::from_u16(status).expect("a status");
        let head = ResponseHead { status, fields: map_of(&fields) };
        let mut wire = BytesMut::new();
        head.encode(&mut wire).expect("short");
        prop_assert_eq!(ResponseHead::decode(&wire.freeze()), Ok(head));
    }

    #[test]
    fn valid_heads_are_read_as_httparse_reads_them(
        method in "[A-Z_]{1,12}",
        path in "/[a-zA-Z0-9]{0,30}",
        fields in plain_fields(),
        spaces in "[ \t]{0,3}",
    ) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n");
        for (name, value) in &fields {
            text.push_str(&format!("{name}:{spaces}{value}{spaces}\r\n"));
        }
        text.push_str("\r\n");
        let mut table = [httparse::EMPTY_HEADER; 64];
        let mut theirs = httparse::Request::new(&mut table);
        prop_assert!(theirs.parse(text.as_bytes()).expect("valid").is_complete());
        let ours = RequestReader::new()
            .read(&mut BytesMut::from(text.as_str()))
            .expect("valid")
            .expect("whole");
        prop_assert_eq!(Some(ours.head.method.as_str()), theirs.method);
        prop_assert_eq!(Some(ours.head.target.as_str()), theirs.path);
        let mut expected = HeaderMap::new();
        for line in theirs.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes()).expect("a name");
            expected.append(name, HeaderValue::from_bytes(line.value).expect("a value"));
        }
        prop_assert_eq!(ours.head.fields, expected);
    }

    #[test]
    fn what_is_accepted_from_a_client_can_travel_and_is_read_alike(
        bytes in prop::collection::vec(token(), 0..16),
    ) {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", bytes.concat());
        let mut input = BytesMut::from(text.as_str());
        if let Ok(Some(request)) = RequestReader::new().read(&mut input) {
            let head = &text[..text.len() - input.len()];
            prop_assert!(!head.replace("\r\n", "").contains(['\r', '\n']));
            let mut wire = BytesMut::new();
            request.head.encode(&mut wire).expect("within the limits of a stream");
            prop_assert_eq!(RequestHead::decode(&wire.freeze()), Ok(request.head));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = RequestHead::decode(&bytes);
        let _ = ResponseHead::decode(&bytes);
        let _ = decode_trailers(&bytes);
        let _ = Publication::decode(&bytes);
        let _ = PublicationAnswer::decode(&bytes);
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let _ = Identity::from_field(&value);
            let mut fields = HeaderMap::new();
            fields.insert(header::CONNECTION, value.clone());
            fields.insert(fields::TRACEPARENT, value);
            fields::strip_hop_by_hop(&mut fields);
            fields::ensure_traceparent(&mut fields, || [7; 24]);
            prop_assert_eq!(fields[fields::TRACEPARENT].len(), 55);
        }
    }

    #[test]
    fn any_identity_survives_its_field(subject in "\\PC{0,40}", tenant in "[\\x00-\\xff]{0,9}") {
        let identity = Identity { tenant: Some(tenant), ..Identity::of_certificate(subject) };
        let field = identity.to_field().expect("short");
        prop_assert_eq!(Identity::from_field(&field), Ok(identity));
    }
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just(" ".to_owned()),
        Just("Connection: A, close\r\n".to_owned()),
        Just("Content-Length: 5\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        Just("Expect: 100-continue\r\n".to_owned()),
        Just("Client_Cert: x\r\n".to_owned()),
        Just("A: b\r\n".to_owned()),
        "[A-Za-z]{1,5}: [ -~]{0,9}\r\n",
        "\\PC",
    ]
}
