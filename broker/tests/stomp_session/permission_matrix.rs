//! Every kind of destination by every role that may do one thing: which action it asks for, and with which name.

use tandem_broker::core::access::rules::{Effect, Rule, Rules};
use tandem_broker::core::access::{Action, Principal};

use super::*;

/// The name that each role may do its one thing with.
const OWN: &str = "a.b";

/// What frames do with a destination of the name `a.b`, and what each asks for; `None` where nobody needs a permission.
const FRAMES: [(&str, Option<(Action, &str)>); 20] = [
    ("SEND\ndestination:/topic/a.b", Some((Action::Publish, OWN))),
    ("SEND\ndestination:/topic/a%2Eb", Some((Action::Publish, OWN))),
    ("SEND\nretain:set\ndestination:/topic/a.b", Some((Action::Publish, OWN))),
    ("SEND\ndestination:/exchange/amq.topic/a.b", Some((Action::Publish, OWN))),
    ("SEND\ndestination:/exchange/amq.direct/a.b", Some((Action::Publish, "amq.direct.a.b"))),
    ("SEND\ndestination:/exchange/amq.fanout/a.b", Some((Action::Publish, "amq.fanout"))),
    ("SEND\ndestination:/queue/a.b", Some((Action::Send, OWN))),
    ("SEND\ndestination:/amq/queue/a.b", Some((Action::Send, OWN))),
    ("SEND\ndestination:/temp-queue/a.b", None),
    ("SUBSCRIBE\nid:1\ndestination:/topic/a.b", Some((Action::Subscribe, OWN))),
    ("SUBSCRIBE\nid:1\nack:client\ndestination:/topic/a.b", Some((Action::Subscribe, OWN))),
    ("SUBSCRIBE\nid:1\ndurable:true\ndestination:/topic/a.b", Some((Action::Subscribe, OWN))),
    ("SUBSCRIBE\nid:1\ndestination:/dsub/shared", Some((Action::Subscribe, OWN))),
    ("SUBSCRIBE\nid:1\ndestination:/exchange/amq.topic/a.b", Some((Action::Subscribe, OWN))),
    ("SUBSCRIBE\nid:1\ndestination:/exchange/amq.direct/a.b", Some((Action::Subscribe, "amq.direct.a.b"))),
    ("SUBSCRIBE\nid:1\ndestination:/exchange/amq.fanout", Some((Action::Subscribe, "amq.fanout"))),
    ("SUBSCRIBE\nid:1\ndestination:/queue/a.b", Some((Action::Consume, OWN))),
    ("SUBSCRIBE\nid:1\ndestination:/amq/queue/a.b", Some((Action::Consume, OWN))),
    ("SUBSCRIBE\nid:1\ndestination:/temp-queue/a.b", None),
    ("SUBSCRIBE\nid:1\ndestination:/procedure/a.b", Some((Action::Register, OWN))),
];

/// A house where each role may do the one thing that it is called after, with `a.b`, and those called `<thing>.others`
/// the same with everything else; where `a.b` is a queue, and `shared` a durable subscription to the topic of that name.
fn house() -> House {
    let house = House::new();
    let mut steward = enter(&house, "steward");
    steward.say("SEND\ndestination:/queue/a.b\nreceipt:1\n\nx");
    steward.receipt("1");
    let shared = "SUBSCRIBE\nid:1\ndestination:/topic/a.b\ndurable-subscription-name:shared\nreceipt:2\n\n";
    steward.say(shared);
    steward.receipt("2");
    let rule = |role: String, action, pattern, effect| Rule {
        number: 1,
        role: Some(role.into()),
        actions: [action].into(),
        pattern,
        effect,
    };
    let (own, everything) = (Pattern::exact(name(OWN)), Pattern::prefix("").expect("a pattern"));
    let rules = Action::ALL.into_iter().flat_map(|action| {
        let others = format!("{action}.others");
        [
            rule(action.to_string(), action, own.clone(), Effect::Allow { disclose: None }),
            rule(others.clone(), action, everything.clone(), Effect::Allow { disclose: None }),
            rule(others, action, own.clone(), Effect::Deny),
        ]
    });
    house.realm.set_rules(Rules::new(rules.collect()).expect("rules"));
    house
}

