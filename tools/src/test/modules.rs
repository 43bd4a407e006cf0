//! Intel's own modules, as Debian has them, read by us and by tboot's `txt-acminfo`, which nobody here wrote.

use super::job::{Job, Verdict};
use crate::guest::package;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use txt::acm::{Acm, Flags, HeaderVersion, Kind};
use txt::capabilities::Capabilities;

/// Tests that boot nothing, and need no images for it.
pub(super) const GROUP: &str = "modules";
/// Modules in the package intel-acm, of nine generations.
const MODULES: usize = 13;

struct Scenario {
    name: &'static str,
}

const SCENARIO: Scenario = Scenario { name: "txt-modules" };

/// One job for all modules.
pub(super) fn jobs() -> Vec<Job> {
    let name = format!("run/{}", SCENARIO.name);
    vec![Job { name, group: GROUP, seconds: 5, needs: None, work: Box::new(test) }]
}

fn test(_: &Path) -> Result<Verdict> {
    let judge = package::unpacked("tboot")?.join("usr/sbin/txt-acminfo");
    let modules = modules(&package::unpacked_non_free("intel-acm")?.join("boot"))?;
    if modules.len() != MODULES {
        return Ok(Verdict::failed(format!("{} modules, not {MODULES}", modules.len())));
    }
    for path in modules {
        let file = fs::read(&path)?;
        let name = path.display();
        let acm = match Acm::parse(&file) {
            Ok(acm) => acm,
            Err(why) => return Ok(Verdict::failed(format!("{name}: {why}"))),
        };
        // Where there is no TXT it ends with an error: only what it prints counts.
        let judged = Command::new(&judge).arg(&path).output().context("starting txt-acminfo")?;
        let judged = facts(&String::from_utf8_lossy(&judged.stdout));
        ensure!(judged.len() > 30, "txt-acminfo said next to nothing of {name}");
        let ours = ours(&acm);
        if let Some(index) =
            (0..judged.len().max(ours.len())).find(|&index| judged.get(index) != ours.get(index))
        {
            let (judged, ours) = (judged.get(index), ours.get(index));
            return Ok(Verdict::failed(format!("{name}: {judged:?} says txt-acminfo, {ours:?} do we")));
        }
    }
    Ok(Verdict::Passed)
}

fn modules(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("bin")));
    paths.sort();
    Ok(paths)
}

/// Name and first word of each line that has both; and the bytes of lines that have nothing else.
fn facts(text: &str) -> Vec<(String, String)> {
    let fact = |line: &str| {
        let line = line.trim();
        match line.split_once(':') {
            Some((name, value)) => {
                let word = value.split_whitespace().next()?;
                Some((name.trim().to_owned(), word.to_owned()))
            }
            None if is_bytes(line) => Some((String::new(), line.to_owned())),
            None => None,
        }
    };
    // The first line has the file's name; behind the signature the judge speaks of the machine.
    let mut facts: Vec<_> = text.lines().skip(1).filter_map(fact).collect();
    let end = facts.iter().rposition(|(name, _)| name.is_empty()).map_or(0, |last| last + 1);
    facts.truncate(end);
    facts
}

fn is_bytes(line: &str) -> bool {
    !line.is_empty() && line.split(' ').all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok())
}

/// What there is to say of a module, in the judge's order and by its names.
fn ours(acm: &Acm<'_>) -> Vec<(String, String)> {
    let mut facts = of_header(acm);
    facts.extend(of_information(acm));
    facts.extend(of_lists(acm));
    let header = acm.header();
    facts.push(fact("key size*4", hex(header.key.len() / 4)));
    facts.extend(of_bytes(header.key));
    facts.push(fact("RSA public key exponent", format!("{:#010x}", header.exponent)));
    facts.extend(of_bytes(header.signature));
    facts
}

fn fact(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn hex(value: impl std::fmt::LowerHex) -> String {
    format!("{value:#x}")
}

fn bit(is_set: bool) -> &'static str {
    if is_set { "1" } else { "0" }
}

fn of_bytes(bytes: &[u8]) -> impl Iterator<Item = (String, String)> {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(move |bytes| (String::new(), line(bytes)))
}

