//! Workers that can't be started, or end again and again, while others serve.

use std::process::Command;

use kernel_tests::{gate, launcher::Launch, load::OpenLoad, scripts};

use crate::{RATE, address};

#[test]
fn a_worker_that_cannot_be_started_is_tried_again_until_it_can() {
    let Some(_netns) = gate::enter(&["python3", "prlimit"]) else {
        return;
    };
    // Too many processes for this user (who has no other) from the second on: `execve` fails with
    // EAGAIN. `setuid` looks at the limit before it counts the process, and root is not limited.
    let launcher = Launch::of(scripts::late())
        .options(["--workers", "2", "--user", "games", "--group", "games"])
        .through([&gate::path_of("prlimit"), "--nproc=0:"])
        .start();
    launcher.process.wait_until("several tries", |lines| {
        let tries = lines.iter().filter(|line| {
            line.text.contains("could not be started") && line.text.contains("next try in")
        });
        (tries.count() >= 6).then_some(())
    });
    let status = launcher.status();
    assert_eq!(status.ready(), 1, "{}", status.0);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(RATE.into());
    let raised = Command::new(gate::path_of("prlimit"))
        .args(["--nproc=1000:", "--pid"])
        .arg(launcher.process.pid().to_string())
        .status();
    assert!(raised.is_ok_and(|status| status.success()));
    launcher.status_when("both workers", |status| status.all_ready(2));
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn acceptance_51_a_crash_loop_is_slowed_down_and_never_given_up_while_others_serve() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    // The first worker of slot 1 and all after it fail at once.
    let script = "test {slot} = 1 && exit 5; exec \"$@\"";
    let shell = [&gate::path_of("sh"), "-c", script, "sh"].map(str::to_owned);
    let launcher = Launch::of(shell.into_iter().chain(scripts::late()))
        .options(["--workers", "2"])
        .start();
    // Five in a row would be the end if nothing else worked; the delay doubles from 100 ms.
    let delays = launcher
        .process
        .wait_until("more failures than that", |lines| {
            let delays: Vec<f64> = lines
                .iter()
                .filter_map(|line| line.text.split_once("; restart in "))
                .filter_map(|(_, delay)| delay.split(' ').next()?.parse().ok())
                .collect();
            (delays.len() >= 6).then_some(delays)
        });
    for (failure, delay) in delays.iter().enumerate() {
        let expected = 0.1 * f64::from(1 << failure);
        // ±20 % jitter, and rounded to tenths of a second.
        let spread = expected * 0.2 + 0.051;
        assert!((delay - expected).abs() <= spread, "{delays:?}");
    }
    let status = launcher.status();
    assert_eq!((status.state(0), status.state(1)), ("ready", "backoff"));
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(RATE.into());
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}
