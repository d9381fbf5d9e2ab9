//! The structure of the source, checked by reading it.
//!
//! - Pure files name no clock, no randomness of their own, no JavaScript type and no async: what
//!   they need comes in as arguments, so that they run the same in a tab, in a test and under a
//!   model checker.
//! - Imports point down only: between folders as [`LAYERS`] says, and within a folder without a
//!   circle.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens as _;
use syn::visit::Visit;
use syn::{Item, UseTree};

/// The files that need not be pure: they exist only on wasm.
const NOT_PURE: [&str; 2] = ["src/host/web/", "src/js/"];

/// The folders and what each may import, besides itself.
const LAYERS: [(&str, &[&str]); 12] = [
    ("lib", &[]),
    ("mistakes", &[]),
    ("sorted", &[]),
    ("wire", &[]),
    ("raft", &["mistakes", "sorted"]),
    ("store", &["raft", "wire", "mistakes", "sorted"]),
    ("node", &["store", "raft"]),
    ("storage", &["raft", "wire", "mistakes", "sorted"]),
    ("formation", &["raft", "wire", "mistakes", "sorted"]),
    ("elastic", &["raft", "mistakes", "sorted"]),
    (
        "host",
        &["elastic", "formation", "storage", "node", "store", "raft", "wire", "mistakes", "sorted"],
    ),
    ("js", &["host", "store", "raft", "storage", "sorted"]),
];

/// What a pure file must not name, and why.
const FORBIDDEN: [(&str, &str); 26] = [
    ("std::time", "a clock"),
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("web_time", "a clock"),
    ("Date", "a clock"),
    ("gloo", "timers"),
    ("rand::rng()", "randomness of its own"),
    ("thread_rng", "randomness of its own"),
    ("ThreadRng", "randomness of its own"),
    ("SysRng", "randomness of its own"),
    ("getrandom", "randomness of its own"),
    ("rand::random", "randomness of its own"),
    ("OsRng", "randomness of its own"),
    ("from_os_rng", "randomness of its own"),
    ("HashMap", "an order that differs from run to run"),
    ("HashSet", "an order that differs from run to run"),
    ("RandomState", "an order that differs from run to run"),
    ("js_sys", "a JavaScript type"),
    ("web_sys", "a JavaScript type"),
    ("wasm_bindgen", "a JavaScript type"),
    ("JsValue", "a JavaScript type"),
    ("async ", "async"),
    (".await", "async"),
    ("Future", "async"),
    ("std::thread", "a thread"),
    ("std::env", "the environment"),
];

/// A file's place in the module tree: `["raft", "log"]`, and `[]` for `lib.rs`.
type Module = Vec<String>;

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            sources(&entry.expect("an entry").path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.into());
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    found.sort();
    assert!(found.len() > 40, "the sources are there");
    found
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
fn pure_files_name_no_clock_no_randomness_no_javascript_and_no_async() {
    let sources = all_sources();
    for folder in NOT_PURE {
        assert!(sources.iter().any(|path| path.starts_with(folder)), "{folder} is there");
    }
    let pure = sources.iter().filter(|path| !NOT_PURE.iter().any(|one| path.starts_with(one)));
    let complaints: Vec<_> = pure
        .map(|path| (path, impurities(&fs::read_to_string(path).expect("a source"))))
        .filter(|(_, names)| !names.is_empty())
        .map(|(path, names)| format!("{} names {}", path.display(), names.join(" and ")))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The files of the crate and what each imports from others of them.
#[derive(Default)]
struct Imports {
    files: BTreeMap<Module, syn::File>,
    /// What a file re-exports (`pub use self::log::Log`): the name, and the file that defines it.
    reexports: BTreeMap<(Module, String), Module>,
}

impl Imports {
    fn of(files: BTreeMap<Module, syn::File>) -> Self {
        let mut imports = Self { files, reexports: BTreeMap::new() };
        for module in imports.files.keys().cloned().collect::<Vec<_>>() {
            let mut found = Vec::new();
            for item in &imports.files[&module].items {
                if let Item::Use(item) = item
                    && !matches!(item.vis, syn::Visibility::Inherited)
                {
                    flatten(&item.tree, Vec::new(), &mut found);
                }
            }
            for path in found {
                let name = path.last().expect("a name").clone();
                let (target, _) = imports.resolve(&module, &path);
                if let Some(target) = target.filter(|target| *target != module) {
                    imports.reexports.insert((module.clone(), name), target);
                }
            }
        }
        imports
    }

    /// The file that a path names something in, and the rest of the path. `None` for another crate.
    fn resolve(&self, module: &Module, path: &[String]) -> (Option<Module>, Vec<String>) {
        let mut at = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self") => module.clone(),
            Some("super") => module[..module.len().saturating_sub(1)].to_vec(),
            // A child of this module, by its name alone.
            Some(name) if self.files.contains_key(&child(module, name)) => child(module, name),
            _ => return (None, Vec::new()),
        };
        let mut rest = path[1..].iter();
        for name in rest.by_ref() {
            if name == "super" {
                at.pop();
            } else if self.files.contains_key(&child(&at, name)) {
                at = child(&at, name);
            } else if let Some(target) = self.reexports.get(&(at.clone(), name.clone())) {
                at = target.clone();
                break;
            } else {
                break;
            }
        }
        (Some(at), rest.cloned().collect())
    }

    /// The files that each file imports something from.
    fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut edges = BTreeMap::new();
        for (module, file) in &self.files {
            let mut paths = Paths::default();
            paths.visit_file(file);
            let used = paths.found.iter().filter_map(|path| self.resolve(module, path).0);
            edges.insert(module.clone(), used.filter(|used| used != module).collect());
        }
        edges
    }
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_string()]).collect()
}

