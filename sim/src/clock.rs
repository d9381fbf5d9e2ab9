//! Clocks that drift, jump and stand still.

/// Microseconds of simulated time.
pub type Micros = u64;

/// A process's own clock: ms on it as a function of true time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// True time and own time, in µs, at the last change.
    since: (Micros, Micros),
    /// Thousandths of a clock that is right.
    rate: u64,
}

impl Clock {
    /// A clock that starts at `own` µs at the true time `now`, and goes right.
    pub fn new(now: Micros, own: Micros) -> Self {
        Self { since: (now, own), rate: 1000 }
    }

    fn own(&self, now: Micros) -> Micros {
        self.since.1 + (now - self.since.0) * self.rate / 1000
    }

    /// What it shows, in ms.
    pub fn read(&self, now: Micros) -> u64 {
        self.own(now) / 1000
    }

    /// The true time at which it will show `at` ms, if nothing happens to it.
    pub fn when(&self, now: Micros, at: u64) -> Micros {
        // Beyond a day it does not matter when.
        let left = at.saturating_mul(1000).saturating_sub(self.own(now)).min(86_400_000_000);
        now + (left * 1000).div_ceil(self.rate)
    }

    /// From now on it goes at this rate, in thousandths.
    pub fn set_rate(&mut self, now: Micros, rate: u64) {
        self.since = (now, self.own(now));
        self.rate = rate;
    }

    /// It jumps by so many µs.
    pub fn jump(&mut self, now: Micros, by: i64) {
        self.since = (now, self.own(now).saturating_add_signed(by));
    }
}
