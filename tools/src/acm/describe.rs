//! A module in words.

use std::fmt::Write;
use txt::acm::{Acm, Chipset, Family, Flags, HeaderVersion, Kind, TpmCapabilities};
use txt::capabilities::Capabilities;

/// What `acm` is and what it is for, in lines.
pub(super) fn describe(acm: &Acm<'_>) -> String {
    let (header, information) = (acm.header(), acm.information());
    let mut text = format!("{}, {}, {} bytes\n", kind(information.kind), date(header.date), header.size);
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<13} {value}");
    };
    line("signed", format!("{}{}", key(header.version), flags(header.flags)));
    line("security", format!("version {} of TXT, {} of SGX", header.txt_svn, header.sgx_svn));
    let [major, minor, build] = information.acm_revision;
    line("revision", format!("{}, {major:x}.{minor:x}.{build:x}", information.acm_version));
    line("OsSinitData", format!("up to version {}", information.os_sinit_version));
    let wanted = information.min_mle_version;
    line("MLE header", format!("from version {}.{} on", wanted >> 16, wanted & 0xffff));
    line("offers", offers(information.capabilities));
    for entry in acm.chipsets().iter() {
        line("chipset", chipset(&entry));
    }
    for entry in acm.masked_chipsets().iter() {
        line(
            "chipset",
            format!("{:04x}:{:04x} by mask {:#x}", entry.vendor, entry.device, entry.device_mask),
        );
    }
    for entry in acm.processors().iter().flat_map(|list| list.iter()) {
        let platform = if entry.platform_mask == 0 {
            String::new()
        } else {
            format!(", platform {:#x} by mask {:#x}", entry.platform, entry.platform_mask)
        };
        line("processor", format!("{:#x} by mask {:#x}{platform}", entry.signature, entry.signature_mask));
    }
    match acm.tpm() {
        None => line("TPM", "1.2".into()),
        Some(tpm) => {
            let algorithms: Vec<_> = tpm.algorithms().map(algorithm).collect();
            line("TPM", format!("{}; {}", families(tpm.capabilities), algorithms.join(", ")));
        }
    }
    if acm.padding() != 0 {
        line("padding", format!("{} bytes behind it", acm.padding()));
    }
    text.trim_end().to_owned()
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Bios => "module of the firmware's".into(),
        Kind::Sinit => "SINIT".into(),
        Kind::BiosRevocation => "revocation of modules of the firmware's".into(),
        Kind::SinitRevocation => "revocation of SINITs".into(),
        Kind::Other(number) => format!("module of the unknown kind {number}"),
    }
}

/// The digits of year, month and day, four bits each.
fn date(date: u32) -> String {
    format!("{:04x}-{:02x}-{:02x}", date >> 16, (date >> 8) & 0xff, date & 0xff)
}

const fn key(version: HeaderVersion) -> &'static str {
    match version {
        HeaderVersion::V0 => "RSA, SHA-256",
        HeaderVersion::V3 => "RSA, SHA-384",
        HeaderVersion::V4 => "RSA, SHA-384, and a hash-based signature",
    }
}

const fn flags(flags: Flags) -> &'static str {
    match (flags.contains(Flags::DEBUG_SIGNED), flags.contains(Flags::PRE_PRODUCTION)) {
        (true, _) => ", for debugging",
        (false, true) => ", before production",
        (false, false) => ", for production",
    }
}

fn offers(capabilities: Capabilities) -> String {
    const WORDS: [(Capabilities, &str); 8] = [
        (Capabilities::RLP_WAKE_GETSEC, "waking by GETSEC"),
        (Capabilities::RLP_WAKE_MONITOR, "waking by address"),
        (Capabilities::STM, "SMI transfer monitor"),
        (Capabilities::PCR_MAP_DETAILS_AUTHORITIES, "details and authorities in PCRs"),
        (Capabilities::PLATFORM_CLIENT, "clients"),
        (Capabilities::PLATFORM_SERVER, "servers"),
        (Capabilities::TCG_EVENT_LOG, "the TCG's event log"),
        (Capabilities::TPR, "TXT protected regions"),
    ];
    let words: Vec<_> =
        WORDS.iter().filter(|(bit, _)| capabilities.contains(*bit)).map(|(_, word)| *word).collect();
    words.join(", ")
}

fn chipset(entry: &Chipset) -> String {
    let revision = if entry.flags & 1 == 0 { "revision" } else { "revisions by mask" };
    format!("{:04x}:{:04x}, {revision} {:#x}", entry.vendor, entry.device, entry.revision)
}

fn families(capabilities: TpmCapabilities) -> String {
    const WORDS: [(Family, &str); 3] = [
        (Family::DISCRETE_1_2, "1.2"),
        (Family::DISCRETE_2_0, "2.0"),
        (Family::FIRMWARE_2_0, "2.0 in the firmware"),
    ];
    let families = capabilities.families();
    let words: Vec<_> =
        WORDS.iter().filter(|(bit, _)| families.contains(*bit)).map(|(_, word)| *word).collect();
    words.join(", ")
}

/// An algorithm's name (TCG, "TCG Algorithm Registry": "TPM_ALG_ID").
fn algorithm(number: u16) -> String {
    match number {
        0x4 => "SHA-1".into(),
        0xb => "SHA-256".into(),
        0xc => "SHA-384".into(),
        0xd => "SHA-512".into(),
        0x12 => "SM3-256".into(),
        0x14 => "RSASSA".into(),
        0x18 => "ECDSA".into(),
        0x1b => "SM2".into(),
        other => format!("{other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_words() {
        assert_eq!(date(0x2014_0915), "2014-09-15");
        assert_eq!(offers(Capabilities::from_bits_retain(0x46)), "waking by address, clients");
        assert_eq!((algorithm(0xb), algorithm(0x99)), ("SHA-256".into(), "0x99".into()));
        assert_eq!(flags(Flags::DEBUG_SIGNED | Flags::PRE_PRODUCTION), ", for debugging");
    }
}
