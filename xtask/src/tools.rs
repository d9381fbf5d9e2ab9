//! Finds the tools that a task needs, and installs them where possible.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The Rust target for browsers and Node.js.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the xtask lies in the repository").to_path_buf()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// Makes a command from a name and arguments.
pub(crate) fn command<I: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(name);
    command.args(args);
    command
}

/// Makes a command that runs the same Cargo that runs this program.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    command(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()), args)
}

/// Runs a command. Fails if the command fails.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let name = describe(&command);
    let status = command.status().with_context(|| format!("`{name}` cannot be started"))?;
    ensure!(status.success(), "`{name}` failed ({status})");
    Ok(())
}

/// Runs a command and returns its standard output. Fails if the command fails.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let name = describe(&command);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("`{name}` cannot be started"))?;
    ensure!(output.status.success(), "`{name}` failed ({})", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn describe(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Prints the heading of a step.
pub(crate) fn step(what: &str) {
    eprintln!("\n── {what}");
}

/// The folder of the compiler's libraries and tools, in which each target has a folder of its own.
pub(crate) fn rustlib() -> Result<PathBuf> {
    let sysroot = output(command("rustc", ["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib"))
}

/// Adds a target of Rust's if it is missing.
pub(crate) fn ensure_target(target: &str) -> Result<()> {
    if rustlib()?.join(target).exists() {
        return Ok(());
    }
    step(&format!("adding the target {target}"));
    run(command("rustup", ["target", "add", target])).with_context(|| {
        format!(
            "Rust's target {target} is missing and rustup cannot add it: install rustup \
             (https://rustup.rs), or the target by your system's means"
        )
    })
}

/// Adds the source of the standard library if it is missing. Returns whether it is there.
pub(crate) fn ensure_rust_src() -> Result<bool> {
    let source = rustlib()?.join("src/rust/library/std");
    if source.exists() {
        return Ok(true);
    }
    step("adding the source of the standard library");
    let added = command("rustup", ["component", "add", "rust-src"]).status();
    Ok(added.is_ok_and(|status| status.success()) && source.exists())
}

/// Whether the compiler accepts these flags.
pub(crate) fn accepts(flags: &[&str]) -> bool {
    let mut rustc = command("rustc", flags);
    rustc.args(["--print", "sysroot"]).env("RUSTC_BOOTSTRAP", "1");
    rustc.stdout(Stdio::null()).stderr(Stdio::null());
    rustc.status().is_ok_and(|status| status.success())
}

/// Checks the version of Node.js.
pub(crate) fn check_node() -> Result<()> {
    let version = output(command("node", ["--version"]))
        .context("Node.js is missing: install version 20 or newer (https://nodejs.org)")?;
    let major = version.trim().trim_start_matches('v').split('.').next();
    let major: u32 = major.unwrap_or_default().parse().unwrap_or_default();
    ensure!(major >= 20, "Node.js {} is too old: install 20 or newer", version.trim());
    Ok(())
}

/// Checks the version of Node.js, and installs the tools from npm if they are missing or outdated.
pub(crate) fn ensure_node() -> Result<()> {
    check_node()?;
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let installed = modified(&root().join("node_modules/.package-lock.json"));
    if installed < modified(&root().join("package-lock.json")) {
        step("installing tools from the npm registry");
        run(command("npm", ["ci", "--silent"])).context("the tools cannot be installed")?;
    }
    Ok(())
}

/// The path of a tool that npm installed.
pub(crate) fn npm_tool(name: &str) -> String {
    root().join("node_modules/.bin").join(name).display().to_string()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Installs packages through apt. Returns false without doing anything if this process is not root
/// or there is no apt.
fn apt_install(packages: &[&str]) -> Result<bool> {
    let is_root = output(command("id", ["-u"])).is_ok_and(|id| id.trim() == "0");
    if !is_root || on_path("apt-get").is_none() {
        return Ok(false);
    }
    step(&format!("installing {} through apt", packages.join(", ")));
    run(command("apt-get", ["update", "-qq"]))?;
    let mut install = command("apt-get", ["install", "-y", "-qq", "--no-install-recommends"]);
    install.args(packages);
    run(install)?;
    Ok(true)
}

/// Makes sure that there is a Redis server, for the tests of the channel `redis`.
pub(crate) fn ensure_redis() -> Result<()> {
    let found = || env::var_os("REDIS_SERVER").is_some() || on_path("redis-server").is_some();
    if found() || apt_install(&["redis-server"])? {
        return Ok(());
    }
    bail!(
        "the tests of the channel `redis` need a Redis server: install one (on Debian and Ubuntu: \
         `sudo apt install redis-server`), or name one in $REDIS_SERVER"
    )
}

/// Makes sure that Firefox, WebKit's driver and a virtual display (Xvfb) are installed.
pub(crate) fn ensure_engines() -> Result<()> {
    let needed = [
        ("firefox-esr", "firefox-esr"),
        ("WebKitWebDriver", "webkit2gtk-driver"),
        ("xvfb-run", "xvfb"),
        ("xauth", "xauth"),
    ];
    let missing: Vec<_> =
        needed.iter().filter(|(program, _)| on_path(program).is_none()).map(|(_, p)| *p).collect();
    if missing.is_empty() || apt_install(&missing)? {
        return Ok(());
    }
    bail!(
        "the other engines need {}: install them (on Debian: `sudo apt install {}`)",
        missing.join(", "),
        missing.join(" ")
    )
}

/// Finds Chromium: `$CHROMIUM`, one that is installed, or one that this function installs with apt.
pub(crate) fn ensure_chromium() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CHROMIUM") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "$CHROMIUM is {}, which is no file", path.display());
        return Ok(path);
    }
    let names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
    let find = || names.iter().find_map(|name| on_path(name));
    if let Some(path) = find() {
        return Ok(path);
    }
    let mac = Path::new("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome");
    if mac.is_file() {
        return Ok(mac.into());
    }
    if apt_install(&["chromium"])?
        && let Some(path) = find()
    {
        return Ok(path);
    }
    bail!(
        "the browser tests need Chromium: install it (on Debian and Ubuntu: `sudo apt install \
         chromium`), or name one in $CHROMIUM"
    )
}
