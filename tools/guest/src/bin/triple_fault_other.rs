//! Triple fault of another CPU: it resets the whole machine too.
//! resets: yes
//! cpus: 2
#![no_std]
#![no_main]

use guest::{Mode, Regs, check, guest, reset, run, smp, snippet, trap};

guest!(main);

fn main() {
    reset::expect(|| {
        check!(smp::start_others(1), "start of the other CPU");
        smp::begin_on(1, fault);
    });
}

fn fault() {
    trap::load_idt(0);
    let _ = run(Mode::Kernel64, snippet!("ud2"), &mut Regs::default());
}
