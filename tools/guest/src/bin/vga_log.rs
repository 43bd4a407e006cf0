//! The hypervisor's lines stand on the VGA text screen too, the last one at the bottom.
//! bare: no
#![no_std]
#![no_main]

use guest::memory::read8;
use guest::{check, guest, println};

guest!(main);

const TEXT: u64 = 0xb_8000;
const COLUMNS: u64 = 80;
const ROWS: u64 = 25;
/// The stages that the images print, in their order.
const STAGES: [&str; 4] = ["stage=bootloader", "stage=secure-loader", "stage=runtime", "stage=guest"];

fn main() {
    let rows = STAGES.map(|words| (0..ROWS).rev().find(|&row| shows(row, words)));
    println!("rows of the stages: {rows:?}");
    check!(rows.iter().all(Option::is_some), "every stage is on the screen");
    check!(rows.is_sorted(), "in their order");
    check!(rows[3] >= Some(ROWS - 2), "the last one at the bottom");
}

/// Whether a row of the screen shows `words`.
fn shows(row: u64, words: &str) -> bool {
    let cell = |column: u64| read8(TEXT + 2 * (row * COLUMNS + column)).unwrap_or(0);
    let starts = 0..COLUMNS - words.len() as u64;
    starts.into_iter().any(|start| words.bytes().zip(start..).all(|(byte, column)| cell(column) == byte))
}
