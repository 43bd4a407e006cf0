//! The hypervisor's own address space.
//!
//! The secure loader maps the hypervisor region linearly at [`VIRTUAL_BASE`](platform::handoff::VIRTUAL_BASE) and nothing else. The runtime
//! adds, in the last GiB of the address space, what lies elsewhere: the local APIC's page, VGA text, a
//! stack for each CPU between unmapped guard pages, and for each CPU a window through which it copies to
//! and from one page of guest memory at a time. There is no map of guest memory: what is not mapped cannot
//! leak.
//!
//! UNSAFETY: page-table edits, and copies through the window.
#![expect(unsafe_code, reason = "page tables")]

use crate::machine::{self, VIRTUAL_BASE};
use crate::memory::frame::FrameSource;
use crate::smp::percpu::{self, PerCpu, Stacks};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use hw::bare::apic::LocalApic;
use hw::bare::device::DeviceRegisters;
use hw::bare::{Processor, Region, address_space, memory};
use hw::{Msrs, PhysMemory, Unmapped};
use platform::handoff::{CPU_CAPACITY, PhysRange, UNIT_CAPACITY};
use spin::Once;
use x86::address::HostPhysAddr;
use x86::msr::Msr;
use x86::paging::{ADDRESS_MASK, PAGE_BYTES, PAGE_SIZE, PageFlags};

/// Start of the part of the address space that is managed here: the last GiB.
const BASE: u64 = VIRTUAL_BASE + (1 << 30);
const VGA: u64 = BASE;
/// Two pages a CPU: the window on guest memory, and the local APIC where this CPU's guest put it.
const WINDOWS: u64 = BASE + 0x20_0000;
const WINDOWS_PER_CPU: usize = 2;
const WINDOW_TABLE_COUNT: usize = CPU_CAPACITY * WINDOWS_PER_CPU / 512;
/// Registers of DMA-remapping units.
const UNITS: u64 = BASE + 0xc0_0000;
/// All that a unit's offsets reach: its capability registers give them 10 bits of 16 bytes.
const UNIT_PAGES: u64 = 5;
const STACKS: u64 = BASE + 0x100_0000;
/// Address space of one CPU's stacks: guard, main, guard, NMI, guard, fault.
const STACK_STRIDE: u64 = 0x1_0000;
/// The guest's registers lie on its top.
const MAIN_STACK_PAGES: u64 = 8;
const SMALL_STACK_PAGES: u64 = 2;

const PRESENT: u64 = PageFlags::P.bits();
const TABLE: u64 = PRESENT | PageFlags::RW.bits();
const DATA: u64 = TABLE | PageFlags::XD.bits();
const DEVICE: u64 = DATA | PageFlags::PCD.bits() | PageFlags::PWT.bits();

static ROOT: AtomicU64 = AtomicU64::new(0);
/// Tables of the windows, to find each CPU's entry without a walk.
static WINDOW_TABLES: Once<[HostPhysAddr; WINDOW_TABLE_COUNT]> = Once::new();

/// Takes over the page tables that the secure loader made, and maps devices and windows for as many CPUs as there can
/// be: how many there are shows only when they have been called.
pub(crate) fn start(root: HostPhysAddr, frames: FrameSource<'_>) {
    ROOT.store(root.get(), Ordering::Relaxed);
    map(VGA, 0xb_8000 | DEVICE, frames);
    let mut tables = [HostPhysAddr::default(); WINDOW_TABLE_COUNT];
    for (table, address) in tables.iter_mut().zip((WINDOWS..).step_by(0x20_0000)) {
        *table = table_of(address, frames);
    }
    WINDOW_TABLES.call_once(|| tables);
}

/// Maps the executing CPU's local APIC where IA32_APIC_BASE says that it is.
pub(crate) fn follow_apic() {
    let base = Processor.read(Msr::IA32_APIC_BASE).unwrap_or(0xfee0_0000) & ADDRESS_MASK;
    set_window(apic_window(), base | DEVICE);
}

/// Takes the ID of its local APIC as the one that the executing CPU is called by.
pub(crate) fn follow_apic_id(own: &PerCpu) {
    own.set_apic_id(local_apic().id());
}

