//! WAMP's meta API, face to face: every procedure, every event, every error.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod wamp_harness;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use serde_json::{Value, json};

use tandem_broker::core::access::Principal;
use tandem_broker::core::mailbox::{Bounds, Inbox, Overflow, cost, mailbox};
use tandem_broker::core::parcel::{Farewell, Parcel};
use tandem_broker::core::protocol::Reason;
use tandem_broker::core::queues::Credit;
use tandem_broker::core::realm::{Member, RealmLimits};
use tandem_broker::wamp::MetaApi;
use tandem_protocols::payload::Format;

use wamp_harness::*;

/// A house with its meta API, which does what it has to do only in its turn.
struct World {
    house: House,
    meta: RefCell<(MetaApi, Inbox)>,
    last_call: Cell<u64>,
}

/// 2000-01-01T00:00:00.007Z.
const CREATED_MS: u64 = 946_684_800_007;
const CREATED: &str = "2000-01-01T00:00:00.007Z";

impl World {
    fn new() -> World {
        World::with(RealmLimits { sessions_max: 16, subscriptions_max: 32, ..limits() })
    }

    fn with(limits: RealmLimits) -> World {
        let bounds = Bounds { bytes_soft_max: 1 << 30, bytes_max: 1 << 30, overflow: Overflow::DropNewest };
        World::of(House::with(limits, true), bounds)
    }

    fn of(house: House, bounds: Bounds) -> World {
        let (mailbox, inbox) = mailbox(bounds);
        let meta = MetaApi::join(&house.realm, mailbox, Arc::new(|| CREATED_MS)).unwrap();
        World { house, meta: RefCell::new((meta, inbox)), last_call: Cell::new(0) }
    }

    /// The meta API does all that it has to do.
    fn turn(&self) {
        let (meta, inbox) = &mut *self.meta.borrow_mut();
        let mut batch = VecDeque::new();
        while inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready() {
            for parcel in batch.drain(..) {
                let bytes = cost(&parcel);
                meta.receive(parcel);
                inbox.settled(bytes);
            }
        }
    }

    /// What a call is answered with.
    fn ask(&self, client: &mut Client, procedure: &str, args: Value, kwargs: Value) -> Value {
        let call = self.last_call.get() + 1;
        self.last_call.set(call);
        client.say(json!([48, call, {}, procedure, args, kwargs]));
        self.turn();
        let answer = client.hear();
        let request = if answer[0] == json!(8) { &answer[2] } else { &answer[1] };
        assert_eq!(request, &json!(call), "{answer}");
        answer
    }

    /// The result of a call.
    fn call(&self, client: &mut Client, procedure: &str, args: Value) -> Value {
        let answer = self.ask(client, procedure, args, json!({}));
        assert_eq!(answer[0], json!(50), "{answer}");
        answer.get(3).map_or(Value::Null, |args| args[0].clone())
    }

    /// The error of a call.
    fn fail(&self, client: &mut Client, procedure: &str, args: Value) -> String {
        error_of(&self.ask(client, procedure, args, json!({}))).2.to_owned()
    }

    fn joe(&self) -> Client {
        self.house.login(Format::Json, "joe")
    }

    fn root(&self) -> Client {
        self.house.login(Format::Json, "root")
    }

    /// The events that a client hears, by topic: it subscribed to `wamp.` as a prefix.
    fn events(&self, client: &mut Client) -> Vec<(String, Value)> {
        self.turn();
        let mut events = Vec::new();
        while let Some(event) = client.try_hear() {
            assert_eq!(event[0], json!(36), "{event}");
            events.push((event[3]["topic"].as_str().unwrap().to_owned(), event[4].clone()));
        }
        events
    }
}

fn topics(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(topic, _)| topic.strip_prefix("wamp.").unwrap()).collect()
}

// ---- queues, and who is slow ----------------------------------------------------------------------------

#[test]
fn the_deepest_queues_are_listed_first_and_those_of_one_session_not_at_all() {
    let world = World::new();
    let mut joe = world.joe();
    let mut ann = world.house.login(Format::Json, "ann");
    assert_eq!(world.call(&mut joe, "tandem.queue.list", json!([])), json!([]));
    for (queue, messages) in [("shallow", 1), ("deep", 3)] {
        for number in 0..messages {
            world.call(&mut joe, "tandem.queue.send", json!([queue, number]));
        }
    }
    world.call(&mut ann, "tandem.queue.receive", json!(["deep"]));
    let list = world.call(&mut joe, "tandem.queue.list", json!([]));
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|one| one["queue"].as_str().unwrap()).collect();
    assert_eq!(names, ["deep", "shallow"]);
    let deep = &list[0];
    assert_eq!((&deep["messages"], &deep["unacknowledged"]), (&json!(3), &json!(1)), "{deep}");
    assert_eq!((&deep["consumers"], &deep["enqueued"], &deep["delayed"]), (&json!(1), &json!(3), &json!(0)));
    assert!(deep["bytes"].as_u64().unwrap() > 0);
    assert_eq!(world.call(&mut joe, "tandem.queue.list", json!([1])).as_array().unwrap().len(), 1);
    assert_eq!(world.fail(&mut joe, "tandem.queue.list", json!(["all"])), "wamp.error.invalid_argument");
}

#[test]
fn those_for_whom_something_waits_are_listed_with_how_much() {
    let world = World::new();
    let (mut joe, mut slow) = (world.joe(), world.house.login(Format::Json, "ann"));
    assert_eq!(world.call(&mut joe, "tandem.session.list_waiting", json!([])), json!([]));
    slow.say(json!([32, 1, {}, "com.example.news"]));
    assert_eq!(slow.hear()[0], json!(33));
    joe.say(json!([16, 77, {}, "com.example.news", ["hello"]]));
    let list = world.call(&mut joe, "tandem.session.list_waiting", json!([10]));
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!((&list[0]["session"], &list[0]["authid"]), (&json!(slow.id), &json!("ann")));
    assert!(list[0]["waiting_bytes"].as_u64().unwrap() > 0);
}

// ---- sessions --------------------------------------------------------------------------------------------

