//! Machine checks: the processor has found that something in it or around it is broken (Intel SDM vol. 3, chapter 16).
//!
//! An error that has done no harm yet (a memory scrubber found it, say) is recorded and the machine goes on; any other ends
//! the instar, with the bank and its status on the serial line. What is found in a bank later, because the error came
//! while no instar was in charge of the core, counts as well: the pen leaves it there.
//!
//! Intel sends most machine checks to all cores at once, and cores may share a bank: one error can be counted by two.

use core::sync::atomic::Ordering;

use log::warn;

use crate::start::panic::last_words;

use super::interrupt::Frame;
use super::pen::Cause;
use super::pen::Header;
use super::registers::{msr, read_msr, write_msr};
use super::{current, fault, stop};

/// IA32_MCG_CAP (SDM section 16.3.1.1): what the machine-check architecture of this core can do.
#[derive(Clone, Copy)]
struct Capabilities(u64);

impl Capabilities {
    /// Of the core that runs this; without the architecture, no banks.
    fn read() -> Self {
        let present = raw_cpuid::CpuId::new()
            .get_feature_info()
            .is_some_and(|features| features.has_mca());
        if !present {
            return Self(0);
        }
        // SAFETY: the MSR exists with the architecture.
        Self(unsafe { read_msr(msr::MCG_CAP) })
    }

    fn banks(self) -> u8 {
        self.0 as u8
    }

    /// Is there an IA32_MCG_CTL?
    fn has_control(self) -> bool {
        self.0 & 1 << 8 != 0
    }

    /// MCG_SER_P: do the banks tell errors that can be survived from others?
    fn tells_survivable(self) -> bool {
        self.0 & 1 << 24 != 0
    }
}

/// IA32_MCi_STATUS (SDM section 16.3.2.2): what a bank holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status(u64);

impl Status {
    fn is_valid(self) -> bool {
        self.bit(63)
    }

    fn is_uncorrected(self) -> bool {
        self.bit(61)
    }

    /// PCC: what the core was doing is lost.
    fn context_is_corrupt(self) -> bool {
        self.bit(57)
    }

    /// S and AR: the core has used what is broken, and must not use it again.
    fn demands_action(self) -> bool {
        self.bit(56) && self.bit(55)
    }

    /// The architectural error code, which says what was broken (SDM section 16.9).
    fn code(self) -> u16 {
        self.0 as u16
    }

    fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 != 0
    }

    /// Is there no going on (SDM section 16.6.2, table 16-6)? Without MCG_SER_P nobody can say that an uncorrected error
    /// has done no harm.
    fn is_fatal(self, capabilities: Capabilities) -> bool {
        let harmful = self.demands_action() || !capabilities.tells_survivable();
        self.is_valid() && (self.context_is_corrupt() || self.is_uncorrected() && harmful)
    }

    fn describe(self) -> &'static str {
        match (
            self.is_uncorrected(),
            self.context_is_corrupt(),
            self.demands_action(),
        ) {
            (false, false, _) => "corrected",
            (_, true, _) => "uncorrected, and what the core was doing is lost",
            (true, false, true) => "uncorrected, and the core has used what is broken",
            (true, false, false) => "uncorrected, and nobody has used what is broken",
        }
    }
}

/// What a machine check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// Go on.
    Survivable,
    /// There is no going on, because of this bank, or (`None`) because nobody knows where to go on.
    Fatal(Option<u8>),
}

/// IA32_MCG_STATUS.RIPV: the interrupted program can go on where it was (SDM section 16.3.1.2).
const RESTART_IP_VALID: u64 = 1;

/// `global` is IA32_MCG_STATUS, `status` gives each bank's.
fn severity(global: u64, capabilities: Capabilities, status: impl Fn(u8) -> Status) -> Severity {
    let fatal = (0..capabilities.banks()).find(|bank| status(*bank).is_fatal(capabilities));
    if fatal.is_some() || global & RESTART_IP_VALID == 0 {
        return Severity::Fatal(fatal);
    }
    Severity::Survivable
}

/// Whether IA32_MC0_CTL is the firmware's: family 6 before model 0x1a (SDM section 16.8, example 16-1).
fn bank_0_is_the_firmwares(family: u8, model: u8) -> bool {
    family == 6 && model < 0x1a
}

