//! Schedules beacons: messages that only say how far their publisher is.
//! [`gap_detector`](super::gap_detector) explains what peers detect by them.
//!
//! A publisher sends a beacon 250 ms after its last message, then four more at intervals of one
//! second, then one every 20 s. They show peers that they missed its last message.
//!
//! An instance that received nothing for a third of `trust_timeout` sends a beacon as a probe: its
//! own beacon comes back to it, and reaches all other instances that wait for a sign.

/// Milliseconds between the beacons that follow a message.
const INTERVAL: u64 = 1_000;
/// Beacons at this interval after the last message, including the early one.
const BEACONS: u8 = 5;
/// Milliseconds between the beacons after those.
pub(crate) const SLOW_INTERVAL: u64 = 20_000;

/// All times are milliseconds. `random` is between zero and one.
#[derive(Debug, Default)]
pub(crate) struct BeaconSchedule {
    interval: u64,
    /// Milliseconds of silence after which a probe is sent.
    probe_after: u64,
    /// `None` until the first message: before it, there is no sequence number to announce.
    next_beacon: Option<u64>,
    /// Beacons to come before they get slow.
    beacons_left: u8,
    last_beacon: u64,
    /// `None` while there is no subscription.
    next_probe: Option<u64>,
}

impl BeaconSchedule {
    /// Beacons are at most a third of `trust_timeout` apart.
    pub(crate) fn new(trust_timeout: u64) -> Self {
        let third = (trust_timeout / 3).max(1);
        Self { interval: INTERVAL.min(third), probe_after: third, ..Self::default() }
    }

    /// Restarts the beacons after a message was published.
    pub(crate) fn on_published(&mut self, now: u64) {
        self.beacons_left = BEACONS;
        self.next_beacon = Some(now.saturating_add(self.interval / 4));
    }

    /// Answers the hello of a peer that has just subscribed with a beacon. However many peers ask,
    /// beacons do not get more frequent than `interval`.
    pub(crate) fn on_hello(&mut self, now: u64, random: f64) {
        if let Some(next) = self.next_beacon {
            // Two, because one may be lost.
            self.beacons_left = self.beacons_left.max(2);
            let soon = now.saturating_add(scaled(self.interval / 4, random));
            let earliest = self.last_beacon.saturating_add(self.interval);
            self.next_beacon = Some(next.min(soon.max(earliest)));
        }
    }

    /// Postpones the probe after a message was received, or a subscription began. `random` spreads
    /// the probes of instances that received the same message: all others receive the first one
    /// and need not send theirs.
    pub(crate) fn on_received(&mut self, now: u64, random: f64) {
        let half = self.probe_after / 2;
        self.next_probe = Some(now.saturating_add(half + scaled(half, random)));
    }

    /// Stops probing, because nothing could be received.
    pub(crate) fn on_unsubscribed(&mut self) {
        self.next_probe = None;
    }

    /// Returns when the next beacon is due. `None`: not before another call.
    pub(crate) fn due_at(&self) -> Option<u64> {
        self.next_beacon.into_iter().chain(self.next_probe).min()
    }

    /// Returns within how many milliseconds this publisher will send again, which a message or
    /// beacon that is sent now promises.
    pub(crate) fn next_within(&self, is_beacon: bool) -> Option<u64> {
        match self.next_beacon {
            _ if !is_beacon => Some(self.interval),
            None => None,
            Some(_) if self.beacons_left > 1 => Some(self.interval),
            Some(_) => Some(SLOW_INTERVAL),
        }
    }

    /// Schedules the next beacon after one was published, or could not be.
    pub(crate) fn on_beacon_sent(&mut self, now: u64, random: f64) {
        self.last_beacon = now;
        if self.next_probe.is_some() {
            self.on_received(now, random);
        }
        if let Some(pause) = self.next_within(true) {
            self.beacons_left = self.beacons_left.saturating_sub(1);
            self.next_beacon = Some(now.saturating_add(pause));
        }
    }
}

fn scaled(span: u64, random: f64) -> u64 {
    (span as f64 * random.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beacons between two times: when each is sent, and its promise.
    fn beacons(schedule: &mut BeaconSchedule, from: u64, to: u64) -> Vec<(u64, Option<u64>)> {
        let mut all = Vec::new();
        while let Some(at) = schedule.due_at().filter(|at| *at < to) {
            all.push((at - from, schedule.next_within(true)));
            schedule.on_beacon_sent(at, 1.0);
        }
        all
    }

    #[test]
    fn beacons_follow_the_last_message_and_get_slow() {
        let mut schedule = BeaconSchedule::new(3_000);
        assert_eq!(schedule.due_at(), None, "nothing was published");
        for now in (0..10_000).step_by(100) {
            assert_eq!(schedule.next_within(false), Some(1_000));
            schedule.on_published(now);
            assert!(schedule.due_at().is_some_and(|at| at > now + 100), "messages need no beacon");
        }
        let (fast, slow) = (Some(1_000), Some(20_000));
        let expected = [
            (250, fast),
            (1_250, fast),
            (2_250, fast),
            (3_250, fast),
            (4_250, slow),
            (24_250, slow),
        ];
        assert_eq!(beacons(&mut schedule, 9_900, 9_900 + 40_000), expected);
    }

    #[test]
    fn a_short_trust_timeout_makes_beacons_frequent() {
        let mut schedule = BeaconSchedule::new(300);
        schedule.on_published(0);
        assert_eq!(schedule.next_within(false), Some(100));
        assert_eq!(beacons(&mut schedule, 0, 200), [(25, Some(100)), (125, Some(100))]);
    }

    #[test]
    fn silence_is_probed_before_a_third_of_the_trust_timeout_is_over() {
        let mut schedule = BeaconSchedule::new(3_000);
        for random in [0.0, 0.5, 1.0] {
            schedule.on_received(0, random);
            assert_eq!(schedule.due_at(), Some(500 + (500.0 * random) as u64));
        }
        assert_eq!(beacons(&mut schedule, 0, 3_500), [(1_000, None), (2_000, None), (3_000, None)]);
        schedule.on_unsubscribed();
        assert_eq!(schedule.due_at(), None);
        schedule.on_beacon_sent(4_000, 0.0);
        assert_eq!(schedule.due_at(), None, "without a subscription nothing could be received");
    }

    #[test]
    fn hellos_are_answered_soon_but_beacons_get_no_more_frequent() {
        let mut schedule = BeaconSchedule::new(3_000);
        schedule.on_hello(0, 0.0);
        assert_eq!(schedule.due_at(), None, "peers expect a new publisher to be at 0");
        schedule.on_published(0);
        beacons(&mut schedule, 0, 10_000);
        let mut answers = 0;
        for now in 10_000..20_000 {
            schedule.on_hello(now, 0.5);
            if schedule.due_at().is_some_and(|at| at <= now) {
                schedule.on_beacon_sent(now, 0.5);
                answers += 1;
            }
        }
        assert!((9..=11).contains(&answers), "{answers} in ten seconds of hellos");
    }
}
