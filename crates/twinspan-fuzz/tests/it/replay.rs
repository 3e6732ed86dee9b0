//! Replays.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use twinspan_core::fuzz::{Mutator, at_every_alignment};
use twinspan_fuzz::targets;

use crate::seeds;

/// Mutations of each target's seeds.
const MUTATIONS: u64 = 20_000;
/// One mutation in so many is run at every alignment.
const ALIGNED_EVERY: u64 = 16;
/// The longest mutated input.
const BYTES_MAX: usize = 4_096;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The committed seeds of a target, in the order of their names.
fn committed(target: &str) -> Vec<Vec<u8>> {
    let folder = root().join("seeds").join(target);
    let made = seeds::of(target);
    assert!(!made.is_empty(), "seeds.rs has none for {target}");
    if std::env::var_os("TWINSPAN_REGENERATE").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in made.iter().enumerate() {
            fs::write(folder.join(format!("{number:02}")), seed).unwrap();
        }
    }
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{target}: {error}; run with TWINSPAN_REGENERATE=1"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_seed_decodes_the_same_at_every_alignment() {
    for (target, body) in targets() {
        let seeds = committed(target);
        assert!(seeds.len() >= 2, "{target} has {} seeds", seeds.len());
        let results: BTreeSet<u64> =
            seeds.iter().map(|seed| at_every_alignment(seed, body)).collect();
        assert!(results.len() >= 2, "{target}: all seeds come to one result");
    }
}

#[test]
fn mutated_seeds_break_no_body() {
    for (instance, (target, body)) in targets().enumerate() {
        let seeds = committed(target);
        let mut mutator = Mutator::new(1, instance as u64);
        let mut results = BTreeSet::new();
        for number in 0..MUTATIONS {
            let [one, other] = [0; 2].map(|_| mutator.random().below(seeds.len() as u64) as usize);
            let data = mutator.mutate(&seeds[one], &seeds[other], BYTES_MAX);
            let result = if number % ALIGNED_EVERY == 0 {
                at_every_alignment(&data, body)
            } else {
                body(&data)
            };
            results.insert(result);
        }
        // Mutations that all fail at the first byte would try nothing.
        assert!(results.len() > 20, "{target}: {} different results", results.len());
    }
}

#[test]
fn every_target_has_its_program() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (target, _) in targets() {
        let file = format!("fuzz_targets/{}.rs", target.replace('-', "_"));
        let program = fs::read_to_string(root().join(&file)).unwrap_or_default();
        assert!(program.contains(&format!("\"{target}\"")), "{file} does not run {target}");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "fuzz/Cargo.toml: {target}");
    }
}
