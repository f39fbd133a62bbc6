//! NATS core over a cluster of two servers, also while they are cut off from each other.

use lazy_layers_cache::{
    Delivery, MessageStream, NatsConnection, NatsOptions, NatsTransport, Transport,
};
use tokio::time::timeout;

use crate::support::{
    ms,
    nats::NatsServer,
    nats_cluster::NatsCluster,
    transports::{expected, message, next, publish, retry, take},
};

fn transport(server: &NatsServer) -> NatsTransport {
    let connection = NatsConnection::default().servers([server.url()]).confirm_timeout(ms(2_000));
    NatsTransport::new(NatsOptions::default().connection(connection)).unwrap()
}

/// Publishes until a subscriber of the other server receives it.
async fn until_connected(publisher: &dyn Transport, messages: &mut dyn MessageStream) {
    retry(async || {
        publisher.publish(b"connected").await.map_err(|error| error.to_string())?;
        match timeout(ms(200), messages.next()).await {
            Ok(Delivery::Message(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// What a cluster cut in two looks like to its clients: everything works, but messages of the other
/// side are missing. So a probe is no proof against a cut between servers, and beacons are needed.
#[tokio::test]
async fn each_side_of_a_split_cluster_works_and_misses_the_messages_of_the_other() {
    let cluster = NatsCluster::start();
    let (one, other) = (transport(&cluster.one), transport(&cluster.other));
    let mut first = one.subscribe().await.unwrap();
    let mut second = other.subscribe().await.unwrap();
    for disconnected in [false, true] {
        until_connected(&one, &mut *second.messages).await;
        until_connected(&other, &mut *first.messages).await;
        while timeout(ms(300), first.messages.next()).await.is_ok() {}
        while timeout(ms(300), second.messages.next()).await.is_ok() {}
        publish(&one, 0..3).await;
        assert_eq!(take(&mut *second.messages, 3).await, expected(0..3));
        assert_eq!(take(&mut *first.messages, 3).await, expected(0..3));

        if disconnected {
            cluster.disconnect();
        } else {
            cluster.split();
        }
        publish(&one, 3..5).await;
        one.announce(b"beacon").await.unwrap();
        let mut came = take(&mut *first.messages, 3).await;
        came.sort_by_key(|it| *it == Delivery::Message(b"beacon".to_vec()));
        assert_eq!(came[..2], expected(3..5));
        for (number, subscribed) in [(1, &mut first), (2, &mut second)] {
            subscribed.prober.send(number).await.unwrap();
            assert_eq!(next(&mut *subscribed.messages).await, Delivery::Probe(number));
        }
        other.publish(&message(7)).await.unwrap();
        let came = take(&mut *second.messages, 1).await;
        assert_eq!(came, expected(7..8), "nothing of the other side");

        cluster.heal();
    }
    until_connected(&one, &mut *second.messages).await;
}
