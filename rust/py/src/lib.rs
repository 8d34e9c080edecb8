//! The Python module `cmgmux._native`: services to start, watch and stop, and their log.
//!
//! Threads of a service never attach to the interpreter. What they have to say goes into a
//! [`mailbox`], which wakes one event loop through a file descriptor; the loop's own thread then
//! turns it into Python objects. No Python object is ever stored on the Rust side.

mod error;
mod event;
mod fork;
mod log;
mod mailbox;
mod pki;
mod port;
mod runner;
mod service;

/// Native half of `cmgmux`: use the classes of the `cmgmux` package instead.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::event::{LogRecord, ServiceEvent};
    #[pymodule_export]
    use crate::log::set_log_level;
    #[pymodule_export]
    use crate::pki::{Authority, write_private};
    #[pymodule_export]
    use crate::port::Port;
    #[pymodule_export]
    use crate::service::{
        ConnectionPoint, Gateway, SampleRole, Swarm, check_config, config_defaults,
    };

    #[pymodule_init]
    fn init(py: pyo3::Python<'_>) -> pyo3::PyResult<()> {
        crate::log::install();
        crate::fork::register(py)
    }
}
