//! Several tests side by side, the longest first.

use super::job::{Finished, Job, Verdict};
use crate::interrupt;
use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::scope;
use std::time::Instant;

/// Runs every job in a folder of its own below `folder`, `workers` at a time; `done` is told as each one ends.
pub(super) fn run(mut jobs: Vec<Job>, workers: usize, folder: &Path, mut done: impl FnMut(Finished)) {
    jobs.sort_by_key(|job| job.seconds);
    let queue = Mutex::new(jobs);
    let next = || {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        job.filter(|_| !interrupt::is_requested())
    };
    let (sender, receiver) = mpsc::channel();
    scope(|threads| {
        for _ in 0..workers {
            let sender = sender.clone();
            threads.spawn(move || {
                while let Some(job) = next() {
                    let finished = perform(&job, folder);
                    // What the user ended shows nothing.
                    if !interrupt::is_requested() {
                        // The receiver outlives every worker.
                        let _ = sender.send(finished);
                    }
                }
            });
        }
        drop(sender);
        receiver.iter().for_each(&mut done);
    });
}

fn perform(job: &Job, folder: &Path) -> Finished {
    let folder = folder.join(&job.name);
    let start = Instant::now();
    // Consoles of an earlier failure would be mistaken for this one's.
    let _ = std::fs::remove_dir_all(&folder);
    let verdict = (job.work)(&folder).unwrap_or_else(|error| Verdict::failed(format!("{error:#}")));
    let has_failed = matches!(verdict, Verdict::Failed { .. }) && !interrupt::is_requested();
    if !has_failed {
        let _ = std::fs::remove_dir_all(&folder);
    }
    let folder = has_failed.then_some(folder);
    Finished { name: job.name.clone(), verdict, elapsed: start.elapsed(), folder }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn job(name: &str, seconds: u32, passes: bool) -> Job {
        let work = move |folder: &Path| {
            std::fs::create_dir_all(folder)?;
            if passes { Ok(Verdict::Passed) } else { bail!("broken") }
        };
        Job { name: name.into(), group: "bare", seconds, needs: None, work: Box::new(work) }
    }

    #[test]
    fn every_job_is_done_once_the_longest_first() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = vec![job("short", 1, true), job("long", 9, true), job("middle", 5, true)];
        let mut names = Vec::new();
        run(jobs, 1, folder.path(), |finished| names.push(finished.name));
        assert_eq!(names, ["long", "middle", "short"]);

        let jobs = (0..20).map(|number| job(&number.to_string(), number, true)).collect();
        let mut names = Vec::new();
        run(jobs, 3, folder.path(), |finished| names.push(finished.name.parse::<u32>().unwrap()));
        names.sort_unstable();
        assert!(names.into_iter().eq(0..20));
    }

    #[test]
    fn an_error_is_a_failure_whose_folder_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        run(vec![job("bad", 1, false), job("good", 2, true)], 2, folder.path(), |finished| {
            all.push(finished)
        });
        all.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(all[0].verdict, Verdict::failed("broken"));
        assert_eq!(all[0].folder.as_deref(), Some(folder.path().join("bad").as_path()));
        assert_eq!((&all[1].verdict, &all[1].folder), (&Verdict::Passed, &None));
        assert!(folder.path().join("bad").exists() && !folder.path().join("good").exists());
    }
}
