//! A machine of KVM with one CPU and a little memory (Linux, "The Definitive KVM API Documentation").
#![expect(unsafe_code, reason = "memory shared with the machine")]
// UNSAFETY: the memory is mapped for as long as the machine, and read and written while its CPU stands.

use super::super::Failure;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use std::arch::global_asm;
use std::ffi::c_void;
use std::fmt::Debug;
use std::num::NonZero;
use std::ptr::NonNull;

global_asm!(include_str!("program.S"));

/// Bytes of memory.
pub(super) const MEMORY: usize = 4 << 20;
const PROGRAM: u64 = 0x1000;
const RESULTS: u64 = 0x4000;
const REAL_MODE_RESULT: u64 = 0x3000;
const TABLES: u64 = 0x1_0000;
/// First page that nothing has touched.
const UNTOUCHED: u64 = 2 << 20;
const PORT: u16 = 0x10;

/// A privilege level.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ring {
    /// CPL 0.
    Kernel,
    /// CPL 3, with the segments that SYSRET gives.
    User,
}

/// A piece of the program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Block {
    Cpuid,
    Out,
    Rdmsr,
    Wrmsr,
    Touch,
}

unsafe extern "C" {
    static kvm_program: u8;
    static kvm_program_end: u8;
    static kvm_real_mode: u8;
    static kvm_cpuid: u8;
    static kvm_out: u8;
    static kvm_rdmsr: u8;
    static kvm_wrmsr: u8;
    static kvm_touch: u8;
}

/// The machine.
pub(super) struct Machine {
    pub(super) cpu: VcpuFd,
    memory: NonNull<c_void>,
    /// The machine's own handle, behind that of its CPU.
    _machine: VmFd,
}

