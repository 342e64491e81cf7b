//! Whether the application is well: asked while a successor is on trial, before it keeps the machine.

use alloc::boxed::Box;
use alloc::string::String;
use core::pin::Pin;

use spin::Mutex;

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Check = Box<dyn Fn() -> Answer + Send>;

static CHECK: Mutex<Option<Check>> = Mutex::new(None);

/// From now on `check` is asked whether the application is well. It takes the time that it needs, within the trial; an error
/// gives the machine back to the predecessor at once, with its text as the reason. Without a check an application is well.
///
/// Call it first thing in `main`: a successor that answers and has no check yet is committed.
///
/// ```no_run
/// libos::replace::health::check(|| async {
///     if database_is_open().await { Ok(()) } else { Err("the database does not open".into()) }
/// });
/// # async fn database_is_open() -> bool { true }
/// ```
pub fn check<F, A>(check: F)
where
    F: Fn() -> A + Send + 'static,
    A: Future<Output = Result<(), String>> + Send + 'static,
{
    *CHECK.lock() = Some(Box::new(move || Box::pin(check())));
}

/// What the application says.
pub(super) async fn ask() -> Result<(), String> {
    let answer = CHECK.lock().as_ref().map(|check| check());
    match answer {
        Some(answer) => answer.await,
        None => Ok(()),
    }
}
