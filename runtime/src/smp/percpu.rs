//! What belongs to one CPU, found through the GS base while the hypervisor runs.
//!
//! UNSAFETY: GS-relative access, and a structure that holds pointers to itself and to its CPU's stack.
#![expect(unsafe_code, reason = "per-CPU data")]

mod exits;

use crate::SecondLevelFormat;
use crate::exit::mtrr::VirtualMtrrs;
use crate::features::features;
use crate::machine::Machine;
use crate::memory::compartment_tables::Compartment;
use crate::memory::views::View;
use crate::smp::running::Running;
use crate::smp::watched_events::Watched;
use crate::speculation::Crossing;
use crate::vcpu::Registers;
use crate::vendor::Outside;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hw::bare::{Processor, per_cpu};
use spin::Mutex;
use x86::address::HostPhysAddr;
use x86_64::VirtAddr;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Selector of the hypervisor's 64-bit code segment.
pub(crate) const CODE_SELECTOR: u16 = 0x08;
/// Selector of the hypervisor's data segment.
pub(crate) const DATA_SELECTOR: u16 = 0x10;
/// Selector of this CPU's task-state segment.
pub(crate) const TASK_SELECTOR: u16 = 0x18;

/// Interrupt stack table slot of NMIs.
pub(crate) const NMI_STACK: u16 = 0;
/// Interrupt stack table slot of double faults and machine checks.
pub(crate) const FAULT_STACK: u16 = 1;

/// Frames of each CPU's own that any vendor needs to run a guest there.
pub(crate) const VENDOR_FRAMES: usize = 2;

/// Numbers that a vendor can give to causes of exits.
const EXIT_CAUSES: usize = 88;

/// One CPU.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PerCpu {
    this: *const Self,
    /// The guest's general-purpose registers, on the top of this CPU's stack.
    registers: *mut Registers,
    /// The machine that it is a CPU of.
    pub(crate) machine: &'static Machine,
    /// Something is to be looked at before the guest is entered.
    attention: AtomicBool,
    /// An NMI that the hypervisor sent to this CPU has not arrived yet.
    pub(super) nmi_in_flight: AtomicBool,
    /// One has arrived since this CPU last looked around.
    pub(super) was_called: AtomicBool,
    /// The local APIC may have another ID than `apic_id`.
    pub(super) is_id_doubted: AtomicBool,
    /// A machine check that the guest has not been told of struck the hypervisor here.
    pub(super) has_machine_check: AtomicBool,
    /// The guest has switched this CPU's local APIC off, which stays on.
    is_apic_off: AtomicBool,
    /// The rendezvous counts on this CPU's arrival.
    pub(super) is_awaited: AtomicBool,
    /// Guest code runs or can run here: not before start-up and not while waiting for a start-up IPI.
    running: Running,
    /// A start-up IPI was taken, and INIT has not come since.
    pub(crate) is_just_started: AtomicBool,
    /// An NMI of the guest's arrived while the hypervisor ran.
    pub(super) guest_nmi: AtomicBool,
    /// An INIT signal for a hypervisor in the guest arrived while its guest ran in a compartment.
    pub(super) guest_init: AtomicBool,
    /// This CPU runs on a view of the guest's memory of its own.
    has_own_view: AtomicBool,
    /// This CPU's guest runs in this CPU's compartment.
    is_in_compartment: AtomicBool,
    /// What the hypapp has exit here.
    pub(crate) watched: Watched,
    /// The last entry loaded the state of control-flow enforcement, and the next must not.
    loads_cet: AtomicBool,
    /// This CPU's compartment.
    pub(crate) compartment: Mutex<Compartment<SecondLevelFormat>>,
    /// The guest's processor while it runs in that.
    pub(crate) outside: Mutex<Outside>,
    /// This CPU's way to private memory and back.
    pub(crate) crossing: Crossing,
    /// This CPU's main stack.
    main_stack: Range<u64>,
    pub(super) nmi_stack: Range<u64>,
    /// Translations cached by this CPU are stale.
    pub(crate) flush: AtomicBool,
    /// They were dropped on this CPU's way to its next look around.
    pub(super) has_flushed: AtomicBool,
    /// This CPU is set up to run a guest.
    pub(crate) is_ready: AtomicBool,
    /// Index, 0 for the bootstrap processor.
    pub(crate) index: usize,
    /// Local APIC ID.
    pub(super) apic_id: AtomicU32,
    /// This CPU's frames for what its vendor keeps in memory.
    pub(crate) vendor_frames: [HostPhysAddr; VENDOR_FRAMES],
    /// Exits so far, by the number that the vendor gives each cause.
    exits: [AtomicU64; EXIT_CAUSES],
    /// Of these, exits of a guest of the guest.
    nested_exits: AtomicU64,
    /// Exits that were handed to the hypervisor of a guest of the guest.
    reflected_exits: AtomicU64,
    /// TSC at the guest's first instruction; 0 before.
    pub(crate) first_entry: AtomicU64,
    /// The guest-visible MTRRs of this CPU.
    pub(crate) mtrrs: Mutex<VirtualMtrrs>,
    gdt: GlobalDescriptorTable<5>,
    tss: TaskStateSegment,
}

