//! Mutation testing: does any test fail when a line of the core is wrong?
//!
//! `cargo mutants` rebuilds the tests for each of a thousand mutants, which takes half a day here.
//! This task compiles all mutants into the same test binaries, each behind a check of an
//! environment variable, and runs the binaries once per mutant, which takes minutes. It works on a
//! copy of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Expr, parse_quote};

use crate::tools::{self, cargo, command, output, step};

/// The files and folders that are mutated.
const MODULES: [&str; 10] = [
    "src/raft",
    "src/store",
    "src/node",
    "src/formation",
    "src/elastic",
    "src/host/core.rs",
    "src/host/fixed.rs",
    "src/host/elastic.rs",
    "src/host/transport.rs",
    "src/sorted.rs",
];
/// Files in them that are not mutated: they only describe the core, to people and to the checkers.
const EXCLUDED: [&str; 2] = ["display.rs", "fingerprint.rs"];
/// How long one test binary may run before the mutant counts as noticed.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// One change of the core's source.
#[derive(Debug)]
struct Mutant {
    id: usize,
    file: String,
    line: usize,
    what: String,
}

/// Runs the tests on every mutant and prints the mutants that no test notices.
pub(crate) fn mutants(only: Option<&str>) -> Result<()> {
    let tree = tools::target().join("mutants/tree");
    step("copying the repository");
    copy(&tree)?;
    step("building every mutant at once");
    let mut broken = BTreeSet::new();
    let (mutants, binaries) = loop {
        let mutants = write(&tree, &broken)?;
        let found = uncompilable(&tree)?;
        if found.is_empty() {
            break (mutants, build(&tree)?);
        }
        ensure!(!found.is_subset(&broken), "the mutants do not compile, and no one knows why");
        broken.extend(found);
    };
    let wanted =
        |file: &str| only.is_none_or(|only| only.split(',').any(|part| file.contains(part)));
    let kept = |m: &&Mutant| !broken.contains(&m.id) && wanted(&m.file);
    let mutants: Vec<&Mutant> = mutants.iter().filter(kept).collect();
    step("running the tests as they are");
    let began = Instant::now();
    ensure!(!is_noticed(&tree, &binaries, 0, "")?, "the tests pass without any change");
    println!("{:.1?}; {} mutants, {} do not compile", began.elapsed(), mutants.len(), broken.len());
    step("running the tests on each mutant");
    report(&tree, &binaries, &mutants)
}

