//! Why a socket is closed: the registered codes that we use, and whether to come back.

/// A WebSocket close code (RFC 6455, section 7.4, and the IANA registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: both sides are done.
    Normal,
    /// 1001: this end goes away, as a browser does that leaves the page.
    GoingAway,
    /// 1002: the peer broke the WebSocket protocol.
    Protocol,
    /// 1003: a binary message where only text is taken.
    Unsupported,
    /// 1007: a text message that is not UTF-8.
    NotUtf8,
    /// 1008: a rule was broken, or an operator disconnected the connection.
    Policy,
    /// 1009: a message larger than the limit.
    TooBig,
    /// 1011: a defect of ours; the log knows more.
    Internal,
    /// 1012: the gateway drains and restarts.
    Restart,
    /// 1013: more connections or commands than can be taken.
    TryAgainLater,
    /// 3000: no or no longer valid credentials.
    Unauthenticated,
    /// 3003: known, and not allowed to be here.
    Forbidden,
    /// 3008: no pong came in time, or a write stalled.
    Timeout,
}

impl CloseCode {
    /// Every code, in the order of the contract.
    pub const ALL: &'static [Self] = &[
        Self::Normal,
        Self::GoingAway,
        Self::Protocol,
        Self::Unsupported,
        Self::NotUtf8,
        Self::Policy,
        Self::TooBig,
        Self::Internal,
        Self::Restart,
        Self::TryAgainLater,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Timeout,
    ];

    /// The code as it is on the wire.
    pub fn as_u16(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::NotUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::TryAgainLater => 1013,
            Self::Unauthenticated => 3000,
            Self::Forbidden => 3003,
            Self::Timeout => 3008,
        }
    }

    /// The code that a number means; `None` for one that we never send.
    pub fn from_u16(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_u16() == code)
    }

    /// Whether a client reconnects by itself, as it was. After [`CloseCode::Unauthenticated`] it may come back
    /// with a new token; an unclean end (no code at all) is like [`CloseCode::GoingAway`].
    pub fn should_reconnect(self) -> bool {
        match self {
            Self::GoingAway | Self::Internal | Self::Restart | Self::TryAgainLater | Self::Timeout => true,
            Self::Normal
            | Self::Protocol
            | Self::Unsupported
            | Self::NotUtf8
            | Self::Policy
            | Self::TooBig
            | Self::Unauthenticated
            | Self::Forbidden => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_back() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_u16(code.as_u16()), Some(*code));
        }
        assert_eq!(CloseCode::from_u16(1005), None);
    }

    #[test]
    fn clients_return_after_what_was_not_their_fault() {
        let back: Vec<u16> =
            CloseCode::ALL.iter().filter(|code| code.should_reconnect()).map(|code| code.as_u16()).collect();
        assert_eq!(back, [1001, 1011, 1012, 1013, 3008]);
    }
}
