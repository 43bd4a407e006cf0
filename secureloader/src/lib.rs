//! The secure loader: the measured code that verifies the runtime and jumps to it.
#![no_std]
