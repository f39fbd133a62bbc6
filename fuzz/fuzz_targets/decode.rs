//! Random payloads: no panic, no stack overflow, bounded memory; and a decoded value is the same
//! after it was encoded and decoded again.
//!
//!     cargo +nightly fuzz run decode -- -rss_limit_mb=512

#![no_main]

use lazy_layers_cache::{Codec, WireCodec};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let codec = WireCodec::new();
    let Ok(value) = Codec::<Value>::decode(&codec, bytes) else { return };
    let again = codec.encode(&value).expect("what was read can be written");
    let read: Value = codec.decode(&again).expect("and read again");
    assert_eq!(read, value);
});
