//! Every broker that events go by way of, behind one face: started, failed, and spoken to by
//! transports of one kind.

use lazy_layers_cache::{
    JetStreamOptions, JetStreamTransport, NatsConnection, NatsOptions, NatsTransport,
    RabbitMqOptions, RabbitMqTransport, RedisTransport, Subscribed, Transport, TransportFuture,
};

use super::{ms, nats::NatsServer, rabbitmq::RabbitServer, redis::RedisServer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
    JetStream,
    /// RabbitMQ, with queues that last as long as their subscriptions.
    Passing,
    /// RabbitMQ, with queues that stay.
    Durable,
}

impl Kind {
    /// Whether an event that was published arrives however the broker fails.
    pub(crate) fn keeps(self) -> bool {
        matches!(self, Self::JetStream | Self::Durable)
    }
}

pub(crate) struct Broker {
    pub(crate) kind: Kind,
    pub(crate) server: Server,
}

pub(crate) enum Server {
    Redis(Box<RedisServer>),
    Nats(NatsServer),
    Rabbit(Box<RabbitServer>),
}

/// Calls the server's method of this name, whichever server it is.
macro_rules! server {
    ($server:expr, $method:ident) => {
        match $server {
            Server::Redis(server) => server.$method(),
            Server::Nats(server) => server.$method(),
            Server::Rabbit(server) => server.$method(),
        }
    };
}

impl Broker {
    pub(crate) fn start(kind: Kind) -> Self {
        let server = match kind {
            Kind::Redis => Server::Redis(Box::new(RedisServer::start())),
            Kind::Nats => Server::Nats(NatsServer::start_without_jetstream()),
            Kind::JetStream => Server::Nats(NatsServer::start()),
            Kind::Passing | Kind::Durable => Server::Rabbit(Box::new(RabbitServer::start())),
        };
        Self { kind, server }
    }

    pub(crate) fn port(&self) -> u16 {
        server!(&self.server, port)
    }

    pub(crate) fn kill(&mut self) {
        server!(&mut self.server, kill);
    }

    pub(crate) fn restart(&mut self) {
        server!(&mut self.server, restart);
    }

    pub(crate) fn freeze(&self) {
        server!(&self.server, freeze);
    }

    pub(crate) fn thaw(&self) {
        server!(&self.server, thaw);
    }

    pub(crate) fn rabbit(&self) -> &RabbitServer {
        match &self.server {
            Server::Rabbit(server) => server,
            _ => panic!("not RabbitMQ"),
        }
    }

    pub(crate) fn redis(&self) -> &RedisServer {
        match &self.server {
            Server::Redis(server) => server,
            _ => panic!("not Redis"),
        }
    }

    /// An instance's way to it.
    pub(crate) fn transport(&self, instance: &str) -> Way {
        way(self.kind, self.port(), instance)
    }

    /// The same by way of a proxy at this port.
    pub(crate) fn transport_by(&self, port: u16, instance: &str) -> Way {
        way(self.kind, port, instance)
    }
}

/// A transport of that kind, to loopback at that port.
pub(crate) fn way(kind: Kind, port: u16, instance: &str) -> Way {
    let nats = || NatsConnection::default().servers([format!("nats://127.0.0.1:{port}")]);
    let rabbit = || RabbitMqOptions::new(format!("amqp://guest:guest@127.0.0.1:{port}/%2f"));
    Way(match kind {
        Kind::Redis => {
            Box::new(RedisTransport::at(format!("redis://127.0.0.1:{port}/")).build().unwrap())
        }
        Kind::Nats => {
            let options = NatsOptions::default().connection(nats());
            Box::new(NatsTransport::new(options).unwrap())
        }
        Kind::JetStream => {
            let options = JetStreamOptions::durable(instance).connection(nats());
            Box::new(JetStreamTransport::new(options).unwrap())
        }
        Kind::Passing => Box::new(RabbitMqTransport::new(rabbit()).unwrap()),
        Kind::Durable => {
            let options = rabbit().durable_queue(instance).queue_expires(ms(600_000));
            Box::new(RabbitMqTransport::new(options).unwrap())
        }
    })
}

/// Some transport.
pub(crate) struct Way(pub(crate) Box<dyn Transport>);

impl Transport for Way {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.publish(event)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.0.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.disconnect()
    }
}
