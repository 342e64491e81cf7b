//! Random numbers: ChaCha20 seeded from RDSEED, or RDRAND where there is no RDSEED.

use core::arch::x86_64::{_rdrand64_step, _rdseed64_step};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spin::Mutex;

use super::registers::tsc;

static GENERATOR: Mutex<Option<ChaCha20Rng>> = Mutex::new(None);

/// Where the seed came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The processor's entropy source.
    Rdseed,
    /// The processor's generator.
    Rdrand,
    /// Neither exists: the time of the boot, which can be guessed. Nothing secret should rest on it.
    Clock,
}

/// Fills `bytes`.
pub fn fill(bytes: &mut [u8]) {
    GENERATOR
        .lock()
        .get_or_insert_with(|| ChaCha20Rng::from_seed(seed().0))
        .fill_bytes(bytes);
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A random number.
pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

/// What a seed comes from on this processor.
pub fn source() -> Source {
    let cpuid = raw_cpuid::CpuId::new();
    if cpuid
        .get_extended_feature_info()
        .is_some_and(|features| features.has_rdseed())
    {
        Source::Rdseed
    } else if cpuid
        .get_feature_info()
        .is_some_and(|features| features.has_rdrand())
    {
        Source::Rdrand
    } else {
        Source::Clock
    }
}

fn seed() -> ([u8; 32], Source) {
    let source = source();
    let mut seed = [0; 32];
    for part in seed.chunks_exact_mut(8) {
        let word = match source {
            // SAFETY: CPUID says that the instruction exists.
            Source::Rdseed => unsafe { retry(|word| rdseed(word)) },
            // SAFETY: as above.
            Source::Rdrand => unsafe { retry(|word| rdrand(word)) },
            Source::Clock => None,
        };
        // Mixing the clock in costs nothing, and is all there is when the processor's source has dried up.
        let word = word.unwrap_or(0) ^ tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        part.copy_from_slice(&word.to_le_bytes());
    }
    (seed, source)
}

/// The instructions may fail when they are asked too fast: Intel recommends ten tries of RDRAND (SDM vol. 1, 7.3.17.1);
/// RDSEED dries up sooner.
unsafe fn retry(mut step: impl FnMut(&mut u64) -> i32) -> Option<u64> {
    let mut word = 0;
    for _ in 0..100 {
        if step(&mut word) == 1 {
            return Some(word);
        }
        core::hint::spin_loop();
    }
    None
}

#[target_feature(enable = "rdseed")]
fn rdseed(word: &mut u64) -> i32 {
    _rdseed64_step(word)
}

#[target_feature(enable = "rdrand")]
fn rdrand(word: &mut u64) -> i32 {
    _rdrand64_step(word)
}
