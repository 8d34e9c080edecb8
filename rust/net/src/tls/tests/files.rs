use super::*;

fn error(certificate: &std::path::Path, key: &std::path::Path) -> crate::ConfigError {
    let certificate = FileSetting::new("certificate", certificate);
    Credentials::load(certificate, FileSetting::new("key", key)).expect_err("refused")
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_setting_and_cause() {
    let folder = Folder::new();
    let pair = authority("CA").issue_client("one").unwrap();
    let other = authority("CA").issue_client("two").unwrap();
    let certificate = folder.write("own.pem", &pair.certificate);
    let key = folder.write("own.key", &pair.key);
    let missing = folder.0.join("missing.pem");

    let unreadable = error(&missing, &key);
    assert_eq!(unreadable.key, "certificate");
    assert!(unreadable.message.starts_with(&format!("{}: No such file", missing.display())));
    assert_eq!(error(&certificate, &missing).key, "key");

    let swapped = error(&key, &certificate);
    assert_eq!(swapped.key, "certificate");
    assert!(swapped.message.contains("own.key: no certificate in it"), "{swapped}");
    let no_key = error(&certificate, &certificate);
    assert_eq!(no_key.key, "key");
    assert!(no_key.message.contains("no private key in the file"), "{no_key}");

    let wrong = error(&certificate, &folder.write("other.key", &other.key));
    assert_eq!(wrong.key, "key");
    assert!(wrong.message.contains("does not belong to the certificate in"), "{wrong}");
}

#[test]
fn one_file_may_hold_both_and_the_chain_keeps_its_order() {
    let folder = Folder::new();
    let ca = authority("CA");
    let pair = ca.issue_client("one").unwrap();
    let text = format!("{}{}{}", pair.key, pair.certificate, ca.pem().certificate);
    let path = folder.write("all.pem", &text);
    let credentials =
        Credentials::load(FileSetting::new("certificate", &path), FileSetting::new("key", &path))
            .unwrap();
    assert_eq!(credentials.chain().len(), 2);
    let client = crate::identity::ClientCertificate::read(&credentials.chain()[0]).unwrap();
    assert_eq!(client.subject, "CN=one");
    assert_eq!(credentials.expires_unix_s(), client.not_after_unix_s);
}

#[test]
fn a_file_that_is_far_too_large_is_not_read() {
    let folder = Folder::new();
    let path = folder.0.join("huge.pem");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = load_roots(FileSetting::new("gateway_ca", &path)).expect_err("refused");
    assert!(error.message.contains("larger than 4 MiB"), "{error}");
}

#[test]
fn a_server_name_is_a_dns_name_or_an_address() {
    for good in ["gateway.test", "10.0.0.1", "::1"] {
        server_name(good, "server_name").unwrap();
    }
    let error = server_name("a b", "instances[0].server_name").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "instances[0].server_name: \"a b\" is not a DNS name or IP address"
    );
}
