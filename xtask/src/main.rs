//! `cargo xtask`: builds, tests, measures and serves Conflux, and sets up what that needs.

mod build;
mod serve;
mod tools;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests, measures and serves Conflux")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the npm package into target/npm/conflux-wasm, with a .tgz beside it.
    Build,
    /// Build everything, serve the demo, and open it in a browser.
    Demo {
        /// The port to listen on.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Only print the address.
        #[arg(long)]
        no_open: bool,
    },
    /// Run every test: native, Node.js, and a real browser.
    Test,
    /// Measure, and print the figures.
    Bench,
    /// Check everything: formatting, clippy, types, then all tests. What CI runs.
    Ci,
}

fn main() -> ExitCode {
    let Err(error) = run(Cli::parse().command) else { return ExitCode::SUCCESS };
    // First what to do, in a sentence; then why, for whom that is not enough.
    eprintln!("\nerror: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<()> {
    std::env::set_current_dir(tools::root())?;
    match command {
        Command::Build => build::package().map(|_| ()),
        Command::Demo { port, no_open } => serve::demo(port, !no_open),
        Command::Test => verify::test(),
        Command::Bench => verify::bench(),
        Command::Ci => verify::ci(),
    }
}
