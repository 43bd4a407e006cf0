//! Missing entry checks: the guest's segment registers, each rule on its own, in a 64-bit guest.
#![no_std]
#![no_main]

use guest::vmx::prelude::*;
use guest::vmx::verdict::{Entry, GUEST_STATE, end, try_values};

guest!(main);

const ENTERED: Entry = Entry::Entered;
const NOT_CANONICAL: u64 = 0x8000_0000_0000;
const LOWEST_HIGH: u64 = 0xffff_8000_0000_0000;

fn main() {
    enter_operation();
    let mut nested = Guest::new(end);
    // Whatever L2 makes of its state, it leaves.
    nested.write(vmcs::EXCEPTION_BITMAP, !0);
    segments(&mut nested);
    access_rights(&mut nested);
    leave_operation();
}

fn segments(nested: &mut Guest) {
    let tr = nested.read(vmcs::GUEST_TR_SELECTOR);
    try_values(nested, "TR selector", vmcs::GUEST_TR_SELECTOR, &[(tr | 4, GUEST_STATE), (tr | 3, ENTERED)]);
    let values = [(0x13, GUEST_STATE), (0x11, GUEST_STATE), (0x14, ENTERED)];
    try_values(nested, "SS selector", vmcs::GUEST_SS_SELECTOR, &values);
    try_values(nested, "CS selector", vmcs::GUEST_CS_SELECTOR, &[(9, GUEST_STATE), (0xc, ENTERED)]);
    try_values(nested, "DS selector", vmcs::GUEST_DS_SELECTOR, &[(3, GUEST_STATE), (4, ENTERED)]);
    for (what, field) in [
        ("CS base", vmcs::GUEST_CS_BASE),
        ("SS base", vmcs::GUEST_SS_BASE),
        ("DS base", vmcs::GUEST_DS_BASE),
        ("ES base", vmcs::GUEST_ES_BASE),
    ] {
        let values = [(0xffff_ffff, ENTERED), (1 << 32, GUEST_STATE), (LOWEST_HIGH, GUEST_STATE)];
        try_values(nested, what, field, &values);
    }
    for (what, field) in [("GDTR limit", vmcs::GUEST_GDTR_LIMIT), ("IDTR limit", vmcs::GUEST_IDTR_LIMIT)] {
        try_values(
            nested,
            what,
            field,
            &[(0xffff, ENTERED), (0x1_0000, GUEST_STATE), (1 << 31, GUEST_STATE)],
        );
    }
    for (what, field) in [("CS limit", vmcs::GUEST_CS_LIMIT), ("SS limit", vmcs::GUEST_SS_LIMIT)] {
        // Granular: the low twelve bits are ones.
        try_values(nested, what, field, &[(0xfff, ENTERED), (0xffff_fffe, GUEST_STATE), (0, GUEST_STATE)]);
    }
    // Not granular: below 1 MiB.
    let values = [(0x10_0000, GUEST_STATE), (0xf_fffe, ENTERED)];
    try_values(nested, "TR limit", vmcs::GUEST_TR_LIMIT, &values);
}

