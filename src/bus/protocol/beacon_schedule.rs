//! Schedules beacons: messages that only say how far their publisher is, and when it sends again.
//! [`gap_detector`](super::gap_detector) explains what peers detect by them.
//!
//! | scheme | while | beacons | an instance receives |
//! | --- | --- | --- | --- |
//! | full | at most 64 instances are known | one each third of `trust_timeout` | 64 a second |
//! | quiet | more are known | five after each message: after 250 ms, then each second; later one each two thirds of `trust_timeout` times the number of instances | one in two seconds from idle instances |
//!
//! In the full scheme the silence of every peer is noticed, of one that never published too. In
//! the quiet scheme, the silence of an idle instance shows nothing. An instance that does not
//! subscribe knows of no other, and keeps to the full scheme.

/// Milliseconds between the beacons that follow a message in the quiet scheme.
const INTERVAL: u64 = 1_000;
/// Beacons at this interval after the last message, including the early one.
const BEACONS: u8 = 5;
/// Milliseconds: the shortest interval of an idle instance in the quiet scheme.
const SLOW_INTERVAL: u64 = 20_000;
/// With more instances the quiet scheme begins.
const MAX_FULL: usize = 64;
/// With at most this many it ends.
const MIN_QUIET: usize = 48;

/// All times are milliseconds. `random` is between zero and one.
#[derive(Debug, Default)]
pub(crate) struct BeaconSchedule {
    full_interval: u64,
    interval: u64,
    is_quiet: bool,
    /// The number of known instances, with this one.
    known: u64,
    next_beacon: u64,
    last_beacon: u64,
    /// Beacons to come before they get slow, in the quiet scheme.
    beacons_left: u8,
}

impl BeaconSchedule {
    /// The first beacon is due at once.
    pub(crate) fn new(trust_timeout: u64) -> Self {
        let third = (trust_timeout / 3).max(1);
        let interval = INTERVAL.min(third);
        Self { full_interval: third, interval, known: 1, ..Self::default() }
    }

    /// Chooses the scheme for this number of known instances.
    pub(crate) fn on_known(&mut self, now: u64, known: usize, random: f64) {
        self.known = known as u64;
        if known > MAX_FULL && !self.is_quiet {
            self.is_quiet = true;
            // The next beacon was promised.
            self.beacons_left = 1;
        } else if known <= MIN_QUIET && self.is_quiet {
            self.is_quiet = false;
            let soon = now.saturating_add(scaled(self.full_interval, random));
            self.next_beacon = self.next_beacon.min(soon);
        }
    }

    /// Restarts the beacons after a message was published.
    pub(crate) fn on_published(&mut self, now: u64) {
        if self.is_quiet {
            self.beacons_left = BEACONS;
            self.next_beacon = now.saturating_add(self.interval / 4);
        }
    }

