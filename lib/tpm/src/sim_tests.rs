use super::*;
use crate::crb::Crb;
use crate::device::{Interface, Transport};
use crate::error::TransportError;
use crate::tis::Tis;
use proptest::prelude::*;

/// A command of 12 bytes and one of 100.
const SHORT: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
/// As much as the longest wait may take, and a tenth.
const PATIENCE: u64 = 2_000_000;
const LIMIT: u64 = 5_500_000;

fn long() -> Vec<u8> {
    let mut command = vec![7; 100];
    command[..10].copy_from_slice(&[0x80, 1, 0, 0, 0, 100, 0, 0, 1, 0x44]);
    command
}

/// Answers by the command's bytes behind an answer's header.
fn echo(command: &[u8]) -> Vec<u8> {
    let size = (10 + command.len()) as u32;
    [&[0x80, 1][..], &size.to_be_bytes(), &[0; 4], command].concat()
}

fn outcome(kind: Kind, fault: Fault, command: &[u8], room: usize) -> (Result<Vec<u8>, TransportError>, u64) {
    let mut device = Simulated::new(kind, echo, fault);
    let mut answer = vec![0; room];
    let mut run = |transport: &mut dyn Transport| transport.transact(command, &mut answer, PATIENCE);
    let (done, device) = match kind {
        Kind::Fifo => match Tis::open(&mut device) {
            Ok(mut tis) => (run(&mut tis), tis.close()),
            Err(why) => return (Err(why), device.elapsed()),
        },
        Kind::Crb => match Crb::open(&mut device) {
            Ok(mut crb) => (run(&mut crb), crb.close()),
            Err(why) => return (Err(why), device.elapsed()),
        },
    };
    assert!(!device.is_ours(), "the locality was kept");
    let elapsed = device.elapsed();
    (done.map(|length| answer[..length].to_vec()), elapsed)
}

impl<D: Device> Device for &mut D {
    fn read_u8(&mut self, offset: u16) -> u8 {
        (**self).read_u8(offset)
    }
    fn write_u8(&mut self, offset: u16, value: u8) {
        (**self).write_u8(offset, value);
    }
    fn read_u32(&mut self, offset: u16) -> u32 {
        (**self).read_u32(offset)
    }
    fn write_u32(&mut self, offset: u16, value: u32) {
        (**self).write_u32(offset, value);
    }
    fn base(&self) -> u64 {
        (**self).base()
    }
    fn now(&mut self) -> u64 {
        (**self).now()
    }
}

#[test]
fn commands_of_any_length_are_answered_by_either_interface() {
    for kind in [Kind::Fifo, Kind::Crb] {
        for command in [[&SHORT[..5], &[10], &SHORT[6..10]].concat(), SHORT.to_vec(), long()] {
            let (answer, _) = outcome(kind, Fault::None, &command, 200);
            assert_eq!(answer, Ok(echo(&command)), "{kind:?}");
        }
        let device = &mut Simulated::new(kind, echo, Fault::None);
        let interface = if kind == Kind::Fifo { Interface::Fifo } else { Interface::Crb };
        assert_eq!(Interface::of(device), Ok(interface));
        let device = &mut Simulated::new(kind, echo, Fault::Absent);
        assert_eq!(Interface::of(device), Err(TransportError::Absent));
    }
}

#[test]
fn a_fifo_of_one_byte_is_enough() {
    let mut device = Simulated::new(Kind::Fifo, echo, Fault::None);
    device.burst = 1;
    let mut tis = Tis::open(device).unwrap();
    let mut answer = [0; 200];
    assert_eq!(tis.transact(&long(), &mut answer, PATIENCE), Ok(110));
    assert_eq!(answer[..110], echo(&long()));
}

#[test]
fn each_fault_of_a_fifo_ends_in_its_name_in_time() {
    let cases = [
        (Fault::Absent, TransportError::Absent),
        (Fault::NoLocality, TransportError::Locality),
        (Fault::NeverReady, TransportError::NotReady),
        (Fault::NoBurst, TransportError::TakesNoByte),
        (Fault::EnoughAfter(32), TransportError::TooFew),
        (Fault::WantsMore, TransportError::TooMany),
        (Fault::NoAnswer, TransportError::NoAnswer),
        (Fault::Size(9), TransportError::AnswerSize(9)),
        (Fault::Size(0), TransportError::AnswerSize(0)),
        (Fault::Size(201), TransportError::AnswerSize(201)),
        (Fault::Size(u32::MAX), TransportError::AnswerSize(u32::MAX)),
        (Fault::Size(111), TransportError::AnswerCut),
        (Fault::Size(109), TransportError::AnswerGoesOn),
        (Fault::CutTo(0), TransportError::NoAnswer),
        (Fault::CutTo(9), TransportError::AnswerCut),
        (Fault::CutTo(109), TransportError::AnswerCut),
        (Fault::GoesOn, TransportError::AnswerGoesOn),
    ];
    for (fault, error) in cases {
        let (done, elapsed) = outcome(Kind::Fifo, fault, &long(), 200);
        assert_eq!(done, Err(error), "{fault:?}");
        assert!(elapsed < LIMIT, "{fault:?}: {elapsed}");
    }
}

