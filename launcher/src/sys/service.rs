//! The service manager that has started us, such as systemd: what it is told goes to the socket that
//! `NOTIFY_SOCKET` names (sd_notify(3)).

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// A way to tell the service manager something.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl ServiceManager {
    /// The one that the environment names, if it names one.
    ///
    /// # Errors
    /// When that is no address of a Unix socket, or there is no descriptor left.
    pub fn from_environment() -> io::Result<Option<Self>> {
        match env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Self::new(&name).map(Some),
            _ => Ok(None),
        }
    }

    fn new(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let why = "it is neither a path nor an abstract name (@…)";
                return Err(io::Error::other(why));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // Nothing that it does, or fails to do, may keep the event loop waiting.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// Tells it something: lines of the form `NAME=VALUE`.
    ///
    /// # Errors
    /// Those of `send`: `EAGAIN` when it has not yet read what it was told before.
    pub fn tell(&self, message: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(message.as_bytes(), &self.address)?;
        Ok(())
    }
}

/// How often at least the service manager wants to be told that we are alive, if it does.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    interval(
        env::var_os("WATCHDOG_USEC"),
        env::var_os("WATCHDOG_PID"),
        process::id(),
    )
}

/// The time by which the service manager tells a reload that follows its request from one that came
/// before: that of CLOCK_MONOTONIC, in microseconds.
#[must_use]
pub fn monotonic_usec() -> u128 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = Duration::from_secs(now.tv_sec.unsigned_abs());
    (seconds + Duration::from_nanos(now.tv_nsec.unsigned_abs())).as_micros()
}

/// sd_watchdog_enabled(3): it may be meant for another process that has passed its environment on.
fn interval(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(own.into())) {
        return None;
    }
    let usec = number(usec?).filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_ours_unless_it_is_said_to_be_anothers() {
        let interval = |usec: &str, pid: Option<&str>| {
            interval(Some(usec.into()), pid.map(Into::into), 42).map(|it| it.as_micros())
        };
        assert_eq!(interval("3000000", None), Some(3_000_000));
        assert_eq!(interval("3000000", Some("42")), Some(3_000_000));
        assert_eq!(interval("3000000", Some("43")), None);
        assert_eq!(interval("3000000", Some("")), None);
        assert_eq!(interval("0", None), None);
        assert_eq!(interval("soon", None), None);
        assert_eq!(super::interval(None, None, 42), None);
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        for name in ["vsock:2:1234", "notify", "/"] {
            let made = ServiceManager::new(OsStr::new(name));
            let told = made.and_then(|manager| manager.tell("READY=1"));
            assert!(told.is_err(), "{name}");
        }
    }
}
