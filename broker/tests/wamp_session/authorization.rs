//! Permissions, as WAMP clients meet them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use tandem_broker::core::access::authorizer::{ANSWERS_MAX, Decision};
use tandem_broker::core::access::rules::{Effect, Rule, Rules};
use tandem_broker::core::access::{Action, Refusal};
use tandem_broker::core::name::{Name, Pattern};
use tandem_broker::core::protocol::Reason;
use tandem_protocols::payload::Format;

use crate::wamp_harness::{Client, FORMATS, House, Oracle, error_of};

const NOT_AUTHORIZED: &str = "wamp.error.not_authorized";
const YES: Decision = Decision { allow: true, disclose: None, cache: None };
const NO: Decision = Decision { allow: false, ..YES };

fn everything() -> Pattern {
    Pattern::prefix("").unwrap()
}

fn exact(text: &str) -> Pattern {
    Pattern::exact(Name::parse(text).unwrap())
}

fn rule(role: &str, actions: &[Action], pattern: Pattern, effect: Effect) -> Rule {
    let role = (role != "*").then(|| role.into());
    Rule { number: 1, role, actions: actions.into(), pattern, effect }
}

fn allow() -> Effect {
    Effect::Allow { disclose: None }
}

fn ask(keep: Option<Duration>) -> Effect {
    Effect::Ask { authorizer: Name::parse("com.authorize").unwrap(), keep }
}

fn house_of(list: impl IntoIterator<Item = Rule>) -> House {
    let house = House::new();
    house.realm.set_rules(Rules::new(list.into_iter().collect()).unwrap());
    house
}

/// A house where somebody decides about everything.
fn asking(keep: Option<Duration>) -> (House, Arc<Oracle>) {
    let house = house_of([rule("*", &Action::ALL, everything(), ask(keep))]);
    let oracle = Arc::new(Oracle::default());
    house.realm.set_authorizer(Some(oracle.clone()));
    (house, oracle)
}

/// A request for each action, by its number.
fn requests(name: &str) -> [(Value, u64); 6] {
    [
        (json!([16, 1, {"acknowledge": true}, name]), 16),
        (json!([32, 1, {}, name]), 32),
        (json!([48, 1, {}, name]), 48),
        (json!([64, 1, {}, name]), 64),
        (json!([48, 1, {}, "tandem.queue.send", [name, "x"]]), 48),
        (json!([48, 1, {}, "tandem.queue.receive", [name]]), 48),
    ]
}

#[test]
fn what_is_not_permitted_is_not_authorized() {
    for format in FORMATS {
        for allowed in Action::ALL {
            let house = house_of([rule("anonymous", &[allowed], exact("a.b"), allow())]);
            for (action, (request, number)) in Action::ALL.into_iter().zip(requests("a.b")) {
                let mut client = house.join(format);
                client.say(request);
                let said = client.try_hear();
                let refusal = said.as_ref().filter(|said| said[0] == json!(8)).map(error_of);
                match action {
                    _ if action != allowed => assert_eq!(refusal, Some((number, 1, NOT_AUTHORIZED))),
                    Action::Call => assert_eq!(refusal, Some((48, 1, "wamp.error.no_such_procedure"))),
                    _ => assert_eq!(refusal, None, "{action}"),
                }
            }
        }
    }
}

#[test]
fn a_refused_publication_without_acknowledgement_is_dropped_in_silence() {
    let house = house_of([rule("*", &[Action::Subscribe], exact("t"), allow())]);
    let (mut client, mut other) = (house.join(Format::Json), house.join(Format::Json));
    other.subscribe("t", "exact");
    client.say(json!([16, 1, {}, "t"]));
    client.hears_nothing();
    other.hears_nothing();
}

#[test]
fn a_client_may_not_disclose_itself_where_a_rule_forbids_it() {
    let silent = Effect::Allow { disclose: Some(false) };
    let house = house_of([rule("*", &[Action::Publish, Action::Call], everything(), silent)]);
    let mut client = house.join(Format::Json);
    for (request, number) in [
        (json!([16, 1, {"acknowledge": true, "disclose_me": true}, "t"]), 16),
        (json!([48, 1, {"disclose_me": true}, "p"]), 48),
    ] {
        let refusal = client.ask(request);
        assert_eq!(error_of(&refusal), (number, 1, "wamp.error.option_disallowed.disclose_me"));
    }
    assert_eq!(client.ask(json!([16, 2, {"acknowledge": true}, "t"]))[0], json!(17));
}

#[test]
fn the_routers_own_procedures_are_called_like_others() {
    let house = house_of([rule("*", &[Action::Publish], everything(), allow())]);
    let mut client = house.join(Format::Json);
    let refusal = client.ask(json!([48, 1, {}, "wamp.session.add_testament", ["t", [], {}]]));
    assert_eq!(error_of(&refusal), (48, 1, NOT_AUTHORIZED));
    let refusal = client.ask(json!([48, 2, {}, "wamp.session.kill", [1]]));
    assert_eq!(error_of(&refusal), (48, 2, NOT_AUTHORIZED));
    let open = House::new();
    let mut client = open.join(Format::Json);
    let refusal = client.ask(json!([48, 1, {}, "wamp.session.kill", [1]]));
    assert_eq!(error_of(&refusal), (48, 1, NOT_AUTHORIZED), "without rules it is for administrators");
}

