//! The standard input as a sign of life of the program that started this one.

use std::io;

use tokio::sync::oneshot;

/// Waits until standard input ends. It ends at the latest with the program that holds its other end, however that one
/// ended: a pipe to a program needs nobody to close it. What comes in is read and dropped.
///
/// # Errors
/// Where no thread can be started for it.
pub fn end() -> io::Result<impl Future<Output = ()> + Send> {
    let (ended, end) = oneshot::channel::<()>();
    // A thread of its own: a read of standard input cannot be given up, and a runtime waits for those of its threads.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    })?;
    Ok(async move { drop(end.await) })
}
