//! Tests, measurements, and what CI runs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::tools::{self, cargo, command, npm_tool, output, run, step};
use crate::{build, serve, traces};

/// The browsers in which to test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engines {
    /// What every check runs.
    #[default]
    Chromium,
    /// Also Firefox and WebKit, and windows under Xvfb: half an hour.
    All,
}

/// Runs every test. Returns the folder of the package that was tested.
pub(crate) fn test(engines: Engines) -> Result<PathBuf> {
    // Check first for all tools, so that a missing one is reported before the tests start.
    tools::ensure_node()?;
    let chromium = tools::ensure_chromium()?;
    tools::ensure_redis()?;
    if engines == Engines::All {
        tools::ensure_engines()?;
    }
    step("native tests");
    run(cargo(["test", "--workspace"]))?;
    step("known mistakes, which the simulator must find");
    mistakes()?;
    step("the simulators do the same as WebAssembly");
    traces::check()?;
    let package = build::package()?;
    let site = serve::site(&package)?;
    step("types");
    types(&package)?;
    step("the built package in Node.js");
    node_tests("node", &package, &site, &chromium)?;
    step("the built package under its simulator");
    package_sim(&package, &["--seeds", PACKAGE_SEEDS])?;
    package_sim(&package, &["--seeds", "5", "--twice"])?;
    step("known mistakes in the package's JavaScript, which its simulator must find");
    node_tests("package-sim", &package, &site, &chromium)?;
    step("real tabs in a real browser");
    node_tests("browser", &package, &site, &chromium)?;
    if engines == Engines::All {
        other_engines(&package, &site, &chromium)?;
    }
    Ok(package)
}

/// How many seeds of the package's simulator every check runs.
const PACKAGE_SEEDS: &str = "500";

/// Runs the simulator of the package: the built files, WebAssembly and JavaScript, in pages of a
/// browser that is made up.
fn package_sim(package: &Path, options: &[&str]) -> Result<()> {
    let mut simulator = command("node", ["tests/package-sim/run.mjs"]);
    simulator.args(options).env("CONFLUX_PACKAGE", package);
    run(simulator)
}

/// Changes the package's JavaScript, one place at a time, and prints the changes that neither its
/// simulator nor the tests in Node.js notice.
pub(crate) fn package_mutants(only: Option<&str>) -> Result<()> {
    tools::ensure_node()?;
    tools::ensure_redis()?;
    run(cargo(["build", "-p", "conflux-relay"]))?;
    let package = build::package()?;
    let mut mutants = command("node", ["tests/package-sim/mutants.mjs"]);
    mutants.args(only.into_iter().flat_map(|only| ["--only", only]));
    mutants.env("CONFLUX_PACKAGE", package);
    mutants.env("CONFLUX_RELAY", tools::target().join("debug/conflux-relay"));
    run(mutants)
}

/// Runs the tests of elastic clusters in Firefox and WebKit, and the tests that need minutes or a
/// visible window in Chromium.
fn other_engines(package: &Path, site: &Path, chromium: &Path) -> Result<()> {
    for (engine, file) in [
        ("firefox", "browser/elastic.test.mjs"),
        ("webkit", "browser/elastic.test.mjs"),
        ("chromium", "engines/chromium.test.mjs"),
    ] {
        step(&format!("{file} in {engine}"));
        let mut tests = command("xvfb-run", ["--auto-servernum", "node", "--test"]);
        tests.arg(tools::root().join("tests").join(file)).env("CONFLUX_ENGINE", engine);
        run(with_paths(tests, package, site, chromium))?;
    }
    Ok(())
}

/// Switches on each known mistake in turn and prints the seed with which the simulator finds it.
/// Fails if it finds none.
fn mistakes() -> Result<()> {
    let test = ["test", "--profile", "sim", "-p", "conflux-sim", "--features", "mistakes"];
    let mut mistakes = cargo(test);
    mistakes.args(["--test", "mistakes", "--", "--nocapture"]);
    run(mistakes)
}