#[test]
fn sessions_are_counted_and_listed_and_the_houses_own_are_not_among_them() {
    for format in FORMATS {
        let world = World::new();
        let (mut joe, ann) = (world.house.login(format, "joe"), world.house.login(format, "ann"));
        let (guest, root) = (world.house.join(format), world.house.login(format, "root"));
        let mut all = [joe.id, ann.id, guest.id, root.id];
        all.sort_unstable();
        let mut users = [joe.id, ann.id];
        users.sort_unstable();
        assert_eq!(world.house.realm.sessions(), 4);
        for (args, expected) in [
            (json!([]), &all[..]),
            (json!([null]), &all[..]),
            (json!([["user"]]), &users[..]),
            (json!([["user", "anonymous", "admin", "nobody"]]), &all[..]),
            (json!([["nobody"]]), &[]),
            (json!([[]]), &[]),
        ] {
            assert_eq!(world.call(&mut joe, "wamp.session.list", args.clone()), json!(expected), "{args}");
            let count = world.call(&mut joe, "wamp.session.count", args.clone());
            assert_eq!(count, json!(expected.len()), "{args}");
        }
        for procedure in ["wamp.session.count", "wamp.session.list"] {
            for args in [json!(["user"]), json!([[1]]), json!([{}])] {
                assert_eq!(world.fail(&mut joe, procedure, args), "wamp.error.invalid_argument");
            }
        }
    }
}

#[test]
fn the_meta_api_takes_no_place_of_a_session_and_none_of_a_registration() {
    let world = World::with(RealmLimits { sessions_max: 1, registrations_max: 1, ..limits() });
    let mut client = world.house.join(Format::Json);
    assert_eq!(world.call(&mut client, "wamp.session.count", json!([])), json!(1));
    assert_eq!((world.house.realm.sessions(), world.house.realm.calls().registrations()), (1, 0));
}

#[test]
fn anybody_may_ask_who_a_session_is() {
    let world = World::new();
    let (mut joe, mut foreign) = (world.joe(), world.house.login(Format::Cbor, "ann"));
    let details = world.call(&mut foreign, "wamp.session.get", json!([joe.id]));
    let expected = json!({
        "session": joe.id,
        "authid": "joe",
        "authrole": "user",
        "authmethod": "ticket",
        "authprovider": "static",
        "transport": {"peer": "local", "protocol": "wamp.2.json"},
    });
    assert_eq!(details, expected);
    // As clients write numbers that are large.
    let as_float = json!([joe.id as f64]);
    assert_eq!(world.call(&mut joe, "wamp.session.get", as_float), expected);
    let ann = foreign.id;
    drop(foreign);
    assert_eq!(world.fail(&mut joe, "wamp.session.get", json!([ann])), "wamp.error.no_such_session");
    for args in [json!([]), json!(["x"]), json!([0]), json!([null]), json!([-1])] {
        assert_eq!(world.fail(&mut joe, "wamp.session.get", args), "wamp.error.invalid_argument");
    }
}

#[test]
fn a_list_that_one_answer_does_not_hold_is_refused_and_not_cut() {
    const COUNT: usize = 50_001;
    let world = World::with(RealmLimits { sessions_max: COUNT + 1, subscriptions_max: COUNT, ..limits() });
    let realm = &world.house.realm;
    let mut members: Vec<Member> = Vec::new();
    let crowd = Principal::new("c", "crowd", "ticket");
    for _ in 0..COUNT - 1 {
        let (mailbox, _closed) = mailbox(world.house.bounds);
        members.push(realm.join(crowd.clone(), mailbox).unwrap());
    }
    let mut client = world.house.join(Format::MsgPack);
    let error = world.fail(&mut client, "wamp.session.list", json!([]));
    assert_eq!(error, "tandem.error.limit_reached");
    assert_eq!(world.call(&mut client, "wamp.session.count", json!([])), json!(COUNT));
    let crowd = world.call(&mut client, "wamp.session.list", json!([["crowd"]]));
    assert_eq!(crowd.as_array().unwrap().len(), COUNT - 1);
    // All subscribe to one topic, one of them to a topic for each.
    let shared = client.subscribe("a", "exact");
    for member in &mut members {
        member.subscribe(&exact("a")).unwrap();
    }
    assert_eq!(
        world.fail(&mut client, "wamp.subscription.list_subscribers", json!([shared])),
        "tandem.error.limit_reached"
    );
    assert_eq!(world.call(&mut client, "wamp.subscription.count_subscribers", json!([shared])), json!(COUNT));
    for number in 1..COUNT {
        members[0].subscribe(&exact(&format!("b{number}"))).unwrap();
    }
    assert_eq!(world.fail(&mut client, "wamp.subscription.list", json!([])), "tandem.error.limit_reached");
    drop(members);
    assert_eq!(world.call(&mut client, "wamp.session.list", json!([])), json!([client.id]));
}

fn exact(text: &str) -> tandem_broker::core::name::Pattern {
    use tandem_broker::core::name::{Name, Pattern};
    Pattern::exact(Name::parse(text).unwrap())
}

// ---- killing ---------------------------------------------------------------------------------------------

/// A client heard GOODBYE, is in the realm no longer, and what it asks for is not done.
fn is_killed(client: &mut Client, reason: &str, message: Option<&str>, world: &World) {
    let details = message.map_or(json!({}), |message| json!({"message": message}));
    assert_eq!(client.hear(), json!([6, details, reason]));
    assert!(world.house.realm.guests().get(tandem_broker::core::access::SessionId(client.id)).is_none());
    client.say(json!([16, 77, {"acknowledge": true}, "a"]));
    client.say(json!([48, 78, {}, "wamp.session.count"]));
    world.turn();
    client.hears_nothing();
}

#[test]
fn a_killed_session_hears_why_and_is_heard_no_more() {
    for format in FORMATS {
        let world = World::new();
        let mut root = world.root();
        for (kwargs, reason, message) in [
            (json!({}), "wamp.close.killed", None),
            (json!({"reason": "com.app.bye"}), "com.app.bye", None),
            (json!({"reason": null, "message": "go \"away\""}), "wamp.close.killed", Some("go \"away\"")),
            (json!({"reason": "com.app.bye", "message": "x"}), "com.app.bye", Some("x")),
        ] {
            let mut victim = world.house.login(format, "joe");
            victim.subscribe("a", "exact");
            let answer = world.ask(&mut root, "wamp.session.kill", json!([victim.id]), kwargs);
            assert_eq!((&answer[0], answer.get(3)), (&json!(50), None), "{answer}");
            is_killed(&mut victim, reason, message, &world);
            assert!(world.house.realm.topics().is_empty());
            // It answers, or does not and is closed when its time is over.
            if message.is_some() {
                victim.say(json!([6, {}, "wamp.close.goodbye_and_out"]));
            } else {
                victim.now = victim.session.deadline().unwrap();
                victim.session.tick(victim.now);
                victim.drain();
            }
            assert_eq!(victim.closed.map(|close| close.reason), Some(Reason::Shutdown));
        }
    }
}

#[test]
fn what_a_killed_session_had_not_read_is_gone_and_it_ends_at_once() {
    let world = World::new();
    let (mut root, mut victim) = (world.root(), world.joe());
    victim.subscribe("a", "exact");
    root.say(json!([16, 1, {}, "a"]));
    world.call(&mut root, "wamp.session.kill", json!([victim.id]));
    assert!(victim.mailbox.is_closed());
    // It cannot be killed twice.
    let error = world.fail(&mut root, "wamp.session.kill", json!([victim.id]));
    assert_eq!(error, "wamp.error.no_such_session");
    is_killed(&mut victim, "wamp.close.killed", None, &world);
}