/// Every path that a file names, in `use` and elsewhere. Its own tests do not count.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
    /// How many modules inside of the file are around.
    inside: usize,
}

impl Paths {
    /// In a module inside of the file `super` is the file.
    fn close(&mut self, from: usize) {
        for path in &mut self.found[from..] {
            if self.inside > 0 && path[0] == "super" {
                path[0] = "self".into();
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let from = self.found.len();
        flatten(&item.tree, Vec::new(), &mut self.found);
        self.close(from);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            self.inside += 1;
            syn::visit::visit_item_mod(self, item);
            self.inside -= 1;
        }
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let from = self.found.len();
        self.found.extend(paths_in(&mac.tokens.to_token_stream().to_string()));
        self.close(from);
        syn::visit::visit_macro(self, mac);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let names = path.segments.iter().map(|segment| segment.ident.to_string());
            self.found.push(names.collect());
            self.close(self.found.len() - 1);
        }
        syn::visit::visit_path(self, path);
    }
}

/// The paths in the body of a macro, which is not parsed as Rust.
fn paths_in(tokens: &str) -> Vec<Vec<String>> {
    let text = tokens.replace(" :: ", "::");
    let is_path =
        |word: &&str| ["crate::", "super::", "self::"].iter().any(|p| word.starts_with(p));
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    words.filter(is_path).map(|path| path.split("::").map(Into::into).collect()).collect()
}

/// The paths of a `use`, one for each name.
fn flatten(tree: &UseTree, before: Vec<String>, found: &mut Vec<Vec<String>>) {
    let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, with(path.ident.to_string()), found),
        UseTree::Name(name) if name.ident == "self" => found.push(before),
        UseTree::Name(name) => found.push(with(name.ident.to_string())),
        UseTree::Rename(rename) if rename.ident == "self" => found.push(before),
        UseTree::Rename(rename) => found.push(with(rename.ident.to_string())),
        UseTree::Glob(_) => found.push(before),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before.clone(), found));
        }
    }
}

fn module_of(path: &Path) -> Module {
    let path = path.with_extension("");
    let parts = path.components().skip(1);
    let parts: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    match parts.last().map(String::as_str) {
        Some("mod" | "lib") => parts[..parts.len() - 1].to_vec(),
        _ => parts,
    }
}

fn crate_files() -> BTreeMap<Module, syn::File> {
    let parse = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source");
        (module_of(path), syn::parse_file(&text).expect("Rust"))
    };
    all_sources().iter().map(parse).collect()
}

fn name(module: &Module) -> String {
    if module.is_empty() { "lib".into() } else { module.join("::") }
}

