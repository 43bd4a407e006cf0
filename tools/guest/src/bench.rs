//! Ticks of an instruction.
