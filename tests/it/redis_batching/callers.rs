//! Callers who go away, stand still, or are more than ever.

use super::*;
use crate::support::proxy::{Mode, Proxy};

#[test]
fn a_runtime_that_stands_still_holds_up_nobody_of_another() {
    let server = RedisServer::start();
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let busy = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (busy, idle) = (busy.unwrap(), one());
    let store = busy.block_on(with_values(&server));
    server.freeze();
    let first = busy.spawn({
        let store = store.clone();
        async move { store.get("0").await.unwrap() }
    });
    idle.block_on(async {
        // Under way once the other is; and from now on nobody polls what it began.
        for _ in 0..50 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(store.get("3").as_mut().poll(&mut context).is_pending());
        }
    });
    server.thaw();
    busy.block_on(async {
        assert_eq!(first.await.unwrap().unwrap().value, expected(0).unwrap());
        let begun = Instant::now();
        for number in 0..MANY {
            let stored = store.get(&number.to_string()).await.unwrap();
            assert_eq!(stored.map(|stored| stored.value), expected(number));
        }
        assert!(begun.elapsed() < ms(5_000), "{:?}", begun.elapsed());
    });
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_leaves_nothing_behind() {
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
                let stored = store.get(&number.to_string()).await.unwrap();
                assert_eq!(stored.map(|stored| stored.value), expected(number));
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
        assert!(tasks() < before + all.len() + 100, "a task for each batch, and no more");
    }
    eventually("all tasks have ended", || tasks() <= before).await;
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_holds_nobody_up() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let mut context = Context::from_waker(Waker::noop());
    // One that asks alone, and some that wait with others.
    let mut asleep: Vec<_> = (0..10).map(|_| store.get("0")).collect();
    for call in &mut asleep {
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    for number in 0..MANY {
        let stored = store.get(&number.to_string()).await.unwrap();
        assert_eq!(stored.map(|stored| stored.value), expected(number));
    }
    for call in asleep {
        assert_eq!(call.await.unwrap().unwrap().value, expected(0).unwrap());
    }
}

#[tokio::test]
async fn those_who_give_up_leave_nothing_behind() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    server.freeze();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { drop(store.get(&number.to_string()).await) });
    }
    eventually("all batches are under way", || tasks() > before + MANY).await;
    all.shutdown().await;
    eventually("their tasks end, though nobody answers", || tasks() <= before).await;
    server.thaw();
    let thawed = Instant::now();
    // The connection may have been given up meanwhile.
    while store.get("0").await.ok().flatten().map(|stored| stored.value) != expected(0) {
        assert!(thawed.elapsed() < ms(10_000), "it is served again");
        tokio::time::sleep(ms(5)).await;
    }
}

#[test]
fn who_waited_for_a_runtime_that_shut_down_asks_again() {
    let server = RedisServer::start();
    let one = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (stays, goes) = (one().unwrap(), one().unwrap());
    let store = stays.block_on(with_values(&server));
    server.freeze();
    // The batch has its task on the runtime that goes, and callers on both.
    for runtime in [&stays, &goes] {
        for number in 0..3 {
            let store = store.clone();
            runtime.spawn(async move { drop(store.get(&number.to_string()).await) });
            std::thread::yield_now();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..30 {
        let (store, sender) = (store.clone(), sender.clone());
        stays.spawn(async move {
            let stored = store.get(&number.to_string()).await.unwrap();
            sender.send((number, stored.map(|stored| stored.value))).unwrap();
        });
    }
    goes.shutdown_background();
    server.thaw();
    for _ in 0..30 {
        let (number, value) = receiver.recv_timeout(ms(10_000)).expect("an answer");
        assert_eq!(value, expected(number));
    }
}

#[tokio::test]
async fn some_who_give_up_take_nobody_along() {
    let server = RedisServer::start();
    let store = store(&server);
    // The server knows the script.
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
    eventually("all batches are under way", || tasks() > before + MANY).await;
    // The one that asked alone too, and the first of a batch.
    let stays = |number: usize| number % 3 == 2;
    for (_, call) in calls.iter().enumerate().filter(|(number, _)| !stays(*number)) {
        call.abort();
    }
    server.thaw();
    for (number, call) in calls.iter_mut().enumerate() {
        match call.await {
            Ok(published) => assert!(published.unwrap(), "{number}"),
            Err(error) => assert!(error.is_cancelled() && !stays(number), "{error}"),
        }
    }
    eventually("nothing is left behind", || tasks() <= before).await;
}

#[tokio::test]
async fn a_connection_that_breaks_under_many_leaves_each_in_doubt_and_none_without_an_answer() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let store = RedisStore::at(format!("redis://127.0.0.1:{}", proxy.port())).build().unwrap();
    // The server knows the script.
    write(&store, "one", vec![1]).await;
    store.delete("one").await.unwrap();
    // And the connection is so old that it is made anew at once.
    tokio::time::pause();
    tokio::time::advance(ms(6_000)).await;
    tokio::time::resume();
    // As many as go out while nothing is back.
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
    eventually("all are published, and nobody hears of it", published).await;
    proxy.set(Mode::Reset);
    proxy.set(Mode::Pass);
    for told in calls.join_all().await {
        let error = told.unwrap_err().to_string();
        assert!(error.contains("not known"), "{error}");
    }
    for number in 0..count {
        let stored = store.get(&number.to_string()).await.unwrap();
        assert_eq!(stored.map(|stored| stored.value), Some(vec![number as u8]), "{number}");
    }
}