/// Prints the lines of the pure modules that no native test reaches, and a summary.
pub(crate) fn coverage() -> Result<()> {
    let rustup = command("rustup", ["component", "add", "llvm-tools"]);
    run(rustup).context("coverage needs LLVM's tools, which rustup adds")?;
    let lib = tools::rustlib()?;
    let tool = |name: &str| -> Result<PathBuf> {
        let hosts = std::fs::read_dir(&lib)?.filter_map(|host| Some(host.ok()?.path()));
        let tools = hosts.map(|host| host.join("bin").join(name));
        let mut found = tools.filter(|path| path.is_file());
        found.next().with_context(|| format!("{name} is not in {}", lib.display()))
    };
    let target = tools::target().join("coverage");
    let profiles = target.join("profiles");
    if profiles.exists() {
        std::fs::remove_dir_all(&profiles)?;
    }
    step("tests that count");
    let mut tests = cargo(["test", "-p", "conflux-wasm", "-p", "conflux-sim"]);
    tests.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "-C instrument-coverage");
    // Without optimization no code is inlined. Inlined code would be counted at the call instead of
    // at its own lines.
    tests.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
    tests.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
    let log = target.join("tests.txt");
    std::fs::create_dir_all(&target)?;
    tests.stderr(std::fs::File::create(&log)?);
    run(tests)?;
    let text = std::fs::read_to_string(&log)?;
    let binary = |line: &str| Some(line.rsplit_once('(')?.1.trim_end_matches(')').to_string());
    let lines = text.lines().filter(|line| line.trim_start().starts_with("Running"));
    let binaries: Vec<String> = lines.filter_map(binary).collect();
    let data = target.join("merged.profdata");
    let mut merge = command(&tool("llvm-profdata")?.display().to_string(), ["merge", "--sparse"]);
    merge.arg(&profiles).arg("-o").arg(&data);
    run(merge)?;
    let modules = [
        "src/raft",
        "src/store",
        "src/node",
        "src/formation",
        "src/elastic",
        "src/host",
        "src/storage",
        "src/wire",
        "src/sorted.rs",
    ];
    let cov = |what: &str| -> Result<std::process::Command> {
        let mut cov = command(&tool("llvm-cov")?.display().to_string(), [what]);
        cov.arg(format!("--instr-profile={}", data.display())).arg(&binaries[0]);
        for binary in &binaries[1..] {
            cov.args(["--object", binary]);
        }
        cov.args(modules.map(|module| tools::root().join(module)));
        Ok(cov)
    };
    step("lines that no test reaches");
    let mut show = cov("show")?;
    show.arg("--show-instantiations=false");
    let shown = output(show)?;
    let mut file = "";
    for line in shown.lines() {
        let mut cells = line.splitn(3, '|');
        match (cells.next(), cells.next(), cells.next()) {
            (Some(path), None, None) if path.ends_with(":") => file = path,
            (Some(number), Some(count), Some(code)) if count.trim() == "0" => {
                println!("{file}{}: {code}", number.trim());
            }
            _ => {}
        }
    }
    let mut report = cov("report")?;
    report.args(["--show-region-summary=false", "--show-branch-summary=false"]);
    run(report)
}

/// Runs the simulator.
pub(crate) fn sim(options: &[String]) -> Result<()> {
    if let Some(at) = options.iter().position(|option| option == "--package") {
        let mut others: Vec<_> = options.iter().map(String::as_str).collect();
        others.remove(at);
        tools::ensure_node()?;
        return package_sim(&build::package()?, &others);
    }
    // Elastic clusters have a simulator of their own.
    let (own, others): (Vec<&str>, Vec<&str>) = options
        .iter()
        .map(String::as_str)
        .partition(|option| ["--tabs", "--wasm"].contains(option));
    let tabs = own.contains(&"--tabs");
    if own.contains(&"--wasm") {
        tools::check_node()?;
        return traces::compare(tabs, &others);
    }
    let arguments = ["run", "--quiet", "--profile", "sim", "-p", "conflux-sim", "--bin"];
    let mut simulator = cargo(arguments);
    let binary = if tabs { "conflux-tabs" } else { "conflux-sim" };
    simulator.args([binary, "--"]).args(others);
    run(simulator)
}

/// Runs the model checker.
pub(crate) fn model(large: bool) -> Result<()> {
    let arguments = ["run", "--quiet", "--profile", "sim", "-p", "conflux-sim", "--bin"];
    let mut model = cargo(arguments);
    model.args(["conflux-model", "--"]).args(large.then_some("--large"));
    run(model)
}

/// Runs the test files of one folder with Node.js's own test runner.
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
    // The npm packages that some channels need are here, wherever the package was built.
    command.env("NODE_PATH", tools::root().join("node_modules"));
    command
}

/// Builds the package and tests it in bundlers, frameworks and package checkers.
pub(crate) fn packaging() -> Result<()> {
    tools::ensure_node()?;
    packaging_of(&build::package()?)
}

