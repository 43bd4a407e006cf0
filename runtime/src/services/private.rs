//! Private memory of a hypapp's: for its secrets, mapped only while the hypapp has it open.

pub use crate::memory::private::{Open, open, take, wipe_stack};
