//! What the connection points have published about their sites, and the mappings that follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use cmgmux_exchange::mapping::{MappingTable, Route};
use cmgmux_exchange::publication::{Publication, PublicationAnswer};
use cmgmux_net::PeerIdentity;
use cmgmux_net::tls::ClientRoots;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{error, info};

/// One site as last published.
pub(crate) struct Site {
    /// Its code.
    pub(crate) code: String,
    /// The CAs that its clients must come from.
    pub(crate) roots: ClientRoots,
    serial: u64,
    hash: String,
    routes: Vec<Route>,
}

/// What the gateway keeps with a mapping.
pub(crate) struct Mapped {
    /// The site that the mapping belongs to.
    pub(crate) site: Arc<Site>,
    /// Requests that reached the mapping.
    pub(crate) requests: Arc<AtomicU64>,
}

/// Mappings of all sites by external prefix.
pub(crate) type Table = MappingTable<Mapped>;

/// All sites. Read by every request without a lock, replaced as a whole by a publication.
#[derive(Default)]
pub(crate) struct Sites {
    table: ArcSwap<Table>,
    published: Mutex<Published>,
}

#[derive(Default)]
struct Published {
    sites: BTreeMap<String, Arc<Site>>,
    /// Request counters by external prefix; they outlive a publication.
    requests: BTreeMap<String, Arc<AtomicU64>>,
}

impl Sites {
    /// The mappings as they are now.
    pub(crate) fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Takes over what `peer` publishes, as a whole or not at all.
    pub(crate) fn publish(
        &self,
        peer: &PeerIdentity,
        publication: Publication,
    ) -> PublicationAnswer {
        let serial = publication.serial;
        match self.replace(peer, publication) {
            Ok(()) => PublicationAnswer::accept(serial),
            Err(reason) => {
                error!(%peer, serial, %reason, "publication refused");
                PublicationAnswer::refuse(serial, [reason])
            }
        }
    }

    fn replace(&self, peer: &PeerIdentity, publication: Publication) -> Result<(), String> {
        let routes = publication.validate().map_err(|error| error.to_string())?;
        let Publication { serial, hash, site: code, roots, .. } = publication;
        if code != peer.site {
            let own = &peer.site;
            return Err(format!("site: the certificate speaks for {own} and not for {code}"));
        }
        let mut published = self.published.lock();
        if let Some(current) = published.sites.get(&code) {
            if current.hash == hash && serial <= current.serial {
                return Ok(());
            }
            if serial == current.serial {
                return Err(format!(
                    "serial: {serial} is held by other settings of the site; give the newer ones a \
                     higher serial"
                ));
            }
            if serial < current.serial {
                return Err(format!(
                    "serial: {serial} is older than {}, which another connection point published; \
                     bring this one's configuration up to date",
                    current.serial
                ));
            }
        }
        let roots = ClientRoots::from_pem(&roots)?;
        let mappings = routes.len();
        let site = Arc::new(Site { code: code.clone(), roots, serial, hash, routes });
        let mut sites = published.sites.clone();
        sites.insert(code.clone(), site);
        let table = build(&sites, &mut published.requests)?;
        published.sites = sites;
        self.table.store(Arc::new(table));
        info!(site = %code, serial, mappings, %peer, "publication accepted");
        Ok(())
    }

    /// Every site with its mappings, for the status.
    pub(crate) fn status(&self) -> Value {
        let published = self.published.lock();
        let site = |site: &Arc<Site>| {
            let mapping = |route: &Route| {
                let requests = published.requests.get(&key(route));
                json!({
                    "external": route.external(),
                    "requests_total": requests.map_or(0, |count| count.load(Ordering::Relaxed)),
                })
            };
            json!({
                "site": site.code,
                "serial": site.serial,
                "hash": site.hash,
                "mappings": site.routes.iter().map(mapping).collect::<Vec<_>>(),
            })
        };
        published.sites.values().map(site).collect()
    }
}

