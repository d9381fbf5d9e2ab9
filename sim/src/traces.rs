//! Prints what happens in one seed after another. `cargo xtask sim --wasm` compares what the native
//! simulators print here with what they print as WebAssembly.

use std::io::{self, BufWriter, Write as _};
use std::ops::Range;

/// What to print of a run.
pub struct Shown<'a> {
    /// What happened, line by line.
    pub trace: &'a [String],
    /// The run in numbers.
    pub numbers: String,
    /// Whether something did not hold.
    pub failed: bool,
}

/// Runs one seed after the other and prints each, up to the first that fails, which it returns.
pub fn print<R>(
    seeds: Range<u64>,
    run: impl Fn(u64) -> R,
    shown: impl Fn(&R) -> Shown<'_>,
) -> io::Result<Option<R>> {
    let mut out = BufWriter::new(io::stdout().lock());
    for seed in seeds {
        // Before the run, so that one that does not come to its end has been named.
        writeln!(out, "seed {seed}")?;
        out.flush()?;
        let report = run(seed);
        let Shown { trace, numbers, failed } = shown(&report);
        for line in trace {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{numbers}")?;
        if failed {
            out.flush()?;
            return Ok(Some(report));
        }
    }
    out.flush().map(|()| None)
}