/// Maps the stacks of CPU `index`.
pub(crate) fn map_stacks(index: usize, frames: FrameSource<'_>) -> Stacks {
    let mut top = STACKS + index as u64 * STACK_STRIDE;
    let mut stack = |pages: u64| {
        top += PAGE_SIZE;
        for _ in 0..pages {
            let frame = frames();
            map(top, frame.get() | DATA, frames);
            top += PAGE_SIZE;
        }
        top
    };
    let main = stack(MAIN_STACK_PAGES);
    let main_bottom = main - MAIN_STACK_PAGES * PAGE_SIZE;
    let nmi = stack(SMALL_STACK_PAGES);
    let nmi_bottom = nmi - SMALL_STACK_PAGES * PAGE_SIZE;
    Stacks { main, main_bottom, nmi, nmi_bottom, fault: stack(SMALL_STACK_PAGES) }
}

/// Maps the registers of DMA-remapping unit `index`.
pub(crate) fn map_unit(index: usize, place: PhysRange, frames: FrameSource<'_>) -> DeviceRegisters {
    assert!(index < UNIT_CAPACITY, "more units than the handoff has room for");
    let start = UNITS + index as u64 * UNIT_PAGES * PAGE_SIZE;
    let bytes = place.length.min(UNIT_PAGES * PAGE_SIZE);
    for offset in (0..bytes).step_by(PAGE_BYTES) {
        map(start + offset, (place.base + offset) & ADDRESS_MASK | DEVICE, frames);
    }
    // SAFETY: mapped just now, for good, and apart from the hypervisor's memory, by the handoff's check. The guest is kept
    // from them before it runs.
    unsafe { DeviceRegisters::new(start as *mut u8, usize::try_from(bytes).unwrap_or(0)) }
}

/// Returns the physical address of the page tables, for CR3.
pub(crate) fn page_tables() -> HostPhysAddr {
    HostPhysAddr::new(ROOT.load(Ordering::Relaxed))
}

/// Returns the executing CPU's local APIC.
pub(crate) fn local_apic() -> LocalApic {
    // SAFETY: `follow_apic` mapped the page uncacheable, and again at each move. The value, which is not `Send`, is used
    // up by its caller: no other CPU ever has it.
    unsafe { LocalApic::new(window_address(apic_window()) as *mut u8) }
}

/// VGA text memory.
pub(crate) const fn vga_text() -> *mut u16 {
    VGA as *mut u16
}

/// Memory that the guest can reach, seen from the executing CPU.
pub(crate) struct GuestFrames;

impl GuestFrames {
    /// Copies `bytes.len()` bytes at `address` out.
    pub(crate) fn read(address: HostPhysAddr, bytes: &mut [u8]) -> Result<(), Unmapped> {
        Self::pieces(address, bytes.len(), |window, piece| {
            // SAFETY: the piece stays inside the window's page, where no Rust object lies; the guest may change it at
            // will, which a plain copy of bytes tolerates. Where it named a device, that sees a read of the guest's.
            unsafe { memory::try_read(window, &mut bytes[piece]) }
        })
    }

    /// Reads the aligned words at `address`, which lie in one page, each at once.
    pub(crate) fn read_words(address: HostPhysAddr, words: &mut [u64]) -> Result<(), Unmapped> {
        assert!(address.get().is_multiple_of(8) && address.page_offset() + size_of_val(words) <= PAGE_BYTES);
        assert!(!machine::region().overlaps(address.get(), 8), "a guest copy names hypervisor memory");
        let index = guest_window();
        set_window(index, address.page().get() | DATA);
        let place = window_address(index) + address.page_offset() as u64;
        // SAFETY: aligned, in the window's page; the guest may change it at will.
        unsafe { memory::try_read_words(place as *const u64, words) }
    }

    /// Copies `bytes` to `address`.
    pub(crate) fn write(address: HostPhysAddr, bytes: &[u8]) -> Result<(), Unmapped> {
        Self::pieces(address, bytes.len(), |window, piece| {
            // SAFETY: as in `read`.
            unsafe { memory::try_write(window, &bytes[piece]) }
        })
    }

    /// Stores the lower `width` bytes of `value` at `address`, which is aligned, at once and past the caches: it is a
    /// device's register.
    pub(crate) fn store_to_device(address: HostPhysAddr, width: u8, value: u64) -> Result<(), Unmapped> {
        assert!(address.get().is_multiple_of(width.into()), "{address:?} is not aligned");
        assert!(!machine::region().overlaps(address.get(), width.into()), "a store names hypervisor memory");
        let index = guest_window();
        set_window(index, address.page().get() | DEVICE);
        let place = (window_address(index) + address.page_offset() as u64) as *mut u8;
        // SAFETY: aligned, so that it lies in the window's page, where no Rust object is; the store is the guest's own.
        unsafe { memory::try_store(place, width, value) }
    }