fn build(
    sites: &BTreeMap<String, Arc<Site>>,
    requests: &mut BTreeMap<String, Arc<AtomicU64>>,
) -> Result<Table, String> {
    let mut routes = Vec::new();
    for site in sites.values() {
        for route in &site.routes {
            let requests = Arc::clone(requests.entry(key(route)).or_default());
            routes.push((route.clone(), Mapped { site: Arc::clone(site), requests }));
        }
    }
    MappingTable::build(routes).map_err(|duplicate| {
        format!("mappings: {} belongs to another site already", duplicate.external)
    })
}

fn key(route: &Route) -> String {
    route.external().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use cmgmux_exchange::mapping::Mapping;
    use cmgmux_exchange::target::Target;

    use super::*;

    fn peer(site: &str) -> PeerIdentity {
        PeerIdentity::new(site, "cp1").unwrap()
    }

    fn mapping(external: &str) -> Mapping {
        let mut mapping = Mapping::defaults();
        mapping["external"] = external.into();
        mapping["internal"] = "http://127.0.0.1:80".into();
        serde_json::from_value(mapping).unwrap()
    }

    fn publication(serial: u64, site: &str, externals: &[&str]) -> Publication {
        let mappings = externals.iter().map(|external| mapping(external)).collect();
        Publication::new(serial, site.to_owned(), mappings, Vec::new())
    }

    fn site_of(sites: &Sites, path: &str) -> Option<String> {
        let target = Target::parse(path).unwrap();
        sites.table().lookup(&target).map(|entry| entry.value.site.code.clone())
    }

    #[test]
    fn a_publication_replaces_the_site_as_a_whole() {
        let sites = Sites::default();
        assert!(sites.publish(&peer("NYC"), publication(1, "NYC", &["/a", "/b"])).accepted);
        assert_eq!(site_of(&sites, "/A/x"), Some("NYC".to_owned()));
        assert!(sites.publish(&peer("NYC"), publication(2, "NYC", &["/c"])).accepted);
        assert_eq!((site_of(&sites, "/a"), site_of(&sites, "/c/1").is_some()), (None, true));
    }

    #[test]
    fn a_certificate_speaks_for_its_own_site_only() {
        let sites = Sites::default();
        let answer = sites.publish(&peer("PAR"), publication(1, "NYC", &["/a"]));
        assert!(!answer.accepted && answer.reasons[0].contains("PAR"), "{answer:?}");
        assert_eq!(site_of(&sites, "/a"), None);
    }

    #[test]
    fn the_same_serial_with_other_content_keeps_the_current_settings() {
        let sites = Sites::default();
        assert!(sites.publish(&peer("NYC"), publication(5, "NYC", &["/a"])).accepted);
        assert!(sites.publish(&peer("NYC"), publication(5, "NYC", &["/a"])).accepted);
        assert!(!sites.publish(&peer("NYC"), publication(5, "NYC", &["/b"])).accepted);
        assert!(!sites.publish(&peer("NYC"), publication(4, "NYC", &["/b"])).accepted);
        assert!(sites.publish(&peer("NYC"), publication(4, "NYC", &["/a"])).accepted);
        assert_eq!((site_of(&sites, "/a").is_some(), site_of(&sites, "/b")), (true, None));
    }

    #[test]
    fn a_site_cannot_take_another_sites_mapping() {
        let sites = Sites::default();
        assert!(sites.publish(&peer("NYC"), publication(1, "NYC", &["/a"])).accepted);
        let answer = sites.publish(&peer("PAR"), publication(1, "PAR", &["/A", "/b"]));
        assert!(!answer.accepted && answer.reasons[0].contains("another site"), "{answer:?}");
        assert_eq!((site_of(&sites, "/a"), site_of(&sites, "/b")), (Some("NYC".to_owned()), None));
    }
}
