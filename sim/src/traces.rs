//! Prints what happens in one seed after another. `cargo xtask sim --wasm` compares what the native
//! simulators print here with what they print as WebAssembly.

use std::io::{self, Write};

/// Prints a run: its seed, what happened, line by line, and its numbers.
pub fn print(out: &mut impl Write, seed: u64, trace: &[String], numbers: &str) -> io::Result<()> {
    writeln!(out, "seed {seed}")?;
    for line in trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{numbers}")
}
