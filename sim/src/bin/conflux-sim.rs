//! The program behind `cargo xtask sim`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use conflux_sim::conditions::{Fault, Faults};
use conflux_sim::parallel::{for_each_seed, quiet_panics};
use conflux_sim::shrink::shrink;
use conflux_sim::traces::{self, Shown};
use conflux_sim::world::{Plan, Report, Stats, run};

/// Faster than the default allocator: it saves a sixth of the time.
#[cfg(not(target_family = "wasm"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    about = "Simulates clusters under faults; a seed decides everything that happens"
)]
struct Cli {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    from: u64,
    /// Run only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// How many members the cluster has; otherwise the seed decides.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: Option<u8>,
    /// How many events there are before the faults stop.
    #[arg(long, default_value_t = Plan::STEPS)]
    steps: u64,
    /// Kinds of faults that must not happen, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Print everything that happens, one seed after the other.
    #[arg(long)]
    trace: bool,
    /// How many threads to use; otherwise one for each core.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    quiet_panics();
    let plan = |seed| Plan {
        seed,
        nodes: cli.nodes.map(usize::from),
        steps: cli.steps,
        without: cli.without.iter().copied().collect(),
        trace: false,
    };
    let seeds = cli.seed.map_or(cli.from..cli.from + cli.seeds, |seed| seed..seed + 1);
    if cli.trace {
        let run = |seed| run(&Plan { trace: true, ..plan(seed) });
        return match traces::print(seeds, run, shown) {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(failed)) => explain(failed),
            // Nobody reads the trace any more.
            Err(_) => ExitCode::FAILURE,
        };
    }
    let result = Mutex::new((Stats::default(), Duration::ZERO, None::<Report>));
    for_each_seed(seeds.start.., cli.threads, |seed| {
        if seed >= seeds.end || result.lock().expect("no panic").2.is_some() {
            return false;
        }
        let began = Instant::now();
        let report = run(&plan(seed));
        let mut result = result.lock().expect("no panic");
        result.0.add(&report.stats);
        result.1 += began.elapsed();
        if report.failure.is_some() {
            result.2.get_or_insert(report);
        }
        true
    });
    let (stats, busy, failed) = result.into_inner().expect("no panic");
    println!("{}", numbers(&stats));
    if !busy.is_zero() {
        println!("{:.0} events/s on one core", stats.events as f64 / busy.as_secs_f64());
    }
    failed.map_or(ExitCode::SUCCESS, explain)
}

fn shown(report: &Report) -> Shown<'_> {
    let numbers = numbers(&report.stats);
    Shown { trace: &report.trace, numbers, failed: report.failure.is_some() }
}

fn numbers(stats: &Stats) -> String {
    format!(
        "{} runs, {} events, {:.1} h simulated; {} performs and reads, {} entries committed, {} \
         leaders elected, {} crashes, {} snapshots, {} divergences reported, {} membership changes requested; {} \
         clusters lost while forming",
        stats.runs,
        stats.events,
        stats.time as f64 / 3.6e9,
        stats.ops,
        stats.committed,
        stats.elections,
        stats.crashes,
        stats.snapshots,
        stats.divergences,
        stats.changes,
        stats.lost,
    )
}

/// Prints a failure, a smaller run that also fails, the commands that repeat both, and the last
/// events of the smaller run.
fn explain(failed: Report) -> ExitCode {
    println!("\nseed {} fails: {}", failed.plan.seed, failed.failure.as_deref().unwrap_or(""));
    println!("to repeat it: {}", command(&failed.plan));
    let smaller = shrink(failed);
    let plan = Plan { trace: true, ..smaller.plan };
    let report = run(&plan);
    println!(
        "\nsmaller, with {} nodes and {} events: {}",
        report.nodes,
        report.stats.events,
        report.failure.as_deref().unwrap_or("")
    );
    println!("to repeat it: {} --trace", command(&plan));
    println!("its last events:");
    let skip = report.trace.len().saturating_sub(40);
    report.trace.iter().skip(skip).for_each(|line| println!("{line}"));
    ExitCode::FAILURE
}

fn command(plan: &Plan) -> String {
    let mut command = format!("cargo xtask sim --seed {}", plan.seed);
    if let Some(nodes) = plan.nodes {
        command += &format!(" --nodes {nodes}");
    }
    if plan.steps != Plan::STEPS {
        command += &format!(" --steps {}", plan.steps);
    }
    if plan.without != Faults::default() {
        command += &format!(" --without {}", plan.without);
    }
    command
}
