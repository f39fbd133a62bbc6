//! The writes that many callers make at once: the publication of what was loaded, and the delete.

use redis::{Cmd, RedisResult, Value};

use super::{
    Inner,
    batch::{Ask, Together},
    context::StoreContext,
};
use crate::adapters::redis::connection::Request;

pub(crate) struct Publication {
    /// The names of the value and of its epoch.
    pub(crate) name: String,
    pub(crate) epoch: String,
    pub(crate) token: String,
    pub(crate) value: Vec<u8>,
    /// Milliseconds.
    pub(crate) lives: u64,
}

impl Ask for Publication {
    /// Whether it was published, or an error; and whether that was the second time that it was
    /// asked, so that the first may have used the lease up.
    type Answer = (Value, bool);

    fn request<'a>(all: &[&Self], context: &'a StoreContext, _: bool) -> Request<'a> {
        let script = &context.scripts.publish;
        let names = all.iter().map(|it| (&*it.name, &*it.epoch));
        let bytes = all.iter().map(|it| it.value.len() + it.token.len() + 24).sum();
        let mut call = script.call(names, context.index_keys(), bytes);
        call.arg(all.len()).arg(context.options.max_entries.unwrap_or(0));
        for Self { token, value, lives, .. } in all {
            call.arg(token).arg(&**value).arg(lives);
        }
        Request::Script(script, call)
    }

    fn answers(
        said: Vec<Value>,
        _: usize,
        is_second: bool,
    ) -> RedisResult<impl Iterator<Item = Self::Answer>> {
        Ok(said.into_iter().map(move |it| (it, is_second)))
    }

    fn weight(&self) -> usize {
        self.value.len()
    }

    fn queue(inner: &Inner) -> &Together<Self> {
        &inner.publications
    }
}

pub(crate) struct Removal {
    /// The names of the value and of its epoch.
    pub(crate) name: String,
    pub(crate) epoch: String,
}

impl Ask for Removal {
    type Answer = Value;

    fn request<'a>(all: &[&Self], context: &'a StoreContext, _: bool) -> Request<'a> {
        let names = all.iter().map(|it| (&*it.name, &*it.epoch));
        let command = context.options.delete_strategy.command();
        if let Some(sets) = context.index_keys() {
            let script = &context.scripts.delete;
            let mut call = script.call(names, Some(sets), 16);
            call.arg(all.len()).arg(command);
            return Request::Script(script, call);
        }
        let mut remove = Cmd::new();
        remove.arg(command);
        for (name, epoch) in names {
            remove.arg(name).arg(epoch);
        }
        Request::Command(remove)
    }

    fn answers(
        said: Vec<Value>,
        _: usize,
        _: bool,
    ) -> RedisResult<impl Iterator<Item = Self::Answer>> {
        Ok(said.into_iter())
    }

    fn queue(inner: &Inner) -> &Together<Self> {
        &inner.removals
    }
}
