//! Triple fault: a fault that no handler can take, twice over, resets the machine.
//! resets: yes
#![no_std]
#![no_main]

use guest::{Mode, Regs, guest, reset, run, snippet, trap};

guest!(main);

fn main() {
    reset::expect(|| {
        trap::load_idt(0);
        let _ = run(Mode::Kernel64, snippet!("ud2"), &mut Regs::default());
    });
}
