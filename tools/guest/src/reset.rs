//! Machine resets as a test sees them: a mark that survives, and a second boot.

use crate::{check, cmos, cpu, smp};

const MARK: u8 = 0xa5;

/// Whether the machine was reset by this guest's first boot. The first boot leaves a mark, the second takes it.
pub fn is_second_boot() -> bool {
    let is_second = cmos::read(cmos::SCRATCH) == MARK;
    cmos::write(cmos::SCRATCH, if is_second { 0 } else { MARK });
    is_second
}

/// Boots once, has `reset` reset the machine, and passes when it boots again.
pub fn expect(reset: fn()) {
    if is_second_boot() {
        check!(true, "the machine was reset");
        return;
    }
    crate::println!("first boot");
    crate::console::drain();
    reset();
    cpu::wait(smp::PATIENCE);
    cmos::write(cmos::SCRATCH, 0);
    check!(false, "the machine was not reset");
}
