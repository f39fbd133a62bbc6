//! How late what may be, in milliseconds. By default what holds in a simulation, where nothing
//! takes time unless the weather says so.

/// Milliseconds, all of them.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In which a change is heard of in fair weather.
    pub latency: u64,
    /// The trust timeout: how soon it is noticed that something was lost.
    pub trust: u64,
    /// How often that is asked, and what an answer of the shared level may be late.
    pub noticed: u64,
    /// What is published again after the bus was away: the attempt that hangs, a pause, another, as
    /// far as that is not in the time of the trouble itself.
    pub held_up: u64,
    /// Five beats, which tell of a last event.
    pub beats: u64,
    /// In which what returned has certainly been sent.
    pub sent: u64,
    /// In which what was told without being confirmed has left its process.
    pub leaves: u64,
    /// What any call may take longer than its deadline.
    pub slack: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            latency: 50,
            trust: 3_000,
            noticed: 250 + 500,
            held_up: 4_000,
            beats: 4_500,
            sent: 0,
            leaves: 5,
            slack: 150,
        }
    }
}
