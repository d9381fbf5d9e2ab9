//! `cargo xtask sim --wasm`: the same seed does the same natively and as WebAssembly.
//!
//! The simulators run the core natively, with 64 bits; what ships is WebAssembly, with 32 bits. So
//! each simulator is built for both and prints the whole trace of each seed. The two traces are
//! compared line by line while they are printed, because they are too long to be kept.

use std::env::consts::EXE_SUFFIX;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools::{self, cargo, command, run};

/// The Rust target of programs that run as WebAssembly and have arguments and output.
const WASI: &str = "wasm32-wasip1";

/// How many seeds of each simulator every check compares.
const SEEDS: &str = "20";

/// Compares the traces of both simulators.
pub(crate) fn check() -> Result<()> {
    compare(false, &["--seeds", SEEDS])?;
    compare(true, &["--seeds", SEEDS])
}

/// Builds a simulator (with `tabs`, that of tabs) natively and as WebAssembly, runs both with these
/// options, and compares what they print.
pub(crate) fn compare(tabs: bool, options: &[&str]) -> Result<()> {
    tools::ensure_target(WASI)?;
    let name = if tabs { "conflux-tabs" } else { "conflux-sim" };
    let native = build(name, None)?.join(format!("{name}{EXE_SUFFIX}"));
    let wasm = build(name, Some(WASI))?.join(format!("{name}.wasm"));
    let mut native = command(&native.display().to_string(), ["--trace"]);
    let mut node = command("node", ["tests/wasi/same-trace.mjs"]);
    node.arg(wasm).arg("--trace");
    native.args(options);
    node.args(options);
    let began = Instant::now();
    let (mut native, mut wasm) = (Simulator::start(native)?, Simulator::start(node)?);
    let mut traces = Traces::default();
    let difference = traces.compare(&mut native.output, &mut wasm.output)?;
    // A simulator that failed has a shorter trace. Then this is what is wrong, not the difference.
    let has_ended = |line: fn(&Difference) -> &Line| match &difference {
        Some(difference) => line(difference).is_none(),
        None => true,
    };
    for (build, simulator, has_ended) in [
        ("native", &mut native, has_ended(|difference| &difference.native)),
        ("wasm", &mut wasm, has_ended(|difference| &difference.wasm)),
    ] {
        if has_ended {
            let status = simulator.child.wait()?;
            ensure!(status.success(), "{}", failed(name, build, &traces, status));
        }
    }
    if let Some(difference) = difference {
        bail!("{name} does not do the same natively and as WebAssembly: {difference}");
    }
    traces.end_seed()?;
    println!(
        "{name}: {} seeds do the same natively and as WebAssembly: {} lines, {} bytes, {:.1} s",
        traces.seeds,
        traces.lines,
        traces.bytes,
        began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Builds a simulator for this target, otherwise natively. Returns the folder where it is then.
fn build(name: &str, target: Option<&str>) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--profile", "sim", "-p", "conflux-sim", "--bin", name];
    let mut build = cargo(arguments);
    build.args(target.into_iter().flat_map(|target| ["--target", target]));
    run(build)?;
    let folder = tools::target();
    Ok(target.map_or(folder.clone(), |target| folder.join(target)).join("sim"))
}

fn failed(name: &str, build: &str, traces: &Traces, status: ExitStatus) -> String {
    let tabs = if name == "conflux-tabs" { "--tabs " } else { "" };
    match &traces.seed {
        Some(seed) => format!(
            "{name} ({build}) fails in seed {seed} ({status}): `cargo xtask sim {tabs}--seed {seed}`"
        ),
        None => format!("{name} ({build}) fails before its first seed ({status})"),
    }
}

/// A simulator that runs. It does not outlive this value.
struct Simulator {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Simulator {
    fn start(mut command: Command) -> Result<Self> {
        let child = command.stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("{command:?} cannot be started"))?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, output })
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Both fail if it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What two simulators have printed so far, while it was the same.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traces {
    seeds: u64,
    lines: u64,
    bytes: u64,
    /// The seed whose trace is being read.
    seed: Option<String>,
    /// How many lines of it were read.
    lines_of_seed: u64,
}

/// A line of a trace, or `None` at its end.
type Line = Option<Vec<u8>>;

/// The first lines that are not the same.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    seed: Option<String>,
    /// The number of the line in the trace of this seed.
    line: u64,
    native: Line,
    wasm: Line,
}

