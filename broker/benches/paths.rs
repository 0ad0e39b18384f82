//! What a message costs on its way through the broker: from the bytes that one peer sent to those that another gets,
//! through pump, session, house, session and pump, over WebSocket with a wire in memory. There is no kernel in it.
//!
//! `cargo bench -p tandem-broker --bench paths` prints it for each way. What is counted is said by its name: `delivery`,
//! or else messages.
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use tandem_protocols::payload::Format;

use self::support::harness::{self, Meter, Step};
use self::support::house::Speaks;
use self::support::ways::Way;

mod support {
    pub mod harness;
    pub mod house;
    pub mod ways;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let wamp = Speaks::Wamp;
    harness::run(&[
        events("event json", Format::Json, &[wamp(Format::Json)]),
        events("event msgpack", Format::MsgPack, &[wamp(Format::MsgPack)]),
        events("event cbor", Format::Cbor, &[wamp(Format::Cbor)]),
        events("event json to msgpack", Format::Json, &[wamp(Format::MsgPack)]),
        events("event json to stomp", Format::Json, &[Speaks::Stomp]),
        events("event json to 10, delivery", Format::Json, &[wamp(Format::Json); 10]),
        events("event json to 100, delivery", Format::Json, &[wamp(Format::Json); 100]),
        events("event msgpack to 100, delivery", Format::MsgPack, &[wamp(Format::MsgPack); 100]),
        messages("message stomp", &[Speaks::Stomp]),
        messages("message stomp to 10, delivery", &[Speaks::Stomp; 10]),
        messages("message stomp to 100, delivery", &[Speaks::Stomp; 100]),
        messages("message stomp to json", &[wamp(Format::Json)]),
        way("call json", 1, || Way::calls(Format::Json)),
        way("call msgpack", 1, || Way::calls(Format::MsgPack)),
        way("queue stomp, acknowledged", 1, Way::queue),
    ]);
}

fn events(name: &str, format: Format, receivers: &[Speaks]) -> Step {
    let receivers = receivers.to_vec();
    way(name, receivers.len(), move || Way::events(format, &receivers))
}

fn messages(name: &str, receivers: &[Speaks]) -> Step {
    let receivers = receivers.to_vec();
    way(name, receivers.len(), move || Way::messages(&receivers))
}

fn way(name: &str, deliveries: usize, make: impl Fn() -> Way + 'static) -> Step {
    Step::new(name, deliveries as u64 * support::ways::BURST, move || {
        let mut way = make();
        move |meter: &mut Meter| way.burst(|work| meter.measure(work))
    })
}
