use super::*;
use crate::acm::tests::{CHIPSET, Made, PROCESSOR, made};
use crate::acm::{Chipset, ProcessorMatch};

fn machine() -> Machine {
    Machine {
        chipset: ChipsetIdentity { vendor: 0x8086, device: 0xb005, revision: 1 },
        is_production: true,
        signature: 0x306c3,
        platform: 0x12 << 50,
        tpm: Some(Family::DISCRETE_2_0),
        kind: Some(Capabilities::PLATFORM_CLIENT),
        sinit_size: 0x5_0000,
        largest_module: 0x2_0000,
        mle_version: 0x2_0003,
        mle_capabilities: Capabilities::WAKES,
    }
}

fn verdict(made: &Made, machine: &Machine) -> Result<(), Misfit> {
    fit(&Acm::parse(&made.bytes()).unwrap(), machine)
}

#[test]
fn a_module_that_names_the_machine_fits() {
    for table_version in [3, 4, 5, 9] {
        let machine = if table_version < 5 {
            Machine { tpm: Some(Family::DISCRETE_1_2), ..machine() }
        } else {
            machine()
        };
        assert_eq!(verdict(&Made { table_version, ..made() }, &machine), Ok(()), "{table_version}");
    }
}

#[test]
fn each_way_not_to_fit_has_its_name() {
    let misfit = |made: Made, machine: Machine| verdict(&made, &machine).unwrap_err();
    let fits = machine();
    assert_eq!(misfit(Made { kind: 0, ..made() }, fits), Misfit::NotSinit(Kind::Bios));
    let debug = Made { flags: 0x8000, ..made() };
    assert_eq!(misfit(debug.clone(), fits), Misfit::Signing { is_debug_signed: true });
    let for_debugging = Machine { is_production: false, ..fits };
    assert_eq!(misfit(made(), for_debugging), Misfit::Signing { is_debug_signed: false });
    assert_eq!(verdict(&debug, &for_debugging), Ok(()));
    let chipset = ChipsetIdentity { device: 0xb006, ..fits.chipset };
    assert_eq!(misfit(made(), Machine { chipset, ..fits }), Misfit::Chipset(chipset));
    let other = Misfit::Processor { signature: 0x406e3, platform: fits.platform };
    assert_eq!(misfit(made(), Machine { signature: 0x406e3, ..fits }), other);
    let server = Capabilities::PLATFORM_SERVER;
    assert_eq!(misfit(made(), Machine { kind: Some(server), ..fits }), Misfit::MachineKind(server));
    assert_eq!(misfit(made(), Machine { tpm: None, ..fits }), Misfit::NoTpm);
    let tpm = Family::FIRMWARE_2_0;
    assert_eq!(misfit(made(), Machine { tpm: Some(tpm), ..fits }), Misfit::Tpm(tpm));
    assert_eq!(misfit(Made { table_version: 4, ..made() }, fits), Misfit::Tpm(Family::DISCRETE_2_0));
    let module = made().bytes().len() as u64;
    let memory = Machine { sinit_size: module - 1, ..fits };
    assert_eq!(misfit(made(), memory), Misfit::Memory { module, memory: module - 1 });
    let limit = Machine { largest_module: module - 1, ..fits };
    assert_eq!(misfit(made(), limit), Misfit::TooLarge { module, limit: module - 1 });
    assert_eq!(verdict(&made(), &Machine { sinit_size: module, largest_module: module, ..fits }), Ok(()));
    let newer = Made { min_mle_version: 0x2_0004, ..made() };
    assert_eq!(misfit(newer, fits), Misfit::MleVersion(0x2_0004));
    assert_eq!(verdict(&Made { min_mle_version: 0x2_0003, ..made() }, &fits), Ok(()));
    assert_eq!(verdict(&Made { os_sinit_version: 4, ..made() }, &fits), Ok(()));
    assert_eq!(misfit(Made { os_sinit_version: 3, ..made() }, fits), Misfit::OsSinitVersion(3));
    assert_eq!(verdict(&Made { os_sinit_version: 9, ..made() }, &fits), Ok(()));
    let wakes = Machine { mle_capabilities: Capabilities::RLP_WAKE_GETSEC, ..fits };
    assert_eq!(misfit(made(), wakes), Misfit::Wake(Capabilities::RLP_WAKE_MONITOR));
}

#[test]
fn a_revision_is_one_or_a_mask_of_them() {
    let of = |flags, revision| Made { chipsets: vec![Chipset { flags, revision, ..CHIPSET }], ..made() };
    assert_eq!(verdict(&of(1, 3), &machine()), Ok(()));
    assert!(verdict(&of(1, 2), &machine()).is_err() && verdict(&of(0, 3), &machine()).is_err());
    assert_eq!(verdict(&of(0, 1), &machine()), Ok(()));
}

#[test]
fn masked_chipsets_have_to_hold_it_too() {
    let masked = |device, device_mask| Chipset { device, device_mask, ..CHIPSET };
    let of = |chipsets: &[Chipset], masked| Made {
        table_version: 9,
        chipsets: chipsets.to_vec(),
        masked_chipsets: vec![masked],
        ..made()
    };
    assert_eq!(verdict(&of(&[], masked(0xb000, 0xff00)), &machine()), Ok(()));
    assert!(verdict(&of(&[], masked(0xa000, 0xff00)), &machine()).is_err());
    assert_eq!(verdict(&of(&[CHIPSET], masked(0xb000, 0xff00)), &machine()), Ok(()));
    assert!(verdict(&of(&[CHIPSET], masked(0xa000, 0xff00)), &machine()).is_err());
    assert!(verdict(&of(&[masked(0xb006, 0)], masked(0xb000, 0xff00)), &machine()).is_err());
}

#[test]
fn a_processor_s_platform_counts_under_its_mask() {
    let entry = ProcessorMatch { platform: 4 << 50, platform_mask: 7 << 50, ..PROCESSOR };
    let made = Made { processors: vec![entry], ..made() };
    assert_eq!(verdict(&made, &Machine { platform: 0x14 << 50, ..machine() }), Ok(()));
    assert!(matches!(verdict(&made, &machine()), Err(Misfit::Processor { .. })));
}

#[test]
fn the_latest_that_fits_is_chosen_and_others_are_told() {
    let foreign = Made { chipsets: vec![Chipset { device: 0xb002, ..CHIPSET }], ..made() };
    let later = Made { date: 0x2018_0904, ..made() };
    let files = [foreign, made(), later.clone(), later, made()].map(|made| made.bytes());
    let modules: Vec<_> = files.iter().map(|file| Acm::parse(file).unwrap()).collect();
    let mut told = Vec::new();
    let chosen = choose(&modules, &machine(), |index, why| told.push((index, why.to_string())));
    assert_eq!(chosen, Some(2));
    assert_eq!(told, [(0, "it is not for the chipset 8086:b005, revision 0x1".to_owned())]);
    assert_eq!(choose(&modules[..1], &machine(), |_, _| ()), None);
    assert_eq!(choose(&[], &machine(), |_, _| panic!("there is none")), None);
}

#[test]
fn a_higher_security_version_outweighs_a_date() {
    let files =
        [Made { txt_svn: 1, ..made() }, Made { date: 0x2030_0101, ..made() }].map(|made| made.bytes());
    let modules: Vec<_> = files.iter().map(|file| Acm::parse(file).unwrap()).collect();
    assert_eq!(choose(&modules, &machine(), |_, _| ()), Some(0));
}
