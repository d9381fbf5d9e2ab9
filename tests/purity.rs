//! The pure modules name no clock, no randomness of their own, no JavaScript type and no async: what
//! they need comes in as arguments, so that they run the same in a tab, in a test and under a model
//! checker.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 12] = [
    "src/raft",
    "src/store",
    "src/node",
    "src/tenancy",
    "src/wire",
    "src/host/core.rs",
    "src/host/mail.rs",
    "src/host/options.rs",
    "src/host/tabs.rs",
    "src/host/words.rs",
    "src/storage",
    "src/sorted.rs",
];

/// What a pure module must not name, and why.
const FORBIDDEN: [(&str, &str); 22] = [
    ("std::time", "a clock"),
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("web_time", "a clock"),
    ("gloo", "timers"),
    ("rand::rng()", "randomness of its own"),
    ("thread_rng", "randomness of its own"),
    ("ThreadRng", "randomness of its own"),
    ("SysRng", "randomness of its own"),
    ("getrandom", "randomness of its own"),
    ("rand::random", "randomness of its own"),
    ("HashMap", "an order that differs from run to run"),
    ("HashSet", "an order that differs from run to run"),
    ("RandomState", "an order that differs from run to run"),
    ("js_sys", "a JavaScript type"),
    ("web_sys", "a JavaScript type"),
    ("wasm_bindgen", "a JavaScript type"),
    ("JsValue", "a JavaScript type"),
    ("async ", "async"),
    (".await", "async"),
    ("std::thread", "a thread"),
    ("std::env", "the environment"),
];

/// Which modules a module may use: imports point down only.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("src/wire", &["wire"]),
    ("src/raft", &["raft", "mistakes", "sorted"]),
    ("src/store", &["store", "raft", "wire::hash64", "mistakes", "sorted"]),
    ("src/node", &["node", "store", "raft"]),
    ("src/tenancy", &["tenancy", "raft", "wire", "mistakes", "sorted"]),
    ("src/storage", &["storage", "raft", "wire::hash64", "tenancy::elastic", "sorted"]),
    ("src/channel.rs", &[]),
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            sources(&entry.expect("an entry").path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.into());
    }
}

/// The code of a file without its comments.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn impurities(text: &str) -> Vec<String> {
    let code = code(text);
    let named = FORBIDDEN.iter().filter(|(name, _)| code.contains(name));
    named.map(|(name, what)| format!("`{name}`, {what}")).collect()
}

#[test]
fn pure_modules_are_pure() {
    let mut found = Vec::new();
    for path in PURE {
        let before = found.len();
        sources(Path::new(path), &mut found);
        assert!(found.len() > before, "{path} is there");
    }
    let complaints: Vec<_> = found
        .iter()
        .map(|path| (path, impurities(&fs::read_to_string(path).expect("a source"))))
        .filter(|(_, names)| !names.is_empty())
        .map(|(path, names)| format!("{} names {}", path.display(), names.join(" and ")))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn imports_point_down_only() {
    let mut complaints = Vec::new();
    for (folder, allowed) in MAY_USE {
        let mut found = Vec::new();
        sources(Path::new(folder), &mut found);
        assert!(!found.is_empty(), "{folder} is there");
        for path in found {
            let text = code(&fs::read_to_string(&path).expect("a source"));
            for used in text.split("crate::").skip(1) {
                if !allowed.iter().any(|module| used.starts_with(module)) {
                    let name: String = used.chars().take_while(|c| !";{( ".contains(*c)).collect();
                    complaints.push(format!("{} uses crate::{name}", path.display()));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_check_can_fail() {
    for (name, _) in FORBIDDEN {
        assert!(!impurities(&format!("let x = {name};")).is_empty(), "{name} is noticed");
    }
    assert!(impurities("// std::time in a comment").is_empty());
}
