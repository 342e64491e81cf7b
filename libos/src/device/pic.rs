//! The legacy interrupt controllers (two 8259A): out of the way.
//!
//! Their vectors "must be disabled (that is, masked) when enabling the ACPI APIC operation" (ACPI 6.5, section 5.2.12, table
//! 5.20, PCAT_COMPAT). A BIOS leaves them on, with the timer's interrupt at vector 8, which is the double fault's. That the
//! local APIC masks its LINT0 is not enough everywhere: Bochs takes their line to the boot processor past the local APIC.

use x86_64::instructions::port::Port;

/// Where the controllers' sixteen vectors go. No exception is there, and nothing of ours: a request that was already on its
/// way when it was masked comes as a spurious interrupt (8259A datasheet, "IR7"), which is then one that nobody expected.
const FIRST_VECTOR: u8 = 0x30;

/// Moves both controllers' interrupts away from the exceptions, and masks all of them. Nothing here ever uses them.
pub fn silence() {
    // Initialisation (8259A datasheet, ICW1 to ICW4): edge-triggered, cascaded; first vector; which line the second one is
    // on; 8086 mode. Initialising also forgets what was requested. Then OCW1, the mask, which initialising has cleared.
    for (command, data, vector, cascade) in [
        (0x20, 0x21, FIRST_VECTOR, 1 << 2),
        (0xa0, 0xa1, FIRST_VECTOR + 8, 2),
    ] {
        let (mut command, mut data) = (Port::<u8>::new(command), Port::<u8>::new(data));
        // SAFETY: the ports are the controllers', which nothing else here uses, and no interrupt of theirs is expected.
        unsafe {
            command.write(0x11);
            data.write(vector);
            data.write(cascade);
            data.write(1);
            data.write(0xff);
        }
    }
}
