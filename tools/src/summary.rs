//! What a run came to, gathered from the lines of both consoles.

use crate::stage::Origin;
use std::collections::BTreeMap;
use std::fmt;

/// Figures that guest and hypervisor printed; `None` where they did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Numbers by the names that the hypervisor gives them, such as `hidden_bytes`.
    pub hypervisor: BTreeMap<String, u64>,
    /// VM exits by reason, then by CPU.
    pub exits: BTreeMap<String, BTreeMap<u64, u64>>,
    /// VM exits by level, then by CPU, where the guest had guests of its own.
    pub levels: BTreeMap<&'static str, BTreeMap<u64, u64>>,
    /// Ticks from reset to the guest's first process.
    pub userspace_ticks: Option<u64>,
    /// CPUs that the guest runs on.
    pub guest_cpus: Option<u64>,
    /// Ticks of a hundred fork and exec in the guest.
    pub forkexec_ticks: Option<u64>,
    /// Guests of the guest, under its own hypervisor, that came to their end.
    pub nested_guests: u64,
    /// What Xen says of VMX, word for word.
    pub xen: Vec<String>,
    /// Ticks of what the guest measured, by the names that it gives.
    pub measured: BTreeMap<String, u64>,
    /// Lines in which the hypervisor gave up.
    pub stops: Vec<String>,
    /// Lines in which the guest says that something failed.
    pub failures: Vec<String>,
}

/// Whose exits they were, and the hypervisor's word for it.
const LEVELS: [(&str, &str); 3] = [
    ("of the guest", "exits_level1"),
    ("of its guests, ours", "exits_level2_own"),
    ("of its guests, reflected", "exits_level2_reflected"),
];

/// Linux's last words, and Xen's.
pub(crate) const PANICS: [&str; 2] = ["Kernel panic", "Panic on CPU"];
/// Head of Xen's list of features, and what is in front of each.
const XEN_FEATURES: &str = "VMX: Supported advanced features:";
const XEN_ITEM: &str = " - ";

impl Summary {
    /// Takes in one line.
    pub fn read_line(&mut self, origin: Origin, line: &str) {
        match origin {
            Origin::Guest => self.read_guest(line),
            Origin::Hypervisor => self.read_hypervisor(line),
        }
    }

    fn read_guest(&mut self, line: &str) {
        // The bootloader's last resort, where it did not get as far as to know the right console.
        if line.starts_with("stop: bootloader: ") {
            self.stops.push(line.to_owned());
        }
        if PANICS.iter().any(|words| line.contains(words)) {
            self.failures.push(line.to_owned());
        }
        if let Some((_, text)) = line.split_once("(XEN) ") {
            self.read_xen(text);
        }
        let Some((_, text)) = line.split_once("xmhf-guest: ") else { return };
        if text.contains(" failed: ") {
            self.failures.push(text.to_owned());
        }
        let number =
            |key| fields(text).find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok());
        if text.starts_with("userspace ") {
            self.userspace_ticks = number("tsc");
            self.guest_cpus = number("cpus");
        } else if text.starts_with("forkexec100 ") {
            self.forkexec_ticks = number("ticks");
        } else if text.starts_with("kvm guest ") {
            self.nested_guests += 1;
        } else if let Some((name, _)) = text.strip_prefix("bench ").and_then(|rest| rest.split_once(' ')) {
            self.measured.extend(number("ticks").map(|ticks| (name.to_owned(), ticks)));
        }
    }

    fn read_xen(&mut self, text: &str) {
        let in_list = self.xen.last().is_some_and(|last| last == XEN_FEATURES || last.starts_with(XEN_ITEM));
        if text == XEN_FEATURES || text.starts_with("HVM: ") || in_list && text.starts_with(XEN_ITEM) {
            self.xen.push(text.to_owned());
        }
    }

    fn read_hypervisor(&mut self, line: &str) {
        if line.contains("stop:") {
            self.stops.push(line.to_owned());
        }
        let Some((_, text)) = line.split_once("summary ") else { return };
        let found: BTreeMap<_, _> = fields(text).collect();
        let number = |key| found.get(key).and_then(|value| value.parse::<u64>().ok());
        if let Some(reason) = found.get("exit") {
            if let (Some(cpu), Some(count)) = (number("cpu"), number("count")) {
                self.exits.entry((*reason).to_owned()).or_default().insert(cpu, count);
            }
            return;
        }
        if found.contains_key(LEVELS[0].1) {
            for (name, key) in LEVELS {
                if let (Some(cpu), Some(count)) = (number("cpu"), number(key)) {
                    self.levels.entry(name).or_default().insert(cpu, count);
                }
            }
            return;
        }
        for key in found.keys() {
            self.hypervisor.extend(number(key).map(|value| ((*key).to_owned(), value)));
        }
    }
}

