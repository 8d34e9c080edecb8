//! The client swarm of load tests, and the sample role of demo and tests.
//!
//! [`SampleRole`] stands where a management point would: it holds notification streams and takes pushes
//! for them. [`Swarm`] is many clients, each with its own TLS connection to a gateway, that hold such
//! streams and check what they get, and requests at a steady rate beside them. Both are [`cmgmux_net::Service`]s.

#![forbid(unsafe_code)]

mod role;
mod swarm;
mod websocket;

pub use role::{RoleConfig, SampleRole};
pub use swarm::{AnswerTimes, Kind, Swarm, SwarmConfig, SwarmReport};