impl Traces {
    /// Compares two traces up to the first difference.
    fn compare(
        &mut self,
        native: &mut impl BufRead,
        wasm: &mut impl BufRead,
    ) -> Result<Option<Difference>> {
        loop {
            let (native, wasm) = (line(native)?, line(wasm)?);
            if native != wasm {
                let (seed, line) = (self.seed.clone(), self.lines_of_seed + 1);
                return Ok(Some(Difference { seed, line, native, wasm }));
            }
            let Some(line) = native else { break };
            self.count(&line)?;
        }
        Ok(None)
    }

    fn count(&mut self, line: &[u8]) -> Result<()> {
        // Only the heading of a seed begins like this: see `sim/src/traces.rs`.
        if let Some(seed) = line.strip_prefix(b"seed ") {
            if self.seed.is_some() {
                self.end_seed()?;
            }
            self.seed = Some(text(seed));
            self.seeds += 1;
            self.lines_of_seed = 0;
        }
        self.lines += 1;
        self.lines_of_seed += 1;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Fails if nothing happened in the seed, or if there was none: two empty traces show nothing.
    fn end_seed(&self) -> Result<()> {
        let seed = self.seed.as_ref().context("the traces are empty")?;
        // Besides what happened, there are the heading and the numbers.
        ensure!(self.lines_of_seed > 2, "the trace of seed {seed} is empty");
        Ok(())
    }
}

/// Reads a line, with its end.
fn line(from: &mut impl BufRead) -> Result<Line> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    Ok(Some(line).filter(|line| !line.is_empty()))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_string()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |line: &Line| line.as_deref().map_or("(ends here)".to_string(), text);
        let seed = self
            .seed
            .as_ref()
            .map_or("before the first seed".into(), |seed| format!("seed {seed}"));
        writeln!(f, "{seed}, line {}", self.line)?;
        writeln!(f, "  native: {}", shown(&self.native))?;
        write!(f, "  wasm:   {}", shown(&self.wasm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "seed 7\n 0.1 ms  a starts\n 0.2 ms  b starts\n1 runs\n";
    const TWO: &str = "seed 7\n 0.1 ms  a starts\n1 runs\nseed 8\n 0.1 ms  b starts\n1 runs\n";

    fn compared(native: &str, wasm: &str) -> (Traces, Result<Option<Difference>>) {
        let mut traces = Traces::default();
        let result = traces.compare(&mut native.as_bytes(), &mut wasm.as_bytes());
        let result = match result {
            Ok(None) => traces.end_seed().map(|()| None),
            result => result,
        };
        (traces, result)
    }

    fn difference(native: &str, wasm: &str) -> String {
        compared(native, wasm).1.expect("traces").expect("a difference").to_string()
    }

    #[test]
    fn equal_traces_are_counted() {
        let (traces, result) = compared(TWO, TWO);
        assert_eq!(result.expect("traces"), None);
        assert_eq!((traces.seeds, traces.lines, traces.bytes), (2, 6, TWO.len() as u64));
    }

    #[test]
    fn the_first_line_that_differs_is_named_with_its_seed() {
        assert_eq!(
            difference(TWO, &TWO.replace("b starts", "b stops")),
            "seed 8, line 2\n  native:  0.1 ms  b starts\n  wasm:    0.1 ms  b stops"
        );
        assert_eq!(
            difference("seed 1\n", "seed 2\n"),
            "before the first seed, line 1\n  native: seed 1\n  wasm:   seed 2"
        );
    }

    #[test]
    fn a_trace_that_ends_early_is_a_difference() {
        let end = "seed 7, line 4\n  native: 1 runs\n  wasm:   (ends here)";
        assert_eq!(difference(ONE, ONE.trim_end_matches("1 runs\n")), end);
        // Also in the middle of a line.
        assert!(difference(ONE.trim_end_matches(" runs\n"), ONE).contains("native: 1\n"));
    }

    #[test]
    fn empty_traces_fail() {
        let reason =
            |text: &str| compared(text, text).1.expect_err("nothing to compare").to_string();
        assert_eq!(reason(""), "the traces are empty");
        assert_eq!(reason("seed 7\n1 runs\n"), "the trace of seed 7 is empty");
        assert_eq!(reason(&format!("seed 6\n1 runs\n{ONE}")), "the trace of seed 6 is empty");
        assert_eq!(reason(&format!("{ONE}seed 8\n")), "the trace of seed 8 is empty");
    }
}
