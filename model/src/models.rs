//! The models: small programs on one key. A `Cell` stands for the entry in L1, an atomic for the
//! origin.

use loom::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use crate::{
    flight::{Attempt, FlightTable, Join, Limits, Origin},
    sync::{Arc, Mutex},
};

/// The cached version of the origin.
type Cell = Mutex<Option<usize>>;
type Table = FlightTable<(), usize>;
type Lead = crate::flight::Lead<(), usize>;

struct World {
    table: Arc<Table>,
    cell: Cell,
    origin: AtomicUsize,
    loads: AtomicUsize,
    key: Arc<str>,
}

/// The answer of a read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Read {
    Found(usize),
    Loaded(usize),
    Joined(Option<usize>),
}

impl World {
    fn new() -> Arc<Self> {
        let limits = Limits { max_age: 100, max_flights: 10, max_followers: 10 };
        Arc::new(Self {
            table: Arc::new(Table::new(1, limits)),
            cell: Cell::new(None),
            origin: AtomicUsize::new(1),
            loads: AtomicUsize::new(0),
            key: Arc::from("k"),
        })
    }

    /// A minimal `get_or_set`.
    fn read(&self) -> Read {
        let recheck = || self.cell.lock().map_or(Ok(()), Err);
        let mut attempt = Attempt::default();
        loop {
            let follower = match self.table.join(&self.key, &mut attempt, |()| true, recheck) {
                Join::Found(version) => return Read::Found(version),
                Join::Lead(mut lead) | Join::Bypass(mut lead) => {
                    self.loads.fetch_add(1, SeqCst);
                    let version = self.origin.load(SeqCst);
                    let _ = lead.ticket.publish(|| *self.cell.lock() = Some(version));
                    lead.complete(version);
                    return Read::Loaded(version);
                }
                Join::Follow(follower) => follower,
                Join::Wait(waiter) => match block_on(waiter.wait()) {
                    Some(follower) => follower,
                    None => continue,
                },
            };
            let flight = Arc::clone(&follower.flight);
            return Read::Joined(block_on(flight.wait()));
        }
    }

    /// Starts a load at this time that callers can join until the key is deleted.
    fn lead(&self, now: u64) -> Lead {
        let mut attempt = Attempt::default();
        attempt.now = now;
        match self.table.join(&self.key, &mut attempt, |()| true, || Ok::<_, ()>(())) {
            Join::Lead(lead) => lead,
            _ => panic!("the caller leads"),
        }
    }

    /// Starts a load beside one that nobody can join any more.
    fn lead_after_delete(&self) -> Lead {
        self.change_and_delete(1);
        self.lead(0)
    }

    fn change_and_delete(&self, version: usize) {
        self.origin.store(version, SeqCst);
        self.table.invalidate(&self.key, Origin::Local, || *self.cell.lock() = None);
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.table.running(), 0);
        let (mut attempt, recheck) = (Attempt::default(), || Err::<(), _>(()));
        let left = self.table.join(&self.key, &mut attempt, |()| true, recheck);
        assert!(matches!(left, Join::Found(())));
    }
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    run: impl FnOnce(&World) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}

/// For three threads, which have too many interleavings: only those with at most three preemptions.
fn bounded() -> loom::model::Builder {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded
}

#[test]
fn a_value_loaded_before_a_delete_is_never_read_after_it() {
    loom::model(|| {
        let world = World::new();
        let load = spawn(&world, |world| {
            world.read();
        });
        world.change_and_delete(2);
        let after = match world.read() {
            Read::Found(version) | Read::Loaded(version) => version,
            // A flight that can be joined after the delete started after the delete.
            Read::Joined(result) => result.unwrap(),
        };
        assert_eq!(after, 2);
        load.join().unwrap();
        assert_ne!(*world.cell.lock(), Some(1));
        world.assert_nothing_is_left();
    });
}

#[test]
fn callers_at_once_share_one_load_or_find_its_result() {
    loom::model(|| {
        let world = World::new();
        let other = spawn(&world, World::read);
        let mine = world.read();
        let other = other.join().unwrap();
        assert_eq!(world.loads.load(SeqCst), 1, "{mine:?} and {other:?}");
        for read in [mine, other] {
            assert!(
                matches!(read, Read::Found(1) | Read::Loaded(1) | Read::Joined(Some(1))),
                "{read:?}"
            );
        }
        world.assert_nothing_is_left();
    });
}

