//! The advanced profile of calls, face to face.

use tandem_broker::core::mailbox::{Bounds, Overflow};

use super::*;

const CANCELED: &str = "wamp.error.canceled";
const TIMEOUT: &str = "wamp.error.timeout";

/// A caller, and a callee of `a` that can be interrupted.
fn pair(house: &House) -> (Client, Client) {
    let (caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    (caller, callee)
}

impl Client {
    /// Time passes.
    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.session.tick(self.now);
        self.drain();
    }

    /// It is called, with this number.
    fn is_invoked(&mut self) -> u64 {
        let invocation = self.hear();
        assert_eq!(invocation[0], json!(68), "{invocation}");
        invocation[1].as_u64().unwrap()
    }

    fn fails(&mut self, request: u64, uri: &str) {
        assert_eq!(error_of(&self.hear()), (48, request, uri));
    }
}

// ---- canceling -------------------------------------------------------------------------------------------

#[test]
fn canceling_by_skip_tells_the_callee_nothing() {
    let house = House::new();
    let (mut caller, mut callee) = pair(&house);
    caller.say(json!([48, 1, {}, "a"]));
    callee.is_invoked();
    caller.say(json!([49, 1, {"mode": "skip"}]));
    caller.fails(1, CANCELED);
    callee.hears_nothing();
    callee.say(json!([70, 1, {}, ["late"]]));
    caller.hears_nothing();
}

#[test]
fn canceling_by_kill_waits_for_the_callee() {
    let house = House::new();
    let (mut caller, mut callee) = pair(&house);
    for (request, answer) in [(1, json!([70, 1, {}, ["done"]])), (2, json!([8, 68, 2, {}, "x.stopped"]))] {
        caller.say(json!([48, request, {}, "a"]));
        callee.is_invoked();
        caller.say(json!([49, request, {"mode": "kill"}]));
        caller.hears_nothing();
        assert_eq!(callee.hear(), json!([69, request, {"mode": "kill"}]));
        // The second time is as good as none, in whatever mode.
        caller.say(json!([49, request, {"mode": "killnowait"}]));
        caller.hears_nothing();
        callee.hears_nothing();
        callee.say(answer);
        match request {
            1 => assert_eq!(caller.hear(), json!([50, 1, {}, ["done"]])),
            _ => caller.fails(request, "x.stopped"),
        }
    }
    // It is over when the callee is.
    caller.say(json!([48, 3, {}, "a"]));
    caller.say(json!([49, 3, {"mode": "kill"}]));
    drop(callee);
    caller.fails(3, CANCELED);
    assert_eq!(house.realm.calls().pending(), 0);
}

#[test]
fn a_callee_that_cannot_be_interrupted_is_not_waited_for() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.connect(Format::Json));
    callee.ask(hello(json!({"roles": {"callee": {}}})));
    callee.register("a", "exact");
    for (request, mode) in [(1, "skip"), (2, "kill"), (3, "killnowait")] {
        caller.say(json!([48, request, {}, "a"]));
        assert_eq!(callee.is_invoked(), request);
        caller.say(json!([49, request, {"mode": mode}]));
        caller.fails(request, CANCELED);
        callee.say(json!([70, request, {}]));
        callee.hears_nothing();
        caller.hears_nothing();
    }
}

#[test]
fn an_answer_that_crosses_a_cancellation_is_the_answer() {
    let house = House::new();
    let (mut caller, mut callee) = pair(&house);
    for (request, mode) in [(1, "skip"), (2, "kill"), (3, "killnowait")] {
        caller.say(json!([48, request, {}, "a"]));
        callee.is_invoked();
        callee.say(json!([70, request, {}]));
        caller.say(json!([49, request, {"mode": mode}]));
        assert_eq!(caller.hear(), json!([50, request, {}]));
        caller.hears_nothing();
        callee.hears_nothing();
    }
    // A result that was not the last comes no more once the call was given up.
    caller.say(json!([48, 4, {"receive_progress": true}, "a"]));
    callee.is_invoked();
    callee.say(json!([70, 4, {"progress": true}]));
    caller.say(json!([49, 4, {}]));
    caller.fails(4, CANCELED);
    caller.hears_nothing();
    caller.say(json!([49, 4, {"mode": "never"}]));
    caller.is_aborted();
}

// ---- timeout ---------------------------------------------------------------------------------------------

