//! What the firmware said before anything was changed.

#![expect(unsafe_code, reason = "reads what boot.S stored")]
// UNSAFETY: boot.S wrote these before Rust began; nothing writes them now.

unsafe extern "C" {
    static boot_drive: u8;
    static boot_entry_state: [u16; 23];
    static boot_entry_cr0: u32;
    static boot_a20: u8;
    static bios_e820_20: [Record; 64];
    static bios_e820_20_count: u32;
    static bios_e820_24: [Record; 64];
    static bios_e820_24_count: u32;
    static bios_e801: [u16; 5];
    static bios_88: [u16; 2];
}

/// Registers at the boot sector's first instruction.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "register names")]
pub struct EntryState {
    pub cs: u16,
    pub ds: u16,
    pub es: u16,
    pub ss: u16,
    pub dl: u8,
    pub flags: u16,
    pub cr0: u32,
    /// Address line 20 was on already.
    pub a20: bool,
}

/// Registers at the boot sector's first instruction.
pub fn entry_state() -> EntryState {
    // SAFETY: see the module's note.
    let (words, cr0, a20, dl) = unsafe { (boot_entry_state, boot_entry_cr0, boot_a20, boot_drive) };
    // gs fs ss es ds cs, then EDI ESI EBP ESP EBX EDX ECX EAX, then FLAGS.
    EntryState {
        ss: words[2],
        es: words[3],
        ds: words[4],
        cs: words[5],
        dl,
        flags: words[22],
        cr0,
        a20: a20 != 0,
    }
}

/// One answer of INT 15h, AX=E820h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    base: [u32; 2],
    length: [u32; 2],
    /// 1 usable, 2 reserved, and so on.
    pub kind: u32,
    /// Extended attributes; 0xeeeeeeee where the firmware left them alone.
    pub attributes: u32,
    /// ECX as returned: bytes stored.
    pub stored: u32,
    /// EBX as returned: 0 after the last record.
    pub next: u32,
}

impl Record {
    /// First byte.
    pub fn base(&self) -> u64 {
        u64::from(self.base[1]) << 32 | u64::from(self.base[0])
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        u64::from(self.length[1]) << 32 | u64::from(self.length[0])
    }

    /// First byte behind.
    pub fn end(&self) -> u64 {
        self.base() + self.length()
    }
}

/// The memory map as asked for with 20 bytes a record.
pub fn e820_20() -> &'static [Record] {
    // SAFETY: see the module's note; the count is at most 64.
    unsafe { &bios_e820_20[..bios_e820_20_count as usize] }
}

/// The memory map as asked for with 24 bytes a record.
pub fn e820_24() -> &'static [Record] {
    // SAFETY: as above.
    unsafe { &bios_e820_24[..bios_e820_24_count as usize] }
}

/// First byte of the memory that a hypervisor beneath keeps for itself: the first reserved range above 1 MiB that is
/// memory. `None` on a bare machine that has no such range.
pub fn hidden_memory() -> Option<u64> {
    let mut records = e820_24().iter();
    records.find(|r| r.kind == 2 && r.base() >= 1 << 20 && r.end() < 0xf000_0000).map(Record::base)
}

/// INT 15h, AX=E801h: AX, BX, CX, DX; `None` where carry was set.
pub fn e801() -> Option<[u16; 4]> {
    // SAFETY: see the module's note.
    let [ax, bx, cx, dx, carry] = unsafe { bios_e801 };
    (carry == 0).then_some([ax, bx, cx, dx])
}

/// INT 15h, AH=88h: KiB above 1 MiB; `None` where carry was set.
pub fn int15_88() -> Option<u16> {
    // SAFETY: see the module's note.
    let [ax, carry] = unsafe { bios_88 };
    (carry & 0xff == 0).then_some(ax)
}
