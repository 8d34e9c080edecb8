//! The frames and conversations of `tests/vectors`, which a second decoder reads as well.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod conversations;
mod frames;
mod record;
mod scripts;
mod world;

use std::path::PathBuf;

use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors"))
}

fn read(name: &str) -> Value {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bytes as the vectors write them: hexadecimal, a long run of one byte as ` 61*16000 `.
fn to_hex(bytes: &[u8]) -> String {
    bytes
        .chunk_by(|left, right| left == right)
        .map(|run| match run.len() {
            length @ ..=64 => format!("{:02x}", run[0]).repeat(length),
            length => format!(" {:02x}*{length} ", run[0]),
        })
        .collect::<String>()
        .trim()
        .to_owned()
}

fn from_hex(value: &Value) -> Vec<u8> {
    let byte = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
    let text = value.as_str().unwrap();
    text.split_whitespace()
        .flat_map(|piece| match piece.split_once('*') {
            Some((hex, count)) => vec![byte(hex); count.parse().unwrap()],
            None => (0..piece.len()).step_by(2).map(|at| byte(&piece[at..at + 2])).collect(),
        })
        .collect()
}
