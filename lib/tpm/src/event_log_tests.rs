use super::*;
use proptest::prelude::*;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha1, Algorithm::Sha256];
/// Bytes of a header with two digests, and of an event without data.
const HEADER: usize = 32 + 37;
const EVENT: usize = 12 + 22 + 34 + 4;

fn digests(byte: u8) -> Vec<Digest> {
    ALGORITHMS
        .iter()
        .map(|algorithm| Digest::new(*algorithm, &vec![byte; algorithm.size()]).unwrap())
        .collect()
}

fn log(events: &[(u8, u32, u8, Vec<u8>)]) -> Vec<u8> {
    let mut room = vec![0; 8192];
    let mut log = LogWriter::new(&mut room, &ALGORITHMS).unwrap();
    for (pcr, kind, byte, data) in events {
        log.add(*pcr, *kind, &digests(*byte), data).unwrap();
    }
    log.bytes().to_vec()
}

#[test]
fn what_is_full_keeps_the_events_before() {
    let mut room = [0; HEADER + EVENT + 3];
    let mut log = LogWriter::new(&mut room, &ALGORITHMS).unwrap();
    log.add(17, 0x404, &digests(1), b"MLE").unwrap();
    let before = log.bytes().to_vec();
    assert_eq!(before.len(), HEADER + EVENT + 3);
    assert_eq!(log.add(17, 0x404, &digests(1), b""), Err(EventLogError::Full));
    assert_eq!(log.bytes(), before);
    assert_eq!(LogWriter::new(&mut [0; HEADER - 1], &ALGORITHMS).map(drop), Err(EventLogError::Full));
}

#[test]
fn digests_are_those_of_the_log_in_order() {
    let mut room = [0; 512];
    let mut log = LogWriter::new(&mut room, &ALGORITHMS).unwrap();
    let mut others = digests(1);
    others.reverse();
    assert_eq!(log.add(17, 1, &others, b""), Err(EventLogError::Digests(HEADER)));
    assert_eq!(log.add(17, 1, &others[..1], b""), Err(EventLogError::Digests(HEADER)));
    assert_eq!(LogWriter::new(&mut [0; 512], &[]).map(drop), Err(EventLogError::Algorithms(0)));
    let many = [Algorithm::Sha1; 9];
    assert_eq!(LogWriter::new(&mut [0; 512], &many).map(drop), Err(EventLogError::Algorithms(9)));
}

#[test]
fn what_is_wrong_with_a_log_is_named() {
    let sound = log(&[(17, 0x404, 1, b"MLE".to_vec()), (18, 0x410, 2, Vec::new())]);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        Log::parse(&bytes).map(drop).unwrap_err()
    };
    for at in [0, 4, 28, 32, HEADER - 1] {
        assert_eq!(refused(&|bytes| bytes[at] ^= 0x40), EventLogError::NoHeader, "{at}");
    }
    assert_eq!(refused(&|bytes| bytes[32 + 24] = 0), EventLogError::Algorithms(0));
    assert_eq!(refused(&|bytes| bytes[32 + 24] = 9), EventLogError::Algorithms(9));
    let second = HEADER + EVENT + 3;
    assert_eq!(refused(&|bytes| bytes[HEADER + 8] = 3), EventLogError::Digests(HEADER));
    assert_eq!(refused(&|bytes| bytes[second + 12] = 0xc), EventLogError::Digests(second));
    assert_eq!(refused(&|bytes| bytes.truncate(second + 11)), EventLogError::Cut(second));
    assert_eq!(refused(&|bytes| bytes.push(0)), EventLogError::Cut(sound.len()));
    let size = second + EVENT - 4;
    assert_eq!(refused(&|bytes| bytes[size + 3] = 0xff), EventLogError::Cut(second));
    assert_eq!(Log::parse(&[]).map(drop), Err(EventLogError::NoHeader));
}

proptest! {
    #[test]
    fn events_that_are_written_are_read(
        events in proptest::collection::vec(
            (0_u8..24, any::<u32>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..8),
    ) {
        let bytes = log(&events);
        let log = Log::parse(&bytes).unwrap();
        let read: Vec<_> = log.events().collect();
        prop_assert_eq!(read.len(), events.len());
        for (event, (pcr, kind, byte, data)) in read.iter().zip(&events) {
            prop_assert_eq!((event.pcr, event.kind, event.data), (u32::from(*pcr), *kind, &data[..]));
            let found: Vec<_> = ALGORITHMS.iter().filter_map(|algorithm| event.digest(&log, *algorithm)).collect();
            prop_assert_eq!(found, digests(*byte));
            prop_assert_eq!(event.digest(&log, Algorithm::Sha384), None);
        }
    }

    #[test]
    fn any_change_of_a_log_is_read_or_refused(
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..8),
        cut in 0_usize..100,
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = log(&[(17, 1, 2, vec![3; 9]), (18, 1, 2, Vec::new())]);
        let length = bytes.len();
        bytes.truncate(length - cut);
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        for bytes in [bytes, noise] {
            if let Ok(log) = Log::parse(&bytes) {
                let _ = log.events().filter_map(|event| event.digest(&log, Algorithm::Sha256)).count();
            }
        }
    }
}

#[test]
fn eight_digests_an_event_are_as_many_as_are_read() {
    let mut room = [0; 1024];
    let mut written = LogWriter::new(&mut room, &[Algorithm::Sha1; 8]).unwrap();
    let digest = Digest::new(Algorithm::Sha1, &[7; 20]).unwrap();
    written.add(17, 0x404, &[digest; 8], b"MLE").unwrap();
    let read = Log::parse(written.bytes()).unwrap();
    assert_eq!(read.events().count(), 1);
}

#[test]
fn each_error_says_where_the_log_is_wrong() {
    let texts = [
        (EventLogError::NoHeader, "no event log in the TCG's format"),
        (EventLogError::Algorithms(9), "an event log with 9 digests an event"),
        (EventLogError::Cut(0x45), "the event at 0x45 is cut"),
        (EventLogError::Digests(0x45), "the event at 0x45 has other digests than the log's"),
        (EventLogError::Full, "the event log is full"),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
}
