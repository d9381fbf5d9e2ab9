//! Builds the npm package: the WebAssembly module, its bindings, the JavaScript around it, types.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use wasm_bindgen_cli_support::Bindgen;

use crate::tools::{self, cargo, command, npm_tool, output, run, step};

/// Builds and packs the package. Returns its folder.
pub(crate) fn package() -> Result<PathBuf> {
    tools::ensure_target(tools::WASM)?;
    tools::ensure_node()?;
    step("building the core for wasm");
    let small = std_for_size()?;
    let args = ["build", "--profile", "wasm", "--target", tools::WASM, "--lib"];
    let mut build = cargo(args);
    build.args(["-p", "conflux-wasm"]);
    if small {
        build.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"]);
        build.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", SMALL.join(" "));
    }
    run(build)?;
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
    // Both bindings are for the same module, so the package contains the module only once.
    let (web_wasm, node_wasm) = (package.join("conflux_bg.wasm"), node.join("conflux_bg.wasm"));
    ensure!(fs::read(&web_wasm)? == fs::read(&node_wasm)?, "the two bindings share one module");
    let (web_glue, node_glue) = (package.join("conflux.js"), package.join("conflux.cjs"));
    fs::copy(node.join("conflux.js"), &node_glue)?;
    step("optimizing");
    optimize(&web_wasm, &[web_glue, node_glue])?;
    sources(&package)?;
    step("packing");
    let mut pack = command("npm", ["pack", "--silent", "--pack-destination"]);
    pack.arg(&npm).current_dir(&package);
    let tarball = output(pack)?;
    println!("{}", npm.join(tarball.trim()).display());
    report_size(&package, if small { "small" } else { "plain" })?;
    Ok(package)
}

/// Compiler flags for a small module. They leave out panic messages, which nobody would see in a
/// browser, and the text of `{:?}`, which no user sees.
const SMALL: [&str; 4] =
    ["-Zunstable-options", "-Cpanic=immediate-abort", "-Zlocation-detail=none", "-Zfmt-debug=none"];

/// Whether the standard library can be rebuilt for size. This needs its source and unstable
/// compiler flags. Without them the module does the same and is larger.
fn std_for_size() -> Result<bool> {
    let why = if !tools::ensure_rust_src()? {
        "its source cannot be had (`rustup component add rust-src`)"
    } else if !tools::accepts(&SMALL) {
        "this compiler does not know the flags"
    } else {
        return Ok(true);
    };
    println!("the standard library is not built for size: {why}. The module will be larger.");
    Ok(false)
}

/// The path of the tarball that [`package`] packed.
pub(crate) fn tarball() -> Result<PathBuf> {
    let mut files =
        fs::read_dir(tools::target().join("npm"))?.filter_map(|file| Some(file.ok()?.path()));
    files.find(|file| file.extension().is_some_and(|end| end == "tgz")).context("a tarball")
}

fn bindings(wasm: &Path) -> Bindgen {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(wasm).out_name("conflux").typescript(false);
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen
}

/// Makes the module small and gives its imports and exports short names: those of wasm-bindgen end
/// in 16 digits, which gzip cannot shorten. `glue` are the scripts that know these names.
fn optimize(wasm: &Path, glue: &[PathBuf]) -> Result<()> {
    let features = [
        "--enable-bulk-memory",
        "--enable-multivalue",
        "--enable-mutable-globals",
        "--enable-nontrapping-float-to-int",
        "--enable-reference-types",
        "--enable-sign-ext",
    ];
    // A function with one caller is not put into it unless it is tiny, and a repeated expression is
    // computed again: both give more bytes, and bytes that gzip shortens better.
    let passes = ["--flatten", "--rereloop", "-Oz", "--gufa-optimizing", "-Oz", "--converge"];
    let limits = ["--one-caller-inline-max-function-size", "15", "--skip-pass=local-cse"];
    let mut optimize = command(&npm_tool("wasm-opt"), passes);
    optimize.args(limits).args(features).arg(wasm).arg("-o").arg(wasm);
    run(optimize)?;
    // A run of its own, because `--converge` repeats all passes of a run.
    let mut minify = command(&npm_tool("wasm-opt"), ["--minify-imports-and-exports-and-modules"]);
    minify.args(features).arg(wasm).arg("-o").arg(wasm);
    let names = serde_json::from_str(&output(minify)?).context("the names from wasm-opt")?;
    for file in glue {
        let script = fs::read_to_string(file)?;
        fs::write(file, shorten(&script, &names).with_context(|| file.display().to_string())?)?;
    }
    Ok(())
}

/// What `wasm-opt` tells of the names that it has shortened.
#[derive(serde::Deserialize)]
struct Names {
    /// Module, name, new name. Each new name is an import of the module `a`.
    imports: Vec<(String, String, String)>,
    /// Name, new name.
    exports: Vec<(String, String)>,
}

/// Puts the short names into a script that wasm-bindgen has written. There an export is read as
/// `wasm.name`; an import is a property of an object whose key is the name of the module.
fn shorten(script: &str, names: &Names) -> Result<String> {
    let imports =
        names.imports.iter().map(|(_, old, new)| (format!(" {old}:"), format!(" {new}:")));
    let exports = names.exports.iter().map(|(old, new)| (format!("wasm.{old}"), new));
    let exports = exports.map(|(old, new)| (old, format!("wasm.{new}")));
    let module = names.imports.first().map(|(module, ..)| module).context("it imports nothing")?;
    let module = (format!("\"{module}\":"), "\"a\":".to_owned());
    let mut script = script.to_owned();
    for (old, new) in imports.chain([module]) {
        ensure!(script.matches(&old).count() == 1, "`{old}` is there once");
        script = script.replace(&old, &new);
    }
    for (old, new) in exports {
        script = replace_word(&script, &old, &new);
    }
    Ok(script)
}

