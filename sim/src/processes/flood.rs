//! A flood: a thread of this process publishes documents of 1 MB on the channel of the fleet, as an
//! instance of the TypeScript package may. No caller reads their key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
};

use lazy_layers_cache::Transport;
use tokio::{runtime::Builder, time::sleep};

use super::servers::{
    broker::{Kind, transport_of},
    ms,
};

/// The pause between two documents. An instance with a processor of its own keeps up with them; an
/// instance with a fifth of a processor does not.
const PAUSE: u64 = 5;
/// The numbers in a document, of eight bytes each: NATS takes no message above 1 MiB.
const NUMBERS: usize = 120_000;

pub(super) struct Flood {
    is_running: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Flood {
    pub(super) fn start(kind: Kind, port: u16, cache: &str) -> Self {
        let is_running = Arc::new(AtomicBool::new(true));
        let (running, message) = (Arc::clone(&is_running), message(cache));
        let thread = spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(publish(kind, port, message, &running))
        });
        Self { is_running, thread }
    }

    /// Ends the flood. Returns the number of its documents.
    pub(super) fn end(self) -> u64 {
        self.is_running.store(false, Ordering::Relaxed);
        self.thread.join().expect("it only publishes")
    }
}

async fn publish(kind: Kind, port: u16, mut message: Vec<u8>, is_running: &AtomicBool) -> u64 {
    let transport = transport_of(kind, port, "flood");
    let mut published = 0;
    for number in 0u64.. {
        if !is_running.load(Ordering::Relaxed) {
            break;
        }
        let digits = format!("{number:0DIGITS$}");
        message[PREFIX.len()..PREFIX.len() + DIGITS].copy_from_slice(digits.as_bytes());
        published += u64::from(transport.publish(&message).await.is_ok());
        sleep(ms(PAUSE)).await;
    }
    // A broker may have refused a document; the history is no less valid.
    let _ = transport.disconnect().await;
    published
}

/// The beginning of a message, before the digits of its id.
const PREFIX: &str = r#"HC1J{"id":""#;
const DIGITS: usize = 16;

fn message(cache: &str) -> Vec<u8> {
    let document = vec!["1234567"; NUMBERS].join(",");
    let id = "0".repeat(DIGITS);
    let fields = [
        format!(r#"{PREFIX}{id}","type":"set","source":"flood","ts":0"#),
        format!(r#""namespace":"{cache}","keys":["flood"],"ttlMs":60000,"value":[{document}]}}"#),
    ];
    fields.join(",").into_bytes()
}
