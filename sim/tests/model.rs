//! Runs the small checks of the model checker.
#![allow(missing_docs)]

use conflux_sim::model::SMALL;

#[test]
fn small_clusters_have_all_properties_in_every_state() {
    for (what, check) in SMALL {
        let visited = check();
        println!("{what}: {visited}");
        assert!(visited.states > 10_000, "{what}: too few states were visited");
    }
}
