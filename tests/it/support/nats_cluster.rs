//! Two NATS servers that form a cluster, over a network that can be cut between them.

use super::{
    nats::NatsServer,
    process::free_port,
    proxy::{Mode, Proxy},
};

pub(crate) struct NatsCluster {
    pub(crate) one: NatsServer,
    pub(crate) other: NatsServer,
    route: Proxy,
}

impl NatsCluster {
    /// Starts both. They are connected a moment later.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let other = NatsServer::clustered(&format!(
            "server_name: other
            cluster {{ name: it, listen: \"127.0.0.1:{port}\", no_advertise: true }}"
        ));
        let route = Proxy::to(port);
        let one = NatsServer::clustered(&format!(
            "server_name: one
            cluster {{ name: it, listen: \"127.0.0.1:{}\", no_advertise: true
                routes: [\"nats-route://127.0.0.1:{}\"] }}",
            free_port(),
            route.port()
        ));
        Self { one, other, route }
    }

    /// Cuts the servers off from each other, and neither notices: their clients stay connected.
    pub(crate) fn split(&self) {
        self.route.set(Mode::Blackhole);
    }

    /// Breaks the connection between the servers, so that both know.
    pub(crate) fn disconnect(&self) {
        self.route.set(Mode::Refuse);
    }

    /// The servers connect to each other again, a moment later.
    pub(crate) fn heal(&self) {
        self.route.set(Mode::Reset);
        self.route.set(Mode::Pass);
    }
}
