//! First process of the Linux guest: says that userspace is there, does what the kernel command line asks
//! for, and switches the machine off.
//!
//! The kernel's parameter `xmhf.do=NAME,NAME,...` names the actions of [`action`]. Each one ends with a line
//! `xmhf-guest: NAME ok` or `xmhf-guest: NAME failed: WHY` on the console, which is all that the runner judges
//! by. Linked statically: the initramfs holds this program, busybox and a 32-bit program, and no library.

mod action;
mod clock;
mod cmos;
mod machine;

use machine::Machine;

fn main() {
    let userspace = clock::ticks();
    let machine = Machine::prepare();
    println!("xmhf-guest: userspace tsc={userspace} cpus={}", machine.online_cpus().len());
    for name in machine.actions() {
        run(name, &machine);
    }
    println!("xmhf-guest: done");
    machine::power_off();
}

fn run(name: &str, machine: &Machine) {
    match action::perform(name, machine) {
        Ok(()) => println!("xmhf-guest: {name} ok"),
        Err(why) => println!("xmhf-guest: {name} failed: {why}"),
    }
}
