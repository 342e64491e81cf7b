//! What comes next: drawn from a seed, the same on every computer.

use std::fmt;

/// A step of the soak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A successor that does its work, at once or after a while.
    Good { slow: bool, security_version: u64 },
    /// One that fails, by itself or by a trial that is too short for it.
    Fails {
        how: String,
        security_version: u64,
        probation_ms: Option<u32>,
    },
    /// One whose trial an order ends.
    Ordered { commit: bool, security_version: u64 },
    /// An image that must be refused.
    BadImage(Damage),
    /// An order that must be refused.
    BadOrder(BadOrder),
}

/// What is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// A bit, somewhere.
    Bit(u64),
    /// The end.
    Cut(u64),
    /// Everything.
    Noise(Vec<u8>),
    /// Who signed it.
    Stranger,
    /// Its security version.
    BelowFloor,
}

/// What is wrong with an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadOrder {
    /// Another moment's.
    Nonce,
    /// Who signed it.
    Stranger,
    /// Nobody knows what it asks for.
    Action,
    /// The trial is too short.
    Probation,
    /// There is no trial.
    Commit,
    /// Everything.
    Noise(Vec<u8>),
}

impl Step {
    /// Its kind.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Good { slow: false, .. } => "good",
            Self::Good { slow: true, .. } => "slow",
            Self::Fails { .. } => "failing",
            Self::Ordered { commit: true, .. } => "committed by order",
            Self::Ordered { commit: false, .. } => "rolled back by order",
            Self::BadImage(_) => "bad image",
            Self::BadOrder(_) => "bad order",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        match self {
            Self::Good { security_version, .. } | Self::Ordered { security_version, .. } => {
                write!(f, " (security version {security_version})")
            }
            Self::Fails {
                how,
                security_version,
                ..
            } => {
                write!(f, " {how} (security version {security_version})")
            }
            Self::BadImage(Damage::Noise(bytes)) => write!(f, ": {} bytes of noise", bytes.len()),
            Self::BadImage(damage) => write!(f, ": {damage:?}"),
            Self::BadOrder(BadOrder::Noise(bytes)) => write!(f, ": {} bytes of noise", bytes.len()),
            Self::BadOrder(bad) => write!(f, ": {bad:?}"),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = 1 + self.below(4096);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// The next step of a machine with so many cores, whose floor is `floor`.
    pub(super) fn step(&mut self, cores: u32, floor: u64) -> Step {
        // Above the floor now and then: what fails must not raise it.
        let security_version = floor + u64::from(self.below(4) == 0);
        match self.below(20) {
            0..4 => Step::Good {
                slow: false,
                security_version,
            },
            4 => Step::Good {
                slow: true,
                security_version,
            },
            5..12 => self.failing(cores, security_version),
            12..14 => Step::Ordered {
                commit: false,
                security_version,
            },
            14 => Step::Ordered {
                commit: true,
                security_version,
            },
            15..18 => Step::BadImage(match self.below(5) {
                0 => Damage::Bit(self.next()),
                1 => Damage::Cut(self.next()),
                2 => Damage::Noise(self.noise()),
                3 if floor > 0 => Damage::BelowFloor,
                _ => Damage::Stranger,
            }),
            _ => Step::BadOrder(match self.below(6) {
                0 => BadOrder::Nonce,
                1 => BadOrder::Stranger,
                2 => BadOrder::Action,
                3 => BadOrder::Probation,
                4 => BadOrder::Commit,
                _ => BadOrder::Noise(self.noise()),
            }),
        }
    }

    /// The kinds and moments of `libos/src/trial.rs`. Hangs are rarer: each takes two seconds.
    fn failing(&mut self, cores: u32, security_version: u64) -> Step {
        const LATE: [&str; 3] = ["before-cores", "after", "before-commit"];
        let mut probation_ms = None;
        let how = match self.below(8) {
            0 => self
                .one_of(&["no-card.before-network", "unhealthy.before-commit"])
                .to_owned(),
            1 => {
                probation_ms = Some(1000 + self.below(1000) as u32);
                self.one_of(&["no-network.before-network", "late.before-commit"])
                    .to_owned()
            }
            kind => {
                let kind = if kind == 2 {
                    self.one_of(&["hang", "deaf"])
                } else {
                    self.one_of(&["panic", "fault", "gp", "double", "overflow"])
                };
                if self.below(2) == 0 {
                    let early = if kind == "overflow" {
                        &["before-network"][..]
                    } else {
                        &["before-heap", "before-network"]
                    };
                    format!("{kind}.{}", self.one_of(early))
                } else {
                    format!("{kind}.{}.{}", self.one_of(&LATE), self.below(u64::from(cores)))
                }
            }
        };
        Step::Fails {
            how,
            security_version,
            probation_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all() {
        let steps = |seed| {
            let mut draw = Draw::new(seed);
            (0..200).map(|_| draw.step(4, 1)).collect::<Vec<_>>()
        };
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
        // Every kind comes up.
        let mut names: Vec<_> = steps(1).iter().map(Step::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 7, "{names:?}");
    }
}
