//! The program behind `cargo xtask sim --tabs`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use conflux_sim::parallel::{for_each_seed, quiet_panics};
use conflux_sim::tabs::{Plan, Report, Stats, run};
use conflux_sim::traces::{self, Shown};

#[cfg(not(target_family = "wasm"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "cargo xtask sim --tabs",
    about = "Simulates the tabs of a browser under faults; a seed decides everything that happens"
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
    /// How many events there are before the faults stop.
    #[arg(long, default_value_t = 4_000)]
    steps: u64,
    /// Print everything that happens, one seed after the other.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    quiet_panics();
    let plan = |seed| Plan { seed, steps: cli.steps, trace: false };
    let seeds = cli.seed.map_or(cli.from..cli.from + cli.seeds, |seed| seed..seed + 1);
    if cli.trace {
        let run = |seed| run(&Plan { trace: true, ..plan(seed) });
        return match traces::print(seeds, run, shown) {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(failed)) => explain(&failed),
            // Nobody reads the trace any more.
            Err(_) => ExitCode::FAILURE,
        };
    }
    let result = Mutex::new((Stats::default(), Duration::ZERO, None::<Report>));
    for_each_seed(seeds.start.., None, |seed| {
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
    failed.map_or(ExitCode::SUCCESS, |failed| explain(&failed))
}

fn shown(report: &Report) -> Shown<'_> {
    let numbers = numbers(&report.stats);
    Shown { trace: &report.trace, numbers, failed: report.failure.is_some() }
}

fn numbers(stats: &Stats) -> String {
    format!(
        "{} runs, {} events, {:.1} h simulated; {} performs and reads, {} entries committed, {} \
         leaders elected; {} tabs opened, {} died, {} froze; {} nodes loaded, {} locks stolen, {} \
         times all tabs died; {} clusters founded, {} times destroyed, {} times site data cleared",
        stats.runs,
        stats.events,
        stats.time as f64 / 3.6e9,
        stats.ops,
        stats.committed,
        stats.elections,
        stats.opened,
        stats.died,
        stats.frozen,
        stats.adopted,
        stats.stolen,
        stats.extinct,
        stats.founded,
        stats.destroyed,
        stats.cleared,
    )
}

/// Prints a failure, a shorter run that also fails, the commands that repeat both, and the last
/// events of the shorter run.
fn explain(failed: &Report) -> ExitCode {
    let command =
        |plan: &Plan| format!("cargo xtask sim --tabs --seed {} --steps {}", plan.seed, plan.steps);
    println!("\nseed {} fails: {}", failed.plan.seed, failed.failure.as_deref().unwrap_or(""));
    println!("to repeat it: {}", command(&failed.plan));
    let mut plan = failed.plan.clone();
    for part in [2, 4, 8, 16] {
        let steps = plan.steps - plan.steps / part;
        let smaller = Plan { steps, ..plan.clone() };
        if run(&smaller).failure.is_some() {
            plan = smaller;
        }
    }
    let report = run(&Plan { trace: true, ..plan.clone() });
    println!("\nsmaller: {}", report.failure.as_deref().unwrap_or(""));
    println!("to repeat it: {} --trace", command(&plan));
    let skip = report.trace.len().saturating_sub(40);
    report.trace.iter().skip(skip).for_each(|line| println!("{line}"));
    ExitCode::FAILURE
}
