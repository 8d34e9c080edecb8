//! A real instance, real TLS clients, and a connection point made of the test's own closures.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod clients;
mod exchanges;
mod h2_clients;
mod moves;
mod refusals;
mod world;
