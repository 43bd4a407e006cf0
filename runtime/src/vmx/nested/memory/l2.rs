//! L2's memory for whoever acts in L2's stead: what L1's tables make of L1's.
//!
//! L1 may not have filled its tables yet, or have taken a page back. A hypapp that finds such a page missing leaves
//! L2 at its instruction and has L1 asked ([`ask_l1`]), by the exit that L2's own access would have led to; L2 then
//! tries again.

use super::ept02::access::Access;
use super::ept02::machine_cache as ept02;
use super::ept12::PageModificationLog;
use super::missing_page::{MissingPage, Note};
use crate::memory::guest::{GuestMemory, Refused};
use crate::memory::guest_physical::GuestPhysical;
use crate::smp::percpu::{self, PerCpu};
use crate::vmx::nested::cpu;
use crate::vmx::nested::exit::route;
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::nested::vmcs12::controls::L1Controls;
use core::cell::Cell;
use hw::Vmcs;
use x86::address::GuestPhysAddr;
use x86::event::{Event, Vector};
use x86::paging::Rights;
use x86::vmx::controls::SecondaryControls;
use x86::vmx::ept::EptPointer;
use x86::vmx::exit_qualification::EptViolationQualification;
use x86::vmx::vmcs;

/// L2's memory: what L1's tables make of L1's.
#[derive(Debug)]
pub(crate) struct L2Memory {
    /// `None` where L1 has no tables for it.
    pointer: Option<EptPointer>,
    /// L1's page-modification log, as it was and as it is.
    log: Cell<Option<PageModificationLog>>,
    index: Option<u16>,
    denied: Cell<Option<Access>>,
}

impl L2Memory {
    /// Returns the memory of the L2 that runs on `cpu`, which executes this.
    pub(crate) fn of(cpu: &PerCpu) -> Self {
        let (mut pointer, mut log) = (None, None);
        if let Some(state) = cpu::of(cpu) {
            let vmcs12 = &state.nested.vmcs12;
            pointer = L1Controls::of(vmcs12).has_ept().then(|| EptPointer(vmcs12.read(vmcs::EPT_POINTER)));
            log = log_of(vmcs12);
        }
        Self { pointer, log: Cell::new(log), index: log.map(|log| log.index), denied: Cell::new(None) }
    }

    /// Writes to VMCS12 how far the page-modification log has come, behind the accesses.
    pub(crate) fn keep_log(&self, cpu: &PerCpu) {
        let Some(log) = self.log.get().filter(|log| Some(log.index) != self.index) else { return };
        if let Some(mut state) = cpu::of(cpu) {
            state.nested.vmcs12.write(vmcs::PML_INDEX, log.index);
        }
    }

    /// Returns the first access that L1's tables did not allow.
    pub(crate) fn denied(&self) -> Option<Access> {
        self.denied.get()
    }

    fn reach(&self, gpa: GuestPhysAddr, access: Rights) -> Result<GuestPhysAddr, Refused> {
        let qualification = EptViolationQualification::of_linear_address(access, true);
        self.translate(gpa, access, qualification)
    }

    /// Reaches an entry of L2's own tables: with accessed and dirty flags in L1's tables that counts as a write.
    fn reach_entry(&self, gpa: GuestPhysAddr) -> Result<GuestPhysAddr, Refused> {
        let has_flags = self.pointer.is_some_and(EptPointer::has_accessed_dirty);
        let access = if has_flags { Rights::READ | Rights::WRITE } else { Rights::READ };
        self.translate(gpa, access, EptViolationQualification::of_linear_address(access, false))
    }

    fn translate(
        &self,
        gpa: GuestPhysAddr,
        access: Rights,
        qualification: EptViolationQualification,
    ) -> Result<GuestPhysAddr, Refused> {
        let Some(pointer) = self.pointer else { return Ok(gpa) };
        let mut log = self.log.get();
        let reached = ept02::translate_l2(pointer, gpa, access, log.as_mut());
        self.log.set(log);
        if reached.is_none() && self.denied.get().is_none() {
            self.denied.set(Some(Access { gpa, qualification: qualification.0 }));
        }
        reached.ok_or(Refused)
    }
}

/// L1's page-modification log, where it keeps one.
pub(crate) fn log_of(vmcs12: &Vmcs12) -> Option<PageModificationLog> {
    let has_log = L1Controls::of(vmcs12).secondary.contains(SecondaryControls::ENABLE_PML);
    has_log.then(|| PageModificationLog {
        page: GuestPhysAddr::new(vmcs12.read(vmcs::PML_ADDRESS)),
        index: vmcs12.read(vmcs::PML_INDEX),
    })
}