fn of_header(acm: &Acm<'_>) -> Vec<(String, String)> {
    let header = acm.header();
    let version = match header.version {
        HeaderVersion::V0 => 0,
        HeaderVersion::V3 => 0x3_0000,
        HeaderVersion::V4 => 0x4_0000,
    };
    vec![
        fact("type", hex(header.module_type)),
        fact("subtype", hex(header.subtype)),
        fact("length", hex(header.length / 4)),
        fact("version", version),
        fact("chipset_id", hex(header.chipset)),
        fact("flags", hex(header.flags.bits())),
        fact("pre_production", bit(header.flags.contains(Flags::PRE_PRODUCTION))),
        fact("debug_signed", bit(header.flags.contains(Flags::DEBUG_SIGNED))),
        fact("vendor", hex(header.vendor)),
        fact("date", format!("{:#010x}", header.date)),
        fact("size*4", hex(header.size)),
        fact("txt_svn", format!("{:#010x}", header.txt_svn)),
        fact("se_svn", format!("{:#010x}", header.sgx_svn)),
        fact("code_control", hex(header.code_control)),
        fact("entry point", format!("{:#010x}:{:08x}", header.selector, header.entry_point)),
        fact("scratch_size", hex(header.scratch_size / 4)),
    ]
}

fn of_information(acm: &Acm<'_>) -> Vec<(String, String)> {
    let information = acm.information();
    let capabilities = information.capabilities;
    let can = |name, wanted| fact(name, bit(capabilities.contains(wanted)));
    vec![
        fact("uuid", "{0x7fc03aaa,"),
        fact("chipset_acm_type", if information.kind == Kind::Sinit { "0x1" } else { "another" }),
        fact("version", information.version),
        fact("length", hex(information.length)),
        fact("chipset_id_list", hex(information.chipset_list)),
        fact("os_sinit_data_ver", hex(information.os_sinit_version)),
        fact("min_mle_hdr_ver", format!("{:#010x}", information.min_mle_version)),
        fact("capabilities", format!("{:#010x}", capabilities.bits())),
        can("rlp_wake_getsec", Capabilities::RLP_WAKE_GETSEC),
        can("rlp_wake_monitor", Capabilities::RLP_WAKE_MONITOR),
        can("ecx_pgtbl", Capabilities::ECX_PAGE_TABLE),
        can("stm", Capabilities::STM),
        can("pcr_map_no_legacy", Capabilities::PCR_MAP_NO_LEGACY),
        can("pcr_map_da", Capabilities::PCR_MAP_DETAILS_AUTHORITIES),
        fact("platform_type", (capabilities.bits() >> 6) & 3),
        can("max_phy_addr", Capabilities::MAX_PHYSICAL_ADDRESS),
        can("tcg_event_log_format", Capabilities::TCG_EVENT_LOG),
        can("cbnt_supported", Capabilities::CBNT),
        fact("acm_ver", information.acm_version),
    ]
}

fn of_lists(acm: &Acm<'_>) -> Vec<(String, String)> {
    let mut facts = vec![fact("count", acm.chipsets().len())];
    for entry in acm.chipsets().iter() {
        facts.extend([
            fact("flags", hex(entry.flags)),
            fact("vendor_id", hex(entry.vendor)),
            fact("device_id", hex(entry.device)),
            fact("revision_id", hex(entry.revision)),
            fact("extended_id", hex(entry.extended)),
        ]);
    }
    if let Some(processors) = acm.processors() {
        facts.push(fact("count", processors.len()));
        for entry in processors.iter() {
            facts.extend([
                fact("fms", hex(entry.signature)),
                fact("fms_mask", hex(entry.signature_mask)),
                fact("platform_id", hex(entry.platform)),
                fact("platform_mask", hex(entry.platform_mask)),
            ]);
        }
    }
    if let Some(tpm) = acm.tpm() {
        facts.push(fact("ext_policy", hex(tpm.capabilities.extend_policy())));
        facts.push(fact("tpm_family", hex(tpm.capabilities.families().bits())));
        facts.push(fact("tpm_nv_index_set", hex(tpm.capabilities.nv_index_set())));
        facts.push(fact("alg count", tpm.algorithms().count()));
        facts.extend(tpm.algorithms().map(|algorithm| fact("alg_id", hex(algorithm))));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_judge_says_becomes_facts() {
        let text = "AC module header dump for x: y\n\t type: 0x2 (ACM)\n\t entry point: 0x08:34be\n\t chipset list:\n\
                    \t\t count: 1\n\t\t     ACM_UUID_V3\n\t\t{0x69}}\n\t\t 00 ff \nERROR: cannot open /dev/mem\n";
        let found = facts(text);
        let wanted = [("type", "0x2"), ("entry point", "0x08:34be"), ("count", "1"), ("", "00 ff")];
        assert_eq!(found, wanted.map(|(name, value)| fact(name, value)));
        assert!(!is_bytes("") && !is_bytes("0x1 2") && is_bytes("81 4f"));
    }
}
