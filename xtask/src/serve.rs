//! Builds and runs the demo and the examples.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::build;
use crate::tools::{self, cargo, command, run, step};

/// Builds and serves the demo until it is interrupted.
pub(crate) fn demo(port: u16, open: bool) -> Result<()> {
    let site = site(&build::package()?)?;
    step("building the relay");
    run(cargo(["build", "-p", "conflux-relay"]))?;
    let relay = tools::target().join("debug/conflux-relay");
    let mut serve = command(&relay.display().to_string(), ["--port", &port.to_string()]);
    serve.arg("--static-dir").arg(site).stdout(Stdio::piped());
    let mut child = serve.spawn()?;
    // The relay prints its address once it listens, and nothing if it cannot listen.
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    print!("{line}");
    if open && !line.is_empty() {
        let url = format!("http://localhost:{port}/");
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        // On a machine without a desktop this fails; the address is printed in any case.
        let _ = command(opener, [url]).stderr(Stdio::null()).spawn();
    }
    let status = child.wait()?;
    ensure!(status.success(), "the relay ended: {status}");
    Ok(())
}

/// Builds the package, installs it in a copy of an example, and runs the copy until interrupted.
pub(crate) fn example(name: &str) -> Result<()> {
    let examples = tools::root().join("www/examples");
    let from = examples.join(name);
    if !from.join("package.json").is_file() {
        let names = fs::read_dir(&examples)?.filter_map(|entry| {
            let entry = entry.ok()?;
            entry.path().is_dir().then(|| entry.file_name().to_string_lossy().into_owned())
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        bail!("there is no example `{name}`: there are {}", names.join(", "));
    }
    build::package()?;
    let folder = tools::target().join("examples").join(name);
    copy(&from, &folder)?;
    step("installing what the example needs");
    let mut install = command("npm", ["install", "--silent", "--no-audit", "--no-fund"]);
    install.arg(build::tarball()?).current_dir(&folder);
    run(install)?;
    step("npm start");
    let mut start = command("npm", ["start"]);
    start.current_dir(&folder);
    run(start)
}

/// Makes the folder that the relay serves: the demo's files and the package. Returns its path.
pub(crate) fn site(package: &Path) -> Result<PathBuf> {
    let site = tools::target().join("demo");
    if site.exists() {
        fs::remove_dir_all(&site)?;
    }
    copy(&tools::root().join("www/demo"), &site)?;
    copy(package, &site.join("conflux-wasm"))?;
    Ok(site)
}

/// Copies a folder with everything in it except `node_modules`.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() == "node_modules" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
