//! All brokers behind one interface: start, fail, and connect a transport.

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
    /// RabbitMQ with transient queues.
    Transient,
    /// RabbitMQ with durable queues.
    Durable,
}

impl Kind {
    /// Whether a published message arrives whatever fault the broker has.
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

/// Calls the method of this name on any of the servers.
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
            Kind::Transient | Kind::Durable => Server::Rabbit(Box::new(RabbitServer::start())),
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

    /// Creates the transport of an instance.
    pub(crate) fn transport(&self, instance: &str) -> BrokerTransport {
        transport_of(self.kind, self.port(), instance)
    }

    /// Creates the transport of an instance through the proxy on this port.
    pub(crate) fn transport_by(&self, port: u16, instance: &str) -> BrokerTransport {
        transport_of(self.kind, port, instance)
    }
}

/// Creates a transport of this kind to this port of loopback.
pub(crate) fn transport_of(kind: Kind, port: u16, instance: &str) -> BrokerTransport {
    let nats = || NatsConnection::default().servers([format!("nats://127.0.0.1:{port}")]);
    let rabbit = || RabbitMqOptions::new(format!("amqp://guest:guest@127.0.0.1:{port}/%2f"));
    BrokerTransport(match kind {
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
        Kind::Transient => Box::new(RabbitMqTransport::new(rabbit()).unwrap()),
        Kind::Durable => {
            let options = rabbit().durable_queue(instance).queue_expires(ms(600_000));
            Box::new(RabbitMqTransport::new(options).unwrap())
        }
    })
}

/// A transport of any kind.
pub(crate) struct BrokerTransport(pub(crate) Box<dyn Transport>);

impl Transport for BrokerTransport {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.announce(beacon)
    }

    fn on_used_by(&self, cache: &str) {
        self.0.on_used_by(cache);
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
