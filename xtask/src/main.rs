//! `cargo xtask`: builds, tests, measures and serves Conflux, and sets up what that needs.

mod build;
mod mutants;
mod serve;
mod tools;
mod traces;
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
    /// Build everything and start one of the examples in www/examples.
    Example {
        /// The name of its folder.
        name: String,
    },
    /// Run every test: native, Node.js, and a real browser.
    Test {
        /// Which browsers: Chromium, or `all`, with Firefox, WebKit, and what takes Chromium minutes.
        #[arg(long, value_enum, default_value_t)]
        engines: verify::Engines,
    },
    /// Write the API reference, docs/api, from the types' doc comments.
    Reference,
    /// Try the packed package in the tools of other people: bundlers, frameworks, checkers.
    Packaging,
    /// Run the core under faults that a seed decides; with `--tabs` elastic clusters, with `--package` the built
    /// package; with `--wasm` natively and as WebAssembly, which must do the same. `--help` says what there is.
    #[command(disable_help_flag = true)]
    Sim {
        /// For the simulator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Visit every state of small clusters.
    Model {
        /// Also those that take minutes.
        #[arg(long)]
        large: bool,
    },
    /// Change the core in a thousand ways, one at a time, and see whether a test notices.
    Mutants {
        /// Only in files whose path contains this, or one of these, with commas between them.
        #[arg(long)]
        only: Option<String>,
        /// The package's JavaScript instead: see `tests/package-sim/mutants.mjs`.
        #[arg(long)]
        js: bool,
    },
    /// Print which lines of the core no native test reaches.
    Coverage,
    /// Measure, and print the figures.
    Bench,
    /// Check everything: formatting, clippy, types, then all tests. What CI runs.
    Ci,
}

fn main() -> ExitCode {
    let Err(error) = run(Cli::parse().command) else { return ExitCode::SUCCESS };
    // The outermost error says in one sentence what to do; the causes follow, for more detail.
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
        Command::Example { name } => serve::example(&name),
        Command::Test { engines } => verify::test(engines).map(|_| ()),
        Command::Reference => verify::reference(),
        Command::Packaging => verify::packaging(),
        Command::Sim { options } => verify::sim(&options),
        Command::Model { large } => verify::model(large),
        Command::Mutants { only, js: true } => verify::package_mutants(only.as_deref()),
        Command::Mutants { only, js: false } => mutants::mutants(only.as_deref()),
        Command::Coverage => verify::coverage(),
        Command::Bench => verify::bench(),
        Command::Ci => verify::ci(),
    }
}
