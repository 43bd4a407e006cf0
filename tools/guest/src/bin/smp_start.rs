//! Processor start: INIT-SIPI-SIPI, any number of rounds, gives a CPU in INIT's state that runs once and works.
//! A broadcast reaches one other CPU alone in the emulator, under VMX.
//! cpus: exactly 2
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::cpu::{self, cpuid, rdmsr, wait, wrmsr};
use guest::smp::{self, EntryState};
use guest::{acpi, apic, check, check_eq, guest, println};
use x86::msr::Msr;

guest!(main);

static WORK: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let others = acpi::processors() - 1;
    check!(others >= 1, "the MADT lists {others} other processors");
    for round in 1..=5 {
        check!(smp::start_others(others), "start of all others, round {round}");
        check_eq!(smp::arrived(), others + 1, "arrivals in round {round}");
        if round == 1 {
            println!("{:x?}", smp::entry_state());
        }
        init_state(smp::entry_state());
        everyone_works(others);
    }
    each_by_itself(others);
    second_sipi_is_ignored();
    if cpuid(1, 0).ecx & 1 << 21 != 0 {
        x2apic_round(others);
    }
}

/// SDM, "Processor State After Reset": table of the state following INIT.
fn init_state(state: EntryState) {
    check_eq!(state.cs, u16::from(smp::startup_vector()) << 8, "CS after a start-up IPI");
    check_eq!(state.cr0 & 0x9fff_ffff, 0x10, "CR0 after INIT, but for CD and NW");
    check_eq!((state.cr3, state.cr4, state.efer), (0, 0, 0), "CR3, CR4 and EFER after INIT");
    let general = [state.ebx, state.ecx, state.esi, state.edi, state.ebp, state.esp, state.ss.into()];
    check_eq!(general, [0; 7], "general registers and SS after INIT");
    check_eq!((state.idt_base, state.idt_limit), (0, 0xffff), "IDTR after INIT");
    // EDX holds the processor's signature; bare Bochs 3.0 leaves it 0.
    let signature = cpuid(1, 0).eax & 0xffff_0ff0;
    check!(state.edx == 0 || state.edx & 0xffff_0ff0 == signature, "EDX after INIT is {:#x}", state.edx);
}

fn everyone_works(others: u32) {
    for number in 1..=others as usize {
        let before = WORK.load(Ordering::SeqCst);
        check!(smp::run_on(number, work), "CPU {number} does a job");
        check_eq!(WORK.load(Ordering::SeqCst), before + 1, "jobs done");
        check!(smp::apic_id(number) != apic::id(), "CPU {number} is another one");
    }
}

fn work() {
    check_eq!(
        cpu::under_hypervisor(),
        cpuid(cpu::XMHF_LEAF, 0).eax == cpu::XMHF_LEAF,
        "CPUID on another CPU"
    );
    check!(rdmsr(Msr::IA32_APIC_BASE).is_ok_and(|base| base & 0x100 == 0), "not the bootstrap processor");
    check!(rdmsr(Msr(0x1234)).is_err(), "unknown MSR on another CPU");
    WORK.fetch_add(1, Ordering::SeqCst);
}

fn each_by_itself(others: u32) {
    let ids: [u32; smp::CAPACITY] = core::array::from_fn(smp::apic_id);
    apic::init_others();
    wait(1_000_000);
    smp::forget_arrivals();
    for (before, id) in (1..=others).zip(&ids[1..]) {
        apic::init(*id);
        wait(1_000_000);
        check_eq!(smp::arrived(), before, "a CPU waits after INIT");
        apic::startup(*id, smp::startup_vector());
        let number = before as usize;
        check!(cpu::wait_until(smp::PATIENCE, || smp::is_ready(number)), "CPU {number} by one start-up IPI");
        check_eq!(smp::apic_id(number), *id, "the right CPU came");
    }
    everyone_works(others);
}

fn second_sipi_is_ignored() {
    let before = smp::arrived();
    for _ in 0..10 {
        apic::startup_others(smp::startup_vector());
        wait(50_000);
    }
    check_eq!(smp::arrived(), before, "arrivals after start-up IPIs to running CPUs");
    everyone_works(1);
}

fn x2apic_round(others: u32) {
    let base = rdmsr(Msr::IA32_APIC_BASE).unwrap_or(0);
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, base | 0xc00), Ok(()), "x2APIC mode");
    check!(apic::is_x2apic(), "x2APIC mode");
    for round in 1..=3 {
        check!(smp::start_others(others), "start of all others by x2APIC, round {round}");
        check!(smp::run_on(1, to_x2apic), "the other CPU goes to x2APIC mode");
        everyone_works(others);
    }
}

fn to_x2apic() {
    let base = rdmsr(Msr::IA32_APIC_BASE).unwrap_or(0);
    check_eq!(wrmsr(Msr::IA32_APIC_BASE, base | 0xc00), Ok(()), "x2APIC mode on another CPU");
}