/// The `key=value` and `key="several words"` of a line; other words are passed over.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (before, after) = rest.split_once('=')?;
            let key = before.rsplit(char::is_whitespace).next().unwrap_or_default();
            let (value, behind) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            rest = behind;
            if !key.is_empty() {
                return Some((key, value));
            }
        }
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |value: Option<u64>| value.map_or_else(|| "not reported".to_owned(), thousands);
        let hypervisor = |key| known(self.hypervisor.get(key).copied());
        for (name, figure) in [
            ("CPUs in the guest            ", self.guest_cpus),
            ("ticks to userspace           ", self.userspace_ticks),
        ] {
            if let Some(figure) = figure {
                writeln!(formatter, "{name}{}", thousands(figure))?;
            }
        }
        if let Some(ticks) = self.forkexec_ticks {
            writeln!(formatter, "ticks of 100 fork and exec   {}", thousands(ticks))?;
        }
        if self.nested_guests > 0 {
            writeln!(formatter, "guests of the guest          {}", self.nested_guests)?;
        }
        if !self.xen.is_empty() {
            writeln!(formatter, "Xen said")?;
        }
        for text in &self.xen {
            writeln!(formatter, "  {text}")?;
        }
        for (name, ticks) in &self.measured {
            writeln!(formatter, "  {name:27}{} ticks", thousands(*ticks))?;
        }
        if self.hypervisor.is_empty() && self.exits.is_empty() {
            return Ok(());
        }
        writeln!(formatter, "ticks to the guest's start   {}", hypervisor("start_ticks"))?;
        writeln!(formatter, "bytes hidden from the guest  {}", hypervisor("hidden_bytes"))?;
        writeln!(formatter, "EPT pages used               {}", hypervisor("ept_pages"))?;
        writeln!(formatter, "bytes of hypervisor image    {}", hypervisor("image_bytes"))?;
        self.write_exits(formatter)
    }
}

