//! The services as Python classes. Each is a thin face of a [`Runner`].

use std::time::Duration;

use cmgmux_exchange::mapping::Mapping;
use cmgmux_gateway::GatewayConfig;
use cmgmux_load::{RoleConfig, SwarmConfig};
use cmgmux_net::Service;
use cmgmux_point::PointConfig;
use pyo3::prelude::*;

use crate::error::HandleError;
use crate::port::Port;
use crate::runner::{Runner, parse};

/// Declares the class of one kind of service: what all have in common, and `extra` methods.
macro_rules! service_class {
    ($(#[$doc:meta])+ $class:ident($service:ty) { $($extra:tt)* }) => {
        $(#[$doc])+
        #[pyclass(frozen, module = "cmgmux._native")]
        pub(crate) struct $class(Runner<$service>);

        #[pymethods]
        impl $class {
            #[new]
            #[pyo3(signature = (settings, /))]
            fn new(settings: &str) -> Result<Self, HandleError> {
                Runner::new(settings).map(Self)
            }

            /// The number that the events of this service carry.
            #[getter]
            fn id(&self) -> u64 {
                self.0.id()
            }

            /// Start on a thread of its own, once; `port` will say `started` or `failed`.
            #[pyo3(signature = (port, /))]
            fn start(&self, port: &Port) -> Result<(), HandleError> {
                self.0.start(port.mailbox()?)
            }

            /// Counters and state as a JSON object; the last ones after the end.
            fn status(&self, py: Python<'_>) -> Result<String, HandleError> {
                let service = self.0.service()?;
                Ok(py.detach(|| service.status().to_string()))
            }

            /// Begin to stop: what is under way may finish within `grace_s`. `port` will say `ended`.
            #[pyo3(signature = (grace_s, /))]
            fn request_stop(&self, py: Python<'_>, grace_s: f64) -> Result<(), HandleError> {
                let grace = Duration::try_from_secs_f64(grace_s)
                    .map_err(|_| HandleError::NotADuration(grace_s))?;
                py.detach(|| self.0.request_stop(grace))
            }

            $($extra)*
        }
    };
}

service_class! {
    /// A gateway instance.
    Gateway(cmgmux_gateway::Gateway) {
        /// Where clients connect, as `address:port`.
        fn client_address(&self) -> Result<String, HandleError> {
            Ok(self.0.service()?.client_address().to_string())
        }

        /// Where connection points connect, as `address:port`.
        fn channel_address(&self) -> Result<String, HandleError> {
            Ok(self.0.service()?.channel_address().to_string())
        }
    }
}

service_class! {
    /// A connection point.
    ConnectionPoint(cmgmux_point::ConnectionPoint) {}
}

service_class! {
    /// The sample role of demo and tests.
    SampleRole(cmgmux_load::SampleRole) {
        /// Where it listens, as `address:port`.
        fn address(&self) -> Result<String, HandleError> {
            Ok(self.0.service()?.address().to_string())
        }
    }
}

service_class! {
    /// Many clients that each hold a request open.
    Swarm(cmgmux_load::Swarm) {
        /// What the clients saw, as a JSON object.
        fn report(&self, py: Python<'_>) -> Result<String, HandleError> {
            let service = self.0.service()?;
            Ok(py.detach(|| serde_json::json!(service.report()).to_string()))
        }
    }
}

/// The optional settings of a kind of service with their defaults, as a JSON object.
///
/// `kind` is `gateway`, `connection-point`, `mapping`, `sample-role` or `load`.
#[pyfunction]
#[pyo3(signature = (kind, /))]
pub(crate) fn config_defaults(kind: &str) -> Result<String, HandleError> {
    let defaults = match kind {
        "gateway" => GatewayConfig::defaults(),
        "connection-point" => PointConfig::defaults(),
        "mapping" => Mapping::defaults(),
        "sample-role" => RoleConfig::defaults(),
        "load" => SwarmConfig::defaults(),
        _ => return Err(HandleError::UnknownKind(kind.to_owned())),
    };
    Ok(defaults.to_string())
}

/// Check the JSON settings of a service as its start would, files included, without starting it.
///
/// `kind` is `gateway` or `connection-point`.
#[pyfunction]
#[pyo3(signature = (kind, settings, /))]
pub(crate) fn check_config(py: Python<'_>, kind: &str, settings: &str) -> Result<(), HandleError> {
    py.detach(|| {
        match kind {
            "gateway" => parse::<GatewayConfig>(settings)?.check(),
            "connection-point" => parse::<PointConfig>(settings)?.check(),
            _ => return Err(HandleError::UnknownKind(kind.to_owned())),
        }
        .map_err(HandleError::Config)
    })
}