#[test]
fn a_call_that_takes_too_long_ends() {
    let house = House::new();
    let (mut caller, mut callee) = pair(&house);
    assert_eq!(caller.session.deadline(), None);
    caller.say(json!([48, 1, {"timeout": 100}, "a"]));
    caller.say(json!([48, 2, {"timeout": 0}, "a"]));
    assert_eq!(caller.session.deadline(), Some(caller.now + Duration::from_millis(100)));
    assert_eq!(callee.hear()[3], json!({}), "the timeout is the router's business");
    callee.is_invoked();
    caller.wait(99);
    caller.hears_nothing();
    caller.wait(1);
    caller.fails(1, TIMEOUT);
    assert_eq!(callee.hear(), json!([69, 1, {"mode": "killnowait"}]));
    callee.say(json!([70, 1, {}]));
    caller.wait(1 << 40);
    caller.hears_nothing();
    callee.say(json!([70, 2, {}]));
    assert_eq!(caller.hear(), json!([50, 2, {}]));
}

#[test]
fn an_answer_stops_the_clock_and_progress_sets_it_again() {
    let house = House::new();
    let (mut caller, mut callee) = pair(&house);
    caller.say(json!([48, 1, {"timeout": 100, "receive_progress": true}, "a"]));
    for _ in 0..3 {
        caller.wait(99);
        callee.say(json!([70, 1, {"progress": true}]));
        assert_eq!(caller.hear()[0], json!(50));
    }
    callee.say(json!([70, 1, {}]));
    caller.wait(100);
    assert_eq!(caller.hear(), json!([50, 1, {}]), "it lay in the mailbox when the time was over");
    assert_eq!(caller.session.deadline(), None);
    // Waiting for a callee that was told to stop is bounded too.
    caller.say(json!([48, 2, {"timeout": 100}, "a"]));
    caller.say(json!([49, 2, {"mode": "kill"}]));
    caller.wait(100);
    caller.fails(2, TIMEOUT);
    caller.say(json!([48, 3, {"timeout": 100}, "tandem.queue.receive", ["q"]]));
    caller.wait(100);
    caller.fails(3, TIMEOUT);
    assert_eq!(house.realm.calls().pending(), 0);
}

#[test]
fn a_callee_that_wants_to_know_is_told_of_the_timeout() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.ask(json!([64, 1, {"forward_timeout": true}, "a"]));
    caller.say(json!([48, 1, {"timeout": 100}, "a"]));
    assert_eq!(callee.hear()[3], json!({"timeout": 100}));
    caller.say(json!([48, 2, {}, "a"]));
    assert_eq!(callee.hear()[3], json!({}));
}

// ---- shared registrations --------------------------------------------------------------------------------

impl Client {
    fn offer(&mut self, procedure: &str, options: Value) -> Value {
        self.ask(json!([64, 8, options, procedure]))
    }
}

/// Three callees of `a` under a policy, and a caller.
fn trio(house: &House, options: &Value) -> (Client, [Client; 3]) {
    let mut callees = [(); 3].map(|()| house.join(Format::Json));
    let ids: Vec<Value> = callees.iter_mut().map(|callee| callee.offer("a", options.clone())).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id[0] == json!(65)), "{ids:?}");
    (house.join(Format::Json), callees)
}

/// Who of them is invoked; they answer at once.
fn who_is_called(caller: &mut Client, callees: &mut [Client]) -> usize {
    caller.say(json!([48, 1, {}, "a"]));
    let (place, invocation) = callees
        .iter_mut()
        .enumerate()
        .find_map(|(place, callee)| callee.try_hear().map(|invocation| (place, invocation)))
        .expect("somebody is invoked");
    callees[place].say(json!([70, invocation[1], {}]));
    assert_eq!(caller.hear(), json!([50, 1, {}]));
    place
}

