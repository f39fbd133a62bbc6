//! The two ways to read a value: without the intention to load it, and with it.

use redis::{Cmd, Value};

use super::{
    Inner, Parts,
    connection::Request,
    lifetime,
    together::{Ask, MOST_BYTES, Together},
    token,
};
use crate::l2::store::Begin;

/// What remains of a value that is longer than allowed, and not sent.
const TOO_LONG: i64 = -3;

/// Small values are read so many by one command. Where that is wrong, as of small values one can be
/// on the next, so many whole ones are in the server's memory at once.
const AT_ONCE: usize = 8;

pub(super) struct Get {
    /// Of the value.
    pub(super) name: String,
}

impl Ask for Get {
    /// The value, and how long it remains.
    type Answer = (Value, Value);

    fn request<'a>(all: &[&Self], parts: &'a Parts, are_small: bool) -> Request<'a> {
        // One byte more than is allowed shows that it is too long. Where values are small, the
        // plain command is quicker, and one that is long all the same is read whole.
        let most = parts.options.max_payload_bytes;
        let mut reads = redis::Pipeline::with_capacity(2 * all.len());
        for Self { name } in all {
            // With room for their arguments: else that is most of what it takes to make them.
            let mut value = Cmd::with_capacity(4, name.len() + 32);
            if are_small {
                value.arg("GET").arg(name);
            } else {
                value.arg("GETRANGE").arg(name).arg(0).arg(most);
            }
            let mut remaining = Cmd::with_capacity(2, name.len() + 8);
            remaining.arg("PTTL").arg(name);
            reads.add_command(value).add_command(remaining);
        }
        Request::Pipeline(reads)
    }

    fn next(answers: &mut impl Iterator<Item = Value>, _: bool) -> Option<Self::Answer> {
        Some((answers.next()?, answers.next()?))
    }

    fn bytes((value, _): &Self::Answer) -> usize {
        bytes(value)
    }

    fn queue(inner: &Inner) -> &Together<Self> {
        &inner.gets
    }
}

pub(super) struct Beginning {
    /// The names of the value and of its epoch.
    pub(super) value: String,
    pub(super) epoch: String,
    pub(super) begin: Begin,
}

impl Ask for Beginning {
    /// The value, how long it remains, and the token; nothing for that where the value is fresh.
    type Answer = (Value, Value, Value);

    fn request<'a>(all: &[&Self], parts: &'a Parts, are_small: bool) -> Request<'a> {
        let script = &parts.scripts.begin;
        let names = all.iter().map(|it| (&*it.value, &*it.epoch));
        let mut call = script.call(names, parts.sets(), 128);
        // Keys differ, so what is planted for them may be the same.
        call.arg(token()).arg(parts.options.max_payload_bytes).arg(MOST_BYTES).arg(all.len());
        call.arg(if are_small { AT_ONCE } else { 1 });
        let first = all.first().map(|it| it.begin);
        let differ = all.iter().any(|it| Some(it.begin) != first);
        for Self { begin, .. } in all.iter().take(if differ { all.len() } else { 1 }) {
            call.arg(lifetime(begin.lease_for)).arg(lifetime(begin.stale_for));
            call.arg(u8::from(begin.refresh));
        }
        Request::Script(script, call)
    }

    fn next(answers: &mut impl Iterator<Item = Value>, _: bool) -> Option<Self::Answer> {
        Some((answers.next()?, answers.next()?, answers.next()?))
    }

    fn is_unasked((_, remaining, _): &Self::Answer) -> bool {
        *remaining == Value::Nil
    }

    fn bytes((value, remaining, _): &Self::Answer) -> usize {
        if *remaining == Value::Int(TOO_LONG) { MOST_BYTES } else { bytes(value) }
    }

    fn queue(inner: &Inner) -> &Together<Self> {
        &inner.beginnings
    }
}

fn bytes(value: &Value) -> usize {
    if let Value::BulkString(bytes) = value { bytes.len() } else { 0 }
}