/// The files on a circle of imports, each followed by one that it imports; empty when there is
/// none.
fn circle(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let mut left = edges.clone();
    // What imports nothing that is left is on no circle.
    loop {
        let there: BTreeSet<_> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, used| used.iter().any(|used| there.contains(used)));
        if left.len() == before {
            break;
        }
    }
    let Some(mut at) = left.keys().next() else { return Vec::new() };
    let mut way: Vec<&Module> = Vec::new();
    while !way.contains(&at) {
        way.push(at);
        at = left[at].iter().find(|used| left.contains_key(*used)).expect("it was kept");
    }
    let from = way.iter().position(|module| *module == at).expect("just found");
    way[from..].iter().chain([&at]).map(|module| name(module)).collect()
}

/// The imports that point up, or to a folder beside.
fn upward(edges: BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let layer = |module: &Module| module.first().cloned().unwrap_or_else(|| "lib".into());
    let mut complaints = Vec::new();
    for (module, used) in edges {
        let from = layer(&module);
        let allowed = LAYERS.iter().find(|(name, _)| *name == from);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("`{from}` has a place in LAYERS"));
        for used in used {
            let to = layer(&used);
            if to != from && from != "lib" && !allowed.contains(&to.as_str()) {
                complaints.push(format!("{} imports from {}", name(&module), name(&used)));
            }
        }
    }
    complaints
}

#[test]
fn imports_point_down_between_folders() {
    let complaints = upward(Imports::of(crate_files()).edges());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn no_two_files_import_each_other_and_there_is_no_longer_circle() {
    let mut edges = Imports::of(crate_files()).edges();
    // `lib.rs` only says which modules there are.
    edges.remove(&Vec::new());
    let circle = circle(&edges);
    assert!(circle.is_empty(), "{}", circle.join(" imports from "));
}

#[test]
fn the_checks_can_fail() {
    for (name, _) in FORBIDDEN {
        assert!(!impurities(&format!("let x = {name};")).is_empty(), "{name} is noticed");
    }
    assert!(impurities("// std::time in a comment").is_empty());
    let files = |files: &[(&str, &str)]| {
        let parse = |(path, text): &(&str, &str)| {
            (module_of(Path::new(path)), syn::parse_file(text).expect("Rust"))
        };
        Imports::of(files.iter().map(parse).collect()).edges()
    };
    let two = files(&[
        ("src/raft/a.rs", "use super::b::B;"),
        ("src/raft/b.rs", "fn f(_: crate::raft::a::A) {}"),
        ("src/raft/mod.rs", "pub use self::a::A;"),
    ]);
    assert_eq!(circle(&two), ["raft::a", "raft::b", "raft::a"]);
    // By way of what a third file re-exports.
    let through = files(&[
        ("src/raft/a.rs", "use super::C as D;"),
        ("src/raft/c.rs", "use crate::raft::a;"),
        ("src/raft/mod.rs", "mod c; pub use self::c::{self, C};"),
    ]);
    assert_eq!(circle(&through), ["raft::c", "raft::a", "raft::c"]);
    // In a macro, too.
    let hidden = files(&[
        ("src/raft/a.rs", "fn f() { debug_assert!(super::b::ready()); }"),
        ("src/raft/b.rs", "use super::a::A;"),
    ]);
    assert_eq!(circle(&hidden), ["raft::a", "raft::b", "raft::a"]);
    let up = files(&[
        ("src/raft/a.rs", "fn f() -> crate::store::Store { vec![crate::wire::X] }"),
        ("src/raft/mod.rs", "mod a;"),
        ("src/store/mod.rs", "pub struct Store; use crate::raft::a::A;"),
        ("src/wire/mod.rs", ""),
    ]);
    assert_eq!(upward(up), ["raft::a imports from store", "raft::a imports from wire"]);
    // A folder's own type, and children that its `mod.rs` does not import.
    let tree = files(&[
        ("src/raft/a.rs", "use super::Raft; mod tests { use crate::raft::b::B; }"),
        ("src/raft/b.rs", "use super::a::A;"),
        ("src/raft/mod.rs", "mod a; mod b; pub struct Raft;"),
    ]);
    assert!(circle(&tree).is_empty(), "{tree:?}");
}
