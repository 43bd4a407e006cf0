//! IN, OUT, INS and OUTS at intercepted ports.
//!
//! Privilege (IOPL, the TSS's permission bits) is checked before the exit; segments and paging of a string
//! operand are not, and are checked here. A string instruction keeps its progress in RCX, RSI and RDI as the
//! processor does, so that a fault or a long repetition goes on where it stopped. A debug trap comes behind the
//! iteration that met it.

use super::breakpoint::Breakpoints;
use super::{Action, PortAccess, ResetCause, StringPort};
use crate::hypapp::{Hypapp, WriteAnswer};
use crate::memory::guest::{Access, GuestMemory, GuestView, Intent, Privilege, segmentation};
use crate::reset::power_ports::{PowerControl, Write};
use crate::vcpu::Vcpu;
use core::ops::RangeInclusive;
use hw::{PortWidth, Ports};
use x86::address::GuestLinearAddr;
use x86::cr::Rflags;
use x86::event::{Event, Vector};

/// Most elements of a repeated string instruction that one exit carries out, of which one takes as long as its port: then
/// the guest may take its interrupts, and this CPU does what others wait for.
const ELEMENTS_PER_EXIT: usize = 256;

/// Carries out a port instruction: the hypapp first, then the hardware.
pub fn handle<V: Vcpu, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    hypapp: &dyn Hypapp,
    ports: &impl Ports,
    power: &PowerControl,
    access: PortAccess,
) -> Action {
    let devices = Devices { hypapp, ports, power };
    if let Some(string) = access.string {
        return repeat(vcpu, memory, &devices, access, string);
    }
    if access.is_input {
        let value = devices.input(vcpu, access);
        let rax = merged(vcpu.registers().rax(), value, access.width);
        vcpu.registers_mut().set_rax(rax);
    } else {
        let value = low(vcpu.registers().rax());
        if let Some(ended) = devices.output(vcpu, access, value) {
            return ended;
        }
    }
    let struck = Breakpoints::of(vcpu).on_ports(access.port, access.width as u64);
    vcpu.strike_breakpoints(struck);
    Action::Advance
}

/// Who answers at a port.
struct Devices<'a, P> {
    hypapp: &'a dyn Hypapp,
    ports: &'a P,
    power: &'a PowerControl,
}

impl<P: Ports> Devices<'_, P> {
    /// Reads a port.
    fn input<V: Vcpu>(&self, vcpu: &mut V, access: PortAccess) -> u32 {
        let PortAccess { port, width, .. } = access;
        let own = self.hypapp.read_port(vcpu, access);
        own.unwrap_or_else(|| self.power.read(port, width, self.ports.read(port, width)))
    }

    /// Writes a port, unless that ends the guest.
    fn output<V: Vcpu>(&self, vcpu: &mut V, access: PortAccess, value: u32) -> Option<Action> {
        let PortAccess { port, width, .. } = access;
        if self.hypapp.write_port(vcpu, access, narrowed(value, width)) == WriteAnswer::Handled {
            return None;
        }
        let _order = self.power.hold(port, width);
        match self.power.write(port, width, value) {
            Write::Performed(value) => {
                if !self.power.moves(port, width, self.ports) {
                    self.ports.write(port, width, value);
                }
                None
            }
            Write::Ends => Some(Action::Reset(ResetCause::Port { port, width, value })),
        }
    }
}

impl PortAccess {
    /// Returns whether the access touches one of `ports`: it is of as many ports as it has bytes, and exits where any
    /// of them is intercepted (SDM volume 3, "I/O-Bitmap Addresses"). Those behind 0FFFFH wrap to 0.
    #[must_use]
    pub fn touches(self, ports: &RangeInclusive<u16>) -> bool {
        (0..self.width as u16).any(|offset| ports.contains(&self.port.wrapping_add(offset)))
    }
}

