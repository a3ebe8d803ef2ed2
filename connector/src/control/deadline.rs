//! Due wake-ups: sleeps until the next one, woken early when a nearer one is committed.

use std::sync::Arc;
use std::time::Duration;

use kontor_core::transfer::Input;

use super::Control;
use super::error::ControlError;

/// Longest sleep, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How many due processes are taken up at once.
const DUE_MAX: usize = 100;

/// How long to wait after something that must be done could not be, such as on a full disk.
pub(super) const TROUBLED: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub async fn run(control: Arc<Control>) {
    loop {
        let sleep = match control.parts.store.next_wake().await {
            Ok(None) => SLEEP_MAX,
            Ok(Some(at)) => {
                // A millisecond more: at the very instant the permission may still hold.
                let wait = at.duration_since(control.now()) + jiff::SignedDuration::from_millis(1);
                Duration::try_from(wait).unwrap_or(Duration::ZERO).min(SLEEP_MAX)
            }
            Err(error) => {
                tracing::error!(%error, "the next wake-up cannot be read");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = control.wake.notified() => continue,
        }
        let due = match control.parts.store.wakes_due(control.now(), DUE_MAX).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "due wake-ups cannot be read");
                tokio::time::sleep(TROUBLED).await;
                continue;
            }
        };
        let mut troubled = false;
        for (process, at) in due {
            let cleared = match control.advance_transfer(&process, Input::Due, None, None).await {
                Ok(advanced) => {
                    control.send(advanced.outgoing);
                    // Its next wake-up, if it has one, is another one by now.
                    if let Err(error) = control.on_new_terms(&advanced.value).await {
                        control.again_later(&process, &error);
                    }
                    control.woken(&process, at).await.map_err(ControlError::from)
                }
                // It stays due.
                Err(error) if error.may_pass() => Err(error),
                Err(error) => {
                    tracing::warn!(transfer.id = %process, %error, "a wake-up was refused");
                    control.woken(&process, at).await.map_err(ControlError::from)
                }
            };
            if let Err(error) = cleared {
                tracing::error!(transfer.id = %process, %error, "a wake-up could not be carried out");
                troubled = true;
            }
        }
        if troubled {
            tokio::time::sleep(TROUBLED).await;
        }
    }
}