const fn control(bank: u8) -> u32 {
    msr::MC0_CTL + 4 * bank as u32
}

fn status(bank: u8) -> Status {
    // SAFETY: the caller has the number of a bank from IA32_MCG_CAP.
    Status(unsafe { read_msr(control(bank) + 1) })
}

/// The address that the error is about, if the bank knows one (ADDRV).
fn address(bank: u8, status: Status) -> Option<u64> {
    // SAFETY: the register exists where ADDRV is set.
    status.bit(58).then(|| unsafe { read_msr(control(bank) + 2) })
}

/// Records what this core's banks hold, and empties them.
fn collect(capabilities: Capabilities) {
    for bank in 0..capabilities.banks() {
        let found = status(bank);
        if !found.is_valid() {
            continue;
        }
        let place = u64::try_from(current::id().index()).unwrap_or_default() << 8 | u64::from(bank);
        // The pen is known before a core has this image's handlers.
        if let Some(pen) = stop::pen() {
            pen.header().note_machine_check(place, found.0);
        }
        // SAFETY: a bank's status takes zeros (SDM section 16.3.2.2).
        unsafe { write_msr(control(bank) + 1, 0) };
    }
}

/// The machine-check exception. Takes no lock; returns if the core can go on.
pub(super) fn on_exception(frame: &Frame) {
    let capabilities = Capabilities::read();
    if capabilities.banks() == 0 {
        fault::report(frame);
    }
    // SAFETY: the MSR exists with the architecture.
    let global = unsafe { read_msr(msr::MCG_STATUS) };
    if let Severity::Fatal(bank) = severity(global, capabilities, status) {
        report_fatal(global, bank);
    }
    collect(capabilities);
    // Last.
    end_exception();
}

fn report_fatal(global: u64, bank: Option<u8>) -> ! {
    let core = current::id();
    match bank.map(|bank| (bank, status(bank))) {
        Some((bank, found)) => last_words(
            Cause::MachineCheck,
            format_args!(
                "machine check on core {core}: bank {bank} has error code {:#06x}: {}",
                found.code(),
                found.describe(),
            ),
            format_args!(
                "machine check on core {core}: bank {bank} has status {:#018x}, address {:#x}: {}",
                found.0,
                address(bank, found).unwrap_or_default(),
                found.describe(),
            ),
        ),
        None => {
            let text = format_args!(
                "machine check on core {core}: its status is {global:#x}: nobody knows where the core could go on",
            );
            last_words(Cause::MachineCheck, text, text)
        }
    }
}

/// Prepares the calling core (SDM section 16.8): what its banks hold from before is recorded, then all errors are reported.
/// The caller sets CR4.MCE.
pub(super) fn start() {
    let capabilities = Capabilities::read();
    if capabilities.banks() == 0 {
        return;
    }
    collect(capabilities);
    end_exception();
    let first = raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_some_and(|cpu| bank_0_is_the_firmwares(cpu.family_id(), cpu.model_id()));
    // SAFETY: control registers take all ones: report everything.
    unsafe {
        if capabilities.has_control() {
            write_msr(msr::MCG_CTL, u64::MAX);
        }
        for bank in u8::from(first)..capabilities.banks() {
            write_msr(control(bank), u64::MAX);
        }
    }
}

/// Records what has come to a core that was in the pen and goes on in this instar.
pub(super) fn collect_from_the_pen() {
    let capabilities = Capabilities::read();
    if capabilities.banks() > 0 {
        collect(capabilities);
        end_exception();
    }
}

/// From here on another one may come: with MCIP set it would shut the machine down (SDM section 16.3.1.2). It is set on a core
/// whose last instar ended by a machine check and gave the machine back.
fn end_exception() {
    // SAFETY: the MSR exists with the architecture, and takes a zero.
    unsafe { write_msr(msr::MCG_STATUS, 0) };
}

/// Errors since the cold boot that the machine has survived.
#[must_use]
pub fn count() -> u64 {
    stop::pen().map_or(0, |pen| pen.header().machine_checks.load(Ordering::Relaxed))
}

