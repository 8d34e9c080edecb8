//! Development certificates.

use std::path::PathBuf;

use cmgmux_net::pki::{self, PemPair};
use pyo3::prelude::*;

use crate::error::HandleError;

/// A development certificate authority. What it issues expires with it.
///
/// Certificates and keys are PEM texts, given as pairs of certificate and private key.
#[derive(Debug)]
#[pyclass(frozen, module = "cmgmux._native")]
pub(crate) struct Authority(pki::Authority);

#[pymethods]
impl Authority {
    /// Make an authority that is valid for `days`, 1 to 36,500.
    #[new]
    #[pyo3(signature = (common_name, /, *, days))]
    fn new(py: Python<'_>, common_name: &str, days: u32) -> Result<Self, HandleError> {
        Ok(Self(py.detach(|| pki::Authority::create(common_name, days))?))
    }

    /// The authority's own certificate and key.
    fn pem(&self) -> (String, String) {
        pair(self.0.pem().clone())
    }

    /// Issue to a server that is reached by `names`: DNS names and IP addresses, at least one.
    #[pyo3(signature = (names, /))]
    fn issue_server(&self, names: Vec<String>) -> Result<(String, String), HandleError> {
        Ok(pair(self.0.issue_server(&names)?))
    }

    /// Issue to the connection point `name` of `site`.
    #[pyo3(signature = (site, name, /))]
    fn issue_connection_point(
        &self,
        site: &str,
        name: &str,
    ) -> Result<(String, String), HandleError> {
        Ok(pair(self.0.issue_connection_point(site, name)?))
    }

    /// Issue to a client called `common_name`.
    #[pyo3(signature = (common_name, /))]
    fn issue_client(&self, common_name: &str) -> Result<(String, String), HandleError> {
        Ok(pair(self.0.issue_client(common_name)?))
    }
}

fn pair(pem: PemPair) -> (String, String) {
    (pem.certificate, pem.key)
}

/// Write a private key, readable by its owner alone from the first moment on.
#[pyfunction]
#[pyo3(signature = (path, pem, /))]
pub(crate) fn write_private(path: PathBuf, pem: &str) -> Result<(), HandleError> {
    pki::write_private(&path, pem).map_err(|source| HandleError::File { path, source })
}
