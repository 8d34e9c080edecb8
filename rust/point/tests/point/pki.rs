//! Certificates of one test, in a folder of its own.

use std::path::PathBuf;

use cmgmux_net::pki::{Authority, PemPair};
use cmgmux_net::tls::{Credentials, FileSetting, Trust, TrustedCa};

pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("cmgmux-point-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let pki = Self { folder };
        let gateway = Authority::create("gateway", 30).unwrap();
        let site = Authority::create("site", 30).unwrap();
        pki.write_pair("gateway-ca", gateway.pem());
        pki.write_pair("site-ca", site.pem());
        pki.write_pair("server", &gateway.issue_server(&["localhost"]).unwrap());
        pki.write_pair("point", &site.issue_connection_point("NYC", "cp1").unwrap());
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        Credentials::load(
            FileSetting::new("certificate", &certificate),
            FileSetting::new("key", &key),
        )
        .unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        let sites = vec!["NYC".to_owned()];
        Trust::load(&[TrustedCa { ca: self.path("site-ca.pem"), sites }]).unwrap()
    }

    fn write_pair(&self, name: &str, pair: &PemPair) {
        std::fs::write(self.path(&format!("{name}.pem")), &pair.certificate).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), &pair.key).unwrap();
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
