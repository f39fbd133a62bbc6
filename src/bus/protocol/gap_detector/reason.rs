//! Why L1 is marked untrusted, in words for logs and events.

/// Why L1 was marked untrusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapReason {
    Hole,
    PublisherSilent,
    PublisherReturned,
    PublisherForgotten,
    Lapsed,
    ProbesLost,
    TooManyPublishers,
    Unreadable,
}

impl GapReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hole => "messages of a peer are missing",
            Self::PublisherSilent => {
                "a peer fell silent: it may be cut off from the bus and still delete keys"
            }
            Self::PublisherReturned => "a peer that was silent is heard again",
            Self::PublisherForgotten => "a peer that was silent is taken for dead",
            Self::Lapsed => {
                "no probe came back in time: this instance is behind, or receives nothing"
            }
            Self::ProbesLost => "probes come back again after some were lost",
            Self::TooManyPublishers => "more instances publish than can be tracked",
            Self::Unreadable => "a message could not be decoded",
        }
    }
}