impl Machine {
    /// Memory, program and CPU, in the state of a reset.
    pub(super) fn new() -> Result<Self, Failure> {
        let kvm = Kvm::new().map_err(of("/dev/kvm"))?;
        let machine = kvm.create_vm().map_err(of("KVM_CREATE_VM"))?;
        let memory = memory()?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: memory.as_ptr().addr() as u64,
        };
        // SAFETY: the memory is never unmapped.
        unsafe { machine.set_user_memory_region(region) }.map_err(of("KVM_SET_USER_MEMORY_REGION"))?;
        let cpu = machine.create_vcpu(0).map_err(of("KVM_CREATE_VCPU"))?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(of("KVM_GET_SUPPORTED_CPUID"))?;
        cpu.set_cpuid2(&cpuid).map_err(of("KVM_SET_CPUID2"))?;
        let machine = Self { cpu, memory, _machine: machine };
        machine.write_program();
        Ok(machine)
    }

    /// Runs a few instructions in real mode.
    pub(super) fn real_mode(&mut self) -> Result<(), Failure> {
        let mut segments = self.cpu.get_sregs().map_err(of("KVM_GET_SREGS"))?;
        segments.cs.base = 0;
        segments.cs.selector = 0;
        self.cpu.set_sregs(&segments).map_err(of("KVM_SET_SREGS"))?;
        let outputs =
            self.run(kvm_regs { rip: place(&raw const kvm_real_mode), rflags: 2, ..kvm_regs::default() })?;
        if outputs != 1 {
            return Err(format!("{outputs} outputs from real mode"));
        }
        if self.read(REAL_MODE_RESULT) == 0 {
            return Err("CPUID in real mode gave nothing".into());
        }
        Ok(())
    }

    /// Runs `block` in 64-bit mode and gives the ticks of each round; `inputs` are RAX, RCX and RDX.
    pub(super) fn measure(
        &mut self,
        block: Block,
        inputs: [u64; 3],
        rounds: u64,
    ) -> Result<Vec<u64>, Failure> {
        self.enter_long_mode(Ring::Kernel)?;
        let [r8, r9, r10] = inputs;
        let rip = place(block.start());
        let rdi = UNTOUCHED;
        let registers =
            kvm_regs { rip, r8, r9, r10, rdi, r14: RESULTS, r15: rounds, rflags: 2, ..kvm_regs::default() };
        let outputs = self.run(registers)?;
        let expected = if matches!(block, Block::Out) { rounds } else { 0 };
        if outputs != expected {
            return Err(format!("{outputs} outputs, not {expected}"));
        }
        let end = self.cpu.get_regs().map_err(of("KVM_GET_REGS"))?;
        if end.r15 != 0 || end.r14 != RESULTS + 8 * rounds {
            return Err(format!("ended in the middle, at {:#x}", end.rip));
        }
        Ok((0..rounds).map(|round| self.read(RESULTS + 8 * round)).collect())
    }

    /// Runs until HLT and counts the bytes put out.
    fn run(&mut self, registers: kvm_regs) -> Result<u64, Failure> {
        self.cpu.set_regs(&registers).map_err(of("KVM_SET_REGS"))?;
        let mut outputs = 0;
        loop {
            match self.cpu.run().map_err(of("KVM_RUN"))? {
                VcpuExit::IoOut(PORT, [_]) => outputs += 1,
                VcpuExit::Hlt => return Ok(outputs),
                other => return Err(format!("KVM_RUN ended with {other:?}")),
            }
        }
    }

    /// 64-bit mode on large pages that map memory at its own address.
    pub(super) fn enter_long_mode(&mut self, ring: Ring) -> Result<(), Failure> {
        let (user, dpl, code, stack) = match ring {
            Ring::Kernel => (0, 0, 8, 0x10),
            Ring::User => (4, 3, 0x2b, 0x23),
        };
        self.write(TABLES, (TABLES + 0x1000) | 3 | user);
        self.write(TABLES + 0x1000, (TABLES + 0x2000) | 3 | user);
        for index in 0..512 {
            self.write(TABLES + 0x2000 + 8 * index, index << 21 | 0x83 | user);
        }
        let mut segments = self.cpu.get_sregs().map_err(of("KVM_GET_SREGS"))?;
        let data = kvm_segment {
            selector: stack,
            dpl,
            limit: u32::MAX,
            type_: 3,
            present: 1,
            s: 1,
            g: 1,
            db: 1,
            ..kvm_segment::default()
        };
        segments.cs = kvm_segment { selector: code, type_: 11, l: 1, db: 0, ..data };
        for segment in
            [&mut segments.ds, &mut segments.es, &mut segments.ss, &mut segments.fs, &mut segments.gs]
        {
            *segment = data;
        }
        segments.cr3 = TABLES;
        segments.cr4 = 1 << 5;
        segments.cr0 = 0x8000_0033;
        segments.efer = 0x501;
        self.cpu.set_sregs(&segments).map_err(of("KVM_SET_SREGS"))
    }

    fn write_program(&self) {
        let start = &raw const kvm_program;
        let length = (&raw const kvm_program_end).addr() - start.addr();
        // SAFETY: the program is a constant of that length, the page is ours.
        unsafe { start.copy_to_nonoverlapping(self.at(PROGRAM).cast(), length) };
    }

    fn read(&self, address: u64) -> u64 {
        // SAFETY: an aligned address within the memory; the CPU stands.
        unsafe { self.at(address).read_volatile() }
    }

    fn write(&self, address: u64, value: u64) {
        // SAFETY: as above.
        unsafe { self.at(address).write_volatile(value) };
    }

    /// Copies bytes in.
    pub(super) fn put(&self, address: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.has(address, bytes.len())?;
        // SAFETY: within the memory; the CPU stands.
        unsafe { self.at(address).cast::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes out.
    pub(super) fn take(&self, address: u64, count: usize) -> Result<Vec<u8>, Failure> {
        self.has(address, count)?;
        let mut bytes = vec![0; count];
        // SAFETY: as above.
        unsafe { self.at(address).cast::<u8>().copy_to(bytes.as_mut_ptr(), count) };
        Ok(bytes)
    }

    fn has(&self, address: u64, count: usize) -> Result<(), Failure> {
        let end = usize::try_from(address).ok().and_then(|start| start.checked_add(count));
        end.filter(|&end| end <= MEMORY).map(|_| ()).ok_or(format!("no memory at {address:#x}"))
    }

    #[expect(clippy::cast_possible_truncation, reason = "addresses are below 4 MiB")]
    fn at(&self, address: u64) -> *mut u64 {
        self.memory.as_ptr().wrapping_byte_add(address as usize).cast()
    }
}

impl Block {
    fn start(self) -> *const u8 {
        match self {
            Self::Cpuid => &raw const kvm_cpuid,
            Self::Out => &raw const kvm_out,
            Self::Rdmsr => &raw const kvm_rdmsr,
            Self::Wrmsr => &raw const kvm_wrmsr,
            Self::Touch => &raw const kvm_touch,
        }
    }
}

/// Address in the machine of a piece of the program.
pub(super) fn place(label: *const u8) -> u64 {
    PROGRAM + (label.addr() - (&raw const kvm_program).addr()) as u64
}

/// Memory by 4 KiB pages, of which the host has every one but the machine none yet.
fn memory() -> Result<NonNull<c_void>, Failure> {
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let length = NonZero::new(MEMORY).ok_or("memory has bytes")?;
    // SAFETY: new memory at an address of the kernel's choice.
    let memory =
        unsafe { mmap_anonymous(None, length, rights, MapFlags::MAP_PRIVATE) }.map_err(of("mmap"))?;
    // SAFETY: that memory; a kernel without large pages refuses, which comes to the same.
    let _ = unsafe { madvise(memory, MEMORY, MmapAdvise::MADV_NOHUGEPAGE) };
    for offset in (0..MEMORY).step_by(4096) {
        // SAFETY: within that memory.
        unsafe { memory.as_ptr().cast::<u8>().wrapping_add(offset).write_volatile(0) };
    }
    Ok(memory)
}

/// Says what failed.
pub(super) fn of<E: Debug>(what: &str) -> impl Fn(E) -> Failure {
    move |why| format!("{what}: {why:?}")
}