    /// Writes `new` to the aligned word at `address` if it is `current`, and says whether it was.
    pub(crate) fn compare_exchange(address: HostPhysAddr, current: u64, new: u64) -> Result<bool, Unmapped> {
        assert!(address.get().is_multiple_of(8), "{address:?} is not aligned");
        let mut is_equal = false;
        Self::pieces(address, size_of::<u64>(), |window, _| {
            // SAFETY: an aligned word lies in one page, the window's; no Rust object lies in guest memory.
            is_equal = unsafe { memory::try_compare_exchange(window.cast(), current, new) }?;
            Ok(())
        })?;
        Ok(is_equal)
    }

    /// Calls `copy` with each piece of `[address, address + length)` that lies in one page.
    ///
    /// Addresses in the hypervisor region never get here: the second-level policy is asked before. Nor do
    /// others that the window cannot show; should one, the access is refused, and the machine goes on.
    fn pieces(
        address: HostPhysAddr,
        length: usize,
        mut copy: impl FnMut(*mut u8, Range<usize>) -> Result<(), Unmapped>,
    ) -> Result<(), Unmapped> {
        let index = guest_window();
        let window = window_address(index);
        let mut done = 0;
        while done < length {
            let at = HostPhysAddr::new(address.get() + done as u64);
            let count = (PAGE_BYTES - at.page_offset()).min(length - done);
            assert!(
                !machine::region().overlaps(at.get(), count as u64),
                "a guest copy names hypervisor memory"
            );
            set_window(index, at.page().get() | DATA);
            copy((window + at.page_offset() as u64) as *mut u8, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

/// Makes the executing CPU's window show nothing once its translations are dropped: a page of a PAL's that was copied last
/// would stay within reach of speculation.
pub(crate) fn close_guest_window() {
    write_window(guest_window(), 0);
}

/// A page below 1 MiB mapped at its own address, for CPUs that switch paging on in it; unmapped on drop.
#[derive(Debug)]
pub(crate) struct LowMemory(());

impl LowMemory {
    /// Maps the page to be executed, not written.
    pub(crate) fn map(page: HostPhysAddr) -> Self {
        machine::with_frames(|frames| map(page.get(), page.get() | PRESENT, frames));
        Self(())
    }
}

impl Drop for LowMemory {
    fn drop(&mut self) {
        machine::region().write_u64(page_tables(), 0);
        address_space::invalidate_all();
    }
}

fn guest_window() -> usize {
    percpu::current().index * WINDOWS_PER_CPU
}

fn apic_window() -> usize {
    guest_window() + 1
}

fn window_address(index: usize) -> u64 {
    WINDOWS + index as u64 * PAGE_SIZE
}

fn set_window(index: usize, entry: u64) {
    write_window(index, entry);
    address_space::invalidate(window_address(index));
}

fn write_window(index: usize, entry: u64) {
    let Some(table) = WINDOW_TABLES.get().and_then(|tables| tables.get(index / 512)) else {
        return;
    };
    machine::region().write_u64(HostPhysAddr::new(table.get() + (index % 512 * 8) as u64), entry);
}

fn map(virt: u64, entry: u64, frames: FrameSource<'_>) {
    let table = table_of(virt, frames);
    machine::region().write_u64(slot(table, virt, 0), entry);
    address_space::invalidate(virt);
}

/// Returns the lowest-level table that maps `virt`, made where it is missing.
fn table_of(virt: u64, frames: FrameSource<'_>) -> HostPhysAddr {
    let memory: &Region = machine::region();
    let mut table = page_tables();
    for level in [3, 2, 1] {
        let slot = slot(table, virt, level);
        let entry = memory.read_u64(slot);
        table = if entry & PRESENT != 0 {
            HostPhysAddr::new(entry & ADDRESS_MASK)
        } else {
            let frame = frames();
            memory.write_u64(slot, frame.get() | TABLE);
            frame
        };
    }
    table
}

const fn slot(table: HostPhysAddr, virt: u64, level: u32) -> HostPhysAddr {
    HostPhysAddr::new(table.get() + (virt >> (12 + 9 * level) & 0x1ff) * 8)
}