    /// Answers the hello of a peer that has just subscribed with a beacon. However many peers ask,
    /// beacons do not get more frequent than `interval`.
    pub(crate) fn on_hello(&mut self, now: u64, random: f64) {
        if self.is_quiet {
            // Two, because one may be lost.
            self.beacons_left = self.beacons_left.max(2);
            let soon = now.saturating_add(scaled(self.interval / 4, random));
            let earliest = self.last_beacon.saturating_add(self.interval);
            self.next_beacon = self.next_beacon.min(soon.max(earliest));
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        !self.is_quiet
    }

    /// Returns when the next beacon is due.
    pub(crate) fn due_at(&self) -> u64 {
        self.next_beacon
    }

    /// Returns within how many milliseconds this publisher will send again, which a message or
    /// beacon that is sent now promises.
    pub(crate) fn next_within(&self, is_beacon: bool) -> u64 {
        match self.is_quiet {
            false => self.full_interval,
            true if !is_beacon || self.beacons_left > 1 => self.interval,
            // A little longer than the slow interval is at random.
            true => self.slow_interval().saturating_mul(5) / 4,
        }
    }

    /// Schedules the next beacon after one was published, or could not be.
    pub(crate) fn on_beacon_sent(&mut self, now: u64, random: f64) {
        self.last_beacon = now;
        let slow = self.slow_interval();
        let pause = match self.beacons_left {
            _ if !self.is_quiet => self.full_interval,
            0 => slow + scaled(slow / 4, random),
            // The beacons of all instances may have become frequent at the same time.
            // mutant spread-beacons: => 1 => slow + scaled(slow / 4, random),
            1 => scaled(slow + slow / 4, random).max(self.interval),
            _ => self.interval,
        };
        self.beacons_left = self.beacons_left.saturating_sub(1);
        self.next_beacon = now.saturating_add(pause);
    }

    fn slow_interval(&self) -> u64 {
        SLOW_INTERVAL.max(self.full_interval.saturating_mul(self.known).saturating_mul(2))
    }
}

fn scaled(span: u64, random: f64) -> u64 {
    (span as f64 * random.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beacons between two times: when each is sent, and its promise.
    fn beacons(schedule: &mut BeaconSchedule, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        while schedule.due_at() < to {
            let at = schedule.due_at().max(from);
            all.push((at - from, schedule.next_within(true)));
            schedule.on_beacon_sent(at, 1.0);
        }
        all
    }

    fn quiet(known: usize) -> BeaconSchedule {
        let mut schedule = BeaconSchedule::new(3_000);
        schedule.on_known(0, known, 0.0);
        beacons(&mut schedule, 0, 1);
        schedule
    }

    #[test]
    fn an_instance_among_few_sends_beacons_all_the_time() {
        let mut schedule = BeaconSchedule::new(3_000);
        assert_eq!(beacons(&mut schedule, 0, 2_500), [(0, 1_000), (1_000, 1_000), (2_000, 1_000)]);
        schedule.on_published(2_600);
        schedule.on_hello(2_600, 0.0);
        assert_eq!((schedule.due_at(), schedule.next_within(false)), (3_000, 1_000));
        assert_eq!(BeaconSchedule::new(300).next_within(true), 100);
    }

    #[test]
    fn among_many_beacons_follow_a_message_and_get_slow() {
        let mut schedule = quiet(100);
        assert_eq!(schedule.due_at(), 250_000);
        for now in (0..10_000).step_by(100) {
            assert_eq!(schedule.next_within(false), 1_000);
            schedule.on_published(now);
            assert!(schedule.due_at() > now + 100, "messages need no beacon");
        }
        let expected = [
            (250, 1_000),
            (1_250, 1_000),
            (2_250, 1_000),
            (3_250, 1_000),
            (4_250, 250_000),
            (254_250, 250_000),
        ];
        assert_eq!(beacons(&mut schedule, 9_900, 9_900 + 260_000), expected);
    }

    #[test]
    fn the_scheme_changes_with_the_number_of_instances_and_breaks_no_promise() {
        let mut schedule = BeaconSchedule::new(3_000);
        assert_eq!(beacons(&mut schedule, 0, 1), [(0, 1_000)]);
        schedule.on_known(500, 65, 0.0);
        assert_eq!(beacons(&mut schedule, 0, 2_000), [(1_000, 162_500)]);
        schedule.on_known(30_000, 49, 0.0);
        assert!(schedule.due_at() > 80_000);
        schedule.on_known(30_000, 48, 0.5);
        assert_eq!(beacons(&mut schedule, 30_000, 31_000), [(500, 1_000)]);
        schedule.on_known(30_000, 64, 0.5);
        assert_eq!(schedule.due_at(), 31_500);
    }

    #[test]
    fn the_beacons_of_instances_that_start_together_are_spread() {
        let random = &mut fastrand::Rng::with_seed(1);
        let mut sent = [0; 100];
        for _ in 0..200 {
            let mut schedule = BeaconSchedule::new(3_000);
            beacons(&mut schedule, 0, 500);
            schedule.on_known(500, 200, random.f64());
            schedule.on_hello(500, random.f64());
            while schedule.due_at() < 1_000_000 {
                let now = schedule.due_at();
                sent[now as usize / 10_000] += 1;
                let promised = schedule.next_within(true);
                schedule.on_beacon_sent(now, random.f64());
                assert!(schedule.due_at() <= now + promised, "a promise is broken");
            }
        }
        assert!(sent[1..].iter().all(|sent| *sent <= 14), "beacons in ten seconds: {sent:?}");
    }

    #[test]
    fn hellos_are_answered_soon_but_beacons_get_no_more_frequent() {
        let mut schedule = quiet(100);
        let mut answers = 0;
        for now in 10_000..20_000 {
            schedule.on_hello(now, 0.5);
            if schedule.due_at() <= now {
                schedule.on_beacon_sent(now, 0.5);
                answers += 1;
            }
        }
        assert!((9..=11).contains(&answers), "{answers} in ten seconds of hellos");
    }
}
