//! What the hypapp keeps: the registry, and for each CPU the call that it runs.

use crate::heap;
use crate::memory::Caller as Process;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use pals::admission::Admissions;
use pals::machine::{Process as _, Use};
use pals::measurement::Measurement;
use pals::pal::{self, Asked, Key};
use pals::registry::Registry;
use runtime::hypapp::{Boot, ConfigurationError};
use runtime::services;
use runtime::services::compartment::Mode;
use runtime::vcpu::{CodeSize, Registers, Vcpu};
use spin::{Mutex, Once};
use trustvisor::parameter::WordSize;
use trustvisor::status::Status;
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::segment::SegmentRegister;

/// A PAL with what belongs to it.
pub(crate) type Pal = pal::Pal<Belongings>;

/// What belongs to a PAL beside its memory.
#[derive(Debug)]
pub(crate) struct Belongings {
    /// How its process translates addresses, and it too.
    pub(crate) mode: Mode,
    /// Its registers; none until its pages are covered.
    pub(crate) measurement: Option<Measurement>,
    /// What was asked for, and is refused as soon as all is as it was before.
    pub(crate) refused: Option<(Asked, Status)>,
}

/// A call that a CPU runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pal: Arc<Pal>,
    pub(crate) caller: Caller,
}

/// The caller's registers that the compartment does not put aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) registers: Registers,
    pub(crate) rsp: u64,
    pub(crate) rflags: Rflags,
    pub(crate) return_address: u64,
    pub(crate) word: WordSize,
}

/// Ticks that interrupts wait for a PAL, unless the command line says otherwise.
const DEFAULT_TICKS: u64 = 1_000_000;
const TICKS_KEY: &str = "pal_ticks=";

/// Word of the command line that has ring 0 say which processes may register.
const ADMITTED_KEY: &str = "pal_register=admitted";

pub(crate) static REGISTRY: Mutex<Registry<Belongings>> = Mutex::new(Registry::new());
pub(crate) static ADMISSIONS: Mutex<Admissions> = Mutex::new(Admissions::new(true));
static RUNNING: Once<Vec<Mutex<Option<Running>>>> = Once::new();
static TICKS: AtomicU64 = AtomicU64::new(DEFAULT_TICKS);

/// Takes note of the machine and the command line.
pub(crate) fn start(boot: &Boot<'_>) -> Result<(), ConfigurationError> {
    RUNNING.call_once(|| (0..boot.cpus).map(|_| Mutex::new(None)).collect());
    let nobody = || Belongings { mode: Mode::Bits32, measurement: None, refused: None };
    let random = services::random_word().unwrap_or_else(services::time_stamp);
    let started = REGISTRY.lock().start(heap::limit(), random, nobody);
    started.map_err(|_| ConfigurationError::Memory { wanted: "a heap for all PALs" })?;
    for word in boot.command_line.split_ascii_whitespace() {
        if word == ADMITTED_KEY {
            *ADMISSIONS.lock() = Admissions::new(false);
        }
        if let Some(ticks) = word.strip_prefix(TICKS_KEY) {
            let ticks = ticks.parse().ok().filter(|&ticks| ticks >= 10_000);
            let ticks = ticks.ok_or(ConfigurationError::Option {
                name: "pal_ticks",
                takes: "a number of ticks, at least 10000",
            })?;
            TICKS.store(ticks, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Ticks that a PAL may run before interrupts are let through.
pub(crate) fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// Returns the call that this CPU runs.
pub(crate) fn running(cpu: usize) -> Option<&'static Mutex<Option<Running>>> {
    RUNNING.get().and_then(|running| running.get(cpu))
}

/// Returns the number of the PAL that this CPU runs.
pub(crate) fn running_number(cpu: usize) -> Option<u32> {
    running(cpu)?.lock().as_ref().map(|running| running.pal.number)
}

/// Returns the word size of the process that runs on `vcpu`; `None` where it is no process that can have PALs: CPL 3,
/// paging, flat segments.
pub(crate) fn word_size(vcpu: &dyn Vcpu) -> Option<WordSize> {
    if vcpu.cpl() != 3 || !vcpu.cr0().contains(Cr0::PG) {
        return None;
    }
    match vcpu.code_size() {
        CodeSize::Bits64 => Some(WordSize::Bits64),
        CodeSize::Bits32 => {
            let is_flat = |register| vcpu.segment(register).base == 0;
            (is_flat(SegmentRegister::Cs) && is_flat(SegmentRegister::Ss)).then_some(WordSize::Bits32)
        }
        CodeSize::Bits16 => None,
    }
}

/// Returns how `vcpu` translates linear addresses.
pub(crate) fn mode(vcpu: &dyn Vcpu) -> Mode {
    if vcpu.efer().contains(Efer::LMA) {
        if vcpu.cr4().contains(Cr4::LA57) { Mode::Levels5 } else { Mode::Levels4 }
    } else if vcpu.cr4().contains(Cr4::PAE) {
        Mode::Pae
    } else {
        Mode::Bits32
    }
}

/// Returns the PAL of the process on `vcpu` with this entry, where that process could have one.
pub(crate) fn key(vcpu: &dyn Vcpu, entry: u64) -> Option<Key> {
    let page = if services::is_nested() { Process::of(vcpu).page(entry, Use::Execute).ok()? } else { 0 };
    Some(key_at(vcpu, entry, page))
}

/// Returns the same, where `page` is the entry's.
///
/// A hypervisor in the guest moves the tables of its guests as it likes: those processes are told apart by the page
/// that they see, and, unless it keeps their page tables too, by their own.
pub(crate) fn key_at(vcpu: &dyn Vcpu, entry: u64, page: u64) -> Key {
    let is_nested = services::is_nested();
    let nested_page = if is_nested { page } else { 0 };
    if is_nested && !services::has_nested_second_level() {
        return Key { nested_page, address_space: 0, entry };
    }
    Key { nested_page, address_space: vcpu.cr3() & top_table_mask(mode(vcpu)), entry }
}

/// Returns the bits of CR3 that are the address of the top page table.
const fn top_table_mask(mode: Mode) -> u64 {
    match mode {
        Mode::Bits32 => 0xffff_f000,
        Mode::Pae => 0xffff_ffe0,
        Mode::Levels4 | Mode::Levels5 => 0x000f_ffff_ffff_f000,
    }
}
