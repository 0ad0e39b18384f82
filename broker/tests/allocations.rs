//! What a fan-out allocates: for each publication some shared buffers, and for a delivery nothing, once everybody had
//! a few. Allocations are those of everything from the bytes of one wire to those of the others.
//!
//! One that has nothing to do holds no memory for work, and when it is woken takes lists that others of its thread do not
//! need at the moment, or else makes one anew: that is bounded for itself, and is not more for more messages.
#![allow(clippy::unwrap_used, reason = "whatever fails here is to fail the test")]

use tandem_protocols::payload::Format;

use self::support::house::Speaks;
use self::support::ways::Way;

#[path = "../benches/support"]
mod support {
    pub mod house;
    pub mod ways;
}

/// What a subscriber's connection allocates each time it is woken, whatever there is for it: the list of what waits in its
/// mailbox, where more mailboxes have one at a time than a thread keeps, and lists of what is to be written.
const WAKE_UP_MAX: u64 = 3;

/// A list of pieces that wait has doubled once more where twice as much waits.
const DOUBLING: u64 = 1;

/// What is not for one subscriber, but grows with their number: the list of whom to wake at the end of a read.
const SUBSCRIBERS_MAX: u64 = 3;

/// What a publication allocates, whoever gets it: the copy of its bytes, what shares that, and the payload; and for many
/// that are encoded together the one encoding that all subscribers share.
const PUBLICATION_MAX: u64 = 4;

/// One of WAMP's usual form, which is copied to others: only what they are together has memory of its own.
const USUAL_MAX: u64 = 1;

/// One that is converted.
const CONVERTED_MAX: u64 = 7;

const BURST: u64 = 64;

/// Bursts before anything is counted, and those that are.
const WARM_UP: u64 = 6;
const BURSTS: u64 = 4;

/// For a fan-out to a number of subscribers: what a burst of so many messages allocates.
fn allocations(fan_out: impl Fn(usize) -> Way, subscribers: usize, messages: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut way = fan_out(subscribers);
    way.burst = messages;
    (0..WARM_UP).for_each(|_| way.burst(|work| work()));
    let mut count = 0;
    for _ in 0..BURSTS {
        way.burst(|work| count += allocation_counter::measure(work).count_total);
    }
    count.div_ceil(BURSTS)
}

/// Holds a language to what is said above.
fn check(publication_max: u64, fan_out: impl Fn(usize) -> Way) {
    let ten = allocations(&fan_out, 10, BURST);
    let hundred = allocations(&fan_out, 100, BURST);
    let (ten_twice, hundred_twice) =
        (allocations(&fan_out, 10, 2 * BURST), allocations(&fan_out, 100, 2 * BURST));

    let woken_max = 90 * WAKE_UP_MAX + SUBSCRIBERS_MAX;
    let woken = hundred.saturating_sub(ten);
    assert!(woken <= woken_max, "90 more subscribers allocate {woken} times for {BURST} messages");

    // Deliveries themselves: 64 more to each of 90 allocate nothing, but for one doubling of a list.
    let delivered = hundred_twice.saturating_sub(ten_twice).saturating_sub(woken);
    assert!(delivered <= 90 * DOUBLING, "{} deliveries allocate {delivered} times", 90 * BURST);

    let published = ten.saturating_sub(woken / 9);
    assert!(published <= BURST * publication_max, "{BURST} publications allocate {published} times");
}

#[test]
fn a_delivery_in_json_allocates_nothing() {
    let json = Speaks::Wamp(Format::Json);
    check(USUAL_MAX, |subscribers| Way::events(Format::Json, &vec![json; subscribers]));
}

#[test]
fn a_delivery_in_messagepack_allocates_nothing() {
    let msgpack = Speaks::Wamp(Format::MsgPack);
    check(USUAL_MAX, |subscribers| Way::events(Format::MsgPack, &vec![msgpack; subscribers]));
}

#[test]
fn a_delivery_in_cbor_allocates_nothing() {
    let cbor = Speaks::Wamp(Format::Cbor);
    check(PUBLICATION_MAX, |subscribers| Way::events(Format::Cbor, &vec![cbor; subscribers]));
}

#[test]
fn a_delivery_in_stomp_allocates_nothing() {
    check(PUBLICATION_MAX, |subscribers| Way::messages(&vec![Speaks::Stomp; subscribers]));
}

/// The conversion is made once, and counts as one of the shared buffers.
#[test]
fn a_delivery_in_another_language_allocates_nothing() {
    check(CONVERTED_MAX, |subscribers| Way::events(Format::Json, &vec![Speaks::Stomp; subscribers]));
}
