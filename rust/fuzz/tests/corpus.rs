//! Every target holds for the inputs of its corpus, on which it once found something new or a fault.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::fs;
use std::path::PathBuf;

use cmgmux_fuzz::{TARGETS, target};

/// The size that the corpora may have in all.
const MAX_BYTES: usize = 512 * 1024;

fn corpora() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(corpora().join(target)).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn replay(name: &str) {
    let check = target(name).unwrap();
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "the corpus of {name} is found");
    for (path, input) in inputs {
        // The name of the file that fails is the last one that the test prints.
        eprintln!("{path}");
        check(&input);
    }
}

#[test]
fn frame() {
    replay("frame");
}

#[test]
fn hello() {
    replay("hello");
}

#[test]
fn pair() {
    replay("pair");
}

#[test]
fn prefix() {
    replay("prefix");
}

#[test]
fn resume() {
    replay("resume");
}

#[test]
fn head() {
    replay("head");
}

#[test]
fn exchange() {
    replay("exchange");
}

#[test]
fn every_corpus_has_its_target_and_all_of_them_are_small() {
    let mut folders: Vec<String> = fs::read_dir(corpora())
        .unwrap()
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut names = TARGETS.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(folders, names);
    let bytes: usize =
        names.iter().flat_map(|name| inputs(name)).map(|(_, input)| input.len()).sum();
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
}
