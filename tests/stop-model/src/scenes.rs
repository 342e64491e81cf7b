// What may happen in a machine, included once for each variant of the protocol.

use protocol::NotStopped;

fn core(index: usize) -> CoreId {
    CoreId::new(index).expect("a core's number")
}

/// Core 0 stops all others and jumps.
pub fn everybody_stops(hears: &[Hears], patience: [Patience; 2], pen_is_seen: bool) {
    let shared = Shared::new(hears.len());
    let machine = Machine::new(&shared, hears, patience, pen_is_seen);
    stop_and_jump(&machine, core(0));
}

/// `me` is elected, stops all others, and jumps.
fn stop_and_jump(machine: &Machine, me: CoreId) {
    let stopper = machine.shared.protocol.elect(me).expect("nobody else wants to");
    assert_eq!(stopper.stop(machine, machine.others(me)), Ok(()), "somebody did not stop");
    stopper.flush_last(machine);
    machine.shared.jump();
    machine.rest();
    assert_eq!(machine.shared.parked(), machine.others(me));
}

/// Core 0 is in a hurry. Whoever it calls deaf has not stopped and never will; all others have, or will.
pub fn in_a_hurry(hears: &[Hears]) {
    let shared = Shared::new(hears.len());
    let machine = Machine::new(&shared, hears, [Patience::Short; 2], true);
    let others = machine.others(core(0));
    let stopper = shared.protocol.elect(core(0)).expect("nobody else wants to");
    let deaf = match stopper.stop(&machine, others) {
        Ok(()) => {
            stopper.flush_last(&machine);
            shared.jump();
            CoreSet::EMPTY
        }
        Err(NotStopped { deaf, slow }) => {
            assert_eq!(deaf.bits() & slow.bits(), 0);
            deaf
        }
    };
    machine.rest();
    assert_eq!(shared.parked().bits(), others.bits() & !deaf.bits());
}

/// Core 2 is dead. The stop fails and says so, the others run on, and so it is the next time.
pub fn a_dead_core_twice() {
    let shared = Shared::new(3);
    let hears = [Hears::Everything, Hears::Everything, Hears::Nothing];
    for _ in 0..2 {
        let machine = Machine::new(&shared, &hears, [Patience::Short; 2], true);
        let stopper = shared.protocol.elect(core(0)).expect("nobody else wants to");
        let failed = stopper
            .stop(&machine, machine.others(core(0)))
            .expect_err("core 2 is dead");
        assert!(failed.deaf.contains(core(2)));
        machine.rest();
        assert_eq!(shared.parked().bits() | failed.deaf.bits(), machine.others(core(0)).bits());
        shared.run_on();
        stopper.step_down();
    }
}

/// Cores 0 and 1 both want to stop all others. One does; the other one is stopped like any other.
pub fn two_stoppers(cores: usize) {
    let shared = Shared::new(cores);
    let contend = move |shared: &Arc<Shared>, me: CoreId| {
        let machine = Machine::new(shared, &vec![Hears::Everything; cores], [Patience::Long; 2], false);
        let elected = shared.protocol.elect(me);
        let Ok(stopper) = elected else { return false };
        assert_eq!(stopper.stop(&machine, machine.others(me)), Ok(()), "somebody did not stop");
        stopper.flush_last(&machine);
        shared.jump();
        machine.rest();
        true
    };
    let other = {
        let shared = Arc::clone(&shared);
        loom::thread::spawn(move || contend(&shared, core(1)))
    };
    let first = contend(&shared, core(0));
    let second = other.join().expect("no panic");
    assert!(first != second, "one and only one jumps");
}

/// Core 1 cannot go on (a panic), and looks by itself whether it is asked to stop, besides being called.
pub fn a_core_that_looks_by_itself() {
    let shared = Shared::new(2);
    let machine = Machine::new(&shared, &[Hears::Everything; 2], [Patience::Short, Patience::Long], false);
    // As if it had been interrupted before anybody asked.
    machine.send(core(1));
    let stopper = shared.protocol.elect(core(0)).expect("nobody else wants to");
    let stopped = stopper.stop(&machine, machine.others(core(0)));
    machine.rest();
    if stopped.is_ok() {
        stopper.flush_last(&machine);
        shared.jump();
    }
    assert_eq!(shared.parked(), machine.others(core(0)));
}