/// The first CPU's data is in place. The others take no exception before theirs is.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Returns whether [`current`] can be asked for where exceptions are taken.
pub(crate) fn is_installed() -> bool {
    IS_INSTALLED.load(Ordering::SeqCst)
}

/// Where the assembly finds `attention`.
pub(crate) const ATTENTION_OFFSET: usize = offset_of!(PerCpu, attention);
/// Where the assembly finds `registers`.
pub(crate) const REGISTERS_OFFSET: usize = offset_of!(PerCpu, registers);

// SAFETY: what the pointers lead to is touched by the owning CPU alone; everything else is atomic, locked, or
// constant after `create`.
unsafe impl Sync for PerCpu {}

/// Stacks of one CPU, by the address behind their last byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stacks {
    /// Exits and start-up.
    pub(crate) main: u64,
    /// Its lowest address.
    pub(crate) main_bottom: u64,
    /// NMIs.
    pub(crate) nmi: u64,
    /// Its lowest address.
    pub(crate) nmi_bottom: u64,
    /// Double faults and machine checks.
    pub(crate) fault: u64,
}

impl PerCpu {
    /// Fills `place` with the data of CPU `index`.
    ///
    /// # Safety
    ///
    /// 1. `place` is zeroed, aligned memory of this size that lives for ever and is used for nothing else.
    /// 2. The stacks are mapped, and this CPU's own.
    pub(crate) unsafe fn create(
        place: *mut Self,
        machine: &'static Machine,
        index: usize,
        apic_id: u32,
        stacks: Stacks,
        vendor_frames: [HostPhysAddr; VENDOR_FRAMES],
    ) -> &'static Self {
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[usize::from(NMI_STACK)] = VirtAddr::new(stacks.nmi);
        tss.interrupt_stack_table[usize::from(FAULT_STACK)] = VirtAddr::new(stacks.fault);
        let cpu = Self {
            this: place,
            machine,
            registers: (stacks.main - size_of::<Registers>() as u64) as *mut Registers,
            attention: AtomicBool::new(false),
            nmi_in_flight: AtomicBool::new(false),
            was_called: AtomicBool::new(false),
            is_id_doubted: AtomicBool::new(false),
            has_machine_check: AtomicBool::new(false),
            is_apic_off: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            running: Running::new(),
            is_just_started: AtomicBool::new(false),
            guest_nmi: AtomicBool::new(false),
            guest_init: AtomicBool::new(false),
            has_own_view: AtomicBool::new(false),
            is_in_compartment: AtomicBool::new(false),
            watched: Watched::new(),
            loads_cet: AtomicBool::new(false),
            compartment: Mutex::new(Compartment::new()),
            outside: Mutex::new(Outside::new()),
            crossing: Crossing::new(),
            main_stack: stacks.main_bottom..stacks.main,
            nmi_stack: stacks.nmi_bottom..stacks.nmi,
            flush: AtomicBool::new(false),
            has_flushed: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            index,
            apic_id: AtomicU32::new(apic_id),
            vendor_frames,
            exits: [const { AtomicU64::new(0) }; EXIT_CAUSES],
            nested_exits: AtomicU64::new(0),
            reflected_exits: AtomicU64::new(0),
            first_entry: AtomicU64::new(0),
            mtrrs: Mutex::new(VirtualMtrrs::from_hardware(&Processor, features().physical_address_bits)),
            gdt: GlobalDescriptorTable::empty(),
            tss,
        };
        // SAFETY: by duty 1.
        unsafe { place.write(cpu) };
        // SAFETY: just written; nobody else knows of it yet.
        let cpu = unsafe { &mut *place };
        cpu.gdt.append(Descriptor::kernel_code_segment());
        cpu.gdt.append(Descriptor::kernel_data_segment());
        let tss = &raw const cpu.tss;
        // SAFETY: the segment lives as long as the CPU's data, for ever.
        cpu.gdt.append(unsafe { Descriptor::tss_segment_unchecked(tss) });
        cpu
    }

    /// Makes this the executing CPU's data: GDT, task register, data segments and GS base.
    ///
    /// # Safety
    ///
    /// Called once, on the CPU that the data is of, with the hypervisor's page tables in force.
    pub(crate) unsafe fn install(&'static self) {
        use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
        let data = SegmentSelector(DATA_SELECTOR);
        self.gdt.load();
        // SAFETY: the table that was just loaded has a 64-bit code segment there.
        unsafe { CS::set_reg(SegmentSelector(CODE_SELECTOR)) };
        // SAFETY: and a data segment there.
        unsafe { SS::set_reg(data) };
        // SAFETY: as above.
        unsafe { DS::set_reg(data) };
        // SAFETY: as above.
        unsafe { ES::set_reg(data) };
        // SAFETY: the null selector is always fine; the bases are set by MSR.
        unsafe { FS::set_reg(SegmentSelector::NULL) };
        // SAFETY: as above.
        unsafe { GS::set_reg(SegmentSelector::NULL) };
        // SAFETY: the table has this CPU's available TSS there, loaded once.
        unsafe { x86_64::instructions::tables::load_tss(SegmentSelector(TASK_SELECTOR)) };
        // After GS was loaded, which changes the base.
        self.be_found();
    }

    /// Has [`current`] return this on the executing CPU.
    pub(crate) fn be_found(&'static self) {
        // SAFETY: the first word of the structure is its own address.
        unsafe { per_cpu::set_data(self.this.cast()) };
        // Last: an exception's handler asks for the executing CPU's data only once it is there.
        IS_INSTALLED.store(true, Ordering::SeqCst);
    }

    /// Stops with a word for the hypapp's author where this CPU has no guest yet: what was called acts on one.
    pub(crate) fn require_guest(&self) {
        if !self.is_ready.load(Ordering::Relaxed) {
            panic!("a hypapp's `init` uses a service that needs a guest");
        }
    }

    /// Takes over the MTRRs that the firmware gave the executing CPU, which this is the data of.
    pub(crate) fn set_mtrrs(&self) {
        *self.mtrrs.lock() = VirtualMtrrs::from_hardware(&Processor, features().physical_address_bits);
    }

    /// Returns the view of the guest's memory that this CPU runs on.
    pub(crate) fn view(&self) -> View {
        if self.has_own_view.load(Ordering::Relaxed) { View::of_cpu(self.index) } else { View::SHARED }
    }

    /// Says whether this CPU runs on a view of its own.
    pub(crate) fn set_own_view(&self, has_own_view: bool) {
        self.has_own_view.store(has_own_view, Ordering::Relaxed);
    }

    /// Returns whether this CPU's guest runs in a compartment.
    #[inline]
    pub(crate) fn is_in_compartment(&self) -> bool {
        self.is_in_compartment.load(Ordering::Relaxed)
    }

    /// Says whether this CPU's guest runs in a compartment.
    pub(crate) fn set_in_compartment(&self, is_in_compartment: bool) {
        self.is_in_compartment.store(is_in_compartment, Ordering::Relaxed);
    }

    /// Guest code runs here, or may at any moment.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_running()
    }

    /// Guest code may run here from now on, which the executing CPU says of itself. While it could not, this CPU was
    /// not called to drop translations.
    #[inline]
    pub(crate) fn runs_again(&self) {
        if self.running.resume() {
            self.flush.store(true, Ordering::SeqCst);
            self.demand_attention();
        }
    }

    /// No guest code runs here before a start-up IPI, or at all, which the executing CPU says of itself: nothing comes
    /// before the guest is entered that could lead elsewhere without [`Self::runs_again`].
    pub(crate) fn waits_for_startup(&self) {
        self.running.pause();
    }

    /// Returns whether the last entry loaded the state of control-flow enforcement.
    #[inline]
    pub(crate) fn loads_cet(&self) -> bool {
        self.loads_cet.load(Ordering::Relaxed)
    }

    /// Says whether the next entry loads the state of control-flow enforcement.
    pub(crate) fn set_loads_cet(&self, loads_cet: bool) {
        self.loads_cet.store(loads_cet, Ordering::Relaxed);
    }

    /// Base of the GDT.
    pub(crate) fn gdt_base(&self) -> u64 {
        self.gdt.entries().as_ptr() as u64
    }

    /// Base of the task-state segment.
    pub(crate) fn tss_base(&self) -> u64 {
        (&raw const self.tss) as u64
    }

    /// Address of the guest's registers.
    pub(crate) fn registers_address(cpu: &Self) -> u64 {
        cpu.registers as u64
    }

    /// Returns the guest's registers, to fill before the first entry.
    pub(crate) const fn registers(&self) -> *mut Registers {
        self.registers
    }

    /// Addresses of this CPU's main stack.
    pub(crate) fn main_stack(&self) -> Range<u64> {
        self.main_stack.clone()
    }

    /// Makes this CPU look around before it next enters its guest.
    pub(crate) fn demand_attention(&self) {
        self.attention.store(true, Ordering::SeqCst);
    }

    /// Returns whether this CPU looks around before it next enters its guest.
    #[cfg(test)]
    pub(crate) fn demands_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Local APIC ID, as far as is known.
    pub(crate) fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::SeqCst)
    }

    /// Takes back the demand; what is found afterwards was seen.
    pub(crate) fn clear_attention(&self) {
        self.attention.store(false, Ordering::SeqCst);
    }

    /// Returns whether the guest has switched this CPU's local APIC off.
    pub(crate) fn is_apic_off(&self) -> bool {
        self.is_apic_off.load(Ordering::Relaxed)
    }

    /// Says whether the guest has switched this CPU's local APIC off.
    pub(crate) fn set_apic_off(&self, is_off: bool) {
        self.is_apic_off.store(is_off, Ordering::Relaxed);
    }
}

/// Returns the executing CPU's data.
#[inline]
pub(crate) fn current() -> &'static PerCpu {
    // SAFETY: `install` set it before anything else could run here.
    let this = unsafe { per_cpu::data() }.cast::<PerCpu>();
    // SAFETY: the structure's own address, and it lives for ever.
    unsafe { &*this }
}