fn enter(house: &House, role: &str) -> Client {
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nhost:h\nlogin:x\npasscode:y\n\n");
    client.authenticated(Ok(Principal::new("x", role, "test")));
    client.expect(Command::Connected, &[]);
    client
}

#[test]
fn each_destination_asks_for_one_action_with_one_name() {
    for (frame, asked) in FRAMES {
        for allowed in Action::ALL {
            // Who may do only that, and who may do that with everything but `a.b`.
            for (role, may_own) in [(allowed.to_string(), true), (format!("{allowed}.others"), false)] {
                let house = house();
                let mut client = enter(&house, &role);
                let may = match asked {
                    None => true,
                    Some((action, name)) => action == allowed && (name == OWN) == may_own,
                };
                let text = format!("{frame}\nreceipt:r\n\n");
                if may {
                    client.say(&text);
                    client.expect(Command::Receipt, &[("receipt-id", "r")]);
                    assert!(client.close.is_none(), "{role}: {frame}");
                } else {
                    let error = client.refused(&text, "Access refused");
                    let (action, name) = asked.expect("who needs no permission is not refused");
                    let said = String::from_utf8_lossy(&error.body).into_owned();
                    assert_eq!(said, format!("there is no permission to {action} {name:?}"), "{role}");
                }
            }
        }
    }
}

#[test]
fn a_call_asks_for_itself_and_for_where_its_answer_goes() {
    for (reply_to, asked) in [
        ("/temp-queue/t", None),
        ("/topic/a.b", Some(Action::Publish)),
        ("/exchange/amq.topic/a.b", Some(Action::Publish)),
        ("/queue/a.b", Some(Action::Send)),
    ] {
        for role in Action::ALL {
            let house = house();
            let mut client = enter(&house, role.as_str());
            let call = format!("SEND\ndestination:/call/a.b\nreply-to:{reply_to}\nreceipt:r\n\n");
            client.say(&call);
            let heard = client.hear();
            let may_answer = asked.is_none_or(|action| action == role);
            if !may_answer {
                assert_eq!(heard[0].command, Command::Error, "{reply_to} by {role}");
                continue;
            }
            assert_eq!(heard[0].command, Command::Receipt, "{reply_to} by {role}");
            if asked.is_none() {
                let no = if role == Action::Call { "no_such_procedure" } else { "not_authorized" };
                assert_eq!(header(&heard[1], "error"), format!("wamp.error.{no}"));
            }
        }
    }
}

#[test]
fn what_one_was_told_or_has_takes_no_permission() {
    for role in Action::ALL {
        let house = house();
        // The answer to whoever said where to.
        let (mut asking, mut answering) = (enter(&house, "steward"), enter(&house, role.as_str()));
        house.realm.set_rules(Rules::default());
        asking.say("SEND\ndestination:/topic/q\nreply-to:/temp-queue/t\nreceipt:1\n\n");
        asking.receipt("1");
        let mut listening = enter(&house, "steward");
        listening.say("SUBSCRIBE\nid:1\ndestination:/topic/q\nreceipt:2\n\n");
        listening.receipt("2");
        asking.say("SEND\ndestination:/topic/q\nreply-to:/temp-queue/t\n\n");
        let told = header(&listening.expect(Command::Message, &[]), "reply-to");
        let none = Rule {
            number: 1,
            role: Some("nobody".into()),
            actions: Action::ALL.into(),
            pattern: Pattern::prefix("").expect("a pattern"),
            effect: Effect::Allow { disclose: None },
        };
        house.realm.set_rules(Rules::new(vec![none]).expect("rules"));
        answering.say(&format!("SEND\ndestination:{told}\nreceipt:r\n\nanswer"));
        answering.receipt("r");
        assert_eq!(asking.bodies(), ["answer"]);
        // A session's own time is its own affair: this one has none.
        let error = answering.refused("SEND\ndestination:/session/auth\n\nx", "Access refused");
        assert!(String::from_utf8_lossy(&error.body).contains("did not come in by a token"));
    }
}
