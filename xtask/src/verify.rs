//! Tests, measurements, and what CI runs.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tools::{self, cargo, command, npm_tool, run, step};
use crate::{build, serve};

/// Runs every test.
pub(crate) fn test() -> Result<()> {
    // First what can be missing, so that it is missed at once.
    tools::ensure_node()?;
    let chromium = tools::ensure_chromium()?;
    step("native tests");
    run(cargo(["test", "--workspace"]))?;
    let package = build::package()?;
    let site = serve::site(&package)?;
    step("types");
    types(&package)?;
    step("the built package in Node.js");
    node_tests("node", &package, &site, &chromium)?;
    step("real tabs in a real browser");
    node_tests("browser", &package, &site, &chromium)
}

/// Runs the simulator.
pub(crate) fn sim(options: &[String]) -> Result<()> {
    let arguments = ["run", "--quiet", "--profile", "sim", "-p", "conflux-sim", "--bin"];
    let mut simulator = cargo(arguments);
    simulator.args(["conflux-sim", "--"]).args(options);
    run(simulator)
}

/// Runs the model checker.
pub(crate) fn model(large: bool) -> Result<()> {
    let arguments = ["run", "--quiet", "--profile", "sim", "-p", "conflux-sim", "--bin"];
    let mut model = cargo(arguments);
    model.args(["conflux-model", "--"]).args(large.then_some("--large"));
    run(model)
}

/// Runs the test files of one folder with Node.js's own runner.
fn node_tests(folder: &str, package: &Path, site: &Path, chromium: &Path) -> Result<()> {
    let folder = tools::root().join("tests").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains(".test."))
        .collect();
    files.sort();
    let mut tests = command("node", ["--test", "--test-concurrency=1"]);
    tests.args(files);
    run(with_paths(tests, package, site, chromium))
}

fn with_paths(
    mut command: std::process::Command,
    package: &Path,
    site: &Path,
    chromium: &Path,
) -> std::process::Command {
    command.env("CONFLUX_PACKAGE", package);
    command.env("CONFLUX_SITE", site);
    command.env("CONFLUX_RELAY", tools::target().join("debug/conflux-relay"));
    command.env("CHROMIUM", chromium);
    command
}

/// The package's types against programs that must compile, and some lines that must not.
fn types(package: &Path) -> Result<()> {
    let folder = tools::target().join("types");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    serve::copy(&tools::root().join("tests/types"), &folder)?;
    serve::copy(package, &folder.join("node_modules/conflux-wasm"))?;
    let mut tsc = command(&npm_tool("tsc"), ["--project"]);
    tsc.arg(folder);
    run(tsc)
}

/// Measures.
pub(crate) fn bench() -> Result<()> {
    let chromium = tools::ensure_chromium()?;
    let package = build::package()?;
    let site = serve::site(&package)?;
    step("3 nodes on the memory channel in Node.js");
    run(with_paths(command("node", ["tests/bench/memory.mjs"]), &package, &site, &chromium))?;
    run(cargo(["build", "-p", "conflux-relay"]))?;
    step("3 tabs on the broadcast channel in Chromium");
    run(with_paths(command("node", ["tests/bench/tabs.mjs"]), &package, &site, &chromium))
}

/// Everything that must hold.
pub(crate) fn ci() -> Result<()> {
    step("formatting");
    run(cargo(["fmt", "--all", "--check"]))?;
    tools::ensure_wasm_target()?;
    step("clippy");
    run(cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let wasm = ["clippy", "-p", "conflux-wasm", "--lib", "--target", tools::WASM];
    run(cargo(wasm.into_iter().chain(["--", "-D", "warnings"])))?;
    test()
}
