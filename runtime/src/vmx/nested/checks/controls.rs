//! VM-execution, VM-exit and VM-entry control fields (SDM, "Checks on VMX Controls").