/// Replaces `old` wherever no letter, digit, `_` or `$` follows.
fn replace_word(text: &str, old: &str, new: &str) -> String {
    let mut parts = text.split(old);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let goes_on = part.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        replaced.push_str(if goes_on { old } else { new });
        replaced.push_str(part);
    }
    replaced
}

/// Copies the package's own sources into it, bundles some of them as CommonJS modules, too, and
/// puts the WebAssembly module into a script for `conflux-wasm/inline`.
fn sources(package: &Path) -> Result<()> {
    let from = tools::root().join("www/package");
    for entry in fs::read_dir(&from)? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, package.join(path.file_name().context("a file name")?))?;
        }
    }
    for name in ["shell", "react", "redux"] {
        let file = package.join(format!("{name}.cjs"));
        let mut bundle = esbuild(&from.join(format!("{name}.js")), &file);
        bundle.args(["--format=cjs", "--platform=node", "--external:react"]);
        run(bundle)?;
    }
    let wasm = package.join("conflux_bg.wasm");
    let mut inline = esbuild(&wasm, &package.join("conflux_bg.inline.js"));
    inline.args(["--format=esm", "--loader:.wasm=binary", "--target=es2022"]);
    run(inline)?;
    fs::copy(tools::root().join("LICENSE"), package.join("LICENSE"))?;
    Ok(())
}

/// The command that bundles a module and all its imports into one file.
fn esbuild(entry: &Path, file: &Path) -> Command {
    let mut bundle = command(&npm_tool("esbuild"), ["--bundle", "--log-level=warning"]);
    bundle.arg(entry).arg(format!("--outfile={}", file.display()));
    bundle
}

/// The file that records how large the package may be.
const RECORD: &str = "xtask/size.txt";

/// Prints the size of what a browser downloads. In CI, fails if it has grown beyond the record.
fn report_size(package: &Path, build: &str) -> Result<()> {
    let folder = tools::target().join("size");
    fs::create_dir_all(&folder)?;
    for name in ["browser.js", "timer.js"] {
        let mut bundle = esbuild(&package.join(name), &folder.join(name));
        bundle.args(["--format=esm", "--minify"]);
        run(bundle)?;
    }
    let files = [
        ("wasm", package.join("conflux_bg.wasm")),
        ("JavaScript", folder.join("browser.js")),
        ("its worker", folder.join("timer.js")),
    ];
    let mut total = 0;
    println!("what a browser downloads, minified, gzip -9:");
    for (what, file) in files {
        let bytes = fs::read(file)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes)?;
        let size = encoder.finish()?.len();
        total += size;
        println!("  {what:<11} {:>8} bytes, {size:>7} gzipped", bytes.len());
    }
    println!("  {:<11} {:>8}        {total:>7} gzipped ({:.1} KB)", "total", "", kilo(total));
    let record = fs::read_to_string(tools::root().join(RECORD))?;
    let recorded = recorded(&record, build).context("the record of sizes has no such build")?;
    let message = format!(
        "the package is {:.1} KB, and {RECORD} says {:.1} KB for the {build} build: find out why, or \
         write {total} there",
        kilo(total),
        kilo(recorded)
    );
    match has_grown(total, recorded) {
        true if std::env::var_os("CI").is_some() => bail!(message),
        true => println!("note: {message}"),
        false => {}
    }
    Ok(())
}

fn kilo(bytes: usize) -> f64 {
    bytes as f64 / 1000.0
}

/// The recorded size of a build. Each line of the record is a name and a number of bytes.
fn recorded(record: &str, build: &str) -> Option<usize> {
    let pairs = record.lines().filter_map(|line| line.split_once(' '));
    pairs.into_iter().find(|(name, _)| *name == build)?.1.trim().parse().ok()
}

/// Whether the size is more than two percent above the record.
fn has_grown(size: usize, recorded: usize) -> bool {
    size * 100 > recorded * 102
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gets_the_short_names() {
        let names = Names {
            imports: vec![("./x_bg.js".into(), "__wbg_get_2080".into(), "$".into())],
            exports: vec![("node".into(), "b".into()), ("node_close".into(), "c".into())],
        };
        let script = r#"{ __wbg_get_2080: f() }; { "./x_bg.js": x }; wasm.node_close(wasm.node)"#;
        let short = r#"{ $: f() }; { "a": x }; wasm.c(wasm.b)"#;
        assert_eq!(shorten(script, &names).unwrap(), short);
        assert!(shorten("wasm.node()", &names).is_err(), "the import is not there");
    }

    #[test]
    fn two_percent_are_forgiven_and_no_more() {
        assert!(!has_grown(100_000, 100_000) && !has_grown(102_000, 100_000));
        assert!(has_grown(102_001, 100_000) && !has_grown(5, 100_000));
    }

    #[test]
    fn the_record_has_both_builds() {
        let record = include_str!("../size.txt");
        assert!(recorded(record, "small") < recorded(record, "plain"));
        assert!(recorded(record, "small").is_some());
        assert_eq!(recorded(record, "medium"), None);
    }
}
