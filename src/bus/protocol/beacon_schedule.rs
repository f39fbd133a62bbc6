//! When an instance makes itself heard though it has nothing to say: the other half of
//! [`gaps`](super::gaps), which has the argument.
//!
//! | beacon | when | for whom |
//! | --- | --- | --- |
//! | a beat | 250 ms after the last publish, then four times a second apart, then every 20 s | peers, who learn of a last event that they missed |
//! | a probe | nothing was heard from anybody for a third of `trust_timeout` | ourselves, and all others who wait for a sign |
//!
//! Pure: it is told what happens, and says when a beacon is due and what it promises.

/// Milliseconds between beats.
const BEAT: u64 = 1_000;
/// Beats after the last publish, the early one counted.
const BEATS: u8 = 5;
/// Milliseconds between beats of one who has published, but not lately.
pub(crate) const SLOW_INTERVAL: u64 = 20_000;

#[derive(Debug)]
pub(crate) struct BeaconSchedule {
    /// Between beats, soon after a publish.
    beat: u64,
    /// How long nothing may be heard before we ask.
    probe: u64,
    /// None that has never published has a number for others to learn.
    next_beat: Option<u64>,
    /// Beats to come, before they get slow.
    beats: u8,
    last_beat: u64,
    /// None while there is no subscription.
    next_probe: Option<u64>,
}

impl BeaconSchedule {
    /// Times are milliseconds. Beats are at most a third of `trust_timeout` apart.
    pub(crate) fn new(trust_timeout: u64) -> Self {
        let third = (trust_timeout / 3).max(1);
        Self {
            beat: BEAT.min(third),
            probe: third,
            next_beat: None,
            beats: 0,
            last_beat: 0,
            next_probe: None,
        }
    }

    /// An event of ours was published: its number is news.
    pub(crate) fn on_published(&mut self, now: u64) {
        self.beats = BEATS;
        self.next_beat = Some(now.saturating_add(self.beat / 4));
    }

    /// Somebody who has just begun to listen asks where we are. Answered with a beat, but with no
    /// more of them than usual, however many ask.
    pub(crate) fn on_hello(&mut self, now: u64, random: f64) {
        if let Some(next) = self.next_beat {
            // Two, for one may be lost.
            self.beats = self.beats.max(2);
            let soon = now.saturating_add(scaled(self.beat / 4, random));
            self.next_beat = Some(next.min(soon.max(self.last_beat.saturating_add(self.beat))));
        }
    }

    /// The subscription began, or brought anything at all. `random`, from zero to one, keeps the
    /// probes of instances that heard the same thing apart: the first is heard by the others, and
    /// spares theirs.
    pub(crate) fn on_received(&mut self, now: u64, random: f64) {
        let wait = self.probe / 2 + scaled(self.probe / 2, random);
        self.next_probe = Some(now.saturating_add(wait));
    }

    /// The subscription ended.
    pub(crate) fn on_unsubscribed(&mut self) {
        self.next_probe = None;
    }

    /// When the next beacon is due. `None`: not before something else happens.
    pub(crate) fn due_at(&self) -> Option<u64> {
        self.next_beat.into_iter().chain(self.next_probe).min()
    }

    /// What an event or beacon that is sent now promises: to be heard again within so many
    /// milliseconds.
    pub(crate) fn next_within(&self, is_beacon: bool) -> Option<u64> {
        match (is_beacon, self.next_beat) {
            (false, _) => Some(self.beat),
            (true, None) => None,
            (true, Some(_)) if self.beats > 1 => Some(self.beat),
            (true, Some(_)) => Some(SLOW_INTERVAL),
        }
    }

    /// A beacon was sent, or tried.
    pub(crate) fn on_beacon_sent(&mut self, now: u64, random: f64) {
        self.last_beat = now;
        if self.next_probe.is_some() {
            self.on_received(now, random);
        }
        if self.next_beat.is_some() {
            let pause = if self.beats > 1 { self.beat } else { SLOW_INTERVAL };
            self.beats = self.beats.saturating_sub(1);
            self.next_beat = Some(now.saturating_add(pause));
        }
    }
}

fn scaled(span: u64, random: f64) -> u64 {
    (span as f64 * random.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beacons of so long: when, and what each promises.
    fn beacons(pulse: &mut BeaconSchedule, from: u64, to: u64) -> Vec<(u64, Option<u64>)> {
        let mut all = Vec::new();
        while let Some(at) = pulse.due_at().filter(|at| *at < to) {
            all.push((at - from, pulse.next_within(true)));
            pulse.on_beacon_sent(at, 1.0);
        }
        all
    }

    #[test]
    fn beats_follow_the_last_publish_and_get_slow() {
        let mut pulse = BeaconSchedule::new(3_000);
        assert_eq!(pulse.due_at(), None, "nothing to say");
        for now in (0..10_000).step_by(100) {
            assert_eq!(pulse.next_within(false), Some(1_000));
            pulse.on_published(now);
            assert!(pulse.due_at().is_some_and(|at| at > now + 100), "events speak for themselves");
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
        assert_eq!(beacons(&mut pulse, 9_900, 9_900 + 40_000), expected);
    }

    #[test]
    fn a_short_trust_timeout_makes_beats_quick() {
        let mut pulse = BeaconSchedule::new(300);
        pulse.on_published(0);
        assert_eq!(pulse.next_within(false), Some(100));
        assert_eq!(beacons(&mut pulse, 0, 200), [(25, Some(100)), (125, Some(100))]);
    }

    #[test]
    fn who_hears_nothing_probes_before_a_third_of_its_trust_is_over() {
        let mut pulse = BeaconSchedule::new(3_000);
        for random in [0.0, 0.5, 1.0] {
            pulse.on_received(0, random);
            assert_eq!(pulse.due_at(), Some(500 + (500.0 * random) as u64));
        }
        assert_eq!(beacons(&mut pulse, 0, 3_500), [(1_000, None), (2_000, None), (3_000, None)]);
        pulse.on_unsubscribed();
        assert_eq!(pulse.due_at(), None);
        pulse.on_beacon_sent(4_000, 0.0);
        assert_eq!(pulse.due_at(), None, "without a subscription there is nothing to hear");
    }

    #[test]
    fn who_asks_is_answered_soon_but_no_more_often_than_others_are_told() {
        let mut pulse = BeaconSchedule::new(3_000);
        pulse.on_hello(0, 0.0);
        assert_eq!(pulse.due_at(), None, "one that never published is expected to be at 0");
        pulse.on_published(0);
        beacons(&mut pulse, 0, 10_000);
        let mut answers = 0;
        for now in 10_000..20_000 {
            pulse.on_hello(now, 0.5);
            if pulse.due_at().is_some_and(|at| at <= now) {
                pulse.on_beacon_sent(now, 0.5);
                answers += 1;
            }
        }
        assert!((9..=11).contains(&answers), "{answers} in ten seconds of questions");
    }
}