#[test]
fn each_fault_of_a_buffer_ends_in_its_name_in_time() {
    let cases = [
        (Fault::Absent, TransportError::Absent),
        (Fault::NoLocality, TransportError::Locality),
        (Fault::NeverReady, TransportError::NotReady),
        (Fault::NoAnswer, TransportError::Broken),
        (Fault::Broken, TransportError::Broken),
        (Fault::Size(9), TransportError::AnswerSize(9)),
        (Fault::Size(201), TransportError::AnswerSize(201)),
        (Fault::CutTo(0), TransportError::AnswerSize(0)),
        (Fault::Elsewhere, TransportError::BufferElsewhere(BASE + 0x1000)),
    ];
    for (fault, error) in cases {
        let (done, elapsed) = outcome(Kind::Crb, fault, &long(), 200);
        assert_eq!(done, Err(error), "{fault:?}");
        assert!(elapsed < LIMIT, "{fault:?}: {elapsed}");
    }
}

#[test]
fn a_command_that_does_not_fit_is_not_sent() {
    for kind in [Kind::Fifo, Kind::Crb] {
        assert_eq!(outcome(kind, Fault::None, &SHORT[..9], 200).0, Err(TransportError::CommandSize(9)));
        assert_eq!(outcome(kind, Fault::None, &SHORT, 9).0, Err(TransportError::AnswerSize(0)));
    }
    let large = vec![0; BUFFER + 1];
    assert_eq!(outcome(Kind::Crb, Fault::None, &large, 200).0, Err(TransportError::CommandSize(BUFFER + 1)));
}

/// A device that says whatever comes.
struct Wild<'a> {
    values: core::iter::Cycle<core::slice::Iter<'a, u32>>,
    time: u64,
}

impl Device for Wild<'_> {
    fn read_u8(&mut self, offset: u16) -> u8 {
        self.read_u32(offset).to_le_bytes()[0]
    }
    fn write_u8(&mut self, _: u16, _: u8) {}
    fn read_u32(&mut self, _: u16) -> u32 {
        self.time += 1000;
        *self.values.next().unwrap()
    }
    fn write_u32(&mut self, _: u16, _: u32) {}
    fn base(&self) -> u64 {
        BASE
    }
    fn now(&mut self) -> u64 {
        self.time
    }
}

proptest! {
    #[test]
    fn whatever_a_device_says_ends_in_time(
        values in proptest::collection::vec(prop_oneof![any::<u32>(), Just(0x20a1), Just(0x2090), Just(0x20c0), Just(0x1)], 1..40),
    ) {
        let device = || Wild { values: values.iter().cycle(), time: 0 };
        let mut answer = [0; 64];
        if let Ok(mut tis) = Tis::open(device()) {
            let _ = tis.transact(&long(), &mut answer, PATIENCE);
            // A burst of one, and each wait to its end.
            prop_assert!(tis.close().time < 300 * LIMIT);
        }
        if let Ok(mut crb) = Crb::open(device()) {
            let _ = crb.transact(&long(), &mut answer, PATIENCE);
            prop_assert!(crb.close().time < 10 * LIMIT);
        }
    }
}

/// A device whose every register reads the same.
struct Same(u8, u64);

impl Device for Same {
    fn read_u8(&mut self, _: u16) -> u8 {
        self.0
    }
    fn write_u8(&mut self, _: u16, _: u8) {}
    fn read_u32(&mut self, _: u16) -> u32 {
        u32::from_le_bytes([self.0; 4])
    }
    fn write_u32(&mut self, _: u16, _: u32) {}
    fn base(&self) -> u64 {
        BASE
    }
    fn now(&mut self) -> u64 {
        self.1 += 1_000;
        self.1
    }
}

/// PTP, "TPM_ACCESS_x": bit 7 says that the others are valid, bit 5 that the locality is ours, bit 6 is reserved.
#[test]
fn a_locality_is_valid_ours_and_has_no_reserved_bit() {
    let open = |access| Tis::open(Same(access, 0)).map(drop);
    assert_eq!(open(0xa0), Ok(()));
    assert_eq!([0xff, 0x40, 0xe0].map(open), [Err(TransportError::Absent); 3]);
    assert_eq!([0, 0x80, 0x20].map(open), [Err(TransportError::Locality); 3]);
}
