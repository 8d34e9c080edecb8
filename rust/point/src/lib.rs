//! The connection point: dials channels to every gateway instance, publishes its site's settings on
//! them, and forwards the exchanges that arrive to the site's roles.
//!
//! | module | subject |
//! | --- | --- |
//! | `settings` | the configuration, as the file has it |
//! | `plan` | the configuration checked, with the files that it names read |
//! | `connection_point` | the service: its threads, its stop, its status |
//! | `instance` | what is known of one gateway instance and the links to it |
//! | `dial` | keeping one channel up |
//! | `publish` | the control stream |
//! | `forward` | one exchange, from the stream to the role and back |
//! | `upstream` | connections to roles |
//! | `counters` | what the status counts |

#![forbid(unsafe_code)]

mod connection_point;
mod counters;
mod dial;
mod forward;
mod instance;
mod plan;
mod publish;
mod settings;
mod upstream;

pub use connection_point::ConnectionPoint;
pub use settings::{InstanceConfig, PointConfig};
