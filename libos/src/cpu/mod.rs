//! One core (tables, faults, APIC, MSRs, time) and all cores (bring-up, IPIs, stopping).
