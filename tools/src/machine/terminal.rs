//! A terminal of our own for a program that draws on one, or for a console that is typed at.

use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Our side of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    ours: File,
    name: PathBuf,
}

impl Terminal {
    /// A new one, which takes bytes as they are.
    ///
    /// # Errors
    ///
    /// The system has none left.
    pub(super) fn open() -> Result<Self> {
        let open = || {
            let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
            grantpt(&ours)?;
            unlockpt(&ours)?;
            let name = ptsname(&ours, Vec::new())?;
            let mut mode = rustix::termios::tcgetattr(&ours)?;
            mode.make_raw();
            rustix::termios::tcsetattr(&ours, rustix::termios::OptionalActions::Now, &mode)?;
            Ok::<_, rustix::io::Errno>((ours, name))
        };
        let (ours, name) = open().context("opening a terminal")?;
        Ok(Self { ours: ours.into(), name: OsString::from_vec(name.into_bytes()).into() })
    }

    /// Path of the other side.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// The other side, for a program.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(super) fn theirs(&self) -> Result<File> {
        // Not to become the controlling terminal of a runner that has none.
        let flags = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        let open = File::options().read(true).write(true).custom_flags(flags).open(&self.name);
        open.with_context(|| format!("opening {}", self.name.display()))
    }

    /// Writes what comes from the other side to all of `files`, until nobody has that side open any more.
    ///
    /// # Errors
    ///
    /// Our side cannot be shared.
    pub(super) fn copy_to(&self, mut files: Vec<Box<dyn Write + Send>>) -> Result<JoinHandle<()>> {
        let mut ours = self.ours.try_clone()?;
        Ok(std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The other side's end is an error here.
            while let Ok(length @ 1..) = ours.read(&mut bytes) {
                for file in &mut files {
                    // A file that cannot be written shows by what it lacks.
                    let _ = file.write_all(&bytes[..length]).and_then(|()| file.flush());
                }
            }
        }))
    }

    /// Sends what is typed at the runner's own terminal to the other side, as long as the process lives.
    ///
    /// # Errors
    ///
    /// Our side cannot be shared.
    pub(super) fn type_from_here(&self) -> Result<()> {
        let mut ours = self.ours.try_clone()?;
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut ours));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_a_program_draws_is_kept_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let terminal = Terminal::open().unwrap();
        let copying = terminal.copy_to(vec![Box::new(File::create(&path).unwrap())]).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "test -t 0 && test -t 1 && echo drawn"]);
        command.stdin(terminal.theirs().unwrap()).stdout(terminal.theirs().unwrap());
        let mut child = command.spawn().unwrap();
        // It holds the other side open.
        drop(command);
        assert!(child.wait().unwrap().success());
        copying.join().unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "drawn\n");
    }
}
