//! Instructions that may fault, and where to go on when they do.
//!
//! An instruction in inline assembly is listed with a row of [`guarded`](crate::guarded)'s; the exception
//! handlers of an image look the faulting address up before they call it a bug.

/// A row of the table, as the assembly lays it down.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of an instruction that may raise an exception.
    pub instruction: u64,
    /// Where execution goes on then.
    pub resume: u64,
}

/// Vectors that tell of the instruction they come from, and of nothing else: #UD, #NP, #SS, #GP, #PF, #AC. A
/// double fault, a machine check or an NMI may strike at a listed instruction too, and is not its answer.
const EXPECTED: [u64; 6] = [6, 11, 12, 13, 14, 17];

/// Returns where to go on after exception `vector` at `rip`, by `table`; `None` where it is not expected.
#[must_use]
pub fn resume_address(table: &[Entry], vector: u64, rip: u64) -> Option<u64> {
    if !EXPECTED.contains(&vector) {
        return None;
    }
    table.iter().find(|entry| entry.instruction == rip).map(|entry| entry.resume)
}

/// Assembly text of a table row: label 2 may fault, label 3 is where to go on.
#[macro_export]
macro_rules! guarded {
    () => {
        ".pushsection .exception_table, \"a\"\n.quad 2b, 3b\n.popsection"
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Entry; 2] =
        [Entry { instruction: 0x1000, resume: 0x1002 }, Entry { instruction: 0x2000, resume: 0x2040 }];

    #[test]
    fn a_listed_instruction_goes_on_where_its_row_says() {
        assert_eq!(resume_address(&TABLE, 13, 0x1000), Some(0x1002));
        assert_eq!(resume_address(&TABLE, 14, 0x2000), Some(0x2040));
    }

    #[test]
    fn another_instruction_is_a_bug() {
        for rip in [0, 0xfff, 0x1001, 0x1002, 0x2040] {
            assert_eq!(resume_address(&TABLE, 14, rip), None, "{rip:#x}");
        }
        assert_eq!(resume_address(&[], 13, 0x1000), None);
    }

    #[test]
    fn what_only_happens_to_strike_there_is_no_answer() {
        let caught = (0..32).filter(|&vector| resume_address(&TABLE, vector, 0x1000).is_some());
        assert!(caught.eq(EXPECTED));
    }
}
