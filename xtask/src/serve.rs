//! The demo.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::build;
use crate::tools::{self, cargo, command, run, step};

/// Builds and serves the demo until it is interrupted.
pub(crate) fn demo(port: u16, open: bool) -> Result<()> {
    let site = site(&build::package()?)?;
    step("building the relay");
    run(cargo(["build", "-p", "conflux-relay"]))?;
    let relay = tools::target().join("debug/conflux-relay");
    let mut serve = command(&relay.display().to_string(), ["--port", &port.to_string()]);
    serve.arg("--static-dir").arg(site);
    let mut child = serve.spawn()?;
    // The relay itself prints the address, once it listens.
    if open {
        let url = format!("http://localhost:{port}/");
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        // Without a desktop there is nothing to open it with; the address is printed all the same.
        let _ = command(opener, [url]).stderr(std::process::Stdio::null()).spawn();
    }
    child.wait()?;
    Ok(())
}

/// The demo's files and the package, as the relay serves them.
pub(crate) fn site(package: &Path) -> Result<std::path::PathBuf> {
    let site = tools::target().join("demo");
    if site.exists() {
        fs::remove_dir_all(&site)?;
    }
    copy(&tools::root().join("www/demo"), &site)?;
    copy(package, &site.join("conflux-wasm"))?;
    Ok(site)
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