fn access_rights(nested: &mut Guest) {
    const UNUSABLE: u32 = 1 << 16;
    let reserved = |rights: u32| [8, 9, 10, 11, 17, 31].map(move |bit| (rights | 1 << bit, GUEST_STATE));
    let cs = nested.read(vmcs::GUEST_CS_ACCESS_RIGHTS);
    try_values(nested, "CS rights", vmcs::GUEST_CS_ACCESS_RIGHTS, &reserved(cs));
    try_values(
        nested,
        "CS rights",
        vmcs::GUEST_CS_ACCESS_RIGHTS,
        &[
            (cs & !1, GUEST_STATE),
            (cs & !8, GUEST_STATE),
            (cs & !(1 << 4), GUEST_STATE),
            (cs & !(1 << 7), GUEST_STATE),
            (cs | 1 << 5, GUEST_STATE),
            (cs | 1 << 14, GUEST_STATE),
            (cs | 4, ENTERED),
            (cs | 1 << 12, ENTERED),
        ],
    );
    let ss = nested.read(vmcs::GUEST_SS_ACCESS_RIGHTS);
    try_values(nested, "SS rights", vmcs::GUEST_SS_ACCESS_RIGHTS, &reserved(ss));
    try_values(
        nested,
        "SS rights",
        vmcs::GUEST_SS_ACCESS_RIGHTS,
        &[
            (ss & !1, GUEST_STATE),
            (ss & !2, GUEST_STATE),
            (ss | 8, GUEST_STATE),
            (ss | 1 << 5, GUEST_STATE),
            (ss & !(1 << 7), GUEST_STATE),
            (ss | 4, ENTERED),
            (UNUSABLE, ENTERED),
        ],
    );
    let ds = nested.read(vmcs::GUEST_DS_ACCESS_RIGHTS);
    for (what, field) in [
        ("DS rights", vmcs::GUEST_DS_ACCESS_RIGHTS),
        ("ES rights", vmcs::GUEST_ES_ACCESS_RIGHTS),
        ("FS rights", vmcs::GUEST_FS_ACCESS_RIGHTS),
        ("GS rights", vmcs::GUEST_GS_ACCESS_RIGHTS),
    ] {
        try_values(nested, what, field, &reserved(ds));
        try_values(
            nested,
            what,
            field,
            &[
                (ds & !1, GUEST_STATE),
                (ds & !0xf | 9, GUEST_STATE),
                (ds & !(1 << 4), GUEST_STATE),
                (ds & !(1 << 7), GUEST_STATE),
                (ds | 8, ENTERED),
                (ds & !2, ENTERED),
                (ds | 3 << 5, ENTERED),
                (UNUSABLE, ENTERED),
                (UNUSABLE | 0xfff, ENTERED),
            ],
        );
    }
    system_rights(nested, &reserved(0x8b));
}

fn system_rights(nested: &mut Guest, reserved: &[(u32, Entry)]) {
    const UNUSABLE: u32 = 1 << 16;
    try_values(nested, "TR rights", vmcs::GUEST_TR_ACCESS_RIGHTS, reserved);
    try_values(
        nested,
        "TR rights",
        vmcs::GUEST_TR_ACCESS_RIGHTS,
        &[
            (0x8b, ENTERED),
            (0x89, GUEST_STATE),
            (0x83, GUEST_STATE),
            (0x9b, GUEST_STATE),
            (0x0b, GUEST_STATE),
            (0x8b | UNUSABLE, GUEST_STATE),
            (0x8b | 1 << 15, GUEST_STATE),
        ],
    );
    try_values(
        nested,
        "LDTR rights",
        vmcs::GUEST_LDTR_ACCESS_RIGHTS,
        &[
            (0x82, ENTERED),
            (0x83, GUEST_STATE),
            (0x92, GUEST_STATE),
            (0x02, GUEST_STATE),
            (0x82 | 1 << 8, GUEST_STATE),
            (0x82 | 1 << 17, GUEST_STATE),
            (UNUSABLE | 0xf00, ENTERED),
        ],
    );
    nested.write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, 0x82);
    try_values(nested, "LDTR selector", vmcs::GUEST_LDTR_SELECTOR, &[(8, ENTERED), (4, GUEST_STATE)]);
    let values = [(LOWEST_HIGH, ENTERED), (NOT_CANONICAL, GUEST_STATE)];
    try_values(nested, "LDTR base", vmcs::GUEST_LDTR_BASE, &values);
    nested.write(vmcs::GUEST_LDTR_ACCESS_RIGHTS, UNUSABLE);
    try_values(nested, "LDTR base, unusable", vmcs::GUEST_LDTR_BASE, &[(NOT_CANONICAL, ENTERED)]);
}
