//! The program behind `cargo xtask model`: visits every state of small clusters.

use clap::Parser;
use conflux_sim::model::{LARGE, SMALL};

#[derive(Parser)]
#[command(
    name = "cargo xtask model",
    about = "Visits every state of small clusters, within bounds"
)]
struct Cli {
    /// Also run the checks that take minutes.
    #[arg(long)]
    large: bool,
}

fn main() {
    let large = if Cli::parse().large { LARGE.as_slice() } else { &[] };
    for (what, check) in SMALL.iter().chain(large) {
        println!("{what}: {}", check());
    }
}