#[test]
fn a_receive_that_waits_ends_when_the_rules_forbid_it() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    client.say(json!([48, 1, {}, "tandem.queue.receive", ["q"]]));
    client.hears_nothing();
    house.realm.set_rules(Rules::new(vec![rule("*", &[Action::Call], everything(), allow())]).unwrap());
    assert_eq!(error_of(&client.hear()), (48, 1, NOT_AUTHORIZED));
    assert_eq!(
        error_of(&client.ask(json!([48, 1, {}, "tandem.queue.receive", ["q"]]))),
        (48, 1, NOT_AUTHORIZED)
    );
    client.hears_nothing();
}

// ---- asking ------------------------------------------------------------------------------------------------

#[test]
fn each_action_is_asked_about_and_done_or_refused_as_was_answered() {
    for format in FORMATS {
        for (action, (request, number)) in Action::ALL.into_iter().zip(requests("a.b")) {
            let (house, oracle) = asking(None);
            for answer in [Ok(YES), Ok(NO), Err(Refusal::AuthorizationFailed)] {
                oracle.says(answer.clone());
                let mut client = house.join(format);
                client.say(request.clone());
                assert!(client.said.is_empty(), "nothing is said before it is decided");
                client.is_answered();
                assert_eq!(oracle.asked(), [(action.to_string(), "a.b".to_owned())]);
                let said = client.try_hear();
                let refusal = said.as_ref().filter(|said| said[0] == json!(8)).map(error_of);
                match answer {
                    Ok(NO) => assert_eq!(refusal, Some((number, 1, NOT_AUTHORIZED))),
                    Err(_) => assert_eq!(refusal, Some((number, 1, "wamp.error.authorization_failed"))),
                    Ok(_) if action == Action::Call => {
                        assert_eq!(refusal, Some((48, 1, "wamp.error.no_such_procedure")));
                    }
                    Ok(_) => assert_eq!(refusal, None),
                }
            }
        }
    }
}

#[test]
fn an_authorizer_is_told_who_wants_what() {
    let (house, oracle) = asking(None);
    oracle.says(Ok(NO));
    let mut client = house.login(Format::Json, "joe");
    client.say(json!([32, 1, {"match": "prefix"}, "a."]));
    let asked = oracle.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (asked.session.0, &*asked.realm, asked.authorizer.as_str()),
        (client.id, "realm1", "com.authorize")
    );
    assert_eq!(
        (&*asked.principal.id, &*asked.principal.role, asked.principal.method),
        ("joe", "user", "ticket")
    );
    assert_eq!((asked.action, asked.pattern), (Action::Subscribe, Pattern::prefix("a.").unwrap()));
}

#[test]
fn without_anybody_to_ask_nothing_is_allowed() {
    let house = house_of([rule("*", &Action::ALL, everything(), ask(None))]);
    let mut client = house.join(Format::Json);
    client.say(json!([32, 1, {}, "t"]));
    client.is_answered();
    assert_eq!(error_of(&client.hear()), (32, 1, "wamp.error.authorization_failed"));
}

#[test]
fn what_comes_after_a_message_that_is_held_keeps_its_place() {
    let (house, oracle) = asking(None);
    oracle.says(Ok(YES));
    let mut client = house.join(Format::Json);
    client.say(json!([32, 1, {}, "t"]));
    client.say(json!([16, 2, {"acknowledge": true, "exclude_me": false}, "t"]));
    client.say(json!([48, 3, {}, "p"]));
    assert!(client.said.is_empty());
    client.is_answered();
    assert_eq!(client.hear()[0], json!(33));
    assert!(client.said.is_empty(), "the next one is asked about");
    client.is_answered();
    assert_eq!(client.hear()[0], json!(17));
    client.is_answered();
    assert_eq!(error_of(&client.hear()), (48, 3, "wamp.error.no_such_procedure"));
    assert_eq!(client.hear()[0], json!(36));
    let asked = [("subscribe", "t"), ("publish", "t"), ("call", "p")];
    assert_eq!(oracle.asked(), asked.map(|(action, name)| (action.to_owned(), name.to_owned())));
}

#[test]
fn events_come_while_a_message_is_held() {
    let open = House::new();
    let (mut client, mut other) = (open.join(Format::Json), open.join(Format::Json));
    client.subscribe("t", "exact");
    let oracle = Arc::new(Oracle::default());
    oracle.says(Ok(YES));
    open.realm.set_authorizer(Some(oracle));
    let list = vec![
        rule("*", &[Action::Subscribe, Action::Publish], everything(), allow()),
        rule("*", &[Action::Call], everything(), ask(None)),
    ];
    open.realm.set_rules(Rules::new(list).unwrap());
    client.say(json!([48, 1, {}, "p"]));
    other.say(json!([16, 1, {}, "t"]));
    assert_eq!(client.hear()[0], json!(36));
    client.is_answered();
    assert_eq!(error_of(&client.hear()), (48, 1, "wamp.error.no_such_procedure"));
}

