//! The npm package: wasm, bindings, shell, types.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use wasm_bindgen_cli_support::Bindgen;

use crate::tools::{self, cargo, command, npm_tool, output, run, step};

/// Builds the package and says where it is.
pub(crate) fn package() -> Result<PathBuf> {
    tools::ensure_wasm_target()?;
    tools::ensure_node()?;
    step("building the core for wasm");
    run(cargo([
        "build",
        "--profile",
        "wasm",
        "--target",
        tools::WASM,
        "--lib",
        "-p",
        "conflux-wasm",
    ]))?;
    let wasm = tools::target().join(tools::WASM).join("wasm/conflux.wasm");
    let npm = tools::target().join("npm");
    let package = npm.join("conflux-wasm");
    if package.exists() {
        fs::remove_dir_all(&package)?;
    }
    fs::create_dir_all(&package)?;
    step("generating the bindings");
    let node = npm.join("node");
    bindings(&wasm).web(true)?.generate(&package)?;
    bindings(&wasm).nodejs(true)?.generate(&node)?;
    // Both bind the same module, so the package needs it once.
    let (web_wasm, node_wasm) = (package.join("conflux_bg.wasm"), node.join("conflux_bg.wasm"));
    ensure!(fs::read(&web_wasm)? == fs::read(&node_wasm)?, "the two bindings share one module");
    fs::copy(node.join("conflux.js"), package.join("conflux.cjs"))?;
    step("optimizing");
    optimize(&web_wasm)?;
    sources(&package)?;
    step("packing");
    let mut pack = command("npm", ["pack", "--silent", "--pack-destination"]);
    pack.arg(&npm).current_dir(&package);
    let tarball = output(pack)?;
    println!("{}", npm.join(tarball.trim()).display());
    report_size(&package)?;
    Ok(package)
}

fn bindings(wasm: &Path) -> Bindgen {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(wasm).out_name("conflux").typescript(false);
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen
}

fn optimize(wasm: &Path) -> Result<()> {
    let features = [
        "--enable-bulk-memory",
        "--enable-multivalue",
        "--enable-mutable-globals",
        "--enable-nontrapping-float-to-int",
        "--enable-reference-types",
        "--enable-sign-ext",
    ];
    let mut optimize = command(&npm_tool("wasm-opt"), ["-Oz", "--converge"]);
    optimize.args(features).arg(wasm).arg("-o").arg(wasm);
    run(optimize)
}

/// The package's own sources, and the shell once more as a CommonJS module.
fn sources(package: &Path) -> Result<()> {
    let from = tools::root().join("www/package");
    for entry in fs::read_dir(&from)? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, package.join(path.file_name().context("a file name")?))?;
        }
    }
    let shell = fs::read_to_string(from.join("shell.js"))?;
    let exported = "export const createConflux = ";
    ensure!(shell.matches("export ").count() == 1, "the shell exports one thing");
    let common = shell.replace(exported, "const createConflux = ");
    ensure!(common != shell, "the shell exports createConflux");
    let common = format!("'use strict'\n{common}\nmodule.exports = {{ createConflux }}\n");
    fs::write(package.join("shell.cjs"), common)?;
    fs::copy(tools::root().join("LICENSE"), package.join("LICENSE"))?;
    Ok(())
}

/// Prints what a browser downloads.
fn report_size(package: &Path) -> Result<()> {
    let mut total = 0;
    println!("what a browser downloads, gzip -9:");
    for name in ["conflux_bg.wasm", "conflux.js", "shell.js", "tabs.js", "timer.js", "browser.js"] {
        let bytes = fs::read(package.join(name))?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes)?;
        let size = encoder.finish()?.len();
        total += size;
        println!("  {name:<16} {:>8} bytes, {size:>7} gzipped", bytes.len());
    }
    println!(
        "  {:<16} {:>8}        {total:>7} gzipped ({:.1} KB)",
        "total",
        "",
        total as f64 / 1000.0
    );
    Ok(())
}
