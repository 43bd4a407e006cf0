//! Host state (SDM, "Checks on Host Control Registers, MSRs, and SSP"; "Checks on Host Segment and Descriptor-Table Registers").
