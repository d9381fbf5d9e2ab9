//! Runs the fuzz targets on random inputs, which are always the same.
#![allow(missing_docs)]

use conflux_sim::fuzz::TARGETS;
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

#[test]
fn no_input_makes_a_target_panic() {
    let inputs: u64 =
        std::env::var("CONFLUX_INPUTS").map_or(20_000, |n| n.parse().expect("a number"));
    for (name, target) in TARGETS {
        for seed in 0..inputs {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut data = vec![0; rng.random_range(0..300)];
            rng.fill_bytes(&mut data);
            // Small bytes form valid messages more often.
            let most = rng.random_range(1..=255);
            if rng.random() {
                data.iter_mut().for_each(|byte| *byte %= most);
            }
            if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
                eprintln!("target {name} fails on input {seed}: {data:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}