fn report(tree: &Path, binaries: &[PathBuf], mutants: &[&Mutant]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !is_noticed(tree, binaries, mutant.id, &mutant.file)? {
                    let Mutant { file, line, what, .. } = mutant;
                    println!("missed: {file}:{line}: {what}");
                    missed.lock().expect("no panic").push(mutant.id);
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    let missed = missed.into_inner().expect("no panic").len();
    let noticed = mutants.len() - missed;
    println!("{noticed} of {} noticed, {missed} missed, {:.0?}", mutants.len(), began.elapsed());
    Ok(())
}

fn copy(tree: &Path) -> Result<()> {
    let files = output(command("git", ["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    for file in files.lines().filter(|file| Path::new(file).is_file()) {
        let target = tree.join(file);
        fs::create_dir_all(target.parent().context("a folder")?)?;
        fs::copy(file, target)?;
    }
    let lib = tree.join("src/lib.rs");
    let text = fs::read_to_string(&lib)?;
    fs::write(lib, format!("#![allow(warnings, clippy::all)]\n{text}\npub mod mutant;\n"))?;
    fs::write(
        tree.join("src/mutant.rs"),
        "use std::sync::LazyLock;\n\
         static CHOSEN: LazyLock<usize> = LazyLock::new(|| {\n\
         std::env::var(\"MUTANT\").ok().and_then(|id| id.parse().ok()).unwrap_or(0)\n});\n\
         pub fn is(id: usize) -> bool { *CHOSEN == id }\n",
    )?;
    Ok(())
}

/// Writes the sources with all mutants in them except those that do not compile.
fn write(tree: &Path, broken: &BTreeSet<usize>) -> Result<Vec<Mutant>> {
    let mut files = Vec::new();
    for module in MODULES {
        if Path::new(module).is_file() {
            files.push(module.into());
            continue;
        }
        for entry in fs::read_dir(module)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut mutator = Mutator { file: String::new(), broken, mutants: Vec::new() };
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        if EXCLUDED.contains(&name) {
            continue;
        }
        mutator.file = path.display().to_string();
        let mut file = syn::parse_file(&fs::read_to_string(&path)?)?;
        mutator.visit_file_mut(&mut file);
        fs::write(tree.join(&path), prettyplease::unparse(&file))?;
    }
    Ok(mutator.mutants)
}

/// The mutants that do not compile.
fn uncompilable(tree: &Path) -> Result<BTreeSet<usize>> {
    let mut check = cargo(["check", "--lib", "-p", "conflux-wasm", "--message-format", "short"]);
    check.current_dir(tree).env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
    let checked = check.output()?;
    let mut found = BTreeSet::new();
    let text = String::from_utf8_lossy(&checked.stderr);
    for line in text.lines().filter(|line| line.contains(": error")) {
        let mut parts = line.split(':');
        let (Some(file), Some(Ok(at))) = (parts.next(), parts.next().map(str::parse::<usize>))
        else {
            continue;
        };
        let source = fs::read_to_string(tree.join(file))?;
        let above: Vec<_> = source.lines().take(at + 1).collect();
        let id = above.iter().rev().find_map(|line| {
            let (_, rest) = line.rsplit_once("mutant::is(")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        found.insert(id.with_context(|| format!("no mutant near {line}"))?);
    }
    if !checked.status.success() && found.is_empty() {
        bail!("the copy does not compile:\n{text}");
    }
    Ok(found)
}

fn target() -> PathBuf {
    tools::target().join("mutants/target")
}

/// Builds the test binaries. Returns their paths, with those first that notice most mutants in the
/// least time.
fn build(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut build = cargo(["test", "--no-run", "-p", "conflux-wasm", "-p", "conflux-sim"]);
    build.current_dir(tree).env("CARGO_TARGET_DIR", target()).stderr(Stdio::piped());
    let built = build.output()?;
    let text = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "the mutants' tests do not compile:\n{text}");
    let executable = |line: &str| Some(line.rsplit_once('(')?.1.trim_end_matches(')').into());
    let lines = text.lines().filter(|line| line.trim_start().starts_with("Executable"));
    let mut binaries: Vec<PathBuf> = lines.filter_map(executable).collect();
    let order = [
        "conflux-",
        "raft-",
        "raft_members",
        "node-",
        "node_performs-",
        "formation-",
        "elastic-",
        "elastic_controller-",
        "elastic_host",
        "host-",
        "raft_golden",
        "forming_golden",
        "sim-",
        "store-",
        "sessions-",
        "first_state-",
        "checks-",
        "fuzz-",
        "store_random",
        "fixed_random",
        "tabs-",
    ];
    let place = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        order.iter().position(|start| name.starts_with(start))
    };
    // The model checker takes too long, and the remaining tests do not test the core.
    binaries.retain(|path| place(path).is_some());
    binaries.sort_by_key(place);
    Ok(binaries.into_iter().map(|path| tools::root().join(path)).collect())
}

/// Whether a test binary runs code of a file at all. The others need not be asked.
fn reaches(binary: &Path, file: &str) -> bool {
    const HOSTS: [&str; 9] = [
        "elastic_host",
        "host-",
        "store-",
        "sessions-",
        "first_state-",
        "store_random",
        "fixed_random",
        "tabs-",
        "fuzz-",
    ];
    let folder = file.split('/').nth(1).unwrap_or_default();
    let only: &[&str] = match folder {
        "elastic" => &["conflux-", "elastic-", "elastic_controller-", "tabs-"],
        "formation" => &[
            "conflux-",
            "formation-",
            "host-",
            "forming_golden",
            "sim-",
            "store-",
            "fuzz-",
            "fixed_random",
        ],
        "host" => &HOSTS,
        _ => return true,
    };
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("conflux-") || only.iter().any(|start| name.starts_with(start))
}

/// Whether a test fails or takes longer than [`TEST_TIMEOUT`] with this mutant.
fn is_noticed(tree: &Path, binaries: &[PathBuf], id: usize, file: &str) -> Result<bool> {
    for binary in binaries.iter().filter(|binary| reaches(binary, file)) {
        let mut shell = Command::new("sh");
        // With this limit of memory (8 GB) a mutant that allocates without end is noticed, too.
        shell.args(["-c", "ulimit -v 8000000; exec \"$0\" --test-threads 1"]).arg(binary);
        let folder = if binary.to_string_lossy().contains("/sim-") { "sim" } else { "" };
        shell.current_dir(tree.join(folder)).env("MUTANT", id.to_string());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = shell.spawn()?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if began.elapsed() > TEST_TIMEOUT {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if !status.is_some_and(|status| status.success()) {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Mutator<'a> {
    file: String,
    broken: &'a BTreeSet<usize>,
    mutants: Vec<Mutant>,
}

impl Mutator<'_> {
    /// Adds a mutant. Returns its number, or `None` if it does not compile.
    fn add(&mut self, at: Span, what: String) -> Option<usize> {
        let id = self.mutants.len() + 1;
        let (file, line) = (self.file.clone(), at.start().line);
        self.mutants.push(Mutant { id, file, line, what });
        (!self.broken.contains(&id)).then_some(id)
    }

    fn binary(&mut self, expr: &mut Expr) {
        let Expr::Binary(binary) = expr else { return };
        let (op, at) = (binary.op, binary.op.span());
        let (left, right) = (binary.left.clone(), binary.right.clone());
        if matches!(
            op,
            BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_)
        ) {
            *expr = self.comparison(&op, at, &left, &right);
            return;
        }
        for other in others(&op) {
            let what = format!("{} for {}", symbol(&other), symbol(&op));
            let Some(id) = self.add(at, what) else { continue };
            *expr = match op {
                BinOp::And(_) | BinOp::Or(_) => parse_quote!(
                    ({ let l: bool = #left; if crate::mutant::is(#id) { l #other #right } else { l #op #right } })
                ),
                BinOp::AddAssign(_) | BinOp::SubAssign(_) => parse_quote!(
                    if crate::mutant::is(#id) { #left #other #right } else { #left #op #right }
                ),
                BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_) | BinOp::Div(_) | BinOp::Rem(_) => {
                    parse_quote!((match (#left, #right) {
                        (l, r) => if crate::mutant::is(#id) { l #other r } else { l #op r }
                    }))
                }
                _ => unreachable!("comparisons are handled before"),
            };
        }
    }

    /// A comparison has several mutants. Its operands are evaluated once, because they may have
    /// effects.
    fn comparison(&mut self, op: &BinOp, at: Span, left: &Expr, right: &Expr) -> Expr {
        let mut chosen: Expr = parse_quote!(l #op r);
        let mut changed = false;
        for other in others(op) {
            let what = format!("{} for {}", symbol(&other), symbol(op));
            let Some(id) = self.add(at, what) else { continue };
            chosen = parse_quote!(if crate::mutant::is(#id) { l #other r } else { #chosen });
            changed = true;
        }
        match changed {
            true => parse_quote!((match (&(#left), &(#right)) { (l, r) => #chosen })),
            false => parse_quote!(#left #op #right),
        }
    }
}

/// The operators that replace an operator.
fn others(op: &BinOp) -> Vec<BinOp> {
    match op {
        BinOp::And(_) => vec![parse_quote!(||)],
        BinOp::Or(_) => vec![parse_quote!(&&)],
        BinOp::Eq(_) => vec![parse_quote!(!=)],
        BinOp::Ne(_) => vec![parse_quote!(==)],
        BinOp::Lt(_) => vec![parse_quote!(<=), parse_quote!(>)],
        BinOp::Le(_) => vec![parse_quote!(<), parse_quote!(>)],
        BinOp::Gt(_) => vec![parse_quote!(>=), parse_quote!(<)],
        BinOp::Ge(_) => vec![parse_quote!(>), parse_quote!(<)],
        BinOp::Add(_) => vec![parse_quote!(-)],
        BinOp::Sub(_) | BinOp::Mul(_) => vec![parse_quote!(+)],
        BinOp::Div(_) | BinOp::Rem(_) => vec![parse_quote!(*)],
        BinOp::AddAssign(_) => vec![parse_quote!(-=)],
        BinOp::SubAssign(_) => vec![parse_quote!(+=)],
        _ => Vec::new(),
    }
}

fn symbol(op: &BinOp) -> String {
    let expr: Expr = parse_quote!(a #op b);
    let file: syn::File = parse_quote!(const A: X = #expr;);
    let text = prettyplease::unparse(&file);
    text.split_whitespace().nth_back(1).unwrap_or_default().to_string()
}

/// Values that a mutant of a function with this return type returns at once.
fn answers(output: &syn::ReturnType) -> Vec<Expr> {
    let syn::ReturnType::Type(_, kind) = output else { return vec![parse_quote!(())] };
    let syn::Type::Path(path) = kind.as_ref() else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    let unit = |last: &syn::PathSegment| match &last.arguments {
        syn::PathArguments::AngleBracketed(inner) => {
            matches!(inner.args.first(), Some(syn::GenericArgument::Type(syn::Type::Tuple(t))) if t.elems.is_empty())
        }
        _ => false,
    };
    match last.ident.to_string().as_str() {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        "u64" | "usize" | "Index" | "Term" | "Time" | "NodeId" | "Seq" | "SessionId" => {
            vec![parse_quote!(0), parse_quote!(1)]
        }
        "Option" => vec![parse_quote!(None)],
        "Vec" => vec![parse_quote!(Vec::new())],
        "Result" if unit(last) => vec![parse_quote!(Ok(()))],
        "Step" => vec![parse_quote!(Step::Idle)],
        _ => Vec::new(),
    }
}

fn contains_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => contains_let(&binary.left) || contains_let(&binary.right),
        _ => false,
    }
}

/// Whether a condition depends on a known mistake, that is, calls `made`.
fn is_mistake(expr: &Expr) -> bool {
    match expr {
        Expr::Call(call) => call.func.as_ref() == &parse_quote!(made),
        Expr::Unary(unary) => is_mistake(&unary.expr),
        Expr::Paren(inner) => is_mistake(&inner.expr),
        Expr::Binary(binary) => is_mistake(&binary.left) || is_mistake(&binary.right),
        Expr::MethodCall(call) => is_mistake(&call.receiver),
        _ => false,
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

impl VisitMut for Mutator<'_> {
    fn visit_item_mod_mut(&mut self, item: &mut syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit_mut::visit_item_mod_mut(self, item);
        }
    }

    // The compiler evaluates constants and types, so an environment variable cannot switch them.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_type_mut(&mut self, _: &mut syn::Type) {}

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        self.function(&item.sig.clone(), &mut item.block);
    }

    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        self.function(&item.sig.clone(), &mut item.block);
    }

    fn visit_local_mut(&mut self, local: &mut syn::Local) {
        // Skip a variable that holds the condition of a known mistake.
        if !local.init.as_ref().is_some_and(|init| is_mistake(&init.expr)) {
            visit_mut::visit_local_mut(self, local);
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        // Do not mutate known mistakes: they are wrong on purpose, and switched off in this build.
        match expr {
            Expr::If(conditional) if is_mistake(&conditional.cond) => {
                if let Some((_, otherwise)) = &mut conditional.else_branch {
                    self.visit_expr_mut(otherwise);
                }
                return;
            }
            Expr::Match(matching) if is_mistake(&matching.expr) => {
                let right = |arm: &&mut syn::Arm| arm.pat == parse_quote!(false);
                matching.arms.iter_mut().filter(right).for_each(|arm| self.visit_arm_mut(arm));
                return;
            }
            Expr::Unary(unary) if is_mistake(&unary.expr) => return,
            Expr::Binary(binary) if is_mistake(&binary.left) || is_mistake(&binary.right) => {
                for side in [&mut binary.left, &mut binary.right] {
                    if !is_mistake(side) {
                        self.visit_expr_mut(side);
                    }
                }
                return;
            }
            _ => {}
        }
        let lets = contains_let(expr);
        visit_mut::visit_expr_mut(self, expr);
        match expr {
            Expr::Binary(_) if !lets => self.binary(expr),
            Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Not(_)) => {
                let inner = unary.expr.clone();
                if let Some(id) = self.add(unary.span(), "without !".into()) {
                    *expr = parse_quote!(
                        ({ let v = #inner; if crate::mutant::is(#id) { v } else { !v } })
                    );
                }
            }
            Expr::Match(matching) => self.arms(matching),
            _ => {}
        }
    }
}

impl Mutator<'_> {
    fn function(&mut self, signature: &syn::Signature, block: &mut syn::Block) {
        // Skip functions that only describe a value, and `const` ones, which cannot be switched.
        if signature.constness.is_some()
            || ["fmt", "fingerprint"].iter().any(|name| signature.ident == name)
        {
            return;
        }
        visit_mut::visit_block_mut(self, block);
        let nothing = block.stmts.is_empty();
        for answer in answers(&signature.output).into_iter().filter(|_| !nothing) {
            let text = prettyplease::unparse(&parse_quote!(const A: X = #answer;));
            let text = text.trim_start_matches("const A: X = ").trim_end().trim_end_matches(';');
            let what = format!("`{}` answers {text} at once", signature.ident);
            if let Some(id) = self.add(signature.ident.span(), what) {
                block.stmts.insert(0, parse_quote!(if crate::mutant::is(#id) { return #answer; }));
            }
        }
    }

    /// Adds mutants without one arm each to a match that has a `_` arm.
    fn arms(&mut self, matching: &mut syn::ExprMatch) {
        let rest = |arm: &syn::Arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none();
        if !matching.arms.iter().any(rest) {
            return;
        }
        let mistaken = |arm: &syn::Arm| arm.guard.as_ref().is_some_and(|g| is_mistake(&g.1));
        for arm in matching.arms.iter_mut().filter(|arm| !rest(arm) && !mistaken(arm)) {
            let Some(id) = self.add(arm.pat.span(), "without this arm".into()) else { continue };
            let guard: Expr = match &arm.guard {
                Some((_, guard)) if contains_let(guard) => continue,
                Some((_, guard)) => parse_quote!(!crate::mutant::is(#id) && (#guard)),
                None => parse_quote!(!crate::mutant::is(#id)),
            };
            arm.guard = Some((Default::default(), Box::new(guard)));
        }
    }
}
