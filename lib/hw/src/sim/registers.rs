//! Fake registers: MSRs, CPUID leaves, ports, XCRs and VMCS fields.

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{Barriers, Cpuid, GeneralProtection, Msrs, PortWidth, Ports, Vmcs, VmcsData, Xcrs};
use x86::cpuid::CpuidResult;
use x86::msr::{GuestMsr, Msr};
use x86::vmx::vmcs::{Field, FieldValue, TrustedField};

/// Fake MSRs: those that a test gave a value exist, all others raise #GP(0).
#[derive(Clone, Debug, Default)]
pub struct SimMsrs {
    values: RefCell<BTreeMap<Msr, u64>>,
    read_only: BTreeSet<Msr>,
    writes: RefCell<Vec<(Msr, u64)>>,
}

impl SimMsrs {
    /// Makes a processor with these registers.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = (Msr, u64)>) -> Self {
        Self { values: RefCell::new(values.into_iter().collect()), ..Self::default() }
    }

    /// Makes writes of `msr` raise #GP(0).
    #[must_use]
    pub fn with_read_only(mut self, msr: Msr) -> Self {
        self.read_only.insert(msr);
        self
    }

    /// Sets a register from outside, unrecorded.
    pub fn set(&self, msr: Msr, value: u64) {
        self.values.borrow_mut().insert(msr, value);
    }

    /// Returns the successful writes, oldest first.
    #[must_use]
    pub fn writes(&self) -> Vec<(Msr, u64)> {
        self.writes.borrow().clone()
    }

    /// Writes any register.
    ///
    /// # Errors
    ///
    /// [`GeneralProtection`] where there is no such register, or it takes no writes.
    pub fn write(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        if self.read_only.contains(&msr) {
            return Err(GeneralProtection);
        }
        *self.values.borrow_mut().get_mut(&msr).ok_or(GeneralProtection)? = value;
        self.writes.borrow_mut().push((msr, value));
        Ok(())
    }
}

// UNSAFETY: a contract about a processor, which a fake asks nothing for.
#[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
impl Msrs for SimMsrs {
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        self.values.borrow().get(&msr).copied().ok_or(GeneralProtection)
    }

    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
        self.write(msr.msr(), value)
    }

    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        self.write(msr, value)
    }
}

/// A fake processor: CPUID and MSRs.
#[derive(Clone, Debug, Default)]
pub struct SimProcessor {
    /// Its CPUID.
    pub cpuid: SimCpuid,
    /// Its MSRs.
    pub msrs: SimMsrs,
}

impl Cpuid for SimProcessor {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.cpuid.cpuid(leaf, subleaf)
    }
}

// UNSAFETY: a contract about a processor, which a fake asks nothing for.
#[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
impl Msrs for SimProcessor {
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        self.msrs.read(msr)
    }

    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
        self.msrs.write(msr.msr(), value)
    }

    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        self.msrs.write(msr, value)
    }
}

/// A fake processor's MSRs and barriers, with everything that changes what it may speculate on in order.
#[derive(Debug, Default)]
pub struct SimSpeculation {
    msrs: SimMsrs,
    history: RefCell<Vec<SpeculationAct>>,
}

/// One act of [`SimSpeculation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeculationAct {
    /// WRMSR.
    Write(Msr, u64),
    /// [`Barriers::fill_return_stack`].
    FillReturnStack,
    /// [`Barriers::overwrite_buffers`].
    OverwriteBuffers,
}

impl SimSpeculation {
    /// Makes a processor with these MSRs.
    #[must_use]
    pub fn new(msrs: SimMsrs) -> Self {
        Self { msrs, history: RefCell::default() }
    }

    /// Returns what was done since the last call, oldest first.
    #[must_use]
    pub fn take_history(&self) -> Vec<SpeculationAct> {
        self.history.take()
    }
}

// UNSAFETY: a contract about a processor, which a fake asks nothing for.
#[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
impl Msrs for SimSpeculation {
    fn read(&self, msr: Msr) -> Result<u64, GeneralProtection> {
        self.msrs.read(msr)
    }

