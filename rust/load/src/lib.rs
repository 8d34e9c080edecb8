//! The client swarm of load tests, and the sample role of demo and tests.
//!
//! [`SampleRole`] stands where a management point would: it holds polls until something is pushed to
//! their clients. [`Swarm`] is many clients, each with its own TLS connection to a gateway, that hold
//! such polls and check what they get. Both are [`cmgmux_net::Service`]s.

#![forbid(unsafe_code)]

mod role;
mod swarm;

pub use role::{RoleConfig, SampleRole};
pub use swarm::{AnswerTimes, Swarm, SwarmConfig, SwarmReport};
