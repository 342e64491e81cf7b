//! A child process that never outlives us.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;

type Request = (Command, Sender<io::Result<Child>>);

/// Starts `command` so that the kernel kills it when this process ends, however it ends.
///
/// The kernel's "parent" is the *thread* that forked, so all children are forked by one thread that lives as long as the
/// process does: a test's thread may end before the test's machine does.
///
/// # Errors
/// If the program cannot be started.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let own = std::process::id();
    // SAFETY: the closure runs in the forked child before exec and calls nothing but prctl, getppid and _exit, which are
    // async-signal-safe; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died between the fork and the call above; then nobody would send the signal any more.
            if u32::try_from(libc::getppid()) != Ok(own) {
                libc::_exit(1);
            }
            Ok(())
        });
    }
    let (answer, child) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts programs is gone");
    spawner()?.send((command, answer)).map_err(|_| gone(()))?;
    child.recv().map_err(|_| gone(()))?
}

fn spawner() -> io::Result<&'static Sender<Request>> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, requests) = mpsc::channel::<Request>();
    thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for (mut command, answer) in requests {
            // Whoever asked may be gone; then the child is dropped, and lives on until we end.
            _ = answer.send(command.spawn());
        }
    })?;
    Ok(SPAWNER.get_or_init(|| sender))
}

/// A child that is killed when this is dropped.
#[derive(Debug)]
pub struct KillOnDrop(Child);

impl KillOnDrop {
    /// Takes charge of `child`.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// Ends it now.
    pub fn kill(&mut self) {
        // Both fail only if it has ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let child = KillOnDrop::new(spawn(command).expect("started"));
        let path = format!("/proc/{}", child.id());
        assert!(std::path::Path::new(&path).exists());
        drop(child);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let started = thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            KillOnDrop::new(spawn(command).expect("started"))
        });
        let mut child = started.join().expect("joined");
        thread::yield_now();
        assert!(child.try_wait().expect("known").is_none());
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = spawn(Command::new("no-such-program-anywhere")).expect_err("an error");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