#[test]
fn a_peer_that_sends_too_much_while_a_message_is_held_is_shown_out() {
    let (house, oracle) = asking(None);
    oracle.says(Ok(YES));
    let mut client = house.join(Format::Json);
    client.say(json!([32, 1, {}, "t"]));
    let large = "x".repeat(100_000);
    client.say(json!([16, 2, {}, "t", [large]]));
    client.say(json!([16, 3, {}, "t", [large]]));
    assert_eq!(client.closed, None);
    client.say(json!([16, 4, {}, "t", [large]]));
    client.is_aborted_with("wamp.error.protocol_violation", Reason::TooBig);
    assert_eq!(house.realm.sessions(), 0);
}

#[test]
fn an_answer_that_comes_after_the_end_is_nobodys() {
    let (house, oracle) = asking(None);
    oracle.says(Ok(YES));
    let mut client = house.join(Format::Json);
    client.say(json!([32, 1, {}, "t"]));
    house.realm.say_farewell(tandem_broker::core::parcel::Farewell::Shutdown);
    assert_eq!(client.hear()[0], json!(6));
    client.is_answered();
    client.hears_nothing();
    assert!(house.realm.topics().is_empty());
}

#[test]
fn an_answer_may_be_kept_for_its_time() {
    let (house, oracle) = asking(Some(Duration::from_secs(60)));
    oracle.says(Ok(YES));
    let mut client = house.join(Format::Json);
    let publish = |client: &mut Client, topic: &str| {
        client.say(json!([16, 1, {"acknowledge": true}, topic]));
        let was_asked = client.inquiry.is_some();
        if was_asked {
            client.is_answered();
        }
        assert_eq!(client.hear()[0], json!(17));
        was_asked
    };
    assert!(publish(&mut client, "t"));
    assert!(!publish(&mut client, "t"));
    assert!(publish(&mut client, "u"));
    let mut other = house.join(Format::Json);
    assert!(publish(&mut other, "t"), "the answer was about another session");
    client.now += Duration::from_secs(60);
    assert!(publish(&mut client, "t"));
    oracle.says(Ok(Decision { cache: Some(false), ..YES }));
    assert!(publish(&mut client, "v") && publish(&mut client, "v"));
    let list = vec![rule("*", &Action::ALL, everything(), ask(Some(Duration::from_secs(60))))];
    house.realm.set_rules(Rules::new(list).unwrap());
    assert!(publish(&mut client, "t"), "the answer was about other rules");
    oracle.says(Ok(YES));
    for number in 0..ANSWERS_MAX {
        assert!(publish(&mut client, &format!("t{number}")));
    }
    assert!(publish(&mut client, "t"), "no more are kept than may be");
}

#[test]
fn an_authorizer_says_what_is_disclosed() {
    let (house, oracle) = asking(None);
    let mut client = house.join(Format::Json);
    let (mut member, mut inbox) = house.foreigner();
    house.realm.set_rules(Rules::default());
    member.subscribe(&exact("t")).unwrap();
    let list = vec![
        rule("*", &[Action::Publish], everything(), ask(None)),
        rule("*", &[Action::Subscribe], everything(), allow()),
    ];
    house.realm.set_rules(Rules::new(list).unwrap());
    for (disclose, options, code) in [
        (Some(true), json!({"acknowledge": true}), 17),
        (Some(false), json!({"acknowledge": true, "disclose_me": true}), 8),
    ] {
        oracle.says(Ok(Decision { disclose, ..YES }));
        client.say(json!([16, 1, options, "t"]));
        client.is_answered();
        assert_eq!(client.hear()[0], json!(code));
    }
    let mut batch = std::collections::VecDeque::new();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut disclosed = Vec::new();
    while inbox.poll_take(&mut context, &mut batch).is_ready() {
        disclosed.extend(batch.drain(..).filter_map(|parcel| match parcel {
            tandem_broker::core::parcel::Parcel::Event { publication, .. } => {
                Some(publication.disclosed.as_ref().map(|who| who.id.to_string()))
            }
            _ => None,
        }));
    }
    assert_eq!(disclosed, [Some("guest".to_owned())]);
}

#[test]
fn a_progressive_call_is_asked_about_once() {
    let (house, oracle) = asking(None);
    oracle.says(Ok(NO));
    let mut client = house.connect(Format::Json);
    let features = json!({"roles": {"caller": {"features": {"progressive_call_invocations": true}}}});
    assert_eq!(client.ask(crate::wamp_harness::hello(features))[0], json!(2));
    client.say(json!([48, 1, {"progress": true}, "p", [1]]));
    client.is_answered();
    assert_eq!(error_of(&client.hear()), (48, 1, NOT_AUTHORIZED));
    client.say(json!([48, 1, {}, "p", [2]]));
    client.hears_nothing();
    assert_eq!(oracle.asked().len(), 1);
}
