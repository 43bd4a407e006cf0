//! What nearly every guest wants that registers PALs.

pub use super::{CF, PAGE, Pal};
pub use crate::{Mode, Snippet, check, check_eq, guest, snippet};
pub use trustvisor::command::Command;
pub use trustvisor::parameter::ParameterType;
pub use trustvisor::status::Status;
