//! What the fleet has to say, as log lines.

use std::time::Duration;

use tracing::{info, warn};

use crate::{fleet::Notice, worker::WorkerId};

/// Logs one notice. `refusal` knows why a worker's last probe failed.
pub(super) fn notice(notice: &Notice, refusal: impl Fn(WorkerId) -> Option<String>) {
    let why = |worker| refusal(worker).map_or_else(String::new, |why| format!(" ({why})"));
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
        Notice::NotReady {
            worker,
            after,
            restart_in,
        } => {
            let then = restart_in.map_or_else(String::new, |delay| {
                format!("; another is started in {}", seconds(delay))
            });
            warn!(
                "worker {worker} is not ready {} after its start{} and is stopped \
                 (--ready-timeout){then}",
                seconds(*after),
                why(*worker)
            );
        }
        Notice::Health {
            worker,
            healthy: false,
        } => warn!(
            "worker {worker} fails its health checks{}: it gets no new connections if another worker \
             takes them",
            why(*worker)
        ),
        Notice::Health {
            worker,
            healthy: true,
        } => info!("worker {worker} passes its health checks again"),
        Notice::Stall {
            worker,
            stalled: true,
        } => warn!(
            "worker {worker} does not accept the connections that wait for it: it gets no new ones if another worker takes them"
        ),
        Notice::Stall {
            worker,
            stalled: false,
        } => info!("worker {worker} accepts connections again"),
        Notice::Replacing { old, new, reason } => {
            info!("worker {new} is started to replace worker {old} ({reason})");
        }
        Notice::Drained { worker } => info!("worker {worker} has finished its connections"),
        Notice::DrainTimedOut { worker } => warn!(
            "worker {worker} has not finished its connections in time (--drain-timeout); they are cut"
        ),
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
    // One digit that says something, also of what takes less than a tenth.
    let digits = if duration < Duration::from_millis(95) {
        2
    } else {
        1
    };
    format!("{:.digits$} s", duration.as_secs_f64())
}
