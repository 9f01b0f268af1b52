//! What the fleet has to say, as log lines.

use std::time::Duration;

use tracing::{info, warn};

use crate::fleet::Notice;

/// Logs one notice.
pub(super) fn notice(notice: &Notice) {
    match notice {
        Notice::Ready { worker } => info!("worker {worker} is ready"),
        // The startup line says it.
        Notice::AllReady => {}
        Notice::Exited {
            worker,
            status,
            restart_in,
            was_ready,
        } => {
            let when = if *was_ready {
                "ended"
            } else {
                "ended before it was ready"
            };
            match restart_in {
                Some(delay) => warn!(
                    "worker {worker} {when}: {status}; restart in {}",
                    seconds(*delay)
                ),
                None => info!("worker {worker} {when}: {status}"),
            }
        }
        Notice::SpawnFailed {
            worker,
            reason,
            restart_in,
        } => match restart_in {
            Some(delay) => warn!(
                "worker {worker} could not be started: {reason}; next try in {}",
                seconds(*delay)
            ),
            None => warn!("worker {worker} could not be started: {reason}"),
        },
        Notice::NotListening { worker, after } => warn!(
            "worker {worker} does not listen on any port {} after its start: no connections can be \
             steered to it (nothing is wrong if it is a queue worker)",
            seconds(*after)
        ),
        Notice::LeftProcesses { worker } => warn!(
            "worker {worker} left processes behind, which are killed; a server that puts itself \
             into the background must be told to stay in the foreground"
        ),
        Notice::StopTimedOut { worker } => {
            warn!("worker {worker} did not stop in time and is killed (--stop-timeout)");
        }
        Notice::Unkillable { worker } => {
            warn!(
                "processes of worker {worker} can't be killed (uninterruptible sleep?); leaving them"
            );
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