#[test]
fn a_policy_says_who_of_several_callees_is_called() {
    for (invoke, expected) in
        [("first", [0, 0, 0, 0, 0, 0]), ("last", [2, 2, 2, 2, 2, 2]), ("roundrobin", [0, 1, 2, 0, 1, 2])]
    {
        let house = House::new();
        let (mut caller, mut callees) = trio(&house, &json!({"invoke": invoke}));
        let called = [(); 6].map(|()| who_is_called(&mut caller, &mut callees));
        assert_eq!(called, expected, "{invoke}");
    }
    let house = House::new();
    let (mut caller, mut callees) = trio(&house, &json!({"invoke": "random"}));
    let mut counts = [0; 3];
    (0..300).for_each(|_| counts[who_is_called(&mut caller, &mut callees)] += 1);
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

#[test]
fn callees_that_leave_are_passed_over() {
    let house = House::new();
    let (mut caller, callees) = trio(&house, &json!({"invoke": "roundrobin"}));
    let [first, second, mut third] = callees;
    drop(first);
    let mut two = [second, third];
    assert_eq!([(); 3].map(|()| who_is_called(&mut caller, &mut two)), [0, 1, 0]);
    let [second, left] = two;
    third = left;
    let id = third.offer("a", json!({"invoke": "roundrobin"}))[2].clone();
    assert_eq!(third.ask(json!([66, 9, id])), json!([67, 9]));
    assert_eq!(error_of(&third.ask(json!([66, 9, id]))).2, "wamp.error.no_such_registration");
    let mut one = [second];
    assert_eq!(who_is_called(&mut caller, &mut one), 0);
    drop(one);
    caller.say(json!([48, 1, {}, "a"]));
    caller.fails(1, "wamp.error.no_such_procedure");
}

#[test]
fn a_procedure_has_one_policy() {
    let house = House::new();
    let (mut one, mut other) = (house.join(Format::Json), house.join(Format::Json));
    one.offer("a", json!({"invoke": "first"}));
    one.offer("b", json!({}));
    for (procedure, invoke, uri) in [
        ("a", "last", "wamp.error.procedure_exists_with_different_invocation_policy"),
        ("a", "single", "wamp.error.procedure_exists_with_different_invocation_policy"),
        ("b", "first", "wamp.error.procedure_already_exists"),
        ("b", "single", "wamp.error.procedure_already_exists"),
    ] {
        for client in [&mut one, &mut other] {
            let error = client.offer(procedure, json!({"invoke": invoke}));
            assert_eq!(error_of(&error), (64, 8, uri));
        }
    }
}

#[test]
fn a_callee_has_no_more_under_way_than_it_takes() {
    let house = House::new();
    let (mut caller, mut callees) = trio(&house, &json!({"invoke": "first", "concurrency": 2}));
    for request in 1..=6 {
        caller.say(json!([48, request, {}, "a"]));
    }
    for callee in &mut callees {
        assert_eq!([callee.is_invoked(), callee.is_invoked()], [1, 2]);
    }
    caller.say(json!([48, 7, {}, "a"]));
    caller.fails(7, "crossbar.error.max_concurrency_reached");
    // An answer makes room, and so does giving up.
    callees[1].say(json!([70, 1, {}]));
    assert_eq!(caller.hear(), json!([50, 3, {}]));
    caller.say(json!([49, 5, {}]));
    caller.fails(5, CANCELED);
    callees[2].hear();
    caller.say(json!([48, 8, {}, "a"]));
    caller.say(json!([48, 9, {}, "a"]));
    assert_eq!((callees[1].is_invoked(), callees[2].is_invoked()), (3, 3));
}

// ---- who calls -------------------------------------------------------------------------------------------

#[test]
fn a_callee_knows_who_calls_if_the_caller_or_the_callee_wants_it() {
    let house = House::new();
    let (mut caller, mut callee) = (house.connect(Format::Json), house.join(Format::MsgPack));
    let session = caller.ask(hello(json!({"roles": {"caller": {}}})))[1].clone();
    callee.offer("a", json!({}));
    callee.offer("b", json!({"disclose_caller": true}));
    let who = json!({"caller": session, "caller_authid": "guest", "caller_authrole": "anonymous"});
    for (request, (procedure, options, told)) in [
        ("a", json!({}), json!({})),
        ("a", json!({"disclose_me": false}), json!({})),
        ("a", json!({"disclose_me": true}), who.clone()),
        ("b", json!({}), who.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        caller.say(json!([48, request + 1, options, procedure]));
        assert_eq!(callee.hear()[3], told);
    }
}

// ---- taking away, and going elsewhere --------------------------------------------------------------------

#[test]
fn a_procedure_is_taken_by_force() {
    let house = House::new();
    let (mut caller, mut rival) = (house.join(Format::Json), house.join(Format::Json));
    let (mut deaf, mut callee) = (house.join(Format::Json), house.connect(Format::Json));
    let features = json!({"registration_revocation": true});
    callee.ask(hello(json!({"roles": {"callee": {"features": features}}})));
    let id = callee.offer("a", json!({"invoke": "first"}))[2].clone();
    assert_eq!(deaf.offer("a", json!({"invoke": "first"}))[2], id);
    caller.say(json!([48, 1, {}, "a"]));
    let registered = rival.offer("a", json!({"force_reregister": true}));
    assert!(registered[0] == json!(65) && registered[2] != id);
    caller.say(json!([48, 2, {}, "a"]));
    // What was under way before is the old callee's.
    assert_eq!(callee.is_invoked(), 1);
    let details = json!({"registration": id, "reason": "tandem.reason.reregistered"});
    assert_eq!(callee.hear(), json!([67, 0, details]));
    deaf.hears_nothing();
    callee.say(json!([70, 1, {}]));
    assert_eq!(caller.hear(), json!([50, 1, {}]));
    assert_eq!(rival.is_invoked(), 1);
    assert_eq!(error_of(&callee.ask(json!([66, 9, id]))).2, "wamp.error.no_such_registration");
    // Without force it is as before.
    assert_eq!(error_of(&callee.offer("a", json!({}))).2, "wamp.error.procedure_already_exists");
    assert_eq!(callee.offer("a", json!({"force_reregister": true}))[0], json!(65));
}

#[test]
fn a_call_goes_to_another_callee_where_one_is_unavailable() {
    let house = House::new();
    let (mut caller, mut callees) = trio(&house, &json!({"invoke": "first"}));
    caller.say(json!([48, 1, {}, "a", ["x"]]));
    for callee in &mut callees {
        let invocation = callee.hear();
        assert_eq!((&invocation[0], &invocation[4]), (&json!(68), &json!(["x"])));
        caller.hears_nothing();
        callee.say(json!([8, 68, invocation[1], {}, "wamp.error.unavailable"]));
    }
    caller.fails(1, "wamp.error.no_available_callee");
    // One that was told to stop, or that has given results, is not replaced.
    caller.say(json!([48, 2, {"receive_progress": true}, "a"]));
    callees[0].is_invoked();
    callees[0].say(json!([70, 2, {"progress": true}]));
    callees[0].say(json!([8, 68, 2, {}, "wamp.error.unavailable"]));
    assert_eq!(caller.hear(), json!([50, 2, {"progress": true}]));
    caller.fails(2, "wamp.error.unavailable");
    caller.say(json!([48, 3, {}, "a"]));
    caller.say(json!([49, 3, {"mode": "kill"}]));
    callees[0].is_invoked();
    assert_eq!(callees[0].hear(), json!([69, 3, {"mode": "kill"}]));
    callees[0].say(json!([8, 68, 3, {}, "wamp.error.unavailable"]));
    caller.fails(3, "wamp.error.unavailable");
    // What a callee has not seen when it ends its part goes to another.
    let id = callees[0].offer("a", json!({"invoke": "first"}))[2].clone();
    caller.say(json!([48, 4, {}, "a"]));
    let bytes = callees[0].encode(&json!([66, 9, id]));
    callees[0].session.receive(Kind::Text, bytes, callees[0].now);
    callees[0].drain();
    assert_eq!(callees[0].hear(), json!([67, 9]));
    callees[0].hears_nothing();
    assert_eq!(callees[1].is_invoked(), 2);
    caller.hears_nothing();
}

#[test]
fn a_callee_that_does_not_read_is_passed_over() {
    let mut house = House::new();
    house.bounds = Bounds { bytes_soft_max: 600, bytes_max: 1 << 20, overflow: Overflow::Disconnect };
    let (mut caller, mut callees) = trio(&house, &json!({"invoke": "first"}));
    for request in 1..=6 {
        caller.say(json!([48, request, {}, "a"]));
    }
    caller.say(json!([48, 7, {}, "a"]));
    caller.fails(7, "wamp.error.unavailable");
    for callee in &mut callees {
        assert_eq!([callee.is_invoked(), callee.is_invoked()], [1, 2]);
    }
}

// ---- arguments in parts ----------------------------------------------------------------------------------

impl House {
    /// A client that calls in parts, and can be called so.
    fn join_for_parts(&self) -> Client {
        let mut client = self.connect(Format::Json);
        let features = json!({"progressive_call_invocations": true, "call_canceling": true});
        let role = json!({"features": features});
        client.say(hello(json!({"roles": {"caller": role, "callee": role}})));
        assert_eq!(client.hear()[0], json!(2));
        client
    }
}

#[test]
fn arguments_come_in_parts_under_one_number() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join_for_parts(), house.join_for_parts());
    let id = callee.register("a", "prefix");
    let options = json!({"progress": true, "receive_progress": true, "timeout": 100});
    caller.say(json!([48, 1, options, "a.b", [1]]));
    caller.say(json!([48, 1, {"progress": true}, "a.b", [2]]));
    let details = json!({"procedure": "a.b", "receive_progress": true, "progress": true});
    assert_eq!(callee.hear(), json!([68, 1, id, details, [1]]));
    assert_eq!(callee.hear(), json!([68, 1, id, details, [2]]));
    callee.say(json!([70, 1, {"progress": true}, ["got 2"]]));
    assert_eq!(caller.hear(), json!([50, 1, {"progress": true}, ["got 2"]]));
    // It goes on after the registration ended.
    assert_eq!(callee.ask(json!([66, 9, id])), json!([67, 9]));
    caller.say(json!([48, 1, {}, "a.b", [3]]));
    let details = json!({"procedure": "a.b", "receive_progress": true});
    assert_eq!(callee.hear(), json!([68, 1, id, details, [3]]));
    callee.say(json!([70, 1, {}, ["all"]]));
    assert_eq!(caller.hear(), json!([50, 1, {}, ["all"]]));
    // The number is free again.
    caller.say(json!([48, 1, {}, "a.b"]));
    caller.fails(1, "wamp.error.no_such_procedure");
}

