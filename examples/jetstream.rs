//! Two instances of one cache over NATS JetStream: a delete in one instance reaches the other one.
//!
//!     nats-server -js
//!     cargo run --example jetstream
//!
//! `NATS_URL` names another server than `nats://localhost:4222`.

use std::{env, error::Error, io, process::ExitCode, time::Duration};

use lazy_layers_cache::{
    EventBus, JetStreamOptions, JetStreamStorage, JetStreamTransport, LazyLayersCache,
    NatsConnection, WireCodec,
};
use tokio::time::{Instant, sleep, timeout};

type Users = LazyLayersCache<u64, String>;

const NO_SERVER: &str = "start a server with `nats-server -js` or \
                         `docker run --rm -p 4222:4222 nats -js`, or set NATS_URL";

#[tokio::main]
async fn main() -> ExitCode {
    let url = env::var("NATS_URL").unwrap_or_else(|_| "nats://localhost:4222".to_owned());
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// An instance: in a service, each process has one. Its consumer has a name of its own, by which
/// the server remembers how far the instance has read the stream.
async fn instance(url: &str, id: &str) -> Result<Users, Box<dyn Error>> {
    let options = JetStreamOptions::durable(format!("example-{}-{id}", std::process::id()))
        .connection(NatsConnection::default().servers([url]))
        .subject("example.invalidations")
        .stream("EXAMPLE_INVALIDATIONS")
        .storage(JetStreamStorage::Memory)
        .max_age(Duration::from_secs(3_600))
        .inactive_threshold(Duration::from_secs(60));
    let bus = EventBus::new(JetStreamTransport::new(options)?);
    // A cache does not need this call: it connects in the background. Here it reports a missing
    // server at once.
    let connected = bus.connect().await;
    connected.map_err(|error| format!("no JetStream server answers ({error}): {NO_SERVER}"))?;
    let users = Users::builder()
        .name("users")
        .instance_id(id)
        .ttl(Duration::from_secs(60))
        .event_bus(bus, WireCodec::new())
        .build()?;
    users.ready().await?;
    Ok(users)
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let (one, two) = (instance(url, "one").await?, instance(url, "two").await?);
    println!("instances one and two are subscribed");

    for users in [&one, &two] {
        users.get_or_set(&7, || async { Ok::<_, io::Error>("Ada".to_owned()) }).await?;
    }
    println!("both have loaded user 7 from the database: {:?}", two.get_l1(&7));

    println!("one: the database now says Grace, so one deletes user 7 from the cache");
    let begun = Instant::now();
    one.delete(&7).await?;
    wait_until(|| two.get_l1(&7).is_none()).await?;
    println!(
        "two: user 7 was deleted here too, over JetStream, {:.1?} after the call",
        begun.elapsed()
    );

    let grace = two.get_or_set(&7, || async { Ok::<_, io::Error>("Grace".to_owned()) }).await?;
    println!("two: loaded user 7 from the database: {grace}");
    one.close().await;
    two.close().await;
    Ok(())
}

/// Waits for a message of the other instance.
async fn wait_until(condition: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    let poll = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), poll).await.map_err(|_| "no message came within 10 s".into())
}
