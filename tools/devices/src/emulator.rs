//! What is used of the emulator: functions that Bochs 3.0 exports, by their names in its symbol table.
//!
//! UNSAFETY: foreign functions.
#![expect(unsafe_code, reason = "foreign functions")]

use crate::bus::{Bus, Message};
use std::ffi::{c_char, c_int, c_void};

/// Handles an access of a CPU's to memory that is a device's.
pub(crate) type MemoryHandler = extern "C" fn(u64, u32, *mut u8, *mut c_void) -> bool;
/// A timer's.
pub(crate) type TimerHandler = extern "C" fn(*mut c_void);

#[rustfmt::skip]
unsafe extern "C" {
    #[link_name = "pluginRegisterDeviceDevmodel"]
    fn register_device(plugin: *mut c_void, kind: u16, device: *mut c_void, name: *const c_char);
    #[link_name = "_ZN8BX_MEM_C22registerMemoryHandlersEPvPFbmjS0_S0_ES2_PFPhmjS0_Emm"]
    fn register_memory(owner: *mut c_void, read: MemoryHandler, write: MemoryHandler, direct: *mut c_void, first: u64, last: u64) -> bool;
    #[link_name = "_ZN8BX_MEM_C19dmaReadPhysicalPageEmjPh"]
    fn dma_read(at: u64, size: u32, data: *mut u8);
    #[link_name = "_ZN8BX_MEM_C20dmaWritePhysicalPageEmjPh"]
    fn dma_write(at: u64, size: u32, data: *const u8);
    #[link_name = "_ZN8BX_MEM_C14getHostMemAddrEP8BX_CPU_Cmj"]
    fn host_address(cpu: *mut c_void, at: u64, access: u32) -> *mut u8;
    #[link_name = "_ZN14bx_pc_system_c14register_timerEPvPFvS0_EjbbPKc"]
    fn register_timer(pc: *mut c_void, owner: *mut c_void, handler: TimerHandler, us: u32, repeats: bool, is_active: bool, name: *const c_char) -> c_int;
    #[link_name = "_ZN14bx_pc_system_c14activate_timerEjjb"]
    fn activate_timer(pc: *mut c_void, timer: u32, us: u32, repeats: bool);
    #[link_name = "_ZN14bx_pc_system_c16deactivate_timerEj"]
    fn deactivate_timer(pc: *mut c_void, timer: u32);
    #[link_name = "_Z26apic_bus_deliver_interrupthjhbbb"]
    fn deliver_interrupt(vector: u8, to: u32, mode: u8, is_logical: bool, is_level: bool, is_asserted: bool) -> c_int;
    #[link_name = "bx_pc_system"]
    static mut PC_SYSTEM: u8;
}

/// Adds a device to the machine, of the plugin and kind that the emulator's call told.
///
/// # Safety
///
/// The device begins with the address of a virtual table as the emulator's `bx_devmodel_c` has it, and is never freed.
pub(crate) unsafe fn add_device(plugin: *mut c_void, kind: u16, device: *mut c_void) {
    // SAFETY: the caller's promise; the name is constant.
    unsafe { register_device(plugin, kind, device, c"xmhf".as_ptr()) }
}

/// Has accesses to `size` bytes of memory from `first` on handled. The owner only tells handlers apart.
pub(crate) fn handle_memory(
    owner: *mut c_void,
    first: u64,
    size: usize,
    read: MemoryHandler,
    write: MemoryHandler,
) -> bool {
    let last = first + size as u64 - 1;
    // SAFETY: the emulator keeps the handlers, which are functions, and compares the owner.
    unsafe { register_memory(owner, read, write, std::ptr::null_mut(), first, last) }
}

/// A timer of the machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer(u32);

impl Timer {
    /// Makes a timer that does not run yet.
    pub(crate) fn new(
        owner: *mut c_void,
        handler: TimerHandler,
        name: &'static std::ffi::CStr,
    ) -> Option<Self> {
        // SAFETY: the emulator hands the owner back to the handler, which does not use it; the name is constant.
        let id = unsafe { register_timer(pc_system(), owner, handler, 1000, true, false, name.as_ptr()) };
        u32::try_from(id).ok().map(Self)
    }

    /// Calls the handler each so many microseconds; at 0 never again.
    pub(crate) fn set(self, microseconds: u32) {
        if microseconds == 0 {
            // SAFETY: a timer of this machine.
            unsafe { deactivate_timer(pc_system(), self.0) }
        } else {
            // SAFETY: as above.
            unsafe { activate_timer(pc_system(), self.0, microseconds, true) }
        }
    }
}

fn pc_system() -> *mut c_void {
    (&raw mut PC_SYSTEM).cast()
}

/// Writes memory that the chipset protects, as its BIOS's shadow; returns whether there is such memory.
pub(crate) fn write_protected(at: u64, data: &[u8]) -> bool {
    // SAFETY: asks where memory is, for reading, which is allowed where writing is not.
    let host = unsafe { host_address(std::ptr::null_mut(), at, 0) };
    if host.is_null() {
        return false;
    }
    let (_, size) = part(at, 0, data.len());
    // SAFETY: the emulator's memory there goes on to the page's end at least, and nobody else runs meanwhile.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), host, size as usize) }
    true
}

/// The emulated machine.
pub(crate) struct Machine;

impl Bus for Machine {
    fn read(&mut self, address: u64, data: &mut [u8]) {
        let mut done = 0;
        while done < data.len() {
            let (at, size) = part(address, done, data.len());
            // SAFETY: so many bytes of the buffer are left, and they stay within a page of the machine's.
            unsafe { dma_read(at, size, data[done..].as_mut_ptr()) }
            done += size as usize;
        }
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (at, size) = part(address, done, data.len());
            // SAFETY: as above; the emulator does not write to the buffer.
            unsafe { dma_write(at, size, data[done..].as_ptr()) }
            done += size as usize;
        }
    }

    fn interrupt(&mut self, message: Message) {
        let Message { address, data } = message;
        let [vector, mode, ..] = data.to_le_bytes();
        let (is_logical, is_level) = (address & 4 != 0, data >> 15 & 1 != 0);
        // SAFETY: plain values, of which the emulator takes any.
        let _ = unsafe {
            deliver_interrupt(vector, address >> 12 & 0xff, mode & 7, is_logical, is_level, is_level)
        };
    }
}

/// What can be done at once: the emulator's functions take accesses within a page.
fn part(address: u64, done: usize, size: usize) -> (u64, u32) {
    let at = address + done as u64;
    let room = 0x1000 - at % 0x1000;
    let size = room.min((size - done) as u64);
    (at, u32::try_from(size).unwrap_or(0x1000))
}
