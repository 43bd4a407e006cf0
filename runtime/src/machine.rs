//! The one machine: what the boot found, the pool of frames, and the guest's memory.
//!
//! UNSAFETY: hands out frames of the pool as memory.
#![expect(unsafe_code, reason = "frames become memory")]

use crate::SecondLevelFormat;
use crate::dma::Devices;
use crate::guest_start::GuestStart;
use crate::hypapp::Hypapp;
use crate::memory::frame::{self, FrameSource};
use crate::memory::second_level::SecondLevel;
use crate::policies::Policies;
use crate::smp::rendezvous::Rendezvous;
use crate::vendor::Vendor;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize};
use hw::PhysMemory;
use hw::bare::{Region, address_space};
use platform::handoff::{self, Handoff, ImageHeader, RUNTIME_OFFSET};
use spin::{Mutex, Once};
use x86::address::HostPhysAddr;

/// Virtual address at which the hypervisor region is mapped.
pub(crate) const VIRTUAL_BASE: u64 = handoff::VIRTUAL_BASE & address_space::ADDRESS_BITS;

/// What the boot was given and decided; constant from then on. Every CPU leads to it, and nothing else does: what has
/// no argument to find it by, as an exit, an NMI or a stop, asks for the executing CPU first.
pub(crate) struct Machine {
    /// What the bootloader said, checked.
    pub(crate) handoff: &'static Handoff,
    /// The hypervisor region.
    pub(crate) region: Region,
    /// The hypapp of this image.
    pub(crate) hypapp: &'static dyn Hypapp,
    /// What the processor's vendor has.
    pub(crate) vendor: &'static dyn Vendor,
    /// What handlers of exits know.
    pub(crate) policies: Policies,
    /// What the guest starts from.
    pub(crate) guest_start: GuestStart<'static>,
    /// What the machine's devices reach.
    pub(crate) devices: Devices,
    /// How one CPU has the others stand still.
    pub(crate) rendezvous: Rendezvous<AtomicBool, AtomicUsize>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Machine").field("policies", &self.policies).finish_non_exhaustive()
    }
}

/// Where the hypervisor is.
struct Boot {
    handoff: &'static Handoff,
    region: Region,
}

static BOOT: Once<Boot> = Once::new();
/// The guest's memory, which all CPUs share.
pub(crate) static SECOND_LEVEL: Mutex<SecondLevel<RegionMemory, SecondLevelFormat>> =
    Mutex::new(SecondLevel::new(RegionMemory));

/// The hypervisor region, for statics that are built before it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionMemory;

impl PhysMemory for RegionMemory {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        region().read(address, bytes);
    }

    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        region().write(address, bytes);
    }

    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        region().read_u64(address)
    }

    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        region().write_u64(address, value);
    }
}

/// Takes note of where the hypervisor is, and gives the pool its frames.
pub(crate) fn start(handoff: &'static Handoff, region: Region) {
    BOOT.call_once(|| Boot { handoff, region });
    let image = image_header();
    let pool = handoff.region.base + image.bss_end.next_multiple_of(4096);
    let mut second_level = SECOND_LEVEL.lock();
    let frames = second_level.frames();
    // The bootloader sizes the region by a generous figure a CPU; what the pool cannot hold stays unused.
    let bytes = ((handoff.own_end() & !0xfff) - pool).min(frame::CAPACITY as u64 * 4096);
    if let Err(error) = frames.add(HostPhysAddr::new(pool), bytes) {
        panic!("the hypervisor region has no room for a pool: {error:?}");
    }
}

/// Returns the hypervisor region.
pub(crate) fn region() -> &'static Region {
    &boot().region
}

/// Returns the number of bytes of the runtime image file.
pub(crate) fn image_bytes() -> u64 {
    image_header().data_end - RUNTIME_OFFSET
}

/// Virtual address of the first byte that the runtime may write; all up to the region's end follows.
pub(crate) fn data_start() -> u64 {
    VIRTUAL_BASE + image_header().rodata_end
}

/// Virtual addresses of the hypervisor's code.
pub(crate) fn text_range() -> core::ops::Range<u64> {
    VIRTUAL_BASE + RUNTIME_OFFSET..VIRTUAL_BASE + image_header().text_end
}

/// Returns the module that GRUB loaded for the hypapp; empty where there is none.
pub(crate) fn hypapp_module() -> &'static [u8] {
    let module = boot().handoff.hypapp_module;
    let Ok(bytes) = usize::try_from(module.length) else { return &[] };
    if bytes == 0 {
        return &[];
    }
    let start = region().virt(HostPhysAddr::new(module.base), bytes);
    // SAFETY: the handoff's check put it inside the region, behind the pool: nobody writes there.
    unsafe { core::slice::from_raw_parts(start, bytes) }
}

/// Returns a run of zeroed frames for good. At boot the pool was sized for them: running out is a bug of ours.
pub(crate) fn with_frame_run(count: usize) -> HostPhysAddr {
    match SECOND_LEVEL.lock().frames().allocate_run(&RegionMemory, count) {
        Ok(frame) => frame,
        Err(error) => panic!("the pool is too small for this machine: {error:?}"),
    }
}

/// Zeroed memory for good, of frames of the pool.
pub(crate) fn take_memory(bytes: usize) -> &'static mut [u8] {
    let frames = bytes.div_ceil(4096);
    let start = region().virt(with_frame_run(frames), frames * 4096);
    // SAFETY: fresh zeroed frames that follow each other, never freed, and used for nothing else.
    unsafe { core::slice::from_raw_parts_mut(start, bytes) }
}

/// Lends a source of zeroed frames.
pub(crate) fn with_frames<T>(act: impl FnOnce(FrameSource<'_>) -> T) -> T {
    act(&mut || with_frame_run(1))
}

fn boot() -> &'static Boot {
    match BOOT.get() {
        Some(boot) => boot,
        None => unreachable!("the runtime's entry calls `start` first"),
    }
}

fn image_header() -> ImageHeader {
    // SAFETY: the secure loader checked the header, which the image begins with.
    unsafe { ((VIRTUAL_BASE + RUNTIME_OFFSET) as *const ImageHeader).read() }
}
