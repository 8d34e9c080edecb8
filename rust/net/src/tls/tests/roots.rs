use super::*;

fn chain(folder: &Folder, pair: &PemPair) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    folder.credentials(pair).chain().to_vec()
}

#[test]
fn clients_of_any_published_root_are_accepted() {
    let folder = Folder::new();
    let cas = [authority("A"), authority("B"), authority("C")];
    let both = format!("{}{}", cas[0].pem().certificate, cas[1].pem().certificate);
    let roots = ClientRoots::from_pem(&[&both, &cas[2].pem().certificate]).unwrap();
    for ca in &cas {
        roots.verify(&chain(&folder, &ca.issue_client("client").unwrap())).unwrap();
    }
}

#[test]
fn strangers_servers_and_expired_clients_are_refused_with_the_cause() {
    let folder = Folder::new();
    let ca = authority("Client CA");
    let roots = ClientRoots::from_pem(&[&ca.pem().certificate]).unwrap();
    let refusal = |pair: &PemPair| roots.verify(&chain(&folder, pair)).expect_err("refused");
    assert_eq!(
        refusal(&authority("Other").issue_client("client").unwrap()),
        "the peer's certificate was not issued by a trusted CA"
    );
    assert_eq!(
        refusal(&ca.issue_server(&["server.test"]).unwrap()),
        "the peer's certificate is not meant for this purpose (extended key usage)"
    );
    assert_eq!(
        refusal(&ca.issue_expired_connection_point("NYC", "cp1")),
        "the peer's certificate expired 1 day ago"
    );
    assert_eq!(roots.verify(&[]), Err("the client showed no certificate".to_owned()));
}

#[test]
fn without_roots_nobody_is_accepted() {
    let folder = Folder::new();
    let roots = ClientRoots::from_pem::<&str>(&[]).unwrap();
    let client = chain(&folder, &authority("CA").issue_client("client").unwrap());
    assert_eq!(roots.verify(&client), Err("the site trusts no client roots".to_owned()));
}

#[test]
fn a_text_that_holds_no_root_is_named_by_its_position() {
    let ca = authority("CA");
    let good = &ca.pem().certificate;
    let broken = good.replacen("MII", "!!!", 1);
    for (bad, expected) in [
        ("", "roots[1]: no certificate in it"),
        (ca.pem().key.as_str(), "roots[1]: no certificate in it"),
        (broken.as_str(), "roots[1]: not readable as PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "roots[1]: a certificate in it cannot be a root",
        ),
    ] {
        let error = ClientRoots::from_pem(&[good, bad]).expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
}
