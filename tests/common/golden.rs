//! Runs the golden scripts of a folder.

use goldenscript::Runner;

/// Runs every script in the folder, each with a runner of its own. There must be at least
/// `at_least` scripts.
///
/// `UPDATE_GOLDENFILES=1` writes changed pages anew. Their differences must be read before they are
/// committed.
pub fn run_scripts<R: Runner>(folder: &str, at_least: usize, runner: impl Fn() -> R) {
    let mut scripts: Vec<_> = std::fs::read_dir(folder)
        .expect("scripts")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= at_least, "the scripts are there");
    let mut failed = Vec::new();
    for script in scripts {
        println!("{}", script.display());
        if let Err(error) = goldenscript::run(&mut runner(), &script) {
            failed.push(format!("{}: {error}", script.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
