//! Upper bounds of delays. The defaults hold in a simulation, where nothing takes time except by a
//! fault.

/// Upper bounds, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From a change to its receipt by all peers, without faults.
    pub latency: u64,
    /// The trust timeout: from a loss of events to its detection.
    pub trust: u64,
    /// The interval of the gap check, and the delay of an answer of the store.
    pub gap_check: u64,
    /// From the end of an outage of the bus to the publication of queued events: an attempt that
    /// hangs, a pause, and another attempt, as far as they are not within the outage.
    pub republish: u64,
    /// Five beacons, each of which announces the last event.
    pub beacons: u64,
    /// From the beginning of an instance until each of its peers has heard it, faults included: the
    /// longest fault and a beacon.
    pub heard: u64,
    /// From the return of a call to the transmission of its event.
    pub send: u64,
    /// From the return of an unconfirmed call until its event has left the process.
    pub flush: u64,
    /// A call may exceed its deadline by this.
    pub slack: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            latency: 50,
            trust: 3_000,
            gap_check: 250 + 500,
            republish: 4_000,
            beacons: 4_500,
            heard: 17_000,
            send: 0,
            flush: 5,
            slack: 150,
        }
    }
}
