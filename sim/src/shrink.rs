//! Finds a smaller run that also fails.

use crate::conditions::Fault;
use crate::world::{Plan, Report, run};

/// Tries fewer nodes, fewer faults and fewer steps, and keeps each change with which the run still
/// fails. Each change also changes everything else that the seed decides, so a change is tried
/// together with those that were kept before.
pub fn shrink(failed: Report) -> Report {
    let mut best = failed;
    let attempt = |best: &mut Report, plan: Plan| {
        let report = run(&plan);
        let fails = report.failure.is_some();
        if fails {
            *best = report;
        }
        fails
    };
    let steps = best.stats.events;
    let plan = Plan { steps: steps.min(best.plan.steps), ..best.plan.clone() };
    attempt(&mut best, plan);
    for nodes in 1..best.nodes {
        let plan = Plan { nodes: Some(nodes), ..best.plan.clone() };
        if attempt(&mut best, plan) {
            break;
        }
    }
    for fault in Fault::ALL {
        if best.faults.has(fault) {
            let plan = Plan { without: best.plan.without.with(fault), ..best.plan.clone() };
            attempt(&mut best, plan);
        }
    }
    let mut steps = best.plan.steps / 2;
    while steps > 10 {
        let plan = Plan { steps, ..best.plan.clone() };
        if !attempt(&mut best, plan) {
            break;
        }
        steps = best.plan.steps / 2;
    }
    best
}
