//! Memory of a million entries, each container in a process of its own.

use lazy_layers_cache::{L1Options, LazyLayersCache};

use crate::{
    measure::{Value, block_on, in_a_process, key, resident, value},
    peers,
    report::{AtMost, Report},
};

/// The measure of a child process: fills the container that is its argument.
pub(crate) const HOLD: &str = "--hold";
const ENTRIES: usize = 1_000_000;
const CONTENDERS: [&str; 7] =
    ["payload alone", "quick_cache", "lazy-layers", "moka", "amalgam", "foyer", "cached"];

pub(crate) fn run(report: &mut Report) {
    report.title("1,000,000 entries, bytes of memory per entry (key 16 bytes, value 100)");
    let bytes = CONTENDERS.map(|name| in_a_process(HOLD, name)[0]);
    for (name, bytes_per_entry) in CONTENDERS.iter().zip(bytes) {
        let limit = AtMost { limit: 1.15, of: "quick_cache" };
        let limited = *name == "lazy-layers";
        let ratio = bytes_per_entry / bytes[1];
        report.row(name, bytes_per_entry, "bytes", ratio, limited.then_some(&limit));
    }
    report.bars("memory", "bytes");
    report.note(
        "Resident memory of a process of its own, glibc's malloc. quick_cache, moka and foyer keep \
         no time with an entry here; ours, amalgam and cached do.",
    );
    report.end();
}

/// Fills one container. Returns bytes per entry.
pub(crate) fn hold(what: &str) -> Vec<f64> {
    let room = ENTRIES + ENTRIES / 20;
    let (before, held): (f64, Box<dyn std::any::Any>) = match what {
        "payload alone" => {
            let mut payload = Vec::<(String, Value)>::with_capacity(ENTRIES);
            let before = resident();
            payload.extend((0..ENTRIES).map(|number| (key(number), value())));
            (before, Box::new(payload))
        }
        "quick_cache" => {
            let before = resident();
            let quick = quick_cache::sync::Cache::<String, Value>::new(room);
            (0..ENTRIES).for_each(|number| quick.insert(key(number), value()));
            assert_eq!(quick.len(), ENTRIES);
            (before, Box::new(quick))
        }
        "moka" => {
            let before = resident();
            let moka = moka::sync::Cache::<String, Value>::new(room as u64);
            (0..ENTRIES).for_each(|number| moka.insert(key(number), value()));
            moka.run_pending_tasks();
            (before, Box::new(moka))
        }
        "amalgam" => {
            let before = resident();
            let amalgam = peers::amalgam(room);
            block_on(async {
                for number in 0..ENTRIES {
                    amalgam.set(key(number), value()).await.expect("open");
                }
                assert!(amalgam.try_get(key(0)).await.expect("open").is_some());
            });
            (before, Box::new(amalgam))
        }
        "foyer" => {
            let before = resident();
            let foyer = peers::foyer(room);
            (0..ENTRIES).for_each(|number| drop(foyer.insert(key(number), value())));
            (before, Box::new(foyer))
        }
        "cached" => {
            let before = resident();
            let cached = cached::ShardedLruTtlCache::<String, Value>::new(room, peers::AN_HOUR);
            (0..ENTRIES).for_each(|number| drop(cached.set(key(number), value())));
            (before, Box::new(cached))
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let before = resident();
            let ours = LazyLayersCache::<String, [u8; 100]>::builder()
                .l1(L1Options::default().max_entries(room))
                .build()
                .expect("valid options");
            runtime.block_on(async {
                for number in 0..ENTRIES {
                    ours.set(&key(number), value()).await.expect("open");
                }
                assert_eq!(ours.size().await, ENTRIES as u64);
            });
            (before, Box::new(ours))
        }
    };
    let bytes = (resident() - before) / ENTRIES as f64;
    drop(held);
    vec![bytes]
}
