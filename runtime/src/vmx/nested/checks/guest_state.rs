//! Guest state (SDM, "Checks on the Guest State Area").
