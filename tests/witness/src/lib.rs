//! The WBINVD witness, a QEMU TCG plugin.
