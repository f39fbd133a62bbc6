//! Callers that give up, that are not polled, and that are very many.

use super::*;
use crate::support::proxy::{Mode, Proxy};

#[test]
fn a_blocked_runtime_does_not_delay_callers_on_another() {
    let server = RedisServer::start();
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let busy = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (busy, idle) = (busy.unwrap(), one());
    let store = busy.block_on(with_values(&server));
    server.freeze();
    let first = busy.spawn({
        let store = store.clone();
        async move { store.get("0", false).await.unwrap() }
    });
    idle.block_on(async {
        // Queued behind the first, and never polled again.
        for _ in 0..50 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(store.get("3", false).as_mut().poll(&mut context).is_pending());
        }
    });
    server.thaw();
    busy.block_on(async {
        assert_eq!(first.await.unwrap().unwrap().value, expected(0).unwrap());
        let begun = Instant::now();
        for number in 0..MANY {
            let stored = store.get(&number.to_string(), false).await.unwrap();
            assert_eq!(stored.map(|stored| stored.value), expected(number));
        }
        assert!(begun.elapsed() < ms(5_000), "{:?}", begun.elapsed());
    });
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_many_callers_end() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut all = JoinSet::new();
    for number in 0..1_000 {
        let store = store.clone();
        all.spawn(async move {
            for step in 0..30 {
                let number = (number + step) % MANY;
                let stored = store.get(&number.to_string(), false).await.unwrap();
                assert_eq!(stored.map(|stored| stored.value), expected(number));
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
        assert!(tasks() < before + all.len() + 100, "at most one task per batch");
    }
    eventually("all tasks end", || tasks() <= before).await;
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_delays_no_other() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let mut context = Context::from_waker(Waker::noop());
    // The first sends its request directly, the others are queued for a batch.
    let mut asleep: Vec<_> = (0..10).map(|_| store.get("0", false)).collect();
    for call in &mut asleep {
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    for number in 0..MANY {
        let stored = store.get(&number.to_string(), false).await.unwrap();
        assert_eq!(stored.map(|stored| stored.value), expected(number));
    }
    for call in asleep {
        assert_eq!(call.await.unwrap().unwrap().value, expected(0).unwrap());
    }
}

#[tokio::test]
async fn callers_that_give_up_leave_no_tasks() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    server.freeze();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { drop(store.get(&number.to_string(), false).await) });
    }
    eventually("all batches are in flight", || tasks() > before + MANY).await;
    all.shutdown().await;
    eventually("the tasks end without a reply", || tasks() <= before).await;
    server.thaw();
    let thawed = Instant::now();
    // The supervisor may have closed the connection meanwhile.
    while store.get("0", false).await.ok().flatten().map(|stored| stored.value) != expected(0) {
        assert!(thawed.elapsed() < ms(10_000), "the value is not served again");
        tokio::time::sleep(ms(5)).await;
    }
}

#[test]
fn a_caller_whose_batch_ran_on_a_runtime_that_shut_down_sends_its_request_itself() {
    let server = RedisServer::start();
    let one = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (kept, shut_down) = (one().unwrap(), one().unwrap());
    let store = kept.block_on(with_values(&server));
    server.freeze();
    // Callers on both runtimes join a batch, and one of the runtimes shuts down.
    for runtime in [&kept, &shut_down] {
        for number in 0..3 {
            let store = store.clone();
            runtime.spawn(async move { drop(store.get(&number.to_string(), false).await) });
            std::thread::yield_now();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..30 {
        let (store, sender) = (store.clone(), sender.clone());
        kept.spawn(async move {
            let stored = store.get(&number.to_string(), false).await.unwrap();
            sender.send((number, stored.map(|stored| stored.value))).unwrap();
        });
    }
    shut_down.shutdown_background();
    server.thaw();
    for _ in 0..30 {
        let (number, value) = receiver.recv_timeout(ms(10_000)).expect("an answer");
        assert_eq!(value, expected(number));
    }
}

#[tokio::test]
async fn callers_that_give_up_cancel_no_other() {
    let server = RedisServer::start();
    let store = store(&server);
    // Redis knows the script from here on.
    write(&store, "one", vec![1]).await;
    let leases = with_leases(&store).await.into_iter().enumerate();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    server.freeze();
    let mut calls: Vec<_> = leases
        .map(|(number, lease)| {
            tokio::spawn(publishes(&store, number.to_string(), lease, vec![number as u8]))
        })
        .collect();
    eventually("all batches are in flight", || tasks() > before + MANY).await;
    // Among them the direct request, and the first one of a batch.
    let is_kept = |number: usize| number % 3 == 2;
    for (_, call) in calls.iter().enumerate().filter(|(number, _)| !is_kept(*number)) {
        call.abort();
    }
    server.thaw();
    for (number, call) in calls.iter_mut().enumerate() {
        match call.await {
            Ok(published) => assert!(published.unwrap(), "{number}"),
            Err(error) => assert!(error.is_cancelled() && !is_kept(number), "{error}"),
        }
    }
    eventually("all tasks end", || tasks() <= before).await;
}

#[tokio::test]
async fn a_connection_that_breaks_during_a_batch_leaves_each_caller_with_an_unknown_outcome() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let store = RedisStore::at(format!("redis://127.0.0.1:{}", proxy.port())).build().unwrap();
    // Redis knows the script from here on.
    write(&store, "one", vec![1]).await;
    store.delete("one").await.unwrap();
    // A connection that has lived for 6 s is replaced at once when it breaks.
    tokio::time::pause();
    tokio::time::advance(ms(6_000)).await;
    tokio::time::resume();
    // Not more than are sent before the first reply.
    let count = 100;
    let leases = with_leases(&store).await.into_iter().take(count).enumerate();
    proxy.set(Mode::LoseReplies);
    let mut calls = JoinSet::new();
    for (number, lease) in leases {
        calls.spawn(publishes(&store, number.to_string(), lease, vec![number as u8]));
    }
    let published = || {
        let mut size = redis::cmd("ZCARD");
        let size: usize = size.arg("cache:__index").query(&mut server.connect()).unwrap();
        size == count
    };
    eventually("all values are published and all replies are lost", published).await;
    proxy.set(Mode::Reset);
    proxy.set(Mode::Pass);
    for published in calls.join_all().await {
        let error = published.unwrap_err().to_string();
        assert!(error.contains("not known"), "{error}");
    }
    for number in 0..count {
        let stored = store.get(&number.to_string(), false).await.unwrap();
        assert_eq!(stored.map(|stored| stored.value), Some(vec![number as u8]), "{number}");
    }
}
