//! `tandem.queue.*`: how queues fare.

use tandem_protocols::wamp::dict::{Dict, Value};

use crate::wamp::fault::Fault;
use crate::wamp::meta::MetaApi;
use crate::wamp::meta::listing::worst_wanted;
use crate::wamp::meta::request::Request;

impl MetaApi {
    pub(super) fn list_queues(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let deepest = self.realm().queues().deepest(worst_wanted(request)?);
        let list = deepest.into_iter().map(|(name, census)| {
            let dict = Dict::new()
                .with("queue", name.as_str())
                .with("messages", census.messages as u64)
                .with("bytes", census.bytes as u64)
                .with("unacknowledged", census.unacknowledged as u64)
                .with("delayed", census.delayed as u64)
                .with("consumers", census.consumers as u64)
                .with("enqueued", census.enqueued);
            Value::Dict(dict)
        });
        Ok(Some(Value::List(list.collect())))
    }
}
