//! Files and folders that a command is asked to write at its end, made at its start: minutes of work are not to be lost
//! to a path that cannot be written.

use anyhow::{Context, Result};
use std::fs::File;
use std::path::Path;

/// Makes the file `path`, empty.
///
/// # Errors
///
/// It cannot be written; the error names it.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("writing {}", path.display()))
}

/// Makes the folder `path`, and those above it.
///
/// # Errors
///
/// It cannot be made; the error names it.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_named_at_once() {
        let why = create(Path::new("/nowhere/figures.json")).unwrap_err();
        assert_eq!(why.to_string(), "writing /nowhere/figures.json");
        let why = create_folder(Path::new("/proc/nowhere")).unwrap_err();
        assert_eq!(why.to_string(), "creating /proc/nowhere");
    }
}
