//! Reads between whose commands another client changes the keys: Redis executes the commands of a
//! pipeline as they arrive, and a packet may end between any two of them.

use lazy_layers_cache::Publication;

use super::*;
use crate::support::interrupter::Interrupter;

const KEYS: [&str; 3] = ["a", "b", "c"];

/// Another client replaces every value between two commands of a read, whichever two: a value never
/// gets more time than it was written with.
#[tokio::test]
async fn a_value_that_is_replaced_during_a_read_gets_no_more_time_than_its_own() {
    let server = RedisServer::start();
    let direct = store(&server);
    for (old, new) in [(60_000, 900), (900, 60_000)] {
        for with_window in [false, true] {
            for callers in 1..=KEYS.len() {
                let url = server.url();
                let proxy = Interrupter::to(&server, "", move || {
                    let mut redis = redis::Client::open(&*url).unwrap().get_connection().unwrap();
                    for key in KEYS {
                        let mut set = redis::cmd("SET");
                        set.arg(format!("cache:{key}")).arg("new").arg("PX").arg(new);
                        set.exec(&mut redis).unwrap();
                    }
                });
                let url = format!("redis://127.0.0.1:{}/", proxy.port);
                let reader = RedisStore::at(url).build().unwrap();
                assert_eq!(reader.get("other", with_window).await.unwrap(), None, "connected");
                let mut passing = 0;
                loop {
                    for key in KEYS {
                        let lease = direct.acquire_write_lease(key, ms(5_000)).await.unwrap();
                        let (value, ttl, stale_for) = (b"old".to_vec(), ms(old), ms(50_000));
                        let value = Publication::Value { value, ttl, stale_for };
                        assert!(direct.publish(key, &lease.unwrap(), value).await.unwrap());
                    }
                    proxy.interrupt_after(passing);
                    let reads = KEYS.into_iter().take(callers).map(|key| {
                        let reader = reader.clone();
                        async move { reader.get(key, with_window).await.unwrap() }
                    });
                    for found in at_once(&server, reads).await {
                        let StoredValue { value, ttl, .. } = found.expect("there is a value");
                        let written_with = if value == b"old" { old } else { new };
                        assert!(
                            ttl.is_some_and(|ttl| ttl <= ms(written_with)),
                            "{ttl:?} instead of {written_with} ms, window: {with_window}, before \
                             command {passing} of {callers} callers"
                        );
                    }
                    if !proxy.has_interrupted() {
                        break;
                    }
                    passing += 1;
                }
                assert!(passing >= 2 * callers, "{passing} commands of {callers} callers");
            }
        }
    }
}
