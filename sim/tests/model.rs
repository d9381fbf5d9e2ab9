//! Every state of small clusters, within bounds.
#![allow(missing_docs)]

use conflux_sim::model::SMALL;

#[test]
fn small_clusters_do_nothing_wrong() {
    for (what, check) in SMALL {
        let visited = check();
        println!("{what}: {visited}");
        assert!(visited.states > 10_000, "{what}: there is something to see");
    }
}
