//! What nesting costs: a guest's guest under a small hypervisor of ours, under KVM, and Linux in XMHF in XMHF.

use super::row::{Bar, Row};
use super::{HYPAPP, Timings, measure_one, measure_under, timings, userspace};
use crate::build;
use crate::guest::Guest;
use crate::verdict::Outcome;
use anyhow::Result;

/// A figure: the row's title, its name in the guest's line and key, the original's figure and the bar.
type Figure = (&'static str, &'static str, u64, u64);

const SMALL: [Figure; 3] = [
    ("L2 CPUID, an XMHF-like L1, ticks", "l2_cpuid_xmhf", 35_603, 6_000),
    // Both readings of the counter are in it, and no exit is.
    ("L2 RDMSR that nobody wants", "l2_msr_unwanted", 1_600, 20),
    ("L2 first touch of a 4 KiB page", "l2_touch", 8_880, 3_000),
];
/// Most ticks of a hypercall from a guest's guest to TrustVisor, of which the original has no figure.
const HYPERCALL_BAR: u64 = 1_000;
/// VMREADs and VMWRITEs that the hypervisor executes for an exit which it hands up and the entry behind it, of which
/// the original has no figures either; and the bars. Host state alone, which each exit loads, is half a hundred fields,
/// and all fields are some 180.
const ACCESSES: [(&str, &str, u64); 6] = [
    ("L2 CPUID, an XMHF-like L1, VMREADs", "l2_cpuid_vmreads", 80),
    ("  VMWRITEs", "l2_cpuid_vmwrites", 80),
    ("L2 EPT violation, that L1, VMREADs", "l2_violation_vmreads", 80),
    ("  VMWRITEs", "l2_violation_vmwrites", 80),
    ("L2 CPUID, KVM as L1, VMREADs", "l2_cpuid_kvm_vmreads", 80),
    ("  VMWRITEs", "l2_cpuid_kvm_vmwrites", 80),
];
const KVM: [Figure; 3] = [
    ("L2 CPUID, KVM as L1", "l2_cpuid_kvm", 18_050, 5_000),
    ("L2 OUT, KVM's userspace", "l2_out_kvm", 20_195, 8_000),
    ("L2 first touch of a page under KVM", "l2_touch_kvm", 36_125, 10_000),
];
/// By how many percent Linux in XMHF in XMHF may be longer on its way than in XMHF.
const LINUX_PERCENT: u64 = 10;

/// Boots each guest without the hypervisor and with it and gives their rows.
///
/// # Errors
///
/// A boot failed, or what the guest measures did.
pub(super) fn measure() -> Result<Vec<Row>> {
    let timing = || Guest::Bare("nested_timing".into());
    let small = both("guests of a bare guest", &timing(), 64)?;
    let counting = build::build_counting()?;
    let count = |name, guest, memory_mib| {
        measure_under(counting, name, guest, memory_mib, false).map(|outcome| timings(&outcome))
    };
    let mut counted = count("guests of a bare guest, counting", timing(), 64)?;
    counted.extend(count("guests of KVM, counting", Guest::Kvm, 512)?);
    let guest = Guest::Bare("nested_tv_timing".into());
    let trustvisor = measure_under("trustvisor", "hypercalls of a bare guest's guest", guest, 64, false)?;
    let kvm = both("guests of KVM", &Guest::Kvm, 512)?;
    let linux = both(&format!("Linux in {HYPAPP}"), &Guest::Xmhf, 512)?;
    let mut rows = rows_of(&SMALL, &small.each_ref().map(timings));
    rows.extend(ACCESSES.map(|row| counted_row(row, &counted)));
    rows.extend(rows_of(&KVM, &kvm.each_ref().map(timings)));
    rows.push(trustvisor_row(&timings(&trustvisor)));
    rows.push(linux_row(&linux));
    Ok(rows)
}

fn both(name: &str, guest: &Guest, memory_mib: u32) -> Result<[Outcome; 2]> {
    let one = |bare| measure_one(name, guest.clone(), memory_mib, bare);
    Ok([one(true)?, one(false)?])
}

fn rows_of(figures: &[Figure], [bare, ours]: &[Timings; 2]) -> Vec<Row> {
    let row = |&(what, key, original, bar): &Figure| {
        let (bare, ours) = (bare.get(key).copied(), ours.get(key).copied());
        Row { what, key: Some(key), bare, ours, original: Some(original), bar: Some(Bar::AtMost(bar)) }
    };
    figures.iter().map(row).collect()
}

fn counted_row((what, key, bar): (&'static str, &'static str, u64), ours: &Timings) -> Row {
    let ours = ours.get(key).copied();
    Row { what, key: Some(key), bare: None, ours, original: None, bar: Some(Bar::AtMost(bar)) }
}

fn trustvisor_row(ours: &Timings) -> Row {
    let key = "l2_vmcall_trustvisor";
    Row {
        what: "L2 VMCALL to TrustVisor, TEST",
        key: Some(key),
        bare: None,
        ours: ours.get(key).copied(),
        original: None,
        bar: Some(Bar::AtMost(HYPERCALL_BAR)),
    }
}

fn linux_row([bare, ours]: &[Outcome; 2]) -> Row {
    Row {
        what: "L2 Linux to userspace, XMHF in XMHF",
        key: Some("l2_linux_userspace"),
        bare: userspace(bare),
        ours: userspace(ours),
        original: None,
        bar: Some(Bar::PercentOverBare(LINUX_PERCENT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_row_and_an_absent_one_misses_its_bar() {
        let of = |ticks| [("l2_cpuid_xmhf".to_owned(), ticks)].into();
        let rows = rows_of(&SMALL, &[of(107), of(1_761)]);
        assert_eq!((rows[0].bare, rows[0].ours, rows[0].meets_bar()), (Some(107), Some(1_761), true));
        assert!(rows[1..].iter().all(|row| row.ours.is_none() && !row.meets_bar()));
        assert!(!trustvisor_row(&of(300)).meets_bar());
    }

    #[test]
    fn accesses_of_the_vmcs_are_counted_by_reads_and_writes() {
        let counted = [("l2_cpuid_vmreads".to_owned(), 62), ("l2_cpuid_vmwrites".to_owned(), 95)].into();
        let rows = ACCESSES.map(|row| counted_row(row, &counted));
        assert_eq!(rows.each_ref().map(|row| row.ours), [Some(62), Some(95), None, None, None, None]);
        assert_eq!(rows.each_ref().map(Row::meets_bar), [true, false, false, false, false, false]);
    }
}
