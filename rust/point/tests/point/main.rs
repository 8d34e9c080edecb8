//! A connection point between an instance and roles that the tests play by hand.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod answers;
mod departures;
mod gateway;
mod links;
mod pki;
mod refusals;
mod requests;
mod role;
mod settings;
mod stage;
mod switches;
mod tls_roles;
