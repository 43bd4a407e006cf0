//! Virtual-processor identifiers: L1's numbers to the hardware's.
