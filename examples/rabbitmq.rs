//! Two instances of one cache over RabbitMQ: a delete in one instance reaches the other one.
//!
//!     docker run --rm -p 5672:5672 rabbitmq
//!     cargo run --example rabbitmq
//!
//! `AMQP_URL` names another broker than `amqp://guest:guest@localhost:5672/%2f`.

use std::{env, error::Error, io, process::ExitCode, time::Duration};

use lazy_layers_cache::{EventBus, LazyLayersCache, RabbitMqOptions, RabbitMqTransport, WireCodec};
use tokio::time::{Instant, sleep, timeout};

type Users = LazyLayersCache<u64, String>;

const LOCAL: &str = "amqp://guest:guest@localhost:5672/%2f";
const NO_BROKER: &str = "start a broker with `rabbitmq-server` or \
                         `docker run --rm -p 5672:5672 rabbitmq`, or set AMQP_URL";

#[tokio::main]
async fn main() -> ExitCode {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| LOCAL.to_owned());
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// An instance: in a service, each process has one. Its queue has a name of its own, and keeps the
/// messages while the instance is disconnected, here for at most a minute.
async fn instance(url: &str, id: &str) -> Result<Users, Box<dyn Error>> {
    let options = RabbitMqOptions::new(url)
        .durable_queue(format!("example-{}-{id}", std::process::id()))
        .queue_expires(Duration::from_secs(60))
        .exchange("example.invalidations");
    let bus = EventBus::new(RabbitMqTransport::new(options)?);
    // A cache does not need this call: it connects in the background. Here it reports a missing
    // broker at once.
    let connected = bus.connect().await;
    connected.map_err(|error| format!("no RabbitMQ answers ({error}): {NO_BROKER}"))?;
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
        "two: user 7 was deleted here too, over RabbitMQ, {:.1?} after the call",
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
