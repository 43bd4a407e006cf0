//! How much of the heap the microTPM takes at once: the hypapp keeps 1 MiB for its commands.
//!
//! UNSAFETY: a global allocator, which counts and hands on.
#![expect(unsafe_code, reason = "a global allocator")]
#![expect(clippy::unwrap_used, reason = "tests may stop")]

use microtpm::{
    Bank, Credentials, HmacDrbg, Identity, PcrBanks, Policy, SEAL_BYTES_LIMIT, SealKeys, Selection,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one command may take; the hypapp copies arguments and results beside.
const LIMIT: usize = 64 << 10;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does everything.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's duty is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's duty is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Most bytes that `act` had at once, beside what there was before; and what it left.
fn most<T>(act: impl FnOnce() -> T) -> (usize, T) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = act();
    (MOST.load(Ordering::Relaxed) - before, result)
}

#[test]
fn a_command_stays_within_its_share_of_the_heap() {
    let keys = SealKeys::new(&[1; 32]);
    let banks = PcrBanks::new();
    let mut random = HmacDrbg::new(&[b"test"]);
    let selection = Selection { bank: Bank::Sha256, map: Some(0xff) };
    let policy = Policy::current(selection, &banks);
    let credentials = Credentials::default();
    let data = vec![7; SEAL_BYTES_LIMIT];

    let (sealing, blob) = most(|| {
        microtpm::seal(&keys, &mut random, &banks, &credentials, Some(&policy), true, &data).unwrap()
    });
    let (unsealing, _) = most(|| microtpm::unseal(&keys, &banks, &credentials, &blob).unwrap());
    let mut identity = Identity::new(&[3; 32]);
    let (quoting, _) =
        most(|| while microtpm::quote(&mut identity, &banks, selection, &[5; 32], false).is_pending() {});

    for (what, bytes) in
        [("sealing", sealing), ("unsealing", unsealing), ("finding a key, and quoting", quoting)]
    {
        println!("{what}: {bytes} bytes");
        assert!(bytes <= LIMIT, "{what} takes {bytes} bytes");
        assert!(bytes > 1000, "{what} was not counted");
    }
}
