//! What an event of the master's is about, as the number that the kernel keeps for it.

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The socket to who has started the master.
    Control,
    /// The listening socket.
    Listener,
    /// The end of the worker of this start.
    Ended(u32),
    /// The output of the worker of this start.
    Said(u32),
    /// The client's side of the proxied connection of this number.
    Client(u32),
    /// The worker's side of it.
    Upstream(u32),
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        let (kind, number) = match token {
            Token::Control => (0, 0),
            Token::Listener => (1, 0),
            Token::Ended(number) => (2, number),
            Token::Said(number) => (3, number),
            Token::Client(number) => (4, number),
            Token::Upstream(number) => (5, number),
        };
        kind << 32 | Self::from(number)
    }
}

impl Token {
    /// The token that was made into this number; `None`: it was none.
    pub(super) fn of(number: u64) -> Option<Self> {
        let kind = number >> 32;
        let number = number as u32;
        Some(match kind {
            0 => Self::Control,
            1 => Self::Listener,
            2 => Self::Ended(number),
            3 => Self::Said(number),
            4 => Self::Client(number),
            5 => Self::Upstream(number),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_a_number() {
        for token in [
            Token::Control,
            Token::Listener,
            Token::Ended(u32::MAX),
            Token::Said(0),
            Token::Client(7),
            Token::Upstream(7),
        ] {
            assert_eq!(Token::of(token.into()), Some(token));
        }
        assert_eq!(Token::of(u64::MAX), None);
    }
}
