//! Metrics are the process's own, so that this is alone in its binary.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod rule_maker;
mod stomp_harness;

use tandem_broker::metrics::FORBIDDEN;

use rule_maker::rules;
use stomp_harness::*;

#[test]
fn what_is_refused_is_counted_once() {
    let refusals = |sends_before: usize| {
        let house = House::new();
        let mut client = house.connect("1.2");
        (0..sends_before).for_each(|_| client.say("SEND\ndestination:/topic/a\n\nx"));
        house.realm.set_rules(rules(3, None));
        let before = FORBIDDEN.get();
        client.say("SEND\ndestination:/topic/a\n\nx");
        assert!(client.close.is_some());
        FORBIDDEN.get() - before
    };
    assert_eq!((refusals(0), refusals(4)), (1, 1), "the second is of one that was known by its octets");
}