#[test]
fn nobody_kills_its_own_session() {
    let world = World::new();
    let (mut root, mut twin, mut joe) = (world.root(), world.root(), world.joe());
    let root_id = root.id;
    let error = world.fail(&mut root, "wamp.session.kill", json!([root_id]));
    assert_eq!(error, "wamp.error.no_such_session");
    assert_eq!(world.call(&mut root, "wamp.session.kill_by_authid", json!(["root"])), json!([twin.id]));
    is_killed(&mut twin, "wamp.close.killed", None, &world);
    assert_eq!(world.call(&mut root, "wamp.session.kill_by_authid", json!(["root"])), json!([]));
    assert_eq!(world.call(&mut root, "wamp.session.kill_by_authrole", json!(["admin"])), json!(0));
    assert_eq!(world.call(&mut root, "wamp.session.kill_all", json!([])), json!(1));
    is_killed(&mut joe, "wamp.close.killed", None, &world);
    assert_eq!(world.call(&mut root, "wamp.session.count", json!([])), json!(1));
}

#[test]
fn sessions_are_killed_by_authid_by_authrole_or_all() {
    let world = World::new();
    let mut root = world.root();
    let kwargs = json!({"reason": "a.b", "message": "m"});
    let (mut one, mut two, mut ann) = (world.joe(), world.joe(), world.house.login(Format::Cbor, "ann"));
    let answer = world.ask(&mut root, "wamp.session.kill_by_authid", json!(["joe"]), kwargs.clone());
    let mut ids = [one.id, two.id];
    ids.sort_unstable();
    assert_eq!(answer[3], json!([ids]));
    for killed in [&mut one, &mut two] {
        is_killed(killed, "a.b", Some("m"), &world);
    }
    let mut joe = world.joe();
    let answer = world.ask(&mut root, "wamp.session.kill_by_authrole", json!(["user"]), kwargs.clone());
    assert_eq!(answer[3], json!([2]));
    for killed in [&mut ann, &mut joe] {
        is_killed(killed, "a.b", Some("m"), &world);
    }
    let (mut guest, mut joe) = (world.house.join(Format::MsgPack), world.joe());
    let answer = world.ask(&mut root, "wamp.session.kill_all", json!([]), kwargs);
    assert_eq!(answer[3], json!([2]));
    for killed in [&mut guest, &mut joe] {
        is_killed(killed, "a.b", Some("m"), &world);
    }
}

#[test]
fn a_kill_is_refused_whose_arguments_do_not_suit() {
    let world = World::new();
    let (mut root, mut joe) = (world.root(), world.joe());
    for (procedure, args) in [
        ("wamp.session.kill", json!([joe.id])),
        ("wamp.session.kill_by_authid", json!(["joe"])),
        ("wamp.session.kill_by_authrole", json!(["user"])),
        ("wamp.session.kill_all", json!([])),
    ] {
        for (kwargs, uri) in [
            (json!({"reason": "a b"}), "wamp.error.invalid_uri"),
            (json!({"reason": ""}), "wamp.error.invalid_uri"),
            (json!({"reason": "a".repeat(513)}), "wamp.error.invalid_uri"),
            (json!({"reason": 1}), "wamp.error.invalid_argument"),
            (json!({"message": []}), "wamp.error.invalid_argument"),
            (json!({"message": "m".repeat(4097)}), "wamp.error.invalid_argument"),
        ] {
            let answer = world.ask(&mut root, procedure, args.clone(), kwargs);
            assert_eq!(error_of(&answer).2, uri, "{procedure}");
        }
        if args != json!([]) {
            for args in [json!([]), json!([null]), json!([{}])] {
                assert_eq!(world.fail(&mut root, procedure, args), "wamp.error.invalid_argument");
            }
        }
    }
    assert_eq!(world.fail(&mut root, "wamp.session.kill", json!([77])), "wamp.error.no_such_session");
    assert_eq!(world.fail(&mut root, "wamp.session.kill", json!(["joe"])), "wamp.error.invalid_argument");
    joe.hears_nothing();
    let answer =
        world.ask(&mut root, "wamp.session.kill_all", json!([]), json!({"message": "m".repeat(4096)}));
    assert_eq!(answer[3], json!([1]));
}

#[test]
fn a_session_of_another_language_is_killed_too() {
    let world = World::new();
    let mut root = world.root();
    let (member, mut inbox) = world.house.foreigner();
    world.call(&mut root, "wamp.session.kill", json!([member.id().0]));
    let mut batch = VecDeque::new();
    assert!(inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready());
    let Some(Parcel::Farewell(Farewell::Killed(verdict))) = batch.pop_front() else { panic!("{batch:?}") };
    assert_eq!((&*verdict.reason, &verdict.message), ("wamp.close.killed", &None));
}

// ---- who may ---------------------------------------------------------------------------------------------

#[test]
fn only_administrators_change_what_others_have() {
    let world = World::new();
    let (mut joe, mut guest, mut root) = (world.joe(), world.house.join(Format::Cbor), world.root());
    let subscription = root.subscribe("a", "exact");
    let registration = root.register("p", "exact");
    for (procedure, args) in [
        ("wamp.session.kill", json!([root.id])),
        ("wamp.session.kill_by_authid", json!(["root"])),
        ("wamp.session.kill_by_authrole", json!(["admin"])),
        ("wamp.session.kill_all", json!([])),
        ("wamp.session.modify_details", json!([root.id, {"a": 1}])),
        ("wamp.registration.remove_callee", json!([registration, root.id])),
        ("wamp.subscription.remove_subscriber", json!([subscription, root.id])),
    ] {
        for client in [&mut joe, &mut guest] {
            let error = world.fail(client, procedure, args.clone());
            assert_eq!(error, "wamp.error.not_authorized", "{procedure}");
        }
    }
    root.hears_nothing();
    assert_eq!(world.call(&mut joe, "wamp.session.count", json!([])), json!(3));
}

#[test]
fn nobody_serves_what_the_router_serves_not_even_by_pattern() {
    let world = World::new();
    let (mut callee, mut caller) = (world.joe(), world.house.join(Format::Json));
    for (procedure, policy) in
        [("", "prefix"), ("wamp", "prefix"), ("..", "wildcard"), (".session.", "wildcard")]
    {
        callee.register(procedure, policy);
    }
    for refused in ["wamp.session.count", "wamp.", "wamp.session"] {
        let policy = if refused == "wamp." { "prefix" } else { "exact" };
        let error = callee.ask(json!([64, 9, {"match": policy}, refused]));
        assert_eq!(error_of(&error), (64, 9, "wamp.error.invalid_uri"));
    }
    assert_eq!(world.call(&mut caller, "wamp.session.count", json!([])), json!(2));
    for unserved in ["wamp.session.nothing", "tandem.no.such"] {
        assert_eq!(world.fail(&mut caller, unserved, json!([])), "wamp.error.no_such_procedure");
    }
    callee.hears_nothing();
    // What only looks like it goes to the longest prefix.
    caller.say(json!([48, 99, {}, "wamps.session.count"]));
    assert_eq!(callee.hear()[0], json!(68));
}