impl GuestMemory for L2Memory {
    fn read(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        GuestPhysical.read(self.reach(gpa, Rights::READ)?, bytes)
    }

    fn fetch(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        GuestPhysical.fetch(self.reach(gpa, Rights::EXECUTE)?, bytes)
    }

    fn write(&self, gpa: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        GuestPhysical.write(self.reach(gpa, Rights::WRITE)?, bytes)
    }

    fn read_words(&self, gpa: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        GuestPhysical.read_words(self.reach_entry(gpa)?, words)
    }

    fn compare_exchange(&self, gpa: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        let qualification = EptViolationQualification::of_linear_address(Rights::READ | Rights::WRITE, false);
        let at = self.translate(gpa, Rights::READ | Rights::WRITE, qualification)?;
        GuestPhysical.compare_exchange(at, current, new)
    }

    fn physical_address_bits(&self) -> u8 {
        GuestPhysical.physical_address_bits()
    }

    fn has_1gib_pages(&self) -> bool {
        GuestPhysical.has_1gib_pages()
    }
}

/// Returns the memory of the L2 that runs on this CPU, from whose refusals on L1 can be asked; `None` where none does.
pub(crate) fn memory() -> Option<&'static dyn GuestMemory> {
    static MEMORY: NotedMemory = NotedMemory;
    let cpu = percpu::current();
    if !cpu::is_l2(cpu) {
        return None;
    }
    change_note(cpu, Note::clear);
    Some(&MEMORY)
}

/// Returns where `gpa` of the L2 on this CPU is in L1's memory.
pub(crate) fn translate(gpa: GuestPhysAddr, access: Rights) -> Result<GuestPhysAddr, Refused> {
    NotedMemory::with(|memory| memory.reach(gpa, access))
}

/// Notes a page fault that L2's page tables stand for.
pub(crate) fn note_fault(event: Event) {
    let cpu = percpu::current();
    let (Event::PageFault { error_code, .. }, Some(mut state)) = (event, cpu::of(cpu)) else { return };
    let vmcs12 = &state.nested.vmcs12;
    // With second-level tables L1 has no part in L2's page tables.
    if !L1Controls::of(vmcs12).has_ept() && route::wants_exception(vmcs12, Vector::PF, || error_code) {
        state.missing_page.set(MissingPage::Fault(event));
    }
}

/// Asks L1 for what the last access lacked, once the exit of L2 is through; false where that is nothing of
/// L1's, or no exit of L2 is handled that it would try again behind.
pub(crate) fn ask_l1() -> bool {
    cpu::of(percpu::current()).is_some_and(|mut state| state.missing_page.ask())
}

/// Takes what L1 is to be asked for.
pub(crate) fn take_asked(cpu: &PerCpu) -> Option<MissingPage> {
    cpu::of(cpu)?.missing_page.finish()
}

fn change_note(cpu: &PerCpu, change: impl FnOnce(&mut Note)) {
    if let Some(mut state) = cpu::of(cpu) {
        change(&mut state.missing_page);
    }
}

/// The memory of the L2 that runs on the executing CPU, which notes what L1's tables lack.
struct NotedMemory;

impl NotedMemory {
    /// Acts on L2's memory. What is noted has no linear address, as nobody here knows it.
    fn with<T>(act: impl FnOnce(&L2Memory) -> Result<T, Refused>) -> Result<T, Refused> {
        let cpu = percpu::current();
        let memory = L2Memory::of(cpu);
        let result = act(&memory);
        memory.keep_log(cpu);
        result.inspect_err(|_| {
            if let Some(denied) = memory.denied() {
                let qualification = denied.qualification & u64::from(Rights::all().bits());
                let missing = MissingPage::SecondLevel(Access { qualification, ..denied });
                change_note(cpu, |note| note.set(missing));
            }
        })
    }
}

impl GuestMemory for NotedMemory {
    fn read(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        Self::with(|memory| memory.read(gpa, bytes))
    }

    fn fetch(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        Self::with(|memory| memory.fetch(gpa, bytes))
    }

    fn write(&self, gpa: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        Self::with(|memory| memory.write(gpa, bytes))
    }

    fn read_words(&self, gpa: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        Self::with(|memory| memory.read_words(gpa, words))
    }

    fn compare_exchange(&self, gpa: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        Self::with(|memory| memory.compare_exchange(gpa, current, new))
    }

    fn physical_address_bits(&self) -> u8 {
        GuestPhysical.physical_address_bits()
    }

    fn has_1gib_pages(&self) -> bool {
        GuestPhysical.has_1gib_pages()
    }
}
