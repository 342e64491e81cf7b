//! Fifty steps of the soak (`cargo xtask soak` makes a thousand): whatever comes, the machine serves on.

use machine_tests::machine::{Turn, turn};
use xtask::soak::{self, Plan};

/// The same each time, so that a failure can be seen again.
const SEED: u64 = 4;

#[test]
fn fifty_steps() {
    let _turn = turn(Turn::default());
    let plan = Plan {
        count: 50,
        seed: SEED,
        cores: 4,
    };
    println!("seed {SEED}");
    let report = soak::run(plan, |number, step| println!("{number:>4} {step}"))
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(report.steps.values().sum::<u32>(), 50);
    assert!(
        report.committed > 0 && report.rolled_back > 0 && report.refused > 0,
        "{report:?}"
    );
    println!("{report:?}");
}
