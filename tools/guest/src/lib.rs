//! Bare test guests, one behaviour a file under `src/bin`.
#![no_std]
