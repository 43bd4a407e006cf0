//! The bootloader: finds its modules and the CPUs, picks a place, hides it, launches.
#![no_std]
