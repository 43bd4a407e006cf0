//! A log that `lib/tpm` writes, read by `tpm2_eventlog` of Debian's tpm2-tools.

use super::job::{Job, Verdict};
use super::tpm::{GROUP, sha256};
use crate::process;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use tpm::algorithm::{Algorithm, Digest};
use tpm::event_log::LogWriter;

struct Scenario {
    name: &'static str,
}

const SCENARIO: Scenario = Scenario { name: "tpm-event-log" };

/// One job.
pub(super) fn jobs() -> Vec<Job> {
    let name = format!("run/{}", SCENARIO.name);
    vec![Job { name, group: GROUP, seconds: 1, needs: None, work: Box::new(test) }]
}

/// Register, type and data of each event.
const EVENTS: [(u8, u32, &[u8]); 3] = [(17, 0x6, b"one"), (18, 0xd, b"two"), (17, 0xd, b"three")];
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha384];

fn test(folder: &Path) -> Result<Verdict> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("event.log");
    std::fs::write(&path, log()?)?;
    let text = process::output(Command::new("tpm2_eventlog").arg(&path))?;
    std::fs::write(folder.join("event.yaml"), &text)?;
    let missing = wanted().into_iter().find(|wanted| !holds(&text, wanted));
    Ok(missing.map_or(Verdict::Passed, |wanted| {
        Verdict::failed(format!("tpm2_eventlog does not say {wanted:?} in this order"))
    }))
}

/// Digest of an event, by its data in the bank of SHA-256, and its first byte over and over in the other.
fn digests(data: &[u8]) -> Result<Vec<Digest>> {
    let [first, ..] = data else { anyhow::bail!("no data") };
    let other = vec![*first; Algorithm::Sha384.size()];
    let all = [Digest::new(Algorithm::Sha256, &sha256(&[data])), Digest::new(Algorithm::Sha384, &other)];
    all.into_iter().collect::<Option<_>>().context("a digest's size")
}

fn log() -> Result<Vec<u8>> {
    let mut room = vec![0; 4096];
    let mut log = LogWriter::new(&mut room, &ALGORITHMS)?;
    for (pcr, kind, data) in EVENTS {
        log.add(pcr, kind, &digests(data)?, data)?;
    }
    Ok(log.bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Words that the judge has to say, each list in its order: the header, the events, and what they leave in the registers.
fn wanted() -> Vec<Vec<String>> {
    // The judge does not go by the header's size, but tells it.
    let header =
        ["EV_NO_ACTION", "EventSize: 37", "Spec ID Event03", "numberOfAlgorithms: 2", "sha256", "sha384"];
    let mut events = Vec::new();
    for (pcr, _, data) in EVENTS {
        events.push(format!("PCRIndex: {pcr}"));
        events.push("DigestCount: 2".into());
        events.push(hex(&sha256(&[data])));
        events.push(hex(&data[..1]).repeat(Algorithm::Sha384.size()));
        events.push(format!("EventSize: {}", data.len()));
    }
    let value = |wanted: u8| {
        let of_pcr = EVENTS.iter().filter(|(pcr, ..)| *pcr == wanted);
        of_pcr.fold(vec![0; 32], |value, (_, _, data)| sha256(&[&value, &sha256(&[data])]))
    };
    let registers =
        ["pcrs:".into(), format!("17 : 0x{}", hex(&value(17))), format!("18 : 0x{}", hex(&value(18)))];
    vec![header.map(str::to_owned).into(), events, registers.into()]
}

/// Whether `text` has all of `words`, each behind the one before.
fn holds(text: &str, words: &[String]) -> bool {
    let mut rest = text;
    words.iter().all(|word| {
        let found = rest.find(word.as_str());
        rest = found.map_or("", |at| &rest[at + word.len()..]);
        found.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_to_come_in_order() {
        let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        assert!(holds("a b", &words(["a", "b"])));
        assert!(!holds("a b", &words(["b", "a"])) && !holds("a", &words(["a", "a"])));
    }
}
