//! A program of Linux's that has a machine of KVM to itself: 64-bit mode at CPL 3, without a library, with the few
//! system calls that the PAL programs make.
#![expect(unsafe_code, reason = "the address of a label")]
// UNSAFETY: the label is only named.

use super::super::Failure;
use super::machine::{MEMORY, Machine, Ring, of, place};
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuExit;
use std::fs;

/// The port by which the machine's kernel passes a system call on.
const PORT: u16 = 0x11;
const STACK: u64 = MEMORY as u64 - 0x1000;
/// Where the first new pages go, behind the program.
const NEW_PAGES: u64 = 0x28_0000;
const PAGE: u64 = 4096;
/// RFLAGS.IF: a PAL is called with interrupts on.
const RFLAGS: u64 = 0x202;
const IA32_STAR: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_FMASK: u32 = 0xc000_0084;
const ENOMEM: i64 = 12;
const ENOSYS: i64 = 38;

unsafe extern "C" {
    static kvm_system_call: u8;
}

/// What a program left.
pub(super) struct End {
    /// Its exit status.
    pub(super) status: u64,
    /// What it wrote.
    pub(super) output: String,
}

/// Runs the program in the file `path` with `arguments`, the program's name not among them.
pub(super) fn run(path: &str, arguments: &[&str]) -> Result<End, Failure> {
    let mut machine = Machine::new()?;
    let program = fs::read(path).map_err(of(path))?;
    let entry = load(&machine, &program)?;
    let stack = fill_stack(&machine, path, arguments)?;
    machine.enter_long_mode(Ring::User)?;
    set_system_calls(&machine)?;
    let registers = kvm_regs { rip: entry, rsp: stack, rflags: RFLAGS, ..kvm_regs::default() };
    machine.cpu.set_regs(&registers).map_err(of("KVM_SET_REGS"))?;
    let mut kernel = Kernel { output: Vec::new(), next_page: NEW_PAGES };
    loop {
        match machine.cpu.run().map_err(of("KVM_RUN"))? {
            VcpuExit::IoOut(PORT, _) => {}
            other => return Err(format!("{path} leaves by {other:?}")),
        }
        let mut registers = machine.cpu.get_regs().map_err(of("KVM_GET_REGS"))?;
        match kernel.call(&machine, &registers)? {
            Outcome::Result(value) => registers.rax = value.cast_unsigned(),
            Outcome::Exit(status) => {
                let output = String::from_utf8_lossy(&kernel.output).into_owned();
                return Ok(End { status, output });
            }
        }
        machine.cpu.set_regs(&registers).map_err(of("KVM_SET_REGS"))?;
    }
}

/// Puts the program where it is linked to, and gives its entry.
fn load(machine: &Machine, program: &[u8]) -> Result<u64, Failure> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(program).map_err(of("ELF"))?;
    let segments = file.segments().ok_or("no program headers")?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let bytes = file.segment_data(&segment).map_err(of("ELF segment"))?;
        machine.put(segment.p_vaddr, bytes)?;
    }
    Ok(file.ehdr.e_entry)
}

/// The stack of a new process: the number of words, their addresses, no environment.
fn fill_stack(machine: &Machine, path: &str, arguments: &[&str]) -> Result<u64, Failure> {
    let mut text = STACK;
    let mut words = vec![1 + arguments.len() as u64];
    for word in [path].into_iter().chain(arguments.iter().copied()) {
        machine.put(text, word.as_bytes())?;
        words.push(text);
        text += word.len() as u64 + 1;
    }
    words.extend([0, 0]);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let stack = (STACK - bytes.len() as u64) & !0xf;
    machine.put(stack, &bytes)?;
    Ok(stack)
}

fn set_system_calls(machine: &Machine) -> Result<(), Failure> {
    let entry = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    let msrs = [
        entry(IA32_STAR, 0x1b << 48 | 8 << 32),
        entry(IA32_LSTAR, place(&raw const kvm_system_call)),
        entry(IA32_FMASK, RFLAGS),
    ];
    let msrs = Msrs::from_entries(&msrs).map_err(of("MSRs"))?;
    match machine.cpu.set_msrs(&msrs).map_err(of("KVM_SET_MSRS"))? {
        3 => Ok(()),
        count => Err(format!("KVM_SET_MSRS set {count} of 3")),
    }
}

/// What a system call comes to.
enum Outcome {
    Result(i64),
    Exit(u64),
}

/// The system calls of one process.
struct Kernel {
    output: Vec<u8>,
    next_page: u64,
}

impl Kernel {
    fn call(&mut self, machine: &Machine, registers: &kvm_regs) -> Result<Outcome, Failure> {
        let result = match registers.rax {
            // write
            1 => {
                let count = usize::try_from(registers.rdx).map_err(of("write"))?;
                self.output.extend(machine.take(registers.rsi, count)?);
                registers.rdx.cast_signed()
            }
            // mmap
            9 => self.new_pages(registers.rdi, registers.rsi),
            // mprotect, munmap, madvise, mlock: every page has every right and stays where it is.
            10 | 11 | 28 | 149 => 0,
            60 => return Ok(Outcome::Exit(registers.rdi)),
            _ => -ENOSYS,
        };
        Ok(Outcome::Result(result))
    }

    /// Pages that nobody had before, where the system likes.
    fn new_pages(&mut self, wanted: u64, bytes: u64) -> i64 {
        let start = self.next_page;
        match start.checked_add(bytes.next_multiple_of(PAGE)).filter(|&end| end <= STACK - 0x1_0000) {
            Some(end) if wanted == 0 => {
                self.next_page = end;
                start.cast_signed()
            }
            _ => -ENOMEM,
        }
    }
}