    fn write(&self, msr: GuestMsr, value: u64) -> Result<(), GeneralProtection> {
        self.msrs.write(msr.msr(), value)?;
        self.history.borrow_mut().push(SpeculationAct::Write(msr.msr(), value));
        Ok(())
    }

    unsafe fn write_trusted(&self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        self.msrs.write(msr, value)
    }
}

impl Barriers for SimSpeculation {
    fn fill_return_stack(&self) {
        self.history.borrow_mut().push(SpeculationAct::FillReturnStack);
    }

    fn overwrite_buffers(&self) {
        self.history.borrow_mut().push(SpeculationAct::OverwriteBuffers);
    }
}

/// Fake CPUID: leaves that a test did not give are zero.
#[derive(Clone, Debug, Default)]
pub struct SimCpuid {
    leaves: BTreeMap<(u32, u32), CpuidResult>,
}

impl SimCpuid {
    /// Adds the answer for EAX = `leaf`, ECX = `subleaf`.
    #[must_use]
    pub fn with(mut self, leaf: u32, subleaf: u32, result: CpuidResult) -> Self {
        self.leaves.insert((leaf, subleaf), result);
        self
    }
}

impl Cpuid for SimCpuid {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let given = self.leaves.get(&(leaf, subleaf)).copied();
        // The first leaf of each of the two ranges tells the last one.
        let last = |first: u32| self.leaves.range((first, 0)..=(first | 0xffff, u32::MAX)).next_back();
        given.unwrap_or_else(|| match (leaf, last(leaf)) {
            (0 | 0x8000_0000, Some((&(last, _), _))) => CpuidResult { eax: last, ..CpuidResult::default() },
            _ => CpuidResult::default(),
        })
    }
}

/// One OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortWrite {
    /// Where.
    pub port: u16,
    /// Size.
    pub width: PortWidth,
    /// What, cut to the size.
    pub value: u32,
}

/// Fake I/O ports: a port answers what was queued for it, the last answer again and again; without any,
/// all ones, as an empty bus does.
#[derive(Clone, Debug, Default)]
pub struct SimPorts {
    answers: RefCell<BTreeMap<u16, VecDeque<u32>>>,
    writes: RefCell<Vec<PortWrite>>,
}

impl SimPorts {
    /// Queues what the next reads of `port` give.
    pub fn answer(&self, port: u16, values: impl IntoIterator<Item = u32>) {
        self.answers.borrow_mut().entry(port).or_default().extend(values);
    }

    /// Returns the writes, oldest first.
    #[must_use]
    pub fn writes(&self) -> Vec<PortWrite> {
        self.writes.borrow().clone()
    }
}

impl Ports for SimPorts {
    fn read(&self, port: u16, width: PortWidth) -> u32 {
        let mut answers = self.answers.borrow_mut();
        let value = match answers.get_mut(&port) {
            Some(queue) if queue.len() > 1 => queue.pop_front(),
            Some(queue) => queue.front().copied(),
            None => None,
        };
        cut(value.unwrap_or(u32::MAX), width)
    }

    fn write(&self, port: u16, width: PortWidth, value: u32) {
        self.writes.borrow_mut().push(PortWrite { port, width, value: cut(value, width) });
    }
}

fn cut(value: u32, width: PortWidth) -> u32 {
    value & u32::MAX >> (32 - 8 * width as u32)
}

/// Fake extended control registers: XCR0 alone, with the bits that a test allows.
#[derive(Clone, Debug, Default)]
pub struct SimXcrs {
    allowed: u64,
    writes: RefCell<Vec<u64>>,
}

impl SimXcrs {
    /// XCR0 of a processor that supports the state components `allowed`.
    #[must_use]
    pub fn new(allowed: u64) -> Self {
        Self { allowed, writes: RefCell::default() }
    }

    /// Returns the values that XCR0 took, oldest first.
    #[must_use]
    pub fn writes(&self) -> Vec<u64> {
        self.writes.borrow().clone()
    }
}

