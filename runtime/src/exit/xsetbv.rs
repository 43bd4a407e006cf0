//! XSETBV, which always exits.

use super::Action;
use crate::vcpu::Vcpu;
use hw::{GeneralProtection, Xcrs};
use x86::cr::Cr4;
use x86::event::Event;

/// Executes XSETBV for the guest; XCR0 is not switched between guest and hypervisor.
///
/// Index and value are the hardware's to judge, so that states of later processors need nothing here. The
/// hypervisor's own CR4.OSXSAVE must be set.
pub fn handle<V: Vcpu + ?Sized>(vcpu: &mut V, xcrs: &impl Xcrs) -> Action {
    if !vcpu.cr4().contains(Cr4::OSXSAVE) {
        return Action::Inject(Event::UD);
    }
    if vcpu.cpl() != 0 {
        return Action::Inject(Event::GP0);
    }
    let (index, value) = (vcpu.registers().ecx(), vcpu.registers().edx_eax());
    match xcrs.xsetbv(index, value) {
        Ok(()) => Action::Advance,
        Err(GeneralProtection) => Action::Inject(Event::GP0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::fake::FakeVcpu;
    use core::cell::Cell;

    /// A processor whose XCR0 takes x87, SSE and AVX.
    #[derive(Default)]
    struct Xcr0(Cell<u64>);

    impl Xcrs for Xcr0 {
        fn xsetbv(&self, index: u32, value: u64) -> Result<(), GeneralProtection> {
            if index != 0 || value & !7 != 0 || value & 1 == 0 {
                return Err(GeneralProtection);
            }
            self.0.set(value);
            Ok(())
        }
    }

    fn run(change: impl FnOnce(&mut FakeVcpu)) -> (Action, u64) {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.cr4 |= Cr4::OSXSAVE;
        vcpu.registers.set_rax(0xffff_ffff_0000_0007);
        vcpu.registers.set_rcx(0xffff_ffff_0000_0000);
        change(&mut vcpu);
        let xcr0 = Xcr0::default();
        (handle(&mut vcpu, &xcr0), xcr0.0.get())
    }

    #[test]
    fn a_good_value_reaches_the_processor_without_upper_halves() {
        assert_eq!(run(|_| {}), (Action::Advance, 7));
    }

    #[test]
    fn what_the_processor_refuses_faults_in_the_guest() {
        let fault = (Action::Inject(Event::GP0), 0);
        assert_eq!(run(|vcpu| vcpu.registers.set_rax(6)), fault);
        assert_eq!(run(|vcpu| vcpu.registers.set_rdx(1)), fault);
        assert_eq!(run(|vcpu| vcpu.registers.set_rcx(1)), fault);
    }

    #[test]
    fn it_is_undefined_without_osxsave_and_privileged_with_it() {
        assert_eq!(run(|vcpu| vcpu.cr4 -= Cr4::OSXSAVE), (Action::Inject(Event::UD), 0));
        assert_eq!(run(|vcpu| vcpu.cpl = 3), (Action::Inject(Event::GP0), 0));
    }
}
