//! Everything that can go wrong with a handle, and the Python exception it becomes.

use std::path::PathBuf;

use cmgmux_net::ConfigError;
use cmgmux_net::pki::PkiError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A call that a handle cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    /// Made in the parent, used in a child.
    #[error(
        "this object belongs to the parent process and does not survive fork: \
         create it in the process that uses it"
    )]
    Forked,
    /// A service starts once.
    #[error("already started: a service starts once, create another")]
    AlreadyStarted,
    /// Nothing to ask yet.
    #[error("not running: wait until it has started")]
    NotRunning,
    /// The port delivers nothing any more.
    #[error("the port is closed")]
    PortClosed,
    /// A number of seconds that is none.
    #[error("{0} is no length of time in seconds")]
    NotADuration(f64),
    /// No such kind of configuration.
    #[error("there is no configuration of kind {0:?}")]
    UnknownKind(String),
    /// The settings do not fit the service.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file cannot be written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// The operating system refused a descriptor or a thread.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
}

impl From<HandleError> for PyErr {
    #[allow(
        clippy::disallowed_methods,
        reason = "only methods called from Python end here, on a thread that is attached already"
    )]
    fn from(error: HandleError) -> Self {
        Python::attach(|py| to_py(py, error).unwrap_or_else(|failure| failure))
    }
}

/// Builds the exception of `cmgmux.exceptions` that stands for `error`.
fn to_py(py: Python<'_>, error: HandleError) -> PyResult<PyErr> {
    let message = error.to_string();
    let class = match &error {
        HandleError::Io { source, .. } | HandleError::File { source, .. } => {
            let arguments = (source.raw_os_error(), message);
            return Ok(pyo3::exceptions::PyOSError::new_err(arguments));
        }
        HandleError::Config(_) => "ConfigError",
        HandleError::Pki(_) => "PkiError",
        HandleError::Forked => "ForkedError",
        HandleError::AlreadyStarted
        | HandleError::NotRunning
        | HandleError::PortClosed
        | HandleError::NotADuration(_)
        | HandleError::UnknownKind(_) => "UsageError",
    };
    let class = py.import("cmgmux.exceptions")?.getattr(class)?;
    let instance = match error {
        HandleError::Config(error) => {
            let named = PyDict::new(py);
            named.set_item("key", error.key)?;
            class.call((error.message,), Some(&named))?
        }
        _ => class.call1((message,))?,
    };
    Ok(PyErr::from_value(instance))
}
