//! The heap: a fixed arena, so that nothing the boot loader left is overwritten before it has been read.

use talc::TalcLock;
use talc::source::Claim;

const BYTES: usize = 256 << 10;

static mut ARENA: [u8; BYTES] = [0; BYTES];

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Claim> =
    // SAFETY: nothing else uses the arena.
    TalcLock::new(unsafe { Claim::array(&raw mut ARENA) });
