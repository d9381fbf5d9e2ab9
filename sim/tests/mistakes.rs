//! The simulator can fail: every known mistake is found, and within how many seeds.
#![cfg(feature = "mistakes")]
#![allow(missing_docs)]

use std::sync::Mutex;

use conflux::mistakes::Mistake;
use conflux_sim::mistakes::find;
use conflux_sim::world::quiet_panics;

/// Within so many seeds every mistake must show.
const SEEDS: u64 = 3_000;

#[test]
fn every_known_mistake_is_found() {
    quiet_panics();
    let only = std::env::var("MISTAKE").ok();
    let wanted = |m: &Mistake| only.as_ref().is_none_or(|only| format!("{m:?}") == *only);
    let todo = Mutex::new(Mistake::ALL.into_iter().filter(wanted).collect::<Vec<_>>());
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(mistake) = todo.lock().expect("no panic").pop() else { return };
                    match find(mistake, SEEDS) {
                        Some(found) => {
                            println!("{mistake:?} | {} | {}", found.seed, found.failure);
                        }
                        None => missed.lock().expect("no panic").push(mistake),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no panic");
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
