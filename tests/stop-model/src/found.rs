//! What must hold of the protocol, and which mistakes are found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::original::{self, Hears, Patience};
use crate::{report_before_flush, set_after_interrupt, stopper_keeps_its_lines};

use Hears::{Everything, NmiOnly, Nothing};
use Patience::{Long, Short};

/// Every interleaving.
fn every(scene: impl Fn() + Sync + Send + 'static) {
    loom::model(scene);
}

/// With NMIs beside interrupts there are too many: those in which a thread is interrupted at most twice in all where
/// it could have gone on. That is where mistakes of this kind are found (loom's documentation, "Combinatorial explosion").
fn most(scene: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(scene);
}

#[test]
fn three_cores_by_their_reports_alone() {
    every(|| original::everybody_stops(&[Everything; 3], [Long; 2], false));
}

#[test]
fn three_cores_and_the_pen() {
    every(|| original::everybody_stops(&[Everything; 3], [Long; 2], true));
}

#[test]
fn four_cores() {
    most(|| original::everybody_stops(&[Everything; 4], [Long; 2], false));
}

#[test]
fn two_cores_and_an_nmi_beside_the_interrupt() {
    every(|| original::everybody_stops(&[Everything; 2], [Short, Long], false));
}

#[test]
fn three_cores_and_nmis_beside_interrupts() {
    most(|| original::everybody_stops(&[Everything; 3], [Short, Long], false));
}

#[test]
fn a_core_with_interrupts_off_hears_the_nmi() {
    most(|| original::everybody_stops(&[Everything, Everything, NmiOnly], [Short, Long], false));
}

#[test]
fn a_stopper_in_a_hurry_loses_no_core() {
    every(|| original::in_a_hurry(&[Everything; 2]));
    most(|| original::in_a_hurry(&[Everything; 3]));
}

#[test]
fn a_stopper_in_a_hurry_and_a_dead_core() {
    most(|| original::in_a_hurry(&[Everything, Everything, Nothing]));
}

#[test]
fn a_dead_core_is_named_each_time() {
    most(original::a_dead_core_twice);
}

#[test]
fn of_two_stoppers_one_stops_the_other() {
    every(|| original::two_stoppers(2));
    most(|| original::two_stoppers(3));
}

#[test]
fn a_core_that_gives_way_is_counted_once() {
    most(original::a_core_that_looks_by_itself);
}

#[test]
fn a_report_before_the_flush_is_found() {
    finds("Causality violation", || {
        use report_before_flush::{Hears, Patience, everybody_stops};
        everybody_stops(&[Hears::Everything; 3], [Patience::Long; 2], false);
    });
}

#[test]
fn a_set_that_is_written_after_the_interrupt_is_found() {
    finds("took the interrupt and did not stop", || {
        use set_after_interrupt::{Hears, Patience, everybody_stops};
        everybody_stops(&[Hears::Everything; 3], [Patience::Long; 2], false);
    });
}

#[test]
fn a_stopper_that_does_not_flush_is_found() {
    finds("core 0 has not flushed", || {
        use stopper_keeps_its_lines::{Hears, Patience, everybody_stops};
        everybody_stops(&[Hears::Everything; 3], [Patience::Long; 2], false);
    });
}

/// The model must stumble over this variant, and for this reason.
fn finds(reason: &str, scene: impl Fn() + Sync + Send + 'static) {
    let stumbled = catch_unwind(AssertUnwindSafe(|| loom::model(scene)));
    let panic = stumbled.expect_err("the model found nothing wrong");
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(text.contains(reason), "found something else: {text}");
}