#[test]
fn a_flight_whose_load_is_dropped_wakes_its_followers() {
    loom::model(|| {
        let world = World::new();
        let lead = world.lead(0);
        let follower = spawn(&world, World::read);
        drop(lead);
        assert!(matches!(follower.join().unwrap(), Read::Joined(None) | Read::Loaded(1)));
        world.assert_nothing_is_left();
    });
}

#[test]
fn a_follower_dropped_while_its_flight_completes_leaves_nothing_behind() {
    bounded().check(|| {
        let world = World::new();
        let lead = world.lead(0);
        let leaving = spawn(&world, |world| {
            let (mut attempt, recheck) = (Attempt::default(), || Err::<(), _>(()));
            let joined = world.table.join(&world.key, &mut attempt, |()| true, recheck);
            if let Join::Follow(follower) = joined {
                let mut wait = std::pin::pin!(Arc::clone(&follower.flight).wait());
                let waker = std::task::Waker::noop();
                let _ = wait.as_mut().poll(&mut std::task::Context::from_waker(waker));
            }
        });
        let staying = spawn(&world, World::read);
        lead.complete(7);
        leaving.join().unwrap();
        assert!(matches!(staying.join().unwrap(), Read::Joined(Some(7)) | Read::Loaded(1)));
        world.assert_nothing_is_left();
    });
}

#[test]
fn of_two_deletes_and_a_load_the_last_change_wins() {
    bounded().check(|| {
        let world = World::new();
        let load = spawn(&world, |world| {
            world.read();
        });
        let delete = spawn(&world, |world| world.change_and_delete(2));
        world.change_and_delete(3);
        load.join().unwrap();
        delete.join().unwrap();
        let last = world.origin.load(SeqCst);
        let cached = *world.cell.lock();
        // The last writer may delete before the other one writes. So the cell may hold either new
        // version, but never the version from before both deletes.
        assert!(cached.is_none_or(|version| version != 1), "{cached:?}, origin {last}");
        world.assert_nothing_is_left();
    });
}

#[test]
fn an_older_load_never_replaces_a_newer_one() {
    loom::model(|| {
        let world = World::new();
        // Too old to be joined, so that both loads run at once.
        let (mut older, mut newer) = (world.lead(0), world.lead(101));
        let publishes = spawn(&world, move |world| {
            let _ = newer.ticket.publish(|| *world.cell.lock() = Some(2));
            newer.complete(2);
        });
        let _ = older.ticket.publish(|| *world.cell.lock() = Some(1));
        older.complete(1);
        publishes.join().unwrap();
        assert_eq!(*world.cell.lock(), Some(2));
        world.assert_nothing_is_left();
    });
}

/// Two loads run that nobody can join: a caller waits until one of them ends.
#[test]
fn a_caller_that_waits_for_the_next_load_is_woken_and_gets_a_new_value() {
    bounded().check(|| {
        let world = World::new();
        let (first, second) = (world.lead(0), world.lead_after_delete());
        world.change_and_delete(2);
        let waits = spawn(&world, World::read);
        first.complete(1);
        assert!(matches!(waits.join().unwrap(), Read::Loaded(2)));
        drop(second);
        world.assert_nothing_is_left();
    });
}

/// Of two callers that wait, one leads, and the other gets its result or finds it.
#[test]
fn callers_that_wait_for_the_next_load_share_it() {
    let mut bounded = bounded();
    bounded.preemption_bound = Some(2);
    bounded.check(|| {
        let world = World::new();
        let (first, second) = (world.lead(0), world.lead_after_delete());
        world.change_and_delete(2);
        let other = spawn(&world, World::read);
        let ends = spawn(&world, move |_| first.complete(1));
        let mine = world.read();
        let other = other.join().unwrap();
        ends.join().unwrap();
        assert_eq!(world.loads.load(SeqCst), 1, "{mine:?} and {other:?}");
        for read in [mine, other] {
            assert!(
                matches!(read, Read::Found(2) | Read::Loaded(2) | Read::Joined(Some(2))),
                "{read:?}"
            );
        }
        drop(second);
        world.assert_nothing_is_left();
    });
}
