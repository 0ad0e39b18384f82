//! Permissions, as STOMP clients meet them.

use std::sync::Mutex;

use tandem_broker::core::access::Action;
use tandem_broker::core::access::authorizer::{Authorizer, Authorizing, Decision, Question};
use tandem_broker::core::access::rules::{Effect, Rule, Rules};

use super::*;

const YES: Decision = Decision { allow: true, disclose: None, cache: None };
const NO: Decision = Decision { allow: false, ..YES };

fn everything() -> Pattern {
    Pattern::prefix("").expect("a pattern")
}

fn rule(actions: &[Action], pattern: Pattern, effect: Effect) -> Rule {
    Rule { number: 1, role: None, actions: actions.into(), pattern, effect }
}

fn allow() -> Effect {
    Effect::Allow { disclose: None }
}

fn set(house: &House, list: impl IntoIterator<Item = Rule>) {
    house.realm.set_rules(Rules::new(list.into_iter().collect()).expect("rules"));
}

/// Answers as it was told to, and remembers what it was asked.
struct Oracle {
    answer: Mutex<Result<Decision, Refusal>>,
    asked: Mutex<Vec<String>>,
}

impl Oracle {
    fn in_house(house: &House, actions: &[Action]) -> Arc<Oracle> {
        let oracle = Arc::new(Oracle { answer: Mutex::new(Ok(YES)), asked: Mutex::default() });
        house.realm.set_authorizer(Some(oracle.clone()));
        let ask = Effect::Ask { authorizer: name("com.authorize"), keep: None };
        let others: Vec<Action> =
            Action::ALL.into_iter().filter(|action| !actions.contains(action)).collect();
        set(house, [rule(actions, everything(), ask), rule(&others, everything(), allow())]);
        oracle
    }

    fn says(&self, answer: Result<Decision, Refusal>) {
        *self.answer.lock().expect("not poisoned") = answer;
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").drain(..).collect()
    }
}

impl Authorizer for Oracle {
    fn authorize(&self, question: Question) -> Authorizing {
        let told = format!("{} {}", question.action, question.pattern);
        self.asked.lock().expect("not poisoned").push(told);
        Box::pin(std::future::ready(self.answer.lock().expect("not poisoned").clone()))
    }
}

impl Client {
    /// The pump has the answer to what the session waits for.
    fn is_answered(&mut self) {
        let Inquiry(mut answer) = self.inquiry.take().expect("the session waits for an answer");
        let mut context = Context::from_waker(Waker::noop());
        let std::task::Poll::Ready(answer) = answer.as_mut().poll(&mut context) else {
            panic!("this authorizer answers at once")
        };
        self.session.deliver(Parcel::Authorized(Box::new(answer)), self.now);
        self.poll();
    }
}

/// A frame for each action, in their order, that asks for a receipt.
const FRAMES: [&str; 6] = [
    "SEND\ndestination:/topic/a.b\nreceipt:r\n\nx",
    "SUBSCRIBE\nid:1\ndestination:/topic/a.b\nreceipt:r\n\n",
    "SEND\ndestination:/call/a.b\nreply-to:/temp-queue/t\nreceipt:r\n\nx",
    "SUBSCRIBE\nid:1\ndestination:/procedure/a.b\nreceipt:r\n\n",
    "SEND\ndestination:/queue/a.b\nreceipt:r\n\nx",
    "SUBSCRIBE\nid:1\ndestination:/queue/a.b\nreceipt:r\n\n",
];

#[test]
fn what_is_not_permitted_is_an_error_and_for_a_call_an_answer() {
    for allowed in Action::ALL {
        for (action, frame) in Action::ALL.into_iter().zip(FRAMES) {
            let house = House::new();
            set(&house, [rule(&[allowed], Pattern::exact(name("a.b")), allow())]);
            let mut client = house.connect("1.2");
            match action {
                Action::Call => {
                    client.say(frame);
                    client.receipt("r");
                    let no = if allowed == action { "no_such_procedure" } else { "not_authorized" };
                    let answer = client.expect(Command::Message, &[("error", &format!("wamp.error.{no}"))]);
                    assert_eq!(header(&answer, "subscription"), "/temp-queue/t");
                }
                _ if action == allowed => {
                    client.say(frame);
                    client.receipt("r");
                }
                _ => {
                    let error = client.refused(frame, "Access refused");
                    assert_eq!(header(&error, "receipt-id"), "r");
                    let body = String::from_utf8_lossy(&error.body).into_owned();
                    assert_eq!(body, format!("there is no permission to {action} \"a.b\""));
                    assert_eq!(client.reason(), Some(Reason::Refused));
                }
            }
        }
    }
}

