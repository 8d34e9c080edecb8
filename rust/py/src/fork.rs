//! Handles die with `fork`: the child has none of the threads that would serve them.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::wrap_pyfunction;

use crate::error::HandleError;
use crate::log;

/// Counts the forks between the process that loaded the module and this one.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The process that a handle was made in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Birth(u64);

impl Birth {
    /// Born in this process.
    pub(crate) fn here() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Passes in the process of birth. Comes before any lock: one that another thread held at the
    /// moment of the fork stays locked in the child for ever.
    ///
    /// # Errors
    ///
    /// [`HandleError::Forked`] in a child process.
    pub(crate) fn check(self) -> Result<(), HandleError> {
        if self == Self::here() { Ok(()) } else { Err(HandleError::Forked) }
    }
}

/// Has Python tell us about each `fork`.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let arguments = pyo3::types::PyDict::new(py);
    arguments.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, py)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&arguments))?;
    Ok(())
}

/// Marks every handle of the parent dead, and starts an empty log.
#[pyfunction]
fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    log::start_over();
}
