//! The hypercall instruction: the INT 15h hook where the instruction is the hook's, then the hypapp, else #UD.

use super::{Action, e820};
use crate::hypapp::{Hypapp, HypercallAnswer};
use crate::memory::guest::GuestMemory;
use crate::vcpu::Vcpu;
use platform::handoff::MemoryRange;
use x86::event::Event;

/// Answers the hypercall instruction.
///
/// What the hypapp does not want is what it would be without a hypervisor: an undefined instruction. So no
/// guest program, whatever its privilege, does more with it than with any other bad opcode.
pub fn handle<V: Vcpu, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    hypapp: &dyn Hypapp,
    memory_map: &[MemoryRange],
) -> Action {
    if e820::is_at_hook(vcpu) {
        return e820::answer(vcpu, memory, memory_map);
    }
    match hypapp.hypercall(vcpu) {
        HypercallAnswer::Handled => Action::Advance,
        HypercallAnswer::Moved => Action::Resume,
        HypercallAnswer::Chain => Action::Inject(Event::UD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::guest::fake::FakeMemory;
    use crate::vcpu::fake::FakeVcpu;
    use x86::segment::{Segment, SegmentRegister};

    /// Takes commands 0 to 9, and answers in EBX. After 5 the guest goes on at 0x1234.
    struct Digits;
    impl Hypapp for Digits {
        fn hypercall(&self, vcpu: &mut dyn Vcpu) -> HypercallAnswer {
            if vcpu.registers().rax() > 9 {
                return HypercallAnswer::Chain;
            }
            vcpu.registers_mut().set_rbx(1);
            if vcpu.registers().rax() == 5 {
                vcpu.set_rip(0x1234);
                return HypercallAnswer::Moved;
            }
            HypercallAnswer::Handled
        }
    }

    fn call(vcpu: &mut FakeVcpu) -> Action {
        handle(vcpu, &FakeMemory::new(0x1_0000), &Digits, &[])
    }

    #[test]
    fn the_hypapp_takes_its_commands_and_others_are_undefined() {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.cpl = 3;
        vcpu.registers.set_rax(9);
        assert_eq!((call(&mut vcpu), vcpu.registers.rbx()), (Action::Advance, 1));
        vcpu.registers.set_rax(10);
        assert_eq!(call(&mut vcpu), Action::Inject(Event::UD));
    }

    #[test]
    fn the_hypapp_may_set_where_the_guest_goes_on() {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.registers.set_rax(5);
        assert_eq!((call(&mut vcpu), vcpu.rip), (Action::Resume, 0x1234));
    }

    #[test]
    fn the_hooks_address_is_the_hooks_in_real_mode_only() {
        let mut real = FakeVcpu::real_mode();
        real.segments[SegmentRegister::Cs as usize] = Segment::real_mode(0x40, 0x9b);
        real.rip = 0xac;
        call(&mut real);
        assert_eq!(real.registers.rbx(), 0);
        let mut protected = FakeVcpu { rip: 0x4ac, ..FakeVcpu::protected_mode() };
        call(&mut protected);
        assert_eq!(protected.registers.rbx(), 1);
    }
}
