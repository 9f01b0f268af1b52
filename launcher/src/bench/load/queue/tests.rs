use super::*;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_millis(100);

/// 100 ms that do not count, then a second that does.
fn queue(connections: u32, rate: Option<f64>) -> (Queue, Times) {
    let start = Instant::now();
    let times = Times {
        start,
        counted: start + 100 * MS,
        end: start + 1100 * MS,
    };
    let share = Share {
        thread: 0,
        cpu: None,
        connections,
        rate,
        seed: 1,
    };
    (Queue::new(&share, times, TIMEOUT), times)
}

#[test]
fn the_closed_pace_sends_when_an_answer_has_come() {
    let (mut queue, times) = queue(2, None);
    let mut now = times.start;
    assert_eq!(queue.look(now), 0, "it is not counted yet");
    assert_eq!(
        [queue.take(), queue.take(), queue.take()],
        [Some(now), Some(now), None]
    );
    queue.look(now + MS);
    assert_eq!(queue.take(), None);

    now = times.counted;
    queue.end(now, true);
    assert_eq!(queue.look(now), 1);
    assert_eq!([queue.take(), queue.take()], [Some(now), None]);

    // Nothing is sent from the end on.
    now = times.end;
    queue.end(now, true);
    assert_eq!(
        (queue.look(now), queue.take(), queue.is_done(now)),
        (0, None, false)
    );
    queue.end(now, true);
    assert!(queue.is_done(now));
}

#[test]
fn a_client_of_the_closed_pace_pauses_after_an_error() {
    let (mut queue, times) = queue(1, None);
    queue.look(times.start);
    assert!(queue.take().is_some());
    queue.end(times.start, false);
    queue.look(times.start + PAUSE - MS);
    assert_eq!(queue.take(), None);
    assert_eq!(queue.wake(), Some(times.start + PAUSE));
    let now = times.start + PAUSE;
    queue.look(now);
    assert_eq!(queue.take(), Some(now));
    // Whoever pauses at the end is not waited for.
    queue.end(times.end, false);
    assert!(queue.is_done(times.end));
}

#[test]
fn the_open_pace_sends_whatever_comes_back() {
    let (mut queue, times) = queue(10_000, Some(1000.0));
    let mut sent = 0;
    let mut counted = 0;
    while let Some(now) = queue.wake().filter(|&now| now < times.end) {
        counted += queue.look(now);
        while let Some(due) = queue.take() {
            assert_eq!(due, now);
            sent += 1;
        }
    }
    // A standard deviation is about 33.
    assert!((950..1250).contains(&sent), "{sent}");
    assert!(counted < sent && counted > 800, "{counted}");
    assert!(!queue.is_done(times.end), "none has ended");
    for _ in 0..sent {
        queue.end(times.end, false);
    }
    assert!(queue.is_done(times.end));
}

#[test]
fn a_request_that_waits_too_long_is_lost_where_it_waits() {
    let (mut queue, times) = queue(1, Some(1000.0));
    let due = queue.wake().unwrap();
    queue.look(due);
    assert_eq!(queue.take(), Some(due));
    let second = queue.wake().unwrap();
    queue.look(second);
    assert_eq!(queue.take(), None, "the first has not ended");
    assert_eq!(queue.take_late(second + TIMEOUT - MS), None);
    assert_eq!(queue.take_late(second + TIMEOUT), Some(second));
    // The last arrivals are waited for, no longer than they may take.
    queue.look(times.end);
    assert!(!queue.is_done(times.end));
    while queue.take_late(times.end + TIMEOUT).is_some() {}
    queue.end(times.end, true);
    assert!(queue.is_done(times.end));
}

#[test]
fn only_what_the_server_did_not_cause_is_late() {
    let (mut queue, times) = queue(1, Some(1000.0));
    let due = queue.wake().unwrap();
    queue.look(due);
    queue.take();
    assert_eq!(queue.lateness(due, due + 3 * MS), 3 * MS);
    // The next one is due while this one runs, and sent 2 ms after its end.
    let second = queue.wake().unwrap();
    let ended = second + 50 * MS;
    queue.look(ended);
    queue.end(ended, true);
    assert_eq!(queue.take(), Some(second));
    assert_eq!(queue.lateness(second, ended + 2 * MS), 2 * MS);
    // One that finds nobody before it could have been sent when it was due.
    queue.end(ended + 5 * MS, true);
    let later = ended + 20 * MS;
    assert!(times.end > later);
    assert_eq!(queue.lateness(later, later + 4 * MS), 4 * MS);
}