impl Summary {
    fn write_exits(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus: Vec<u64> = self.exits.values().flat_map(BTreeMap::keys).copied().collect();
        cpus.sort_unstable();
        cpus.dedup();
        let heads: String = cpus.iter().map(|cpu| format!("{:>14}", format!("CPU {cpu}"))).collect();
        writeln!(formatter, "{:32}{heads}", "VM exits")?;
        let levels = LEVELS.iter().filter_map(|(name, _)| Some((*name, self.levels.get(name)?)));
        let reasons = self.exits.iter().map(|(reason, counts)| (reason.as_str(), counts));
        for (name, counts) in levels.chain(reasons) {
            write!(formatter, "  {name:30}")?;
            for cpu in &cpus {
                write!(formatter, "{:>14}", thousands(counts.get(cpu).copied().unwrap_or(0)))?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

/// So many CPUs, in words.
pub(crate) fn cpus(number: impl Into<u64>) -> String {
    match number.into() {
        1 => "1 CPU".to_owned(),
        number => format!("{number} CPUs"),
    }
}

/// A number with a comma before every three digits.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(lines: &[(Origin, &str)]) -> Summary {
        let mut summary = Summary::default();
        lines.iter().for_each(|(origin, line)| summary.read_line(*origin, line));
        summary
    }

    #[test]
    fn recorded_lines_give_every_figure() {
        let read = summary(&[
            (Origin::Guest, "[    0.84] xmhf-guest: userspace tsc=2101000111 cpus=2"),
            (Origin::Guest, "xmhf-guest: forkexec100 ticks=85100000"),
            (Origin::Guest, "xmhf-guest: bench l2_cpuid_kvm ticks=4970 median=4971"),
            (Origin::Guest, "xmhf-guest: kvm guest on cpu=0 done"),
            (Origin::Guest, "xmhf-guest: kvm guest on cpu=1 done"),
            (Origin::Hypervisor, "cpu=0 summary hidden_bytes=8388608 image_bytes=400000 ept_pages=5"),
            (Origin::Hypervisor, "summary start_ticks=15000000 cpus=2"),
            (Origin::Hypervisor, "summary cpu=0 exit=\"CPUID\" count=12"),
            (Origin::Hypervisor, "summary cpu=1 exit=\"CPUID\" count=1234"),
            (Origin::Hypervisor, "summary cpu=1 exit=\"INIT signal\" count=2"),
            (
                Origin::Hypervisor,
                "summary cpu=1 exits_level1=1000 exits_level2_own=36 exits_level2_reflected=200",
            ),
        ]);
        assert_eq!(read.userspace_ticks, Some(2_101_000_111));
        assert_eq!(read.guest_cpus, Some(2));
        assert_eq!(read.forkexec_ticks, Some(85_100_000));
        assert_eq!(read.hypervisor["hidden_bytes"], 8_388_608);
        assert_eq!(read.hypervisor["start_ticks"], 15_000_000);
        assert_eq!(read.exits["CPUID"], BTreeMap::from([(0, 12), (1, 1234)]));
        assert_eq!(read.exits["INIT signal"], BTreeMap::from([(1, 2)]));

        assert_eq!((read.nested_guests, read.measured["l2_cpuid_kvm"]), (2, 4970));

        let text = read.to_string();
        assert!(
            text.contains("guests of the guest          2\n  l2_cpuid_kvm               4,970 ticks\n"),
            "{text}"
        );
        assert_eq!(read.levels["of its guests, reflected"], BTreeMap::from([(1, 200)]));
        assert!(text.contains("  of its guests, ours                        0            36\n"), "{text}");
        assert!(text.contains("bytes hidden from the guest  8,388,608\n"));
        assert!(text.contains("  CPUID                                     12         1,234\n"), "{text}");
    }

    #[test]
    fn what_xen_says_of_vmx_is_kept_word_for_word() {
        let lines = [
            "(XEN)  - not of the list",
            "(XEN) VMX: Supported advanced features:",
            "(XEN)  - Extended Page Tables (EPT)",
            "(XEN)  - Unrestricted Guest",
            "(XEN) HVM: VMX enabled",
            "(XEN)  - not of the list",
            "(XEN) Brought up 1 CPUs",
            "HVM: not of Xen",
        ];
        let read = summary(&lines.map(|line| (Origin::Guest, line)));
        let list = [" - Extended Page Tables (EPT)", " - Unrestricted Guest"];
        assert_eq!(read.xen, [XEN_FEATURES, list[0], list[1], "HVM: VMX enabled"]);
        let text = read.to_string();
        assert!(text.contains("Xen said\n  VMX: Supported advanced features:\n   - Extended"), "{text}");
        assert!(text.contains("  HVM: VMX enabled\n"), "{text}");
    }

    #[test]
    fn failures_and_stops_are_kept_word_for_word() {
        let read = summary(&[
            (Origin::Guest, "xmhf-guest: load failed: CPU 1: fork: EAGAIN"),
            (Origin::Guest, "[  1.0] Kernel panic - not syncing: VFS"),
            (Origin::Guest, "(XEN) Panic on CPU 0:"),
            (Origin::Hypervisor, "stop: no VMX"),
            (Origin::Guest, "stop: bootloader: no-long-mode: why"),
            (Origin::Guest, "guest: stop: bootloader"),
        ]);
        assert_eq!(
            read.failures,
            [
                "load failed: CPU 1: fork: EAGAIN",
                "[  1.0] Kernel panic - not syncing: VFS",
                "(XEN) Panic on CPU 0:"
            ]
        );
        assert_eq!(read.stops, ["stop: no VMX", "stop: bootloader: no-long-mode: why"]);
    }

    #[test]
    fn a_guest_cannot_write_the_hypervisors_summary() {
        assert_eq!(summary(&[(Origin::Guest, "summary hidden_bytes=1")]), Summary::default());
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let lines = [
            "summary exit=\"CPUID",
            "summary =",
            "summary cpu=x exit=\"a\" count=1",
            "summary hidden_bytes=-1",
        ];
        for line in lines {
            assert_eq!(summary(&[(Origin::Hypervisor, line)]), Summary::default(), "{line}");
        }
    }

    #[test]
    fn one_cpu_is_no_plural() {
        assert_eq!([0_u32, 1, 2].map(cpus), ["0 CPUs", "1 CPU", "2 CPUs"]);
    }

    #[test]
    fn thousands_are_marked() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
