//! How long to wait before connecting again. Pure: the random number is an argument.

/// The first pause, in ms.
const FIRST: f64 = 100.0;
/// The longest pause, in ms.
const LONGEST: f64 = 5_000.0;

/// The pause before attempt number `attempt` (from 0 on), in ms: exponential, up to five seconds,
/// and between half of it and all of it at random, so that the tabs of a relay that restarts do not
/// all come back at once. `random` is from 0 to 1.
pub fn pause(attempt: u32, random: f64) -> u32 {
    let full = (FIRST * 2f64.powi(attempt.min(16) as i32)).min(LONGEST);
    (full * (0.5 + random.clamp(0.0, 1.0) / 2.0)) as u32
}

#[cfg(test)]
mod tests {
    use super::pause;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        assert_eq!((pause(0, 0.0), pause(0, 1.0)), (50, 100));
        assert_eq!((pause(3, 0.0), pause(3, 1.0)), (400, 800));
        assert_eq!((pause(99, 0.0), pause(u32::MAX, 7.0)), (2500, 5000));
    }
}
