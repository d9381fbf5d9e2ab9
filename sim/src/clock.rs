//! Clocks that drift and jump.

/// Microseconds of simulated time.
pub type Micros = u64;

/// A process's own clock. It shows ms, as a function of simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Simulated time and the time on this clock, in µs, at the last change of its rate or jump.
    since: (Micros, Micros),
    /// How fast the clock runs, in thousandths: 1000 is right.
    rate: u64,
}

impl Clock {
    /// A clock that shows `own` µs at the simulated time `now` and runs at the right rate.
    pub fn new(now: Micros, own: Micros) -> Self {
        Self { since: (now, own), rate: 1000 }
    }

    fn own(&self, now: Micros) -> Micros {
        self.since.1 + (now - self.since.0) * self.rate / 1000
    }

    /// What the clock shows, in ms.
    pub fn read(&self, now: Micros) -> u64 {
        self.own(now) / 1000
    }

    /// The simulated time at which the clock will show `at` ms, if it neither jumps nor changes its
    /// rate.
    pub fn when(&self, now: Micros, at: u64) -> Micros {
        // Of a timer that is more than a day away, the exact time does not matter.
        let left = at.saturating_mul(1000).saturating_sub(self.own(now)).min(86_400_000_000);
        now + (left * 1000).div_ceil(self.rate)
    }

    /// From now on the clock runs at this rate, in thousandths.
    pub fn set_rate(&mut self, now: Micros, rate: u64) {
        self.since = (now, self.own(now));
        self.rate = rate;
    }

    /// The clock jumps by so many µs, forwards or back.
    pub fn jump(&mut self, now: Micros, by: i64) {
        self.since = (now, self.own(now).saturating_add_signed(by));
    }
}
