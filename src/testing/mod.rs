//! Tools for tests of this crate and of its users: clocks that a test can advance; an L2 store and
//! a bus in memory, with faults on demand; an L2 store that fails at random, and one that forwards
//! to another; and checks of the contracts of a
//! [`Store`](crate::Store) and of a [`Transport`](crate::Transport).

mod bus;
mod bus_state;
mod bus_transport;
mod chaos;
mod clock;
mod conformance;
mod forward;
mod store;
mod store_contract;
mod store_state;
mod transport_conformance;

pub use self::{
    bus::{BusLink, SharedBus},
    bus_state::BusFaults,
    chaos::{Chaos, ChaosStore},
    clock::{ManualClock, TickReader, TokioClock},
    conformance::check_store,
    forward::ForwardStore,
    store::{SharedStore, StoreSnapshot},
    store_state::StoreFault,
    transport_conformance::check_transport,
};
