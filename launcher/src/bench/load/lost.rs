//! What becomes of requests that get no good answer.

use rustix::io::Errno;

use crate::bench::model::Errors;

/// A kind of error; [`Errors`] says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    Refused,
    Reset,
    Closed,
    Timeout,
    Bad,
    Other,
}

impl Lost {
    /// Counts one more.
    pub(super) fn count(self, errors: &mut Errors) {
        let counter = match self {
            Self::Refused => &mut errors.refused,
            Self::Reset => &mut errors.reset,
            Self::Closed => &mut errors.closed,
            Self::Timeout => &mut errors.timeout,
            Self::Bad => &mut errors.bad,
            Self::Other => &mut errors.other,
        };
        *counter += 1;
    }
}

/// Of a socket's error.
impl From<Errno> for Lost {
    fn from(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Refused,
            // A pipe is broken if the reset came before we wrote.
            Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE => Self::Reset,
            // The kernel has given up sending.
            Errno::TIMEDOUT => Self::Timeout,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_counter_of_its_own() {
        let mut errors = Errors::default();
        for error in [
            Errno::CONNREFUSED,
            Errno::CONNRESET,
            Errno::PIPE,
            Errno::TIMEDOUT,
            Errno::ADDRNOTAVAIL,
            Errno::MFILE,
            Errno::NETUNREACH,
        ] {
            Lost::from(error).count(&mut errors);
        }
        Lost::Closed.count(&mut errors);
        Lost::Bad.count(&mut errors);
        let expected = Errors {
            refused: 1,
            reset: 2,
            closed: 1,
            timeout: 1,
            bad: 1,
            other: 3,
        };
        assert_eq!(errors, expected);
        assert_eq!(errors.total(), 9);
    }
}