#[test]
fn patterns_take_a_permission_for_all_of_them() {
    for (destination, allowed) in [
        ("/topic/a.b", true),
        ("/topic/a.*", true),
        ("/topic/a.#", false),
        ("/topic/a.b.#", true),
        ("/topic/*.b", false),
        ("/topic/a.%2A", true),
        ("/topic/#", false),
        ("/procedure/a.*", false),
    ] {
        let house = House::new();
        set(&house, [rule(&[Action::Subscribe], Pattern::prefix("a.").expect("a pattern"), allow())]);
        let mut client = house.connect("1.2");
        let frame = format!("SUBSCRIBE\nid:1\ndestination:{destination}\nreceipt:r\n\n");
        if allowed {
            client.say(&frame);
            client.receipt("r");
        } else {
            client.refused(&frame, "Access refused");
        }
    }
}

#[test]
fn what_is_denied_of_a_pattern_does_not_come_acknowledged_or_not() {
    for ack in ["auto", "client", "client-individual"] {
        let house = House::new();
        let deny = rule(&[Action::Subscribe], Pattern::exact(name("a.secret")), Effect::Deny);
        set(&house, [rule(&Action::ALL, everything(), allow()), deny]);
        let mut client = house.connect("1.2");
        client.say(&format!("SUBSCRIBE\nid:1\ndestination:/topic/#\nack:{ack}\n\n"));
        let (neighbour, _inbox) = house.neighbour();
        for topic in ["a.secret", "a.b"] {
            neighbour.publish(outgoing(topic, "[\"x\"]"), true).expect("allowed");
        }
        assert_eq!(header(&client.next(), "destination"), "/topic/a.b");
        assert!(client.hear().is_empty());
    }
}

#[test]
fn each_action_is_asked_about_and_done_or_refused_as_was_answered() {
    for (action, frame) in Action::ALL.into_iter().zip(FRAMES) {
        for answer in [Ok(YES), Ok(NO), Err(Refusal::AuthorizationFailed)] {
            let house = House::new();
            let oracle = Oracle::in_house(&house, &[action]);
            oracle.says(answer.clone());
            let mut client = house.connect("1.2");
            client.say(frame);
            assert!(client.hear().is_empty(), "nothing is said before it is decided");
            client.is_answered();
            assert_eq!(oracle.asked(), [format!("{action} a.b")]);
            let error = match answer {
                Ok(YES) => "wamp.error.no_such_procedure",
                Ok(_) => "wamp.error.not_authorized",
                Err(_) => "wamp.error.authorization_failed",
            };
            if action == Action::Call {
                client.receipt("r");
                client.expect(Command::Message, &[("error", error)]);
            } else if answer == Ok(YES) {
                client.receipt("r");
            } else {
                client.expect(Command::Error, &[("message", "Access refused"), ("receipt-id", "r")]);
                assert_eq!(client.reason(), Some(Reason::Refused));
            }
        }
    }
}

#[test]
fn frames_after_one_that_is_held_keep_their_place_in_one_message_or_several() {
    let frames = "SUBSCRIBE\nid:1\ndestination:/topic/t\nreceipt:1\n\n\0\nSEND\ndestination:/topic/t\nreceipt:2\n\none\0\
                  SEND\ndestination:/topic/t\nreceipt:3\n\ntwo\0DISCONNECT\nreceipt:4\n\n\0";
    for length in [1, 7, 40, 1000] {
        let house = House::new();
        let oracle = Oracle::in_house(&house, &[Action::Publish, Action::Subscribe]);
        let mut client = house.open();
        client.kind = Kind::Raw;
        client.send(b"CONNECT\naccept-version:1.2\nhost:h\n\n\0");
        client.expect(Command::Connected, &[]);
        for piece in frames.as_bytes().chunks(length) {
            client.send(piece);
        }
        assert!(client.heard.is_empty());
        for number in ["1", "2", "3"] {
            client.is_answered();
            let frame = client.heard.pop_front().expect("a receipt");
            assert_eq!((frame.command, frame.headers.get("receipt-id")), (Command::Receipt, Some(number)));
        }
        let last = client.heard.pop_front().expect("a receipt");
        assert_eq!(last.headers.get("receipt-id"), Some("4"));
        assert_eq!(client.reason(), Some(Reason::Done));
        assert_eq!(oracle.asked(), ["subscribe t", "publish t", "publish t"]);
    }
}

