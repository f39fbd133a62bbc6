//! The two ways to read a value: without the intention to load it, and with it.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::{
    Inner,
    batch::{Ask, MOST_BYTES, Together},
    context::StoreContext,
    lifetime, token,
};
use crate::adapters::redis::connection::Request;
use crate::l2::store::{LeaseRequest, StoredValue};

/// What remains of a value that is longer than allowed, and not sent.
const TOO_LONG: i64 = -3;

/// Small values are read so many by one command. Where that is wrong, as of small values one can be
/// on the next, so many whole ones are in the server's memory at once.
const AT_ONCE: usize = 8;

pub(crate) struct Get {
    /// Of the value.
    pub(crate) name: String,
}

impl Ask for Get {
    /// The value, and how long it remains.
    type Answer = (Value, Value);

    /// How long they remain comes first: where a value is replaced between the two commands, the new
    /// one is taken for as old as the one before, and not the old one for fresh.
    fn request<'a>(all: &[&Self], context: &'a StoreContext, are_small: bool) -> Request<'a> {
        let mut reads = redis::Pipeline::with_capacity(2 * all.len());
        // With room for their arguments: else that is most of what it takes to make them.
        for Self { name } in all {
            let mut remaining = Cmd::with_capacity(2, name.len() + 8);
            remaining.arg("PTTL").arg(name);
            reads.add_command(remaining);
        }
        // One that is long all the same is read whole.
        if are_small && all.len() > 1 {
            let bytes: usize = all.iter().map(|it| it.name.len()).sum();
            let mut values = Cmd::with_capacity(1 + all.len(), bytes + 4);
            values.arg("MGET");
            for Self { name } in all {
                values.arg(name);
            }
            reads.add_command(values);
        } else {
            // One byte more than is allowed shows that it is too long.
            let most = context.options.max_payload_bytes;
            for Self { name } in all {
                let mut value = Cmd::with_capacity(4, name.len() + 32);
                value.arg("GETRANGE").arg(name).arg(0).arg(most);
                reads.add_command(value);
            }
        }
        Request::Pipeline(reads)
    }

    fn answers(
        mut said: Vec<Value>,
        count: usize,
        _: bool,
    ) -> RedisResult<impl Iterator<Item = Self::Answer>> {
        let mut values = said.split_off(count.min(said.len()));
        // One command, for all of them.
        if values.len() < count
            && let Some(all) = values.pop()
        {
            match all {
                Value::Array(all) => values = all,
                other => drop(other.extract_error()?),
            }
        }
        Ok(values.into_iter().zip(said))
    }

    fn bytes((value, _): &Self::Answer) -> usize {
        bytes(value)
    }

    fn queue(inner: &Inner) -> &Together<Self> {
        &inner.gets
    }
}

pub(crate) struct Beginning {
    /// The names of the value and of its epoch.
    pub(crate) value: String,
    pub(crate) epoch: String,
    pub(crate) begin: LeaseRequest,
}

impl Ask for Beginning {
    /// The value, how long it remains, and the token; nothing for that where the value is fresh.
    type Answer = (Value, Value, Value);

    fn request<'a>(all: &[&Self], context: &'a StoreContext, are_small: bool) -> Request<'a> {
        let script = &context.scripts.begin;
        let names = all.iter().map(|it| (&*it.value, &*it.epoch));
        let mut call = script.call(names, context.index_keys(), 128);
        // Keys differ, so what is planted for them may be the same.
        call.arg(token()).arg(context.options.max_payload_bytes).arg(MOST_BYTES).arg(all.len());
        call.arg(if are_small { AT_ONCE } else { 1 });
        let first = all.first().map(|it| it.begin);
        let differ = all.iter().any(|it| Some(it.begin) != first);
        for Self { begin, .. } in all.iter().take(if differ { all.len() } else { 1 }) {
            call.arg(lifetime(begin.lease_for)).arg(lifetime(begin.stale_for));
            call.arg(u8::from(begin.refresh));
        }
        Request::Script(script, call)
    }

    fn answers(
        said: Vec<Value>,
        _: usize,
        _: bool,
    ) -> RedisResult<impl Iterator<Item = Self::Answer>> {
        let mut said = said.into_iter();
        Ok(std::iter::from_fn(move || Some((said.next()?, said.next()?, said.next()?))))
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

pub(crate) fn stored(value: Vec<u8>, remaining: i64) -> Option<StoredValue> {
    let remaining = match u64::try_from(remaining) {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) if remaining == NO_END => None,
        // It was not there, and is now: nobody asked how long it stays.
        Err(_) => return None,
    };
    Some(StoredValue { value, ttl: remaining })
}

/// What a server says remains of a value that has no end.
const NO_END: i64 = -1;

fn bytes(value: &Value) -> usize {
    if let Value::BulkString(bytes) = value { bytes.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use redis::Pipeline;

    use super::*;

    fn of(names: &[&str], are_small: bool) -> Pipeline {
        let store = crate::RedisStore::at("redis://127.0.0.1/").build().unwrap();
        let gets: Vec<_> = names.iter().map(|name| Get { name: (*name).to_owned() }).collect();
        let gets: Vec<_> = gets.iter().collect();
        match Get::request(&gets, &store.0.context, are_small) {
            Request::Pipeline(reads) => reads,
            _ => panic!("no pipeline"),
        }
    }

    #[test]
    fn what_is_replaced_meanwhile_is_taken_for_older_than_it_is() {
        for (are_small, expected) in [
            (true, "PTTL a PTTL b MGET a b"),
            (false, "PTTL a PTTL b GETRANGE a 0 33554432 GETRANGE b 0 33554432"),
        ] {
            let mut words = Vec::new();
            for command in of(&["a", "b"], are_small).cmd_iter() {
                words.extend(command.args_iter().map(|arg| match arg {
                    redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).unwrap(),
                    _ => panic!("no word"),
                }));
            }
            assert_eq!(words.join(" "), expected);
        }
    }

    #[test]
    fn what_came_after_it_was_asked_how_long_it_stays_is_missing() {
        for (remaining, expected) in [
            (1_000, Some(Some(Duration::from_secs(1)))),
            (0, Some(Some(Duration::ZERO))),
            (-1, Some(None)),
            (-2, None),
        ] {
            let stored = stored(vec![1], remaining);
            assert_eq!(stored.map(|it| it.ttl), expected, "{remaining}");
        }
    }

    #[test]
    fn fewer_answers_than_were_asked_for_are_no_answers_to_others() {
        let (one, x) = (Value::Int(1), Value::BulkString(b"x".to_vec()));
        for said in [vec![], vec![one.clone()], vec![one.clone(), one.clone()]] {
            assert_eq!(Get::answers(said, 2, false).unwrap().count(), 0);
        }
        let said = vec![one.clone(), one.clone(), Value::Array(vec![x.clone()])];
        let answers: Vec<_> = Get::answers(said, 2, false).unwrap().collect();
        assert_eq!(answers, [(x, one)]);
    }
}
