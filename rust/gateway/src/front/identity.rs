//! Who a client is: established once per connection and site.

use std::net::IpAddr;
use std::sync::Arc;

use cmgmux_exchange::fields::{Identity, IdentityFields, client_cert, forwarded};
use cmgmux_exchange::mapping::Authentication;
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::identity::ClientCertificate;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::sites::Site;

/// What a connection shows of its client.
#[derive(Clone, Copy)]
pub(super) struct Visitor<'a> {
    pub(super) address: IpAddr,
    /// The chain that the client showed; it holds the key of the first certificate, no more is known.
    pub(super) certificates: &'a [CertificateDer<'static>],
}

/// What a connection has learned about its client.
#[derive(Default)]
pub(crate) struct Identities {
    /// The last site that the certificate was held against, and the outcome.
    verified: Option<(Arc<Site>, Result<Verified, Refusal>)>,
}

/// The fields of a client with an accepted certificate.
#[derive(Clone)]
struct Verified {
    client_cert: HeaderValue,
    identity: HeaderValue,
}

impl Identities {
    /// The fields that say who the client is, for a mapping that demands `authentication`.
    ///
    /// # Errors
    ///
    /// The client is not one of the site's.
    pub(crate) fn fields(
        &mut self,
        visitor: Visitor<'_>,
        authentication: Authentication,
        site: &Arc<Site>,
        host: &HeaderValue,
    ) -> Result<IdentityFields, Box<Refusal>> {
        let forwarded = forwarded(visitor.address, host);
        match authentication {
            Authentication::None => {
                let identity = Identity::ANONYMOUS.to_field().map_err(|_| internal())?;
                Ok(IdentityFields { client_cert: None, identity, forwarded })
            }
            Authentication::Certificate => {
                let Verified { client_cert, identity } = self.verify(visitor, site)?;
                Ok(IdentityFields { client_cert: Some(client_cert), identity, forwarded })
            }
        }
    }

    fn verify(&mut self, visitor: Visitor<'_>, site: &Arc<Site>) -> Result<Verified, Box<Refusal>> {
        if let Some((known, outcome)) = &self.verified
            && Arc::ptr_eq(known, site)
        {
            return outcome.clone().map_err(Box::new);
        }
        let outcome = verify(visitor.certificates, site);
        self.verified = Some((Arc::clone(site), outcome.clone()));
        outcome.map_err(Box::new)
    }
}

fn verify(chain: &[CertificateDer<'static>], site: &Site) -> Result<Verified, Refusal> {
    let Some(certificate) = chain.first() else {
        return Err(Refusal::by_gateway(Reason::CertificateMissing));
    };
    let untrusted =
        |why: String| Refusal::by_gateway(Reason::CertificateUntrusted).with_details(why);
    site.roots.verify(chain).map_err(|why| untrusted(format!("site {}: {why}", site.code)))?;
    let read = ClientCertificate::read(certificate).map_err(|why| untrusted(why.to_string()))?;
    let identity = Identity::of_certificate(read.subject).to_field();
    Ok(Verified {
        client_cert: client_cert(certificate).map_err(|why| untrusted(why.to_string()))?,
        identity: identity.map_err(|why| untrusted(why.to_string()))?,
    })
}

fn internal() -> Box<Refusal> {
    Box::new(Refusal::by_gateway(Reason::Internal))
}
