//! The walk of L1's extended page tables, in software.
