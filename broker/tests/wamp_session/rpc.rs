//! The advanced profile of calls, face to face.

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
