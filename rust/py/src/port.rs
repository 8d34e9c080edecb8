//! The Python face of a mailbox.

use std::os::fd::RawFd;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::error::HandleError;
use crate::event::Event;
use crate::fork::Birth;
use crate::log;
use crate::mailbox::Mailbox;

/// What services have to say to one event loop.
///
/// Watch `fileno()` for reading and call `drain` when it is readable. The oldest open port of the
/// process also delivers the native log.
#[derive(Debug)]
#[pyclass(frozen, module = "cmgmux._native")]
pub(crate) struct Port {
    mailbox: Arc<Mailbox>,
    birth: Birth,
}

impl Port {
    /// The mailbox, for a service that is about to start.
    pub(crate) fn mailbox(&self) -> Result<&Arc<Mailbox>, HandleError> {
        self.birth.check()?;
        if self.mailbox.is_closed() { Err(HandleError::PortClosed) } else { Ok(&self.mailbox) }
    }
}

#[pymethods]
impl Port {
    #[new]
    fn new() -> Result<Self, HandleError> {
        let mailbox = Mailbox::open(log::ring())
            .map_err(|source| HandleError::Io { what: "opening a port", source })?;
        Ok(Self { mailbox, birth: Birth::here() })
    }

    /// The descriptor that is readable while there may be something to drain.
    fn fileno(&self) -> Result<RawFd, HandleError> {
        Ok(self.mailbox()?.fd())
    }

    /// Take up to `max` items: events of services first, then log records.
    ///
    /// Never waits. The descriptor stays readable while more is left.
    #[pyo3(signature = (max = 256, /))]
    fn drain(&self, max: usize) -> Result<Vec<Event>, HandleError> {
        Ok(self.mailbox()?.take(max))
    }

    /// How often the descriptor became readable: once for each burst of items.
    #[getter]
    fn wakeups(&self) -> Result<u64, HandleError> {
        Ok(self.mailbox()?.wakeups())
    }

    /// Deliver nothing more. What is not drained yet is lost, except the log. Closing twice is fine.
    fn close(&self) -> Result<(), HandleError> {
        self.birth.check()?;
        self.mailbox.close();
        Ok(())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.birth.check().is_ok() {
            self.mailbox.close();
        }
    }
}