#[test]
fn parts_that_come_after_the_end_are_for_nobody() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join_for_parts(), house.join_for_parts());
    callee.register("a", "exact");
    caller.say(json!([48, 1, {"progress": true}, "a"]));
    callee.is_invoked();
    callee.say(json!([70, 1, {}, ["enough"]]));
    // The answer lies in the mailbox, and then it does not.
    caller.say(json!([48, 1, {"progress": true}, "a"]));
    assert_eq!(caller.hear(), json!([50, 1, {}, ["enough"]]));
    caller.say(json!([48, 1, {"progress": true}, "a"]));
    caller.say(json!([48, 1, {}, "a"]));
    callee.hears_nothing();
    caller.hears_nothing();
    // What the callee has not seen when the call is given up it never sees.
    caller.say(json!([48, 2, {"progress": true}, "a"]));
    callee.is_invoked();
    caller.say(json!([48, 2, {"progress": true}, "a"]));
    caller.say(json!([49, 2, {}]));
    caller.fails(2, CANCELED);
    assert_eq!(callee.hear(), json!([69, 2, {"mode": "killnowait"}]));
    caller.say(json!([48, 2, {}, "a"]));
    callee.hears_nothing();
    // Only so many numbers are remembered.
    for request in 10..=10 + 64 {
        caller.say(json!([48, request, {"progress": true}, "a"]));
        caller.say(json!([49, request, {"mode": "skip"}]));
        caller.fails(request, CANCELED);
    }
    caller.say(json!([48, 11, {}, "a"]));
    caller.say(json!([48, 10, {}, "a"]));
    assert_eq!(house.realm.calls().pending(), 1);
}