// ---- details ---------------------------------------------------------------------------------------------

#[test]
fn details_are_added_changed_and_removed() {
    let world = World::new();
    let (mut root, joe) = (world.root(), world.joe());
    let added = |root: &mut Client| {
        let details = world.call(root, "wamp.session.get", json!([joe.id]));
        (details["a"].clone(), details["b"].clone(), details["authid"].clone())
    };
    for (delta, expected) in [
        (json!({"a": 1, "b": {"c": [true, null]}}), (json!(1), json!({"c": [true, null]}), json!("joe"))),
        (json!({"a": "x"}), (json!("x"), json!({"c": [true, null]}), json!("joe"))),
        (json!({"b": null, "none": null}), (json!("x"), json!(null), json!("joe"))),
        (json!({}), (json!("x"), json!(null), json!("joe"))),
        (json!({"a": null}), (json!(null), json!(null), json!("joe"))),
    ] {
        let answer = world.call(&mut root, "wamp.session.modify_details", json!([joe.id, delta]));
        assert_eq!(answer, Value::Null);
        assert_eq!(added(&mut root), expected);
    }
}

#[test]
fn details_that_the_house_gives_are_not_changed_and_others_are_bounded() {
    let world = World::new();
    let (mut root, joe) = (world.root(), world.joe());
    let mut modify = |args: Value| world.fail(&mut root, "wamp.session.modify_details", args);
    for key in
        ["session", "realm", "authid", "authrole", "authmethod", "authprovider", "authextra", "transport"]
    {
        for value in [json!("x"), json!(null)] {
            assert_eq!(modify(json!([joe.id, {key: value}])), "wamp.error.invalid_argument", "{key}");
        }
    }
    for args in [json!([]), json!([joe.id]), json!([joe.id, []]), json!([joe.id, null]), json!([{}, {}])] {
        assert_eq!(modify(args), "wamp.error.invalid_argument");
    }
    assert_eq!(modify(json!([77, {}])), "wamp.error.no_such_session");
    // With what is around it this is a byte too long.
    let long = "x".repeat(16 * 1024 - r#"[{"a":""}]"#.len() + 1);
    assert_eq!(modify(json!([joe.id, {"a": long}])), "wamp.error.invalid_argument");
    let fits = json!({"a": long[1..]});
    world.call(&mut root, "wamp.session.modify_details", json!([joe.id, fits]));
    // Together they are as long as apart.
    assert_eq!(
        world.fail(&mut root, "wamp.session.modify_details", json!([joe.id, {"b": 1}])),
        "wamp.error.invalid_argument"
    );
}

#[test]
fn the_details_of_all_sessions_are_bounded_and_those_of_sessions_that_left_do_not_count() {
    const COUNT: usize = 4096;
    let world = World::with(RealmLimits { sessions_max: COUNT + 2, ..limits() });
    let mut root = world.root();
    let delta = json!({"a": "x".repeat(16 * 1024 - r#"[{"a":""}]"#.len())});
    let join = || world.house.foreigner();
    let mut others: Vec<_> = (0..=COUNT).map(|_| join()).collect();
    for (member, _) in &others[..COUNT] {
        world.call(&mut root, "wamp.session.modify_details", json!([member.id().0, delta]));
    }
    let last = json!([others[COUNT].0.id().0, delta]);
    let error = world.fail(&mut root, "wamp.session.modify_details", last.clone());
    assert_eq!(error, "tandem.error.limit_reached");
    others.swap_remove(0);
    world.call(&mut root, "wamp.session.modify_details", last);
}

// ---- subscriptions ---------------------------------------------------------------------------------------

#[test]
fn subscriptions_are_listed_found_and_described() {
    for format in FORMATS {
        let world = World::new();
        let (mut joe, mut ann) = (world.house.login(format, "joe"), world.house.login(format, "ann"));
        let exact = joe.subscribe("a.b", "exact");
        let wildcard = joe.subscribe("a.", "wildcard");
        let long = joe.subscribe("a.", "prefix");
        let short = ann.subscribe("", "prefix");
        assert_eq!(ann.subscribe("a.b", "exact"), exact);
        let mut subscribers = [joe.id, ann.id];
        subscribers.sort_unstable();

        let list = world.call(&mut joe, "wamp.subscription.list", json!([]));
        assert_eq!(list, json!({"exact": [exact], "prefix": [long, short], "wildcard": [wildcard]}));
        for (args, expected) in [
            (json!(["a.b"]), json!(exact)),
            (json!(["a.b", {}]), json!(exact)),
            (json!(["a.b", {"match": "exact"}]), json!(exact)),
            (json!(["a.", {"match": "prefix"}]), json!(long)),
            (json!(["a.", {"match": "wildcard"}]), json!(wildcard)),
            (json!(["", {"match": "prefix"}]), json!(short)),
            (json!(["a.b", {"match": "prefix"}]), json!(null)),
            (json!(["a.b.c", null]), json!(null)),
        ] {
            assert_eq!(world.call(&mut joe, "wamp.subscription.lookup", args.clone()), expected, "{args}");
        }
        for (topic, expected) in [
            ("a.b", json!([exact, short, long, wildcard])),
            ("a.c", json!([short, long, wildcard])),
            ("b", json!([short])),
            ("wamp.session.on_join", json!(null)),
        ] {
            let matches = world.call(&mut joe, "wamp.subscription.match", json!([topic]));
            assert_eq!(matches, expected, "{topic}");
        }
        for (id, uri, policy) in [
            (exact, "a.b", "exact"),
            (long, "a.", "prefix"),
            (short, "", "prefix"),
            (wildcard, "a.", "wildcard"),
        ] {
            let details = world.call(&mut joe, "wamp.subscription.get", json!([id]));
            assert_eq!(details, json!({"id": id, "created": CREATED, "uri": uri, "match": policy}));
        }
        for (id, expected) in [(exact, &subscribers[..]), (short, &[ann.id]), (long, &[joe.id])] {
            let list = world.call(&mut joe, "wamp.subscription.list_subscribers", json!([id]));
            assert_eq!(list, json!(expected));
            let count = world.call(&mut joe, "wamp.subscription.count_subscribers", json!([id]));
            assert_eq!(count, json!(expected.len()));
        }
    }
}

#[test]
fn a_pattern_that_wamp_has_no_policy_for_is_under_a_name_of_its_own() {
    use tandem_broker::core::name::Pattern;
    let world = World::new();
    let (mut member, _inbox) = world.house.foreigner();
    let pattern = Pattern::components([Some("a"), None], true).unwrap();
    let id = member.subscribe(&pattern).unwrap().0;
    let credit = Credit { messages: 1, bytes: 1000 };
    // A queue that is bound to the topic is a part in the subscription; the session is one subscriber.
    member.bind(&pattern, credit).unwrap();
    let mut client = world.joe();
    let list = world.call(&mut client, "wamp.subscription.list", json!([]));
    assert_eq!(list, json!({"exact": [], "prefix": [], "wildcard": [], "tail": [id]}));
    let details = world.call(&mut client, "wamp.subscription.get", json!([id]));
    assert_eq!(details, json!({"id": id, "created": CREATED, "uri": "a..#", "match": "tail"}));
    let subscribers = world.call(&mut client, "wamp.subscription.list_subscribers", json!([id]));
    assert_eq!(subscribers, json!([member.id().0]));
    let count =
        |client: &mut Client, id: u64| world.call(client, "wamp.subscription.count_subscribers", json!([id]));
    assert_eq!(count(&mut client, id), json!(1));
    // One that has but bound queues is one, too.
    member.bind(&exact("b"), credit).unwrap();
    member.bind(&exact("b"), credit).unwrap();
    let bound = client.subscribe("b", "exact");
    assert_eq!(count(&mut client, bound), json!(2));
    client.ask(json!([34, 1, bound]));
    assert_eq!(count(&mut client, bound), json!(1));
    // Both parts are taken away together.
    let mut root = world.root();
    for id in [id, bound] {
        world.call(&mut root, "wamp.subscription.remove_subscriber", json!([id, member.id().0]));
    }
    assert!(world.house.realm.topics().is_empty());
}

#[test]
fn a_subscriber_is_removed_and_hears_why() {
    for format in FORMATS {
        let world = World::new();
        let (mut root, mut joe) = (world.root(), world.house.login(format, "joe"));
        for (args, kwargs, reason) in [
            (json!([]), json!({}), "wamp.subscription.revoked"),
            (json!(["a.b"]), json!({}), "a.b"),
            (json!([]), json!({"reason": "a.b"}), "a.b"),
        ] {
            let id = joe.subscribe("a", "exact");
            let mut all = vec![json!(id), json!(joe.id)];
            all.extend(args.as_array().unwrap().clone());
            let answer = world.ask(&mut root, "wamp.subscription.remove_subscriber", json!(all), kwargs);
            assert_eq!(answer[0], json!(50), "{answer}");
            assert_eq!(joe.hear(), json!([35, 0, {"subscription": id, "reason": reason}]));
            assert!(world.house.realm.topics().is_empty());
        }
    }
}

#[test]
fn what_is_asked_of_subscriptions_must_suit() {
    let world = World::new();
    let (mut root, joe) = (world.root(), world.joe());
    let id = root.subscribe("a", "exact");
    for procedure in ["get", "list_subscribers", "count_subscribers", "remove_subscriber"] {
        let procedure = format!("wamp.subscription.{procedure}");
        let error = world.fail(&mut root, &procedure, json!([77, joe.id]));
        assert_eq!(error, "wamp.error.no_such_subscription");
        for args in [json!([]), json!(["a"]), json!([null])] {
            assert_eq!(world.fail(&mut root, &procedure, args), "wamp.error.invalid_argument");
        }
    }
    let remove = "wamp.subscription.remove_subscriber";
    assert_eq!(world.fail(&mut root, remove, json!([id, joe.id])), "wamp.error.no_such_session");
    assert_eq!(world.fail(&mut root, remove, json!([id])), "wamp.error.invalid_argument");
    assert_eq!(world.fail(&mut root, remove, json!([id, joe.id, "a b"])), "wamp.error.invalid_uri");
    for kind in ["subscription", "registration"] {
        for procedure in ["lookup", "match"] {
            let procedure = format!("wamp.{kind}.{procedure}");
            for (args, uri) in [
                (json!([]), "wamp.error.invalid_argument"),
                (json!([1]), "wamp.error.invalid_argument"),
                (json!([""]), "wamp.error.invalid_uri"),
                (json!(["a..b"]), "wamp.error.invalid_uri"),
            ] {
                assert_eq!(world.fail(&mut root, &procedure, args), uri, "{procedure}");
            }
        }
        for args in [json!(["a", {"match": "x"}]), json!(["a", {"match": 1}]), json!(["a", "prefix"])] {
            let procedure = format!("wamp.{kind}.lookup");
            assert_eq!(world.fail(&mut root, &procedure, args), "wamp.error.invalid_argument");
        }
    }
}

// ---- registrations ---------------------------------------------------------------------------------------

#[test]
fn registrations_are_listed_found_and_described() {
    for format in FORMATS {
        let world = World::new();
        let (mut joe, mut ann) = (world.house.login(format, "joe"), world.house.login(format, "ann"));
        let shared = |client: &mut Client, invoke: &str| {
            let registered = client.ask(json!([64, 5, {"invoke": invoke}, format!("s.{invoke}")]));
            registered[2].as_u64().unwrap()
        };
        let exact = joe.register("a.b", "exact");
        let prefix = joe.register("a", "prefix");
        let wildcard = ann.register("a.", "wildcard");
        let policies =
            ["roundrobin", "random", "first", "last"].map(|invoke| (shared(&mut joe, invoke), invoke));
        assert_eq!(shared(&mut ann, "first"), policies[2].0);

        let list = world.call(&mut joe, "wamp.registration.list", json!([]));
        let exacts: Vec<u64> = std::iter::once(exact).chain(policies.map(|(id, _)| id)).collect();
        assert_eq!(list, json!({"exact": exacts, "prefix": [prefix], "wildcard": [wildcard]}));
        for (args, expected) in [
            (json!(["a.b"]), json!(exact)),
            (json!(["a", {"match": "prefix"}]), json!(prefix)),
            (json!(["a.", {"match": "wildcard"}]), json!(wildcard)),
            (json!(["a.b", {"match": "wildcard"}]), json!(null)),
            (json!(["wamp.session.count"]), json!(null)),
        ] {
            assert_eq!(world.call(&mut joe, "wamp.registration.lookup", args.clone()), expected, "{args}");
        }
        for (procedure, expected) in [
            ("a.b", json!(exact)),
            ("a.c", json!(prefix)),
            ("b", json!(null)),
            ("wamp.session.count", json!(null)),
        ] {
            let best = world.call(&mut joe, "wamp.registration.match", json!([procedure]));
            assert_eq!(best, expected, "{procedure}");
        }
        let mut describe = |id: u64| world.call(&mut joe, "wamp.registration.get", json!([id]));
        let details =
            json!({"id": prefix, "created": CREATED, "uri": "a", "match": "prefix", "invoke": "single"});
        assert_eq!(describe(prefix), details);
        assert_eq!(describe(wildcard)["match"], json!("wildcard"));
        for (id, invoke) in policies {
            assert_eq!(describe(id)["invoke"], json!(invoke));
        }
        for (id, expected) in [(policies[2].0, &[joe.id, ann.id][..]), (wildcard, &[ann.id])] {
            let list = world.call(&mut joe, "wamp.registration.list_callees", json!([id]));
            assert_eq!(list, json!(expected), "in the order of their registration");
            let count = world.call(&mut joe, "wamp.registration.count_callees", json!([id]));
            assert_eq!(count, json!(expected.len()));
        }
    }
}

#[test]
fn a_callee_is_removed_hears_why_and_still_answers_what_is_under_way() {
    let world = World::new();
    let (mut root, mut callee, mut caller) = (world.root(), world.house.connect(Format::Json), world.joe());
    callee.say(hello(json!({"roles": {"callee": {"features": {"registration_revocation": true}}}})));
    let session = callee.hear()[1].clone();
    for (args, kwargs, reason) in [
        (json!([]), json!({}), "wamp.registration.revoked"),
        (json!(["a.b"]), json!({}), "a.b"),
        (json!([]), json!({"reason": "a.b"}), "a.b"),
    ] {
        let id = callee.register("p", "exact");
        caller.say(json!([48, 50, {}, "p"]));
        let invocation = callee.hear();
        assert_eq!(invocation[0], json!(68));
        let mut all = vec![json!(id), session.clone()];
        all.extend(args.as_array().unwrap().clone());
        let answer = world.ask(&mut root, "wamp.registration.remove_callee", json!(all), kwargs);
        assert_eq!(answer[0], json!(50), "{answer}");
        assert_eq!(callee.hear(), json!([67, 0, {"registration": id, "reason": reason}]));
        assert_eq!(world.fail(&mut caller, "p", json!([])), "wamp.error.no_such_procedure");
        callee.say(json!([70, invocation[1], {}, ["x"]]));
        assert_eq!(caller.hear(), json!([50, 50, {}, ["x"]]));
        let error = callee.ask(json!([66, 1, id]));
        assert_eq!(error_of(&error), (66, 1, "wamp.error.no_such_registration"));
    }
}

#[test]
fn what_is_asked_of_registrations_must_suit_and_the_routers_own_are_nobodys() {
    let world = World::new();
    let (mut root, joe) = (world.root(), world.joe());
    let id = root.register("p", "exact");
    assert!(id > 1, "the router's own come first");
    for procedure in ["get", "list_callees", "count_callees", "remove_callee"] {
        let procedure = format!("wamp.registration.{procedure}");
        for unknown in [1, 77] {
            let error = world.fail(&mut root, &procedure, json!([unknown, joe.id]));
            assert_eq!(error, "wamp.error.no_such_registration");
        }
        for args in [json!([]), json!(["a"]), json!([null])] {
            assert_eq!(world.fail(&mut root, &procedure, args), "wamp.error.invalid_argument");
        }
    }
    let remove = "wamp.registration.remove_callee";
    assert_eq!(world.fail(&mut root, remove, json!([id, joe.id])), "wamp.error.no_such_session");
    assert_eq!(world.fail(&mut root, remove, json!([id])), "wamp.error.invalid_argument");
    assert_eq!(world.fail(&mut root, remove, json!([id, joe.id, 1])), "wamp.error.invalid_argument");
}

// ---- events ----------------------------------------------------------------------------------------------

#[test]
fn who_joins_and_who_leaves_is_told() {
    for format in FORMATS {
        let world = World::new();
        let mut watcher = world.house.join(format);
        for topic in ["wamp.session.on_join", "wamp.session.on_leave"] {
            watcher.subscribe(topic, "exact");
        }
        let joe = world.house.login(Format::Cbor, "joe");
        world.turn();
        let event = watcher.hear();
        let details = &event[4][0];
        assert_eq!((event[4].as_array().unwrap().len(), &details["session"]), (1, &json!(joe.id)));
        assert_eq!((&details["authid"], &details["authrole"]), (&json!("joe"), &json!("user")));
        assert_eq!(details["transport"]["protocol"], json!("wamp.2.cbor"));
        let id = joe.id;
        drop(joe);
        world.turn();
        assert_eq!(watcher.hear()[4], json!([id, "joe", "user"]));
        watcher.hears_nothing();
    }
}

#[test]
fn a_session_does_not_hear_that_it_joined_itself() {
    let world = World::new();
    let mut watcher = world.house.join(Format::Json);
    watcher.subscribe("wamp.session.on_join", "exact");
    let mut late = world.joe();
    late.subscribe("wamp.session.on_join", "exact");
    world.turn();
    assert_eq!(watcher.hear()[4][0]["session"], json!(late.id));
    late.hears_nothing();
}

#[test]
fn a_killed_session_leaves_before_it_has_answered() {
    let world = World::new();
    let (mut watcher, mut root, mut victim) = (world.house.join(Format::Json), world.root(), world.joe());
    watcher.subscribe("wamp.session.on_leave", "exact");
    world.call(&mut root, "wamp.session.kill", json!([victim.id]));
    assert_eq!(victim.hear()[0], json!(6));
    world.turn();
    assert_eq!(watcher.hear()[4], json!([victim.id, "joe", "user"]));
}

#[test]
fn subscriptions_and_registrations_are_told_of_in_order() {
    let world = World::new();
    let (mut watcher, mut joe, mut ann) =
        (world.house.join(Format::Json), world.joe(), world.house.join(Format::Cbor));
    watcher.subscribe("wamp.", "prefix");
    let id = joe.subscribe("a", "exact");
    joe.subscribe("a", "exact");
    ann.subscribe("a", "exact");
    joe.ask(json!([34, 9, id]));
    ann.ask(json!([34, 9, id]));
    let events = world.events(&mut watcher);
    let details = json!({"id": id, "created": CREATED, "uri": "a", "match": "exact"});
    let expected = [
        ("wamp.subscription.on_create", json!([joe.id, details])),
        ("wamp.subscription.on_subscribe", json!([joe.id, id])),
        ("wamp.subscription.on_subscribe", json!([ann.id, id])),
        ("wamp.subscription.on_unsubscribe", json!([joe.id, id])),
        ("wamp.subscription.on_unsubscribe", json!([ann.id, id])),
        ("wamp.subscription.on_delete", json!([ann.id, id])),
    ];
    assert_eq!(events, expected.map(|(topic, args)| (topic.to_owned(), args)));

    let register =
        |client: &mut Client| client.ask(json!([64, 8, {"invoke": "last"}, "p"]))[2].as_u64().unwrap();
    let id = register(&mut joe);
    register(&mut joe);
    register(&mut ann);
    joe.ask(json!([66, 9, id]));
    ann.ask(json!([66, 9, id]));
    let events = world.events(&mut watcher);
    let details = json!({"id": id, "created": CREATED, "uri": "p", "match": "exact", "invoke": "last"});
    let expected = [
        ("wamp.registration.on_create", json!([joe.id, details])),
        ("wamp.registration.on_register", json!([joe.id, id])),
        ("wamp.registration.on_register", json!([ann.id, id])),
        ("wamp.registration.on_unregister", json!([joe.id, id])),
        ("wamp.registration.on_unregister", json!([ann.id, id])),
        ("wamp.registration.on_delete", json!([ann.id, id])),
    ];
    assert_eq!(events, expected.map(|(topic, args)| (topic.to_owned(), args)));
}

#[test]
fn all_that_a_session_leaves_behind_is_told_before_it_left() {
    let world = World::new();
    let (mut watcher, mut joe) = (world.house.join(Format::Json), world.joe());
    joe.subscribe("a", "exact");
    joe.register("p", "exact");
    watcher.subscribe("wamp.", "prefix");
    world.turn();
    drop(joe);
    let events = world.events(&mut watcher);
    let expected = [
        "subscription.on_unsubscribe",
        "subscription.on_delete",
        "registration.on_unregister",
        "registration.on_delete",
        "session.on_leave",
    ];
    assert_eq!(topics(&events), expected);
}

#[test]
fn what_is_taken_away_is_told_too() {
    let world = World::new();
    let (mut watcher, mut root, mut joe) = (world.house.join(Format::Json), world.root(), world.joe());
    watcher.subscribe("wamp.", "prefix");
    let (subscription, registration) = (joe.subscribe("a", "exact"), joe.register("p", "exact"));
    world.events(&mut watcher);
    world.call(&mut root, "wamp.subscription.remove_subscriber", json!([subscription, joe.id]));
    world.call(&mut root, "wamp.registration.remove_callee", json!([registration, joe.id]));
    let events = world.events(&mut watcher);
    let expected = [
        "subscription.on_unsubscribe",
        "subscription.on_delete",
        "registration.on_unregister",
        "registration.on_delete",
    ];
    assert_eq!(topics(&events), expected);
    assert_eq!(events[3].1, json!([joe.id, registration]));

    // By force, too: first it is nobody's, then it is new.
    joe.register("p", "exact");
    world.events(&mut watcher);
    root.ask(json!([64, 1, {"force_reregister": true}, "p"]));
    let events = world.events(&mut watcher);
    let (gone, new) = (
        ["registration.on_unregister", "registration.on_delete"],
        ["registration.on_create", "registration.on_register"],
    );
    assert_eq!(topics(&events), [gone, new].concat());
    assert_eq!((&events[1].1[0], &events[2].1[0]), (&json!(joe.id), &json!(root.id)));
}

#[test]
fn the_order_holds_whatever_several_sessions_do_at_random() {
    use std::collections::{HashMap, HashSet};
    let world = World::new();
    let mut watcher = world.house.join(Format::Json);
    watcher.subscribe("wamp.", "prefix");
    let mut dice = 12_345_u64;
    let mut throw = |bound: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % bound
    };
    let mut clients: Vec<Client> = Vec::new();
    // Who is here, and who takes part in what, as the events say.
    let mut here: HashSet<u64> = HashSet::new();
    let mut parts: HashMap<(String, u64), HashSet<u64>> = HashMap::new();
    for _ in 0..2000 {
        let place = throw(5) as usize;
        match throw(7) {
            0 if clients.len() < 5 => clients.push(world.house.join(Format::Json)),
            1 if place < clients.len() && throw(3) == 0 => drop(clients.swap_remove(place)),
            action => {
                let Some(client) = clients.get_mut(place) else { continue };
                let name = ["a", "b"][throw(2) as usize];
                client.say(match action {
                    2 | 3 => json!([32, 1, {}, name]),
                    4 => json!([34, 1, 1 + throw(40)]),
                    5 => json!([64, 1, {"invoke": "random"}, name]),
                    _ => json!([66, 1, 23 + throw(40)]),
                });
                while client.try_hear().is_some() {}
            }
        }
        if throw(4) != 0 {
            continue;
        }
        for (topic, args) in world.events(&mut watcher) {
            let number = |place: usize| args[place].as_u64().unwrap();
            let (kind, what) = topic.strip_prefix("wamp.").unwrap().split_once(".on_").unwrap();
            let key = |id: u64| (kind.to_owned(), id);
            match what {
                "join" => assert!(here.insert(args[0]["session"].as_u64().unwrap())),
                "leave" => {
                    assert!(here.remove(&number(0)));
                    assert!(parts.values().all(|sessions| !sessions.contains(&number(0))));
                }
                "create" => {
                    let known = parts.insert(key(args[1]["id"].as_u64().unwrap()), HashSet::new());
                    assert_eq!(known, None, "a number is used once");
                }
                "subscribe" | "register" => {
                    assert!(here.contains(&number(0)));
                    assert!(parts.get_mut(&key(number(1))).unwrap().insert(number(0)));
                }
                "unsubscribe" | "unregister" => {
                    assert!(parts.get_mut(&key(number(1))).unwrap().remove(&number(0)));
                }
                "delete" => assert!(parts.remove(&key(number(1))).unwrap().is_empty()),
                _ => panic!("{topic}"),
            }
        }
        let held = |kind: &str| parts.keys().filter(|(known, _)| known == kind).count();
        assert_eq!(here.len() + 1, world.house.realm.sessions());
        assert_eq!(held("subscription") + 1, world.house.realm.topics().len());
        assert_eq!(held("registration"), world.house.realm.calls().registrations());
    }
}

#[test]
fn meta_events_reach_only_who_subscribes_to_the_routers_topics() {
    let world = World::new();
    for (topic, policy, hears) in [
        ("wamp.session.on_join", "exact", true),
        ("wamp.", "prefix", true),
        ("wamp.session.", "prefix", true),
        ("wamp..on_join", "wildcard", true),
        ("wamp..", "wildcard", true),
        ("", "prefix", false),
        ("w", "prefix", false),
        ("wamp", "prefix", false),
        ("..", "wildcard", false),
        (".session.on_join", "wildcard", false),
        ("wamp.session.on_leave", "exact", false),
    ] {
        let mut watcher = world.house.join(Format::Json);
        watcher.subscribe(topic, policy);
        let mut other = world.house.join(Format::Json);
        other.subscribe("wamp.session.on_leave", "exact");
        world.turn();
        assert_eq!(watcher.try_hear().is_some(), hears, "{topic} ({policy})");
    }
}

#[test]
fn the_realm_tells_of_nothing_while_nobody_wants_to_hear_of_it() {
    let world = World::new();
    let told = || {
        let mut batch = VecDeque::new();
        let inbox = &mut world.meta.borrow_mut().1;
        let _ = inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
        inbox.settled(batch.iter().map(cost).sum());
        batch.len()
    };
    let change = || {
        let mut joe = world.joe();
        joe.subscribe("a", "exact");
        joe.register("p", "exact");
    };
    let mut watcher = world.house.join(Format::Json);
    watcher.subscribe("", "prefix");
    change();
    assert_eq!(told(), 0);
    let id = watcher.subscribe("wamp.session.on_join", "exact");
    change();
    assert_eq!(told(), 10);
    watcher.ask(json!([34, 1, id]));
    change();
    assert_eq!(told(), 0);
}

#[test]
fn a_history_of_meta_events_is_kept_though_nobody_subscribes() {
    use std::sync::atomic::{AtomicU64, Ordering};
    use tandem_broker::core::history::{History, HistoryRule};
    use tandem_broker::core::name::Pattern;
    use tandem_broker::core::realm::Realm;
    let rule = |pattern: Pattern| HistoryRule { pattern, events_max: 100, durable: false };
    let rules = [rule(exact("wamp.session.on_leave")), rule(Pattern::prefix("").unwrap())];
    let last = AtomicU64::new(1);
    let entropy = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
    let mut house = House::new();
    house.realm =
        Realm::with_history("realm1", limits(), entropy, History::new(&rules, Arc::new(|| CREATED_MS)));
    let bounds = house.bounds;
    let world = World::of(house, bounds);
    let (member, _inbox) = world.house.foreigner();
    let left = member.id().0;
    drop(member);
    world.turn();
    let (mut reader, _unused) = world.house.foreigner();
    let events = |reader: &Member, id| reader.history(id, &Default::default()).unwrap().len();
    let id = reader.subscribe(&exact("wamp.session.on_leave")).unwrap();
    assert_eq!(events(&reader, id), 1, "{left} left");
    let everything = reader.subscribe(&Pattern::prefix("").unwrap()).unwrap();
    assert_eq!(events(&reader, everything), 0, "the router's own is not among everything");
}

#[test]
fn nothing_is_told_about_the_routers_own_names() {
    let world = World::new();
    let (mut watcher, mut other) = (world.house.join(Format::Json), world.house.join(Format::Json));
    let first = watcher.subscribe("wamp.", "prefix");
    let second = other.subscribe("wamp.session.on_join", "exact");
    other.ask(json!([34, 1, second]));
    assert_eq!(world.events(&mut watcher), []);
    // They are there all the same.
    assert_eq!(
        world.call(&mut other, "wamp.subscription.match", json!(["wamp.session.on_join"])),
        json!([first])
    );
}

#[test]
fn nobody_publishes_what_only_the_router_says() {
    let world = World::new();
    let mut root = world.root();
    let error = root.ask(json!([16, 1, {"acknowledge": true}, "wamp.session.on_join", [{}]]));
    assert_eq!(error_of(&error), (16, 1, "wamp.error.invalid_uri"));
}

#[test]
fn a_meta_api_that_is_too_busy_leaves_out_events_and_goes_on() {
    let bounds = Bounds { bytes_soft_max: 4000, bytes_max: 4000, overflow: Overflow::DropNewest };
    let world = World::of(House::with(RealmLimits { sessions_max: 100, ..limits() }, true), bounds);
    let mut watcher = world.house.join(Format::Json);
    watcher.subscribe("wamp.session.on_join", "exact");
    let dropped = || tandem_broker::metrics::NOTICES_DROPPED.get();
    let before = dropped();
    let others: Vec<_> = (0..50).map(|_| world.house.foreigner()).collect();
    world.turn();
    let told = std::iter::from_fn(|| watcher.try_hear()).count();
    assert_eq!(told, 4000 / 128);
    assert!(dropped() - before >= 50 - told as i64);
    assert_eq!(world.call(&mut watcher, "wamp.session.count", json!([])), json!(others.len() + 1));
    let late = world.house.foreigner();
    world.turn();
    assert_eq!(watcher.hear()[4][0]["session"], json!(late.0.id().0));
}

// ---- the rest --------------------------------------------------------------------------------------------

#[test]
fn the_meta_api_is_announced_where_it_is() {
    let features = |house: &House| {
        let mut client = house.connect(Format::Json);
        client.say(hello(json!({"roles": {"caller": {}}})));
        let roles = client.hear()[2]["roles"].clone();
        let has = |role: &str, feature: &str| roles[role]["features"][feature] == json!(true);
        [
            has("broker", "session_meta_api"),
            has("dealer", "session_meta_api"),
            has("broker", "subscription_meta_api"),
            has("dealer", "registration_meta_api"),
        ]
    };
    assert_eq!(features(&World::new().house), [true; 4]);
    assert_eq!(features(&House::new()), [false; 4]);
}

#[test]
fn an_answer_comes_in_the_words_of_the_caller_whatever_the_arguments_are() {
    for format in FORMATS {
        let world = World::new();
        let mut client = world.house.join(format);
        // Without any, with empty ones, with more than there are, and with ones that are no list.
        for message in [
            json!([48, 1, {}, "wamp.session.count"]),
            json!([48, 1, {}, "wamp.session.count", []]),
            json!([48, 1, {}, "wamp.session.count", [null, 1, 2, 3], {"x": 1}]),
        ] {
            client.say(message);
            world.turn();
            assert_eq!(client.hear(), json!([50, 1, {}, [1]]));
        }
        client.say(json!([48, 2, {}, "wamp.session.count", "\u{0}AAAA"]));
        world.turn();
        assert_eq!(error_of(&client.hear()), (48, 2, "wamp.error.invalid_argument"));
        client.say(json!([48, 3, {"progress": true}, "wamp.session.count"]));
        client.is_aborted();
    }
}

#[test]
fn the_meta_api_leaves_with_the_realm_and_holds_it_no_longer() {
    let world = World::new();
    let client = world.house.join(Format::Json);
    let realm = Arc::downgrade(&world.house.realm);
    world.house.realm.say_farewell(Farewell::Shutdown);
    let mut parcels = VecDeque::new();
    let World { house, meta, .. } = world;
    let (meta, mut inbox) = meta.into_inner();
    assert!(inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut parcels).is_ready());
    assert!(matches!(parcels.make_contiguous(), [Parcel::Farewell(Farewell::Shutdown)]));
    drop((meta, inbox, client, house));
    assert_eq!(realm.strong_count(), 0);
}