#[test]
fn of_many_frames_in_one_message_some_are_taken_at_once_and_all_in_their_order() {
    let frames = |numbers: std::ops::Range<u32>| -> String {
        numbers.map(|number| format!("SEND\ndestination:/topic/t\nreceipt:{number}\n\n\0")).collect()
    };
    let subscribe = "SUBSCRIBE\nid:1\ndestination:/topic/u\nreceipt:asked\n\n\0";
    for asks in [false, true] {
        let house = House::new();
        let actions: &[Action] = if asks { &[Action::Subscribe] } else { &[] };
        let _oracle = Oracle::in_house(&house, actions);
        let mut client = house.connect("1.2");
        let message = frames(0..50) + subscribe + &frames(50..200);
        client.session.receive(client.kind, Bytes::from(message), client.now);
        let mut said = 0;
        while let Some(output) = client.session.poll() {
            said += usize::from(matches!(output, Output::Send(_)));
        }
        assert!((1..50).contains(&said), "there is no end to what is taken at once: {said}");
        client.poll();
        client.send(frames(200..210).as_bytes());
        if asks {
            client.is_answered();
        }
        let receipts = client.heard.iter().map(|frame| frame.headers.get("receipt-id").unwrap_or_default());
        let numbers = |numbers: std::ops::Range<usize>| numbers.map(|number| number.to_string());
        let expected = numbers(said..50).chain(["asked".to_owned()]).chain(numbers(50..210));
        assert_eq!(receipts.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}

#[test]
fn too_much_after_a_frame_that_is_held_ends_the_session() {
    let house = House::new();
    Oracle::in_house(&house, &[Action::Publish]);
    let mut client = house.connect("1.2");
    client.say("SEND\ndestination:/topic/t\n\none");
    let large = format!("SEND\ndestination:/topic/t\n\n{}", "x".repeat(100_000));
    client.say(&large);
    client.say(&large);
    assert_eq!(client.reason(), None);
    client.say(&large);
    assert_eq!(client.reason(), Some(Reason::TooBig));
    assert_eq!(house.realm.sessions(), 0);
}

#[test]
fn a_transaction_asks_as_it_grows_and_is_judged_again_when_it_is_committed() {
    let house = House::new();
    let oracle = Oracle::in_house(&house, &[Action::Publish, Action::Send]);
    let mut client = house.connect("1.2");
    client.say("BEGIN\ntransaction:t\n\n");
    for destination in ["/topic/t", "/queue/q"] {
        client.say(&format!("SEND\ndestination:{destination}\ntransaction:t\n\nx"));
        client.is_answered();
    }
    // Who says where dead letters go may send there.
    client.say("SEND\ndestination:/queue/q2\ntransaction:t\nx-dead-letter-routing-key:grave\n\nx");
    client.is_answered();
    client.is_answered();
    assert_eq!(oracle.asked(), ["publish t", "send q", "send q2", "send grave"]);
    client.say("COMMIT\ntransaction:t\nreceipt:c\n\n");
    client.receipt("c");
    assert!(client.inquiry.is_none());
    assert_eq!(house.realm.queues().len(), 2);

    client.say("BEGIN\ntransaction:u\n\n");
    client.say("SEND\ndestination:/queue/other\ntransaction:u\n\nx");
    client.is_answered();
    set(&house, [rule(&[Action::Publish], everything(), allow())]);
    client.refused("COMMIT\ntransaction:u\nreceipt:c\n\n", "Access refused");
    assert_eq!(house.realm.queues().len(), 2);

    // Where the dead letters may not go, at once or when it is committed.
    oracle.says(Ok(NO));
    set(&house, [rule(&[Action::Send], Pattern::exact(name("q")), allow())]);
    let frame = "SEND\ndestination:/queue/q\ntransaction:v\nx-dead-letter-routing-key:grave\n\nx";
    let mut client = house.connect("1.2");
    client.say("BEGIN\ntransaction:v\n\n");
    client.refused(frame, "Access refused");
    set(&house, [rule(&[Action::Send], everything(), allow())]);
    let mut client = house.connect("1.2");
    client.say("BEGIN\ntransaction:v\n\n");
    client.say(frame);
    set(&house, [rule(&[Action::Send], Pattern::exact(name("q")), allow())]);
    client.refused("COMMIT\ntransaction:v\n\n", "Access refused");
}

#[test]
fn where_the_answer_to_a_call_may_not_go_the_call_is_refused() {
    let house = House::new();
    let deny = rule(&[Action::Publish, Action::Send], Pattern::exact(name("a.b")), Effect::Deny);
    set(&house, [rule(&Action::ALL, everything(), allow()), deny]);
    for reply_to in ["/topic/a.b", "/queue/a.b"] {
        let mut client = house.connect("1.2");
        client.refused(&format!("SEND\ndestination:/call/p\nreply-to:{reply_to}\n\nx"), "Access refused");
    }
    let oracle = Oracle::in_house(&house, &[Action::Call, Action::Send]);
    let mut client = house.connect("1.2");
    client.say("SEND\ndestination:/call/p\nreply-to:/queue/answers\n\nx");
    client.is_answered();
    client.is_answered();
    assert_eq!(oracle.asked(), ["send answers", "call p"]);
    assert_eq!(house.realm.queues().len(), 1, "what came of it was not asked about again");
}

#[test]
fn a_consumer_that_may_not_consume_any_more_is_told_by_the_end_of_its_session() {
    let house = House::new();
    let (mut reader, mut other) = (house.connect("1.2"), house.connect("1.2"));
    reader.say("SUBSCRIBE\nid:1\ndestination:/queue/q\n\n");
    other.say("SUBSCRIBE\nid:1\ndestination:/topic/t\nack:client\n\n");
    set(&house, [rule(&[Action::Subscribe], everything(), allow())]);
    let error = reader.expect(Command::Error, &[("message", "Access refused")]);
    assert_eq!(String::from_utf8_lossy(&error.body), "there is no permission to consume \"q\"");
    assert!(other.hear().is_empty() && other.reason().is_none());
}

#[test]
fn a_callee_is_told_who_calls_where_a_rule_says_so_and_by_the_broker_alone() {
    for (disclose, told) in [(None, None), (Some(false), None), (Some(true), Some("nobody"))] {
        let house = House::new();
        set(&house, [rule(&Action::ALL, everything(), Effect::Allow { disclose })]);
        let (mut callee, mut caller) = (house.connect("1.2"), house.connect("1.2"));
        callee.say("SUBSCRIBE\nid:1\ndestination:/procedure/p\n\n");
        caller.say("SEND\ndestination:/call/p\nx-caller:1\nx-caller-authid:root\n\nx");
        let call = callee.expect(Command::Message, &[("destination", "/procedure/p")]);
        assert_eq!(call.headers.get("x-caller-authid"), told);
        assert_eq!(call.headers.get("x-caller").is_some(), told.is_some());
    }
}

#[test]
fn heart_beats_go_on_while_a_frame_is_held() {
    let house = House::new();
    Oracle::in_house(&house, &[Action::Publish]);
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nhost:h\nheart-beat:0,1000\n\n");
    client.expect(Command::Connected, &[]);
    client.say("SEND\ndestination:/topic/t\nreceipt:r\n\none");
    let before = client.beats;
    client.after(1000);
    assert_eq!(client.beats, before + 1);
    client.is_answered();
    client.receipt("r");
}

#[test]
fn a_durable_subscription_ends_by_the_name_that_it_has_though_somebody_must_be_asked() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:1\ndestination:/topic/a.b\nactivemq.subscriptionName:news\nreceipt:1\n\n");
    client.receipt("1");
    let oracle = Oracle::in_house(&house, &[Action::Subscribe]);
    client.say("UNSUBSCRIBE\nid:1\ndurable:true\nreceipt:2\n\n");
    assert_eq!(house.realm.durable_subscriptions(), 1);
    client.is_answered();
    client.receipt("2");
    assert_eq!(oracle.asked(), ["subscribe a.b"]);
    assert_eq!(house.realm.durable_subscriptions(), 0);
}

#[test]
fn what_is_sent_again_and_again_is_judged_each_time() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n");
    let say = |client: &mut Client| (0..4).for_each(|_| client.say("SEND\ndestination:/topic/a\n\nx"));
    say(&mut client);
    assert_eq!(client.bodies(), ["x"; 4]);
    let oracle = Oracle::in_house(&house, &[Action::Publish]);
    for _ in 0..4 {
        client.say("SEND\ndestination:/topic/a\n\ny");
        client.is_answered();
    }
    assert_eq!((client.bodies().len(), oracle.asked().len()), (4, 4));
    set(&house, [rule(&Action::ALL, everything(), allow())]);
    say(&mut client);
    assert_eq!(client.bodies(), ["x"; 4]);
    set(&house, [rule(&[Action::Subscribe], everything(), allow())]);
    client.refused("SEND\ndestination:/topic/a\n\nx", "Access refused");
}
