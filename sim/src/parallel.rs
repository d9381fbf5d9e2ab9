//! Runs seeds on all cores, and turns panics into failures.

use std::cell::RefCell;
use std::ops::RangeFrom;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::invariants::Check;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics from being printed. Each is reported by `failure`, with the place where it
/// happened. Where a panic ends the process, as in WebAssembly, nothing can report it later, so it
/// is printed.
pub fn quiet_panics() {
    if cfg!(panic = "abort") {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
    }));
}

/// Calls `run`. Gives the reason if it fails: what did not hold, or a panic.
pub(crate) fn failure(run: impl FnOnce() -> Check) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(check) => check.err(),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or(payload.downcast_ref::<&str>().map(ToString::to_string));
            let placed = PANIC.with(|panic| panic.borrow_mut().take());
            Some(format!("panic: {}", placed.or(text).unwrap_or_default()))
        }
    }
}

/// Calls `each` with one seed after another, on so many threads (otherwise one for each core),
/// until `each` returns `false`. Seeds are started in order.
pub fn for_each_seed(
    seeds: RangeFrom<u64>,
    threads: Option<usize>,
    each: impl Fn(u64) -> bool + Sync,
) {
    let next = AtomicU64::new(seeds.start);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let run = || while each(next.fetch_add(1, Ordering::Relaxed)) {};
    match threads.unwrap_or(cores) {
        // WebAssembly has no other threads.
        1 => run(),
        threads => std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run)))),
    }
}
