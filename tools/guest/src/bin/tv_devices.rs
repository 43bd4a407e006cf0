//! DMA protection: a device neither reads nor writes a PAL's pages from REGISTER to UNREGISTER, and behind it finds zeros and may write.
//! hypapp: trustvisor
//! devices: yes
//! memory: 128
//! bare: no
//! expect-hypervisor: refused device=00:05.0 read address=
#![no_std]
#![no_main]

use guest::canary::{self, Vault};
use guest::memory::{FREE, read64, write64};
use guest::pal::PAGE;
use guest::{check, check_eq, dma, guest};

guest!(main);

const DEVICE: u16 = 0x28;
/// Enough for pages of tables to run out if they were not given back.
const ROUNDS: u64 = 600;

fn main() {
    check!(dma::is_there(), "the engine");
    let vault = Vault::place(0);
    // What a device wrote before is what is registered: it is measured behind the closing.
    check_eq!(dma::store(DEVICE, vault.at + PAGE, 0x1234), Ok(true), "before, a page is open");
    check_eq!(read64(vault.at + PAGE), Ok(0x1234), "what a device stored before");
    check_eq!(write64(vault.at + PAGE, 0), Ok(()), "the page as it was");
    check_eq!(vault.register(), 0, "registering");
    vault.keep();
    nothing_of_it(&vault);
    check!(vault.holds(1), "the PAL has its canary still");
    check_eq!(vault.unregister(), 0, "unregistering");
    // Data, parameters and stack.
    for page in (1..4).map(|number| vault.at + number * PAGE) {
        check_eq!(dma::fetch(DEVICE, page), Ok(Some(0)), "behind it, a device finds zeros in {page:#x}");
        check_eq!(dma::store(DEVICE, page, 5), Ok(true), "behind it, a device may store to {page:#x}");
        check_eq!(read64(page), Ok(5), "what it stored");
    }
    check_eq!(canary::copies_in(0x20_0000, 0x280_0000), 0, "copies of the canary");
    again_and_again();
}

fn nothing_of_it(vault: &Vault) {
    for address in (vault.at..vault.at + 4 * PAGE).step_by(1016) {
        check_eq!(dma::fetch(DEVICE, address), Ok(None), "a fetch from {address:#x}");
        check_eq!(dma::store(DEVICE, address, 0xbad), Ok(false), "a store to {address:#x}");
    }
    for address in [vault.at - 8, vault.at + 4 * PAGE] {
        check!(dma::fetch(DEVICE, address).is_ok_and(|word| word.is_some()), "beside it, {address:#x}");
    }
    check_eq!(dma::store(DEVICE, FREE, 0x5ec2), Ok(true), "elsewhere");
}

/// A device that stores zeros without end to where a PAL has its canary: one store that came through would be the end of
/// that.
fn again_and_again() {
    let vault = Vault::place(1);
    check_eq!(dma::repeat(DEVICE, vault.at + PAGE, 0, 20), Ok(()), "repetition");
    let mut held = 0;
    for _ in 0..ROUNDS {
        let is_registered = vault.register() == 0;
        vault.keep();
        held += u64::from(is_registered && vault.holds(20));
        check_eq!(vault.unregister(), 0, "unregistering");
    }
    check_eq!(dma::repeat(DEVICE, vault.at + PAGE, 0, 0), Ok(()), "no more");
    let (stores, blocked) = dma::counts().unwrap_or_default();
    check!(stores > blocked && u64::from(blocked) > ROUNDS, "{stores} stores, {blocked} of them blocked");
    check_eq!(held, ROUNDS, "rounds in which the PAL had its canary");
}