fn packaging_of(package: &Path) -> Result<()> {
    let chromium = tools::ensure_chromium()?;
    tools::ensure_redis()?;
    let site = serve::site(package)?;
    step("other people's tools");
    let (from, folder) = (tools::root().join("tests/packaging"), tools::target().join("packaging"));
    // Keep the installed packages, and delete what earlier runs have written.
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("node_modules") {
            std::fs::remove_dir_all(path)?;
        }
    }
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(name), folder.join(name))?;
    }
    serve::copy(&from.join("apps"), &folder)?;
    serve::copy(&tools::root().join("www/examples"), &folder.join("examples"))?;
    for name in ["app.js", "run.js", "page.js", "worker.js"] {
        std::fs::copy(from.join("apps").join(name), folder.join("vite").join(name))?;
    }
    let npm = |args: &[&str]| {
        let mut npm = command("npm", args);
        npm.args(["--silent", "--no-audit", "--no-fund"]).current_dir(&folder);
        run(npm)
    };
    npm(&["ci"])?;
    npm(&["install", "--no-save", "--no-package-lock", &build::tarball()?.display().to_string()])?;
    step("the package in them");
    let mut tests = command("node", ["--test", "--test-concurrency=1", "--test-timeout=300000"]);
    for name in ["packaging.test.mjs", "examples.test.mjs"] {
        tests.arg(tools::root().join("tests/packaging").join(name));
    }
    tests.env("CONFLUX_PACKAGING", &folder);
    run(with_paths(tests, package, &site, &chromium))
}

/// Checks the package's types with programs that must compile and lines that must not, and checks
/// that the API reference is up to date.
fn types(package: &Path) -> Result<()> {
    let folder = tools::target().join("types");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    serve::copy(&tools::root().join("tests/types"), &folder)?;
    serve::copy(package, &folder.join("node_modules/conflux-wasm"))?;
    // The packages that the types of the bindings refer to.
    for name in ["@types/react", "csstype", "@types/node", "undici-types"] {
        let from = tools::root().join("node_modules").join(name);
        serve::copy(&from, &folder.join("node_modules").join(name))?;
    }
    let mut tsc = command(&npm_tool("tsc"), ["--project"]);
    tsc.arg(folder);
    run(tsc)?;
    step("the API reference");
    let written = reference_into(&tools::target().join("reference"))?;
    let same = written == pages(&tools::root().join(REFERENCE))?;
    ensure!(same, "{REFERENCE} is not what the types say: run `cargo xtask reference`");
    Ok(())
}

/// The folder of the API reference, which is generated from the doc comments of the types.
const REFERENCE: &str = "docs/api";

/// Writes the API reference.
pub(crate) fn reference() -> Result<()> {
    tools::ensure_node()?;
    reference_into(&tools::root().join(REFERENCE)).map(|_| ())
}

fn reference_into(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let mut typedoc = command(&npm_tool("typedoc"), ["--options", "xtask/typedoc.json", "--out"]);
    typedoc.arg(folder);
    run(typedoc)?;
    pages(folder)
}

/// The names and contents of a folder's files.
fn pages(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a file name")?.into();
        pages.push((name, std::fs::read_to_string(path)?));
    }
    pages.sort();
    Ok(pages)
}

/// Runs the benchmarks.
pub(crate) fn bench() -> Result<()> {
    let chromium = tools::ensure_chromium()?;
    let package = build::package()?;
    let site = serve::site(&package)?;
    step("3 nodes on the memory channel in Node.js");
    run(with_paths(command("node", ["tests/bench/memory.mjs"]), &package, &site, &chromium))?;
    run(cargo(["build", "-p", "conflux-relay"]))?;
    step("3 tabs on the broadcast channel in Chromium");
    run(with_paths(command("node", ["tests/bench/tabs.mjs"]), &package, &site, &chromium))?;
    step("clusters of tabs in Chromium");
    run(with_paths(command("node", ["tests/bench/elastic.mjs"]), &package, &site, &chromium))
}

/// Runs every check: formatting, clippy, all tests, and the package in other tools.
pub(crate) fn ci() -> Result<()> {
    step("formatting");
    run(cargo(["fmt", "--all", "--check"]))?;
    tools::ensure_target(tools::WASM)?;
    step("clippy");
    run(cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let wasm = ["clippy", "-p", "conflux-wasm", "--lib", "--target", tools::WASM];
    run(cargo(wasm.into_iter().chain(["--", "-D", "warnings"])))?;
    packaging_of(&test(Engines::Chromium)?)
}