#[test]
fn who_cannot_send_or_take_parts_is_not_made_to() {
    let house = House::new();
    let (mut caller, mut simple) = (house.join_for_parts(), house.join(Format::Json));
    simple.offer("a", json!({"invoke": "first"}));
    caller.say(json!([48, 1, {"progress": true}, "a"]));
    caller.fails(1, "wamp.error.feature_not_supported");
    // It may have sent the rest before it heard that.
    caller.say(json!([48, 1, {"progress": true}, "a"]));
    caller.say(json!([48, 1, {}, "a"]));
    caller.hears_nothing();
    let mut able = house.join_for_parts();
    able.offer("a", json!({"invoke": "first"}));
    caller.say(json!([48, 2, {"progress": true}, "a"]));
    able.is_invoked();
    simple.hears_nothing();
    simple.say(json!([48, 3, {"progress": true}, "a"]));
    simple.is_aborted();
    // What was not announced to go on does not.
    caller.say(json!([48, 4, {}, "a"]));
    caller.say(json!([48, 4, {}, "a"]));
    caller.is_aborted();
}

#[test]
fn a_callee_that_does_not_read_the_parts_ends_the_call() {
    let mut house = House::new();
    house.bounds = Bounds { bytes_soft_max: 600, bytes_max: 1 << 20, overflow: Overflow::Disconnect };
    let (mut caller, mut callee) = (house.join_for_parts(), house.join_for_parts());
    callee.register("a", "exact");
    for _ in 0..3 {
        caller.say(json!([48, 1, {"progress": true}, "a"]));
    }
    caller.fails(1, "wamp.error.unavailable");
    caller.say(json!([48, 1, {}, "a"]));
    caller.hears_nothing();
    assert_eq!(callee.is_invoked(), 1);
    assert_eq!(callee.hear(), json!([69, 1, {"mode": "killnowait"}]));
    assert_eq!(house.realm.calls().pending(), 0);
}
