//! Speed of this machine's processor, compared to the one on which the constants of `waves::costs` were measured.

use std::hint::black_box;
use std::time::Instant;

/// Steps of the computation; each depends on the one before and takes about 4 cycles.
const STEPS: u64 = 8192;
/// Number of runs. The fastest one counts, in which no other process has had the processor.
const TRIES: usize = 20;
/// Seconds of the fastest run on that machine.
const THERE: f64 = 11.4e-6;

/// Returns how many times as long the computation takes here, between a quarter and four.
pub fn slower() -> f64 {
    let quickest = (0..TRIES).map(|_| once()).fold(f64::INFINITY, f64::min);
    (quickest / THERE).clamp(0.25, 4.0)
}

fn once() -> f64 {
    let begun = Instant::now();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for step in 0..black_box(STEPS) {
        hash = (hash ^ step).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
    }
    black_box(hash);
    begun.elapsed().as_secs_f64()
}
