//! Settings that cannot be used, and how they are named.

use cmgmux_net::ConfigError;
use cmgmux_point::PointConfig;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::pki::Pki;
use crate::stage::{config, run};

fn check(settings: &Value) -> Result<(), ConfigError> {
    serde_json::from_value::<PointConfig>(settings.clone()).unwrap().check()
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name() {
    run(async {
        let pki = Pki::new("settings");
        let gateway = Gateway::start(&pki).await;
        let mut valid = config(&pki, &gateway);
        valid["mappings"] = json!([{"external": "/mp", "internal": "http://mp"}]);
        assert_eq!(check(&valid), Ok(()));
        let instance = |index: u8, address: &str| json!({"index": index, "address": address});
        for (setting, value, key, words) in [
            ("site", json!("PAR"), "site", "NYC/cp1"),
            ("certificate", json!(pki.path("none.pem")), "certificate", "No such file"),
            ("certificate", json!(pki.path("server.pem")), "key", "does not belong"),
            ("key", json!(pki.path("site-ca.key")), "key", "does not belong"),
            ("gateway_ca", json!(pki.path("point.key")), "gateway_ca", "no certificate"),
            ("client_roots", json!([pki.path("none.pem")]), "client_roots[0]", "No such file"),
            ("client_roots", json!([]), "client_roots", "mappings[0]"),
            ("shards", json!(0), "shards", "1..16"),
            ("connect_timeout_s", json!(0), "connect_timeout_s", "above 0"),
            ("reconnect_min_s", json!(-1), "reconnect_min_s", "above 0"),
            ("reconnect_max_s", json!(0.0001), "reconnect_max_s", "reconnect_min_s"),
            ("instances", json!([]), "instances", "at least one"),
            ("instances", json!([instance(16, "h:1")]), "instances[0].index", "15"),
            (
                "instances",
                json!([instance(1, "h:1"), instance(1, "h:2")]),
                "instances[1].index",
                "instances[0]",
            ),
            (
                "instances",
                json!([instance(0, "h:1"), instance(1, "h")]),
                "instances[1].address",
                "such as",
            ),
            ("instances", json!([instance(0, "a b:1")]), "instances[0].address", "DNS name"),
            (
                "instances",
                json!([{"index": 0, "address": "h:1", "server_name": "a b"}]),
                "instances[0].server_name",
                "DNS name",
            ),
            (
                "mappings",
                json!([{"external": "/mp", "internal": "https://mp"}]),
                "mappings[0].upstream_ca",
                "vouch for the role",
            ),
            (
                "mappings",
                json!([{"external": "/mp", "internal": "http://mp", "upstream_ca": "ca.pem"}]),
                "mappings[0].upstream_ca",
                "https://",
            ),
            (
                "mappings",
                json!([{"external": "/mp", "internal": "https://mp", "upstream_ca": "/none.pem"}]),
                "mappings[0].upstream_ca",
                "No such file",
            ),
        ] {
            let mut settings = valid.clone();
            settings[setting] = value;
            let error = check(&settings).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            assert!(error.message.contains(words), "{error}");
        }
        valid["certificate"] = json!(pki.path("server.pem"));
        valid["key"] = json!(pki.path("server.key"));
        let error = check(&valid).unwrap_err();
        assert_eq!(error.key, "certificate");
        assert!(error.message.contains("cmgmux://<site>/<name>"), "{error}");
    });
}