/// Carries out a string instruction, or as much of it as one exit may.
// Rare: kept out of the way of the exits that are not.
#[cold]
#[inline(never)]
fn repeat<V: Vcpu, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    devices: &Devices<'_, impl Ports>,
    access: PortAccess,
    string: StringPort,
) -> Action {
    let (view, breakpoints, width) =
        (GuestView::new(vcpu, memory), Breakpoints::of(vcpu), access.width as u64);
    let is_single_stepped = vcpu.is_single_stepped();
    for _ in 0..ELEMENTS_PER_EXIT {
        if string.is_repeated && string.get(vcpu.registers().rcx()) == 0 {
            return Action::Advance;
        }
        let at = match operand(vcpu, access, string) {
            Ok(at) => at,
            Err(event) => return Action::Inject(event),
        };
        let moved = if access.is_input {
            input_element(vcpu, &view, devices, access, at).map(|()| None)
        } else {
            output_element(vcpu, &view, devices, access, at)
        };
        match moved {
            Ok(None) => step(vcpu, access, string),
            Ok(Some(ended)) => return ended,
            Err(event) => return Action::Inject(event),
        }
        let struck =
            breakpoints.on_ports(access.port, width) | breakpoints.on_data(at, width, intent(access));
        vcpu.strike_breakpoints(struck);
        if !string.is_repeated {
            return Action::Advance;
        }
        if struck != 0 || is_single_stepped {
            break;
        }
    }
    if string.get(vcpu.registers().rcx()) == 0 {
        return Action::Advance;
    }
    // Between two iterations the processor takes interrupts and debug traps.
    vcpu.iterate();
    Action::Resume
}

/// Returns what the instruction does to its memory operand.
const fn intent(access: PortAccess) -> Intent {
    if access.is_input { Intent::Write } else { Intent::Read }
}

/// One element of INS at `at`. The operand is checked before the port is read, for a read cannot be taken back.
fn input_element<V: Vcpu, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    view: &GuestView<'_, M>,
    devices: &Devices<'_, impl Ports>,
    access: PortAccess,
    at: GuestLinearAddr,
) -> Result<(), Event> {
    let privilege = Privilege::of(vcpu);
    let length = access.width as usize;
    view.probe(at, length, Access { intent: Intent::Write, privilege })?;
    let value = devices.input(vcpu, access);
    view.write(at, &value.to_le_bytes()[..length], privilege)
}

/// One element of OUTS from `at`.
fn output_element<V: Vcpu, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    view: &GuestView<'_, M>,
    devices: &Devices<'_, impl Ports>,
    access: PortAccess,
    at: GuestLinearAddr,
) -> Result<Option<Action>, Event> {
    let mut bytes = [0; 4];
    view.read(at, &mut bytes[..access.width as usize], Privilege::of(vcpu))?;
    Ok(devices.output(vcpu, access, u32::from_le_bytes(bytes)))
}

/// Returns the linear address of the memory operand.
fn operand<V: Vcpu>(vcpu: &V, access: PortAccess, string: StringPort) -> Result<GuestLinearAddr, Event> {
    let index = if access.is_input { vcpu.registers().rdi() } else { vcpu.registers().rsi() };
    let length = access.width as u64;
    let at = segmentation::linear(vcpu, string.segment, string.get(index), length, intent(access))?;
    if segmentation::is_alignment_fault(vcpu, at, length) {
        return Err(Event::Exception { vector: Vector::AC, error_code: Some(0) });
    }
    Ok(at)
}

/// Counts one element in the index and count registers.
fn step<V: Vcpu>(vcpu: &mut V, access: PortAccess, string: StringPort) {
    let width = access.width as u64;
    let stride = if vcpu.rflags().contains(Rflags::DF) { width.wrapping_neg() } else { width };
    let registers = vcpu.registers_mut();
    if access.is_input {
        registers.set_rdi(string.with(registers.rdi(), registers.rdi().wrapping_add(stride)));
    } else {
        registers.set_rsi(string.with(registers.rsi(), registers.rsi().wrapping_add(stride)));
    }
    if string.is_repeated {
        registers.set_rcx(string.with(registers.rcx(), registers.rcx().wrapping_sub(1)));
    }
}

impl StringPort {
    /// Returns the part of a register that counts at this address size.
    const fn get(self, register: u64) -> u64 {
        match self.address_bits {
            16 => register & 0xffff,
            32 => register & 0xffff_ffff,
            _ => register,
        }
    }

    /// `register` with `value` in that part; writing 32 bits clears the upper half.
    const fn with(self, register: u64, value: u64) -> u64 {
        match self.address_bits {
            16 => register & !0xffff | value & 0xffff,
            _ => self.get(value),
        }
    }
}

/// Returns what of a register an access of this width carries.
const fn narrowed(value: u32, width: PortWidth) -> u32 {
    match width {
        PortWidth::Byte => value & 0xff,
        PortWidth::Word => value & 0xffff,
        PortWidth::Dword => value,
    }
}

/// RAX after IN of `value`.
const fn merged(rax: u64, value: u32, width: PortWidth) -> u64 {
    match width {
        PortWidth::Byte => rax & !0xff | value as u64 & 0xff,
        PortWidth::Word => rax & !0xffff | value as u64 & 0xffff,
        PortWidth::Dword => value as u64,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "OUT takes at most EAX")]
const fn low(register: u64) -> u32 {
    register as u32
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
