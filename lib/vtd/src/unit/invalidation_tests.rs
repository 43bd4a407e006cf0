//! What a made-up unit is told to forget, by its registers.

use super::super::tests::translating;
use super::*;
use crate::DomainId;
use crate::sim::{Model, Sim};

#[test]
fn pages_are_told_as_such_up_to_the_largest_mask_of_a_unit() {
    const DOMAINS: u64 = 2;
    const PAGES: u64 = 3;
    let cases =
        [(true, 0, PAGES), (true, 8, PAGES), (true, 9, PAGES), (true, 10, DOMAINS), (true, 63, DOMAINS)];
    let without = [(false, 0, DOMAINS), (false, 9, DOMAINS), (false, 10, DOMAINS)];
    for (has_page_selective, mask, granularity) in cases.into_iter().chain(without) {
        let sim = Sim::new(Model { has_queue: false, has_page_selective, ..Model::MODERN });
        let (mut unit, _) = translating(&sim);
        unit.follow_tables(Translations::Pages { domain: DomainId(7), address: 1 << 40, mask }).unwrap();
        let address = if granularity == PAGES { 1 << 40 | u64::from(mask) } else { 0 };
        let told = [0x100, 0x108].map(|register| (&sim).read_u64(register));
        assert_eq!((told[0], told[1] >> 60 & 3), (address, granularity), "{has_page_selective}, mask {mask}");
    }
}