impl Xcrs for SimXcrs {
    fn xsetbv(&self, index: u32, value: u64) -> Result<(), GeneralProtection> {
        if index != 0 || value & 1 == 0 || value & !self.allowed != 0 {
            return Err(GeneralProtection);
        }
        self.writes.borrow_mut().push(value);
        Ok(())
    }
}

/// A fake VMCS: fields are zero until written.
#[derive(Clone, Debug, Default)]
pub struct SimVmcs {
    fields: BTreeMap<u32, u64>,
    writes: Vec<(u32, u64)>,
}

impl SimVmcs {
    /// Returns the writes as encoding and value, oldest first.
    #[must_use]
    pub fn writes(&self) -> &[(u32, u64)] {
        &self.writes
    }

    /// Returns the field with this encoding.
    #[must_use]
    pub fn value(&self, encoding: u32) -> u64 {
        self.fields.get(&encoding).copied().unwrap_or_default()
    }

    /// Writes any field.
    pub fn write<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>, value: T) {
        self.fields.insert(field.encoding(), value.to_u64());
        self.writes.push((field.encoding(), value.to_u64()));
    }

    /// Sets the field with this encoding, as the processor does, which is no write.
    pub fn set_value(&mut self, encoding: u32, value: u64) {
        self.fields.insert(encoding, value);
    }
}

// UNSAFETY: a contract about a processor, which a fake asks nothing for.
#[expect(unsafe_code, reason = "a contract that a fake asks nothing for")]
impl Vmcs for SimVmcs {
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        T::from_u64(self.fields.get(&field.encoding()).copied().unwrap_or_default())
    }

    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        self.write(field, value);
    }

    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        self.write(field, value);
    }
}

impl VmcsData for SimVmcs {
    fn set<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>, value: T) {
        self.write(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_msr_faults_and_a_known_one_keeps_its_value() {
        let msrs = SimMsrs::new([(Msr(1), 5), (Msr(2), 6)]).with_read_only(Msr(2));
        assert_eq!(msrs.read(Msr(3)), Err(GeneralProtection));
        assert_eq!(msrs.write(Msr(3), 0), Err(GeneralProtection));
        assert_eq!(msrs.write(Msr(2), 0), Err(GeneralProtection));
        assert_eq!(msrs.write(Msr(1), 7), Ok(()));
        assert_eq!((msrs.read(Msr(1)), msrs.read(Msr(2))), (Ok(7), Ok(6)));
        assert_eq!(msrs.writes(), [(Msr(1), 7)]);
    }

    #[test]
    fn a_port_answers_in_order_and_cuts_to_the_width() {
        let ports = SimPorts::default();
        ports.answer(0x64, [0x1234, 2]);
        assert_eq!(ports.read(0x64, PortWidth::Byte), 0x34);
        assert_eq!(ports.read(0x64, PortWidth::Word), 2);
        assert_eq!(ports.read(0x64, PortWidth::Word), 2);
        assert_eq!(ports.read(0x65, PortWidth::Word), 0xffff);
        ports.write(0x64, PortWidth::Byte, 0x1fe);
        assert_eq!(ports.writes(), [PortWrite { port: 0x64, width: PortWidth::Byte, value: 0xfe }]);
    }

    #[test]
    fn xcr0_takes_only_what_is_allowed() {
        let xcrs = SimXcrs::new(7);
        assert_eq!(xcrs.xsetbv(1, 1), Err(GeneralProtection));
        assert_eq!(xcrs.xsetbv(0, 6), Err(GeneralProtection));
        assert_eq!(xcrs.xsetbv(0, 9), Err(GeneralProtection));
        assert_eq!(xcrs.xsetbv(0, 3), Ok(()));
        assert_eq!(xcrs.writes(), [3]);
    }

    #[test]
    fn a_vmcs_field_reads_back() {
        let mut vmcs = SimVmcs::default();
        assert_eq!(vmcs.read(x86::vmx::vmcs::GUEST_RIP), 0);
        vmcs.write(x86::vmx::vmcs::GUEST_RIP, 0x7c00);
        assert_eq!(vmcs.read(x86::vmx::vmcs::GUEST_RIP), 0x7c00);
        assert_eq!(vmcs.writes(), [(0x681e, 0x7c00)]);
    }
}
