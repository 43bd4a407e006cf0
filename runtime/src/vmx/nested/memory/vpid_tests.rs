//! Numbers, and what INVVPID does to them.

use super::{Assigned, CAPACITY, FIRST, Invvpid, UNTAGGED, VpidMap};
use crate::vmx::nested::instruction::VpidScope;
use proptest::prelude::*;
use std::collections::BTreeMap;
use x86::address::GuestLinearAddr;

const OWN: u16 = 1;

fn flushes(map: &VpidMap, scope: VpidScope) -> Vec<Invvpid> {
    let mut flushes = Vec::new();
    map.invalidate(scope, |flush| flushes.push(flush));
    flushes
}

#[test]
fn a_number_stays_and_is_flushed_when_it_is_given_first() {
    let mut map = VpidMap::new();
    assert_eq!(map.enter(Some(1)), Assigned { vpid: FIRST, is_stale: true });
    assert_eq!(map.enter(Some(0xffff)), Assigned { vpid: FIRST + 1, is_stale: true });
    assert_eq!(map.enter(Some(1)), Assigned { vpid: FIRST, is_stale: false });
}

#[test]
fn an_l2_without_identifier_is_flushed_at_each_entry() {
    let mut map = VpidMap::new();
    for vpid12 in [None, Some(0), None] {
        assert_eq!(map.enter(vpid12), Assigned { vpid: UNTAGGED, is_stale: true });
    }
}

#[test]
fn the_number_used_longest_ago_is_given_again() {
    let mut map = VpidMap::new();
    let count = u16::try_from(CAPACITY).unwrap();
    for vpid12 in 1..=count {
        assert_eq!(map.enter(Some(vpid12)).vpid, FIRST + vpid12 - 1);
    }
    assert!(!map.enter(Some(1)).is_stale);
    assert_eq!(map.enter(Some(count + 1)), Assigned { vpid: FIRST + 1, is_stale: true });
    assert!(map.enter(Some(2)).is_stale);
}

#[test]
fn invvpid_hits_only_what_it_names() {
    let mut map = VpidMap::new();
    map.enter(Some(7));
    map.enter(Some(9));
    let address = 0xffff_8000_0000_1000;
    let flush = |kind, vpid, address| Invvpid { kind, vpid, address };
    assert_eq!(
        flushes(&map, VpidScope::Address(9, GuestLinearAddr::new(address))),
        [flush(0, FIRST + 1, address)]
    );
    assert_eq!(flushes(&map, VpidScope::Single(7)), [flush(1, FIRST, 0)]);
    assert_eq!(flushes(&map, VpidScope::SingleRetainingGlobals(7)), [flush(3, FIRST, 0)]);
    assert_eq!(flushes(&map, VpidScope::Single(8)), []);
    assert_eq!(Invvpid::of(5), flush(1, 5, 0));
    assert_eq!(flushes(&map, VpidScope::All), [flush(1, FIRST, 0), flush(1, FIRST + 1, 0)]);
}

proptest! {
    /// Translations are modelled as one mark for each of the hardware's numbers: whose they are.
    #[test]
    fn no_translation_is_used_under_another_number(vpids in prop::collection::vec(0_u16..80, 0..300)) {
        let mut map = VpidMap::new();
        let mut owners = BTreeMap::new();
        for vpid12 in vpids {
            let assigned = map.enter((vpid12 != 0).then_some(vpid12));
            prop_assert!(assigned.vpid > OWN);
            if assigned.is_stale {
                owners.remove(&assigned.vpid);
            }
            let owner = *owners.entry(assigned.vpid).or_insert(vpid12);
            prop_assert_eq!(owner, vpid12);
        }
    }
}