/// Writes a log record if there are errors that nobody has been told of. From a task.
pub(crate) fn report() {
    let Some(pen) = stop::pen() else { return };
    if let Some((new, place, status)) = pen.header().untold_machine_checks() {
        let (core, bank) = (place >> 8, place & 0xff);
        warn!(
            "{new} machine-check errors, the last in bank {bank} of core {core}, error code {:#06x}, status {status:#018x}: {}; the \
             machine goes on, but something in it is about to fail",
            Status(status).code(),
            Status(status).describe()
        );
    }
}

impl Header {
    /// Counts one; `place` is core and bank.
    fn note_machine_check(&self, place: u64, status: u64) {
        self.machine_check_place.store(place, Ordering::Relaxed);
        self.machine_check_status.store(status, Ordering::Relaxed);
        self.machine_checks.fetch_add(1, Ordering::SeqCst);
    }

    /// How many have been counted since the last call, by whatever instar, and place and status of the last one.
    fn untold_machine_checks(&self) -> Option<(u64, u64, u64)> {
        let count = self.machine_checks.load(Ordering::SeqCst);
        let told = self.machine_checks_told.swap(count, Ordering::Relaxed);
        (count > told).then(|| {
            (
                count - told,
                self.machine_check_place.load(Ordering::Relaxed),
                self.machine_check_status.load(Ordering::Relaxed),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: u64 = 1 << 63;
    const UC: u64 = 1 << 61;
    const EN: u64 = 1 << 60;
    const PCC: u64 = 1 << 57;
    const S: u64 = 1 << 56;
    const AR: u64 = 1 << 55;
    const SER: u64 = 1 << 24;
    const MCIP: u64 = 1 << 2;

    /// Three banks, the second of which holds `bank`.
    fn of(global: u64, capabilities: u64, bank: u64) -> Severity {
        severity(global, Capabilities(capabilities | 3), |index| {
            Status(if index == 1 { bank } else { 0 })
        })
    }

    #[test]
    fn errors_that_did_no_harm_are_survived() {
        let running = MCIP | RESTART_IP_VALID;
        let good = [
            0,
            VALID,
            VALID | EN,
            // The memory scrubber's, action optional (SDM table 16-6: SRAO), and UCNA.
            VALID | UC | EN | S | 0xc0,
            VALID | UC | 0x9f,
            // Not valid: whatever else it says.
            UC | PCC | S | AR,
        ];
        for bank in good {
            assert_eq!(of(running, SER, bank), Severity::Survivable, "{bank:#x}");
        }
    }

    #[test]
    fn harm_is_fatal() {
        let running = MCIP | RESTART_IP_VALID;
        let bad = [
            VALID | UC | EN | PCC,
            VALID | UC | EN | S | AR,
            VALID | UC | EN | PCC | S,
            VALID | PCC,
        ];
        for bank in bad {
            assert_eq!(of(running, SER, bank), Severity::Fatal(Some(1)), "{bank:#x}");
        }
    }

    #[test]
    fn nowhere_to_go_on_is_fatal() {
        assert_eq!(of(MCIP, SER, 0), Severity::Fatal(None));
        assert_eq!(of(MCIP, SER, VALID | UC | PCC), Severity::Fatal(Some(1)));
        assert_eq!(of(MCIP | 2, SER, VALID), Severity::Fatal(None));
    }

    #[test]
    fn without_recovery_every_uncorrected_error_is_fatal() {
        let running = MCIP | RESTART_IP_VALID;
        assert_eq!(of(running, 0, VALID | UC | EN | S), Severity::Fatal(Some(1)));
        assert_eq!(of(running, 0, VALID | EN), Severity::Survivable);
    }

    #[test]
    fn every_bank_is_looked_at() {
        let capabilities = Capabilities(SER | 32);
        let last = |bank| Status(if bank == 31 { VALID | UC | PCC } else { VALID });
        assert_eq!(
            severity(RESTART_IP_VALID, capabilities, last),
            Severity::Fatal(Some(31))
        );
    }

    #[test]
    fn old_parts_keep_bank_0() {
        assert!(bank_0_is_the_firmwares(6, 0x17));
        assert!(!bank_0_is_the_firmwares(6, 0x8f));
        assert!(!bank_0_is_the_firmwares(0x19, 0x01));
    }
}
