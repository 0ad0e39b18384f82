//! What rules let through and withhold, by every way that a message takes through a realm.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use proptest::prelude::*;

use tandem_broker::core::access::rules::{Effect, Rule, Rules};
use tandem_broker::core::access::{Action, Principal, Refusal};
use tandem_broker::core::calls::{CallTerms, Offer, Policy};
use tandem_broker::core::durable::DurableTerms;
use tandem_broker::core::history::{History, HistoryRule, Query};
use tandem_broker::core::mailbox::{Bounds, Inbox, Overflow, cost, mailbox};
use tandem_broker::core::message::Attributes;
use tandem_broker::core::name::{Name, Pattern};
use tandem_broker::core::parcel::{Answer, Parcel};
use tandem_broker::core::queues::{ConsumeTerms, Credit, Properties, QueueLimits};
use tandem_broker::core::realm::{Member, Outgoing, Realm, RealmLimits, SendTerms};
use tandem_broker::core::retained::RetainedLimits;
use tandem_broker::core::testament::Scope;
use tandem_broker::core::topics::{PublishTerms, Retain};
use tandem_protocols::payload::{Content, Payload};

const YES: Effect = Effect::Allow { disclose: None };
const CREDIT: Credit = Credit { messages: 99, bytes: 1 << 20 };

fn realm(list: impl IntoIterator<Item = Rule>) -> Arc<Realm> {
    let limits = RealmLimits {
        sessions_max: 9,
        subscriptions_max: 99,
        registrations_max: 99,
        consumers_max: 99,
        in_flight_bytes_max: 1 << 30,
        retained: RetainedLimits::default(),
        queues: QueueLimits { queues_max: 9, messages_max: 99, bytes_max: 1 << 20, total_bytes_max: 1 << 20 },
    };
    let (last, clock) = (AtomicU64::new(0), AtomicU64::new(0));
    let history = HistoryRule { pattern: everything(), events_max: 99, durable: false };
    let history = History::new(&[history], Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)));
    let entropy = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
    let realm = Realm::with_history("test", limits, entropy, history);
    realm.set_rules(rules(list));
    realm
}

fn rules(list: impl IntoIterator<Item = Rule>) -> Rules {
    Rules::new(list.into_iter().collect()).unwrap()
}

fn rule(role: &str, actions: &[Action], pattern: Pattern, effect: Effect) -> Rule {
    let role = (role != "*").then(|| role.into());
    Rule { number: 1, role, actions: actions.into(), pattern, effect }
}

fn everything() -> Pattern {
    Pattern::prefix("").unwrap()
}

fn exact(text: &str) -> Pattern {
    Pattern::exact(name(text))
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Everybody may do everything, but guests neither get nor serve what is secret.
fn all_but_secrets() -> [Rule; 2] {
    [
        rule("*", &Action::ALL, everything(), YES),
        rule("guest", &[Action::Subscribe, Action::Register], exact("a.secret"), Effect::Deny),
    ]
}

fn join(realm: &Arc<Realm>, role: &str) -> (Member, Inbox) {
    let bytes_max = 1 << 30;
    let (mailbox, inbox) =
        mailbox(Bounds { bytes_soft_max: bytes_max, bytes_max, overflow: Overflow::Disconnect });
    let who = Principal::new(format!("a {role}"), role, "test");
    (realm.join(who, mailbox).unwrap(), inbox)
}

fn to(text: &str) -> Outgoing {
    let payload = Payload::new(Content::Opaque("x".into()));
    Outgoing { name: name(text), payload, attributes: Attributes::default() }
}

fn take(inbox: &mut Inbox) -> Vec<Parcel> {
    let (mut all, mut batch) = (Vec::new(), VecDeque::new());
    while inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready() {
        inbox.settled(batch.iter().map(cost).sum());
        all.extend(batch.drain(..).filter(|parcel| !matches!(parcel, Parcel::RulesChanged)));
    }
    all
}

/// The topics of all events, whichever way they came.
fn topics(inbox: &mut Inbox) -> Vec<String> {
    let topic = |parcel| match parcel {
        Parcel::Event { publication, .. } | Parcel::Retained { publication, .. } => {
            publication.name.to_string()
        }
        Parcel::Delivery(delivery) => delivery.publication.name.to_string(),
        other => panic!("not an event: {other:?}"),
    };
    take(inbox).into_iter().map(topic).collect()
}

fn forbidden(action: Action, name: &str) -> Refusal {
    Refusal::Forbidden { action, name: name.into() }
}

#[test]
fn what_is_denied_of_a_pattern_is_withheld_live() {
    let realm = realm(all_but_secrets());
    let (mut guest, mut guests) = join(&realm, "guest");
    let (mut user, mut users) = join(&realm, "user");
    for member in [&mut guest, &mut user] {
        member.subscribe(&Pattern::prefix("a.").unwrap()).unwrap();
    }
    for topic in ["a.b", "a.secret", "a.secrets"] {
        user.publish(to(topic), false).unwrap();
    }
    assert_eq!(topics(&mut guests), ["a.b", "a.secrets"]);
    assert_eq!(topics(&mut users), ["a.b", "a.secret", "a.secrets"]);
}

#[test]
fn what_is_denied_of_a_pattern_is_not_had_by_sharing_a_durable_subscription() {
    let realm = realm(all_but_secrets());
    let (mut user, mut users) = join(&realm, "user");
    let (mut guest, mut guests) = join(&realm, "guest");
    let (mut second, _seconds) = join(&realm, "user");
    let durable = |pattern: &str| DurableTerms {
        pattern: Pattern::prefix(pattern).unwrap(),
        filter: None,
        properties: Properties::default(),
    };
    let share = |member: &mut Member, name: &str, pattern: &str| {
        let subscribed = member
            .subscribe_durably(name, durable(pattern), CREDIT, ConsumeTerms::default(), 0)
            .map(|(consumer, _without_a_store)| consumer);
        let consumed = member.consume_durable(name, CREDIT, ConsumeTerms::default());
        subscribed.and(consumed)
    };
    share(&mut user, "d", "a.").unwrap();
    let refused = Err(forbidden(Action::Subscribe, "a."));
    assert_eq!(share(&mut guest, "d", "a."), refused);
    user.publish(to("a.secret"), false).unwrap();
    assert!(topics(&mut guests).is_empty());
    assert_eq!(topics(&mut users), ["a.secret"]);
    assert!(share(&mut second, "d", "a.").is_ok());
    // What a guest made lacks the secret for everybody; and where nothing is secret, all may share.
    share(&mut guest, "g", "a.").unwrap();
    assert!(share(&mut user, "g", "a.").is_ok());
    share(&mut user, "b", "b.").unwrap();
    assert!(share(&mut guest, "b", "b.").is_ok());
}

#[test]
fn who_may_not_share_a_durable_subscription_any_more_is_told() {
    let realm = realm([rule("*", &Action::ALL, everything(), YES)]);
    let (mut user, _users) = join(&realm, "user");
    let (mut guest, _guests) = join(&realm, "guest");
    let terms = DurableTerms { pattern: everything(), filter: None, properties: Properties::default() };
    let _without_a_store = user.subscribe_durably("d", terms, CREDIT, ConsumeTerms::default(), 0).unwrap();
    let consumer = guest.consume_durable("d", CREDIT, ConsumeTerms::default()).unwrap();
    assert!(guest.judge_consumers().is_empty());
    realm.set_rules(rules(all_but_secrets()));
    assert_eq!(guest.judge_consumers(), [(consumer, forbidden(Action::Subscribe, ""))]);
    assert!(user.judge_consumers().is_empty());
    realm.set_rules(rules([rule("guest", &Action::ALL, everything(), YES)]));
    assert_eq!(user.judge_consumers().len(), 1);
}

#[test]
fn what_is_denied_of_a_pattern_is_withheld_from_what_was_retained() {
    let realm = realm(all_but_secrets());
    let (user, _users) = join(&realm, "user");
    for topic in ["a.b", "a.secret"] {
        let terms = PublishTerms { retain: Retain::Set, ..PublishTerms::default() };
        user.publish_under(to(topic), terms).unwrap();
    }
    for (role, expected) in [("guest", &["a.b"][..]), ("user", &["a.b", "a.secret"])] {
        let (mut member, mut inbox) = join(&realm, role);
        member.subscribe_and_replay(&everything(), Some(1)).unwrap();
        assert_eq!(topics(&mut inbox), expected);
    }
}

#[test]
fn what_is_denied_of_a_pattern_is_withheld_from_the_past() {
    let realm = realm(all_but_secrets());
    let (user, _users) = join(&realm, "user");
    for topic in ["a.secret", "a.b", "a.secret"] {
        user.publish(to(topic), false).unwrap();
    }
    for (role, expected) in [("guest", &["a.b"][..]), ("user", &["a.secret"])] {
        let (mut member, _inbox) = join(&realm, role);
        let subscription = member.subscribe(&everything()).unwrap();
        let query = Query { limit: Some(1), ..Query::default() };
        let past = member.history(subscription, &query).unwrap();
        let topics: Vec<_> = past.iter().map(|past| past.publication.name.to_string()).collect();
        assert_eq!(topics, expected, "the limit counts what may be seen");
    }
    let (mut user, _inbox) = join(&realm, "user");
    let secret = user.subscribe(&exact("a.secret")).unwrap();
    let (guest, _inbox) = join(&realm, "guest");
    let refused = guest.history(secret, &Query::default());
    assert_eq!(refused.err(), Some(forbidden(Action::Subscribe, "a.secret")), "by another's subscription");
}

#[test]
fn what_is_denied_of_a_pattern_is_withheld_from_queues_that_are_bound_to_it() {
    let realm = realm(all_but_secrets());
    let (mut guest, mut guests) = join(&realm, "guest");
    let (user, _users) = join(&realm, "user");
    guest.bind(&everything(), CREDIT).unwrap();
    for topic in ["a.secret", "a.b"] {
        user.publish(to(topic), false).unwrap();
    }
    assert_eq!(topics(&mut guests), ["a.b"]);
    assert_eq!(guest.bind(&exact("a.secret"), CREDIT).err(), Some(forbidden(Action::Subscribe, "a.secret")));
}

#[test]
fn testaments_are_judged_when_they_are_made_and_when_they_are_executed_and_withheld_like_others() {
    let realm = realm(all_but_secrets());
    let (mut guest, mut guests) = join(&realm, "guest");
    guest.subscribe(&everything()).unwrap();
    let (mut user, _users) = join(&realm, "user");
    for topic in ["a.secret", "a.b", "a.c"] {
        user.add_testament(Scope::Destroyed, to(topic), PublishTerms::default()).unwrap();
    }
    let deny = rule("user", &[Action::Publish], exact("a.c"), Effect::Deny);
    realm.set_rules(rules(all_but_secrets().into_iter().chain([deny])));
    let refused = user.add_testament(Scope::Destroyed, to("a.c"), PublishTerms::default());
    assert_eq!(refused, Err(forbidden(Action::Publish, "a.c")));
    drop(user);
    assert_eq!(topics(&mut guests), ["a.b"]);
}

#[test]
fn a_pattern_takes_a_rule_that_covers_all_of_it() {
    let tail = Pattern::components([Some("a"), Some("b")], true).unwrap();
    let realm = realm([
        rule("*", &[Action::Subscribe, Action::Register], Pattern::prefix("a.").unwrap(), YES),
        rule("*", &[Action::Subscribe], Pattern::prefix("a.no.").unwrap(), Effect::Deny),
    ]);
    let (mut member, _inbox) = join(&realm, "user");
    for (pattern, allowed) in [
        (Pattern::prefix("a.").unwrap(), true),
        (Pattern::wildcard("a..c").unwrap(), true),
        (tail, true),
        (Pattern::prefix("a").unwrap(), false),
        (Pattern::wildcard(".b").unwrap(), false),
        (Pattern::components([Some("a")], true).unwrap(), false),
        (everything(), false),
        (Pattern::prefix("a.no.").unwrap(), false),
        (Pattern::wildcard("a.no.").unwrap(), false),
    ] {
        let refused = forbidden(Action::Subscribe, pattern.as_str());
        assert_eq!(member.subscribe(&pattern).err(), (!allowed).then_some(refused), "{pattern}");
    }
    assert_eq!(member.register(&everything()).err(), Some(forbidden(Action::Register, "")));
    member.register(&Pattern::prefix("a.").unwrap()).unwrap();
}

#[test]
fn rules_that_change_count_for_subscriptions_from_before() {
    let realm = realm([]);
    let (mut guest, mut guests) = join(&realm, "guest");
    let (user, _users) = join(&realm, "user");
    guest.subscribe(&everything()).unwrap();
    let hear = |guests: &mut Inbox| {
        for topic in ["a.secret", "a.b"] {
            user.publish(to(topic), false).unwrap();
        }
        topics(guests)
    };
    assert_eq!(hear(&mut guests), ["a.secret", "a.b"]);
    realm.set_rules(rules(all_but_secrets()));
    assert_eq!(hear(&mut guests), ["a.b"]);
    realm.set_rules(rules([rule("user", &Action::ALL, everything(), YES)]));
    assert_eq!(hear(&mut guests), [""; 0], "no rule is for guests any more");
    realm.set_rules(rules([]));
    assert_eq!(hear(&mut guests), ["a.secret", "a.b"]);
}

#[test]
fn a_call_passes_over_callees_that_may_not_serve_it() {
    let realm = realm(all_but_secrets());
    let (mut guest, mut guests) = join(&realm, "guest");
    let (mut user, mut users) = join(&realm, "user");
    guest.register(&Pattern::prefix("a.").unwrap()).unwrap();
    let call = |number, procedure| user.call(number, to(procedure), CallTerms::default());
    assert_eq!(call(1, "a.secret"), Err(Refusal::NoSuchProcedure(name("a.secret"))));
    call(2, "a.b").unwrap();
    assert!(matches!(take(&mut guests)[..], [Parcel::Invocation(_)]));
    guest.answer(
        1,
        Ok(Answer { payload: to("x").payload, attributes: Attributes::default(), is_progress: false }),
    );
    take(&mut users);

    // The next best, of those that match.
    let (mut wide, mut wides) = join(&realm, "user");
    wide.register(&Pattern::prefix("a").unwrap()).unwrap();
    user.call(3, to("a.secret"), CallTerms::default()).unwrap();
    user.call(4, to("a.b"), CallTerms::default()).unwrap();
    let called = |inbox: &mut Inbox| match &take(inbox)[..] {
        [Parcel::Invocation(invocation)] => invocation.procedure.to_string(),
        other => panic!("not an invocation: {other:?}"),
    };
    assert_eq!((called(&mut wides), called(&mut guests)), ("a.secret".into(), "a.b".into()));

    // Of those that share a registration, whoever may.
    let offer = Offer { policy: Policy::RoundRobin, ..Offer::default() };
    for member in [&mut guest, &mut wide] {
        member.offer(&Pattern::prefix("a.s").unwrap(), offer).unwrap();
    }
    for number in 5..8 {
        user.call(number, to("a.secret"), CallTerms::default()).unwrap();
    }
    assert_eq!((take(&mut wides).len(), take(&mut guests).len()), (3, 0));
    user.register(&exact("p")).unwrap();
    realm.set_rules(rules([rule("guest", &Action::ALL, everything(), YES)]));
    let refused = guest.call(1, to("p"), CallTerms::default());
    assert_eq!(refused, Err(Refusal::NoSuchProcedure(name("p"))), "its callee may not serve it any more");
}

#[test]
fn reserved_procedures_are_not_served_by_way_of_a_pattern() {
    let realm = realm([]);
    let (mut member, mut inbox) = join(&realm, "user");
    member.register(&everything()).unwrap();
    let refused = member.call(1, to("wamp.session.count"), CallTerms::default());
    assert_eq!(refused, Err(Refusal::NoSuchProcedure(name("wamp.session.count"))));
    member.call(2, to("a"), CallTerms::default()).unwrap();
    assert_eq!(take(&mut inbox).len(), 1);
}

#[test]
fn each_action_takes_a_permission_of_its_own() {
    for allowed in Action::ALL {
        let realm = realm([rule("user", &[allowed], exact("a.b"), YES)]);
        let (mut member, _inbox) = join(&realm, "user");
        let outcomes = [
            member.publish(to("a.b"), true).err(),
            member.subscribe(&exact("a.b")).err(),
            member.call(1, to("a.b"), CallTerms::default()).err(),
            member.register(&exact("a.b")).err(),
            member.send(to("a.b")).err(),
            member.consume(&name("a.b"), CREDIT).err(),
        ];
        for (action, outcome) in Action::ALL.into_iter().zip(outcomes) {
            let expected = match action {
                _ if action != allowed => Some(forbidden(action, "a.b")),
                Action::Call => Some(Refusal::NoSuchProcedure(name("a.b"))),
                _ => None,
            };
            assert_eq!(outcome, expected, "{action} where {allowed} is allowed");
        }
    }
}

#[test]
fn what_is_disclosed_is_as_the_rules_say() {
    let say = |pattern, disclose| rule("*", &Action::ALL, exact(pattern), Effect::Allow { disclose });
    let realm = realm([say("told", Some(true)), say("untold", Some(false)), say("free", None)]);
    let (mut member, mut inbox) = join(&realm, "user");
    for (text, wishes, disclosed) in [
        ("told", false, Ok(true)),
        ("told", true, Ok(true)),
        ("untold", false, Ok(false)),
        ("untold", true, Err(Refusal::DisclosureForbidden)),
        ("free", false, Ok(false)),
        ("free", true, Ok(true)),
    ] {
        member.subscribe(&exact(text)).unwrap();
        let registered = member.register(&exact(text)).ok();
        let terms = PublishTerms { disclose_me: wishes, ..PublishTerms::default() };
        let published = member.publish_under(to(text), terms).map(|_| true);
        let called =
            member.call(1, to(text), CallTerms { discloses: wishes, ..CallTerms::default() }).map(|()| true);
        if let Some(registration) = registered {
            member.unregister(registration).unwrap();
        }
        let heard: Vec<bool> = take(&mut inbox)
            .into_iter()
            .map(|parcel| match parcel {
                Parcel::Event { publication, .. } => publication.disclosed.is_some(),
                Parcel::Invocation(invocation) => {
                    let answer = to("x").payload;
                    member.answer(
                        invocation.id,
                        Ok(Answer { payload: answer, attributes: Attributes::default(), is_progress: false }),
                    );
                    invocation.caller.is_some()
                }
                other => panic!("not in the script: {other:?}"),
            })
            .collect();
        take(&mut inbox);
        match disclosed {
            Ok(disclosed) => {
                assert_eq!(
                    (published, called, heard),
                    (Ok(true), Ok(true), vec![disclosed; 2]),
                    "{text} {wishes}"
                );
            }
            Err(refusal) => {
                assert_eq!(
                    (published, called, heard),
                    (Err(refusal.clone()), Err(refusal), vec![]),
                    "{text} {wishes}"
                );
            }
        }
    }
}

#[test]
fn consumers_that_may_not_consume_any_more_stop() {
    let realm = realm([]);
    let (mut member, mut inbox) = join(&realm, "user");
    for queue in ["kept", "lost"] {
        member.consume(&name(queue), CREDIT).unwrap();
    }
    let bound = member.bind(&exact("t"), CREDIT).unwrap();
    let (reply, _) = member.reply_queue(CREDIT).unwrap();
    let lost = rule("*", &[Action::Consume], exact("lost"), Effect::Deny);
    realm.set_rules(rules([rule("*", &Action::ALL, everything(), YES), lost]));
    let ended = member.judge_consumers();
    assert_eq!(
        ended.iter().map(|(_, refusal)| refusal.clone()).collect::<Vec<_>>(),
        [forbidden(Action::Consume, "lost")]
    );
    for queue in ["kept", "lost", reply.as_str()] {
        member.send(to(queue)).unwrap();
    }
    member.publish(to("t"), false).unwrap();
    assert_eq!(topics(&mut inbox), ["kept", reply.as_str(), "t"]);
    member.close_consumer(bound).unwrap();
}

#[test]
fn a_transaction_of_which_one_step_is_forbidden_does_nothing() {
    use tandem_broker::core::realm::Operation;
    let realm = realm([rule("*", &[Action::Publish, Action::Subscribe], everything(), YES)]);
    let (mut member, mut inbox) = join(&realm, "user");
    member.subscribe(&exact("t")).unwrap();
    let steps = vec![Operation::Publish(to("t"), None), Operation::Send(to("q"), SendTerms::default())];
    assert_eq!(member.commit(steps), Err(forbidden(Action::Send, "q")));
    assert_eq!(topics(&mut inbox), [""; 0]);
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let part = prop_oneof![Just(None), "[ab]".prop_map(Some)];
    prop_oneof![
        "[ab](\\.[ab]){0,2}".prop_map(|text| exact(&text)),
        "([ab](\\.[ab])?\\.?)?".prop_map(|text| Pattern::prefix(&text).unwrap()),
        (prop::collection::vec(part, 0..=3), any::<bool>()).prop_map(|(parts, tail)| {
            let tail = tail || parts.is_empty();
            Pattern::components(parts.iter().map(|part| part.as_deref()), tail).unwrap()
        }),
    ]
}

proptest! {
    /// Whoever a subscription is granted to gets of it all that no rule denies, and nothing else, by every way.
    #[test]
    fn every_topic_that_is_delivered_is_allowed(
        denied in prop::collection::vec(pattern(), 0..5),
        allowed in prop::collection::vec(pattern(), 1..5),
        wanted in pattern(),
        names in prop::collection::btree_set("[ab](\\.[ab]){0,3}", 1..12),
    ) {
        let subscribe = |pattern: &Pattern, effect| rule("guest", &[Action::Subscribe], pattern.clone(), effect);
        let list = denied.iter().map(|p| subscribe(p, Effect::Deny)).chain(allowed.iter().map(|p| subscribe(p, YES)));
        let realm = realm(list.chain([rule("user", &Action::ALL, everything(), YES)]));
        let (user, _users) = join(&realm, "user");
        let terms = || PublishTerms { retain: Retain::Set, ..PublishTerms::default() };
        for topic in &names {
            user.publish_under(to(topic), terms()).unwrap();
        }
        let (mut guest, mut guests) = join(&realm, "guest");
        let (mut bound, mut bounds) = join(&realm, "guest");
        let subscribed = guest.subscribe_and_replay(&wanted, Some(1));
        prop_assert_eq!(bound.bind(&wanted, CREDIT).is_ok(), subscribed.is_ok());
        let retained = topics(&mut guests);
        for topic in &names {
            user.publish(to(topic), false).unwrap();
        }
        let expected: Vec<String> = names
            .iter()
            .filter(|topic| subscribed.is_ok() && wanted.matches(topic))
            .filter(|topic| denied.iter().all(|p| !p.matches(topic)))
            .cloned()
            .collect();
        for topic in &expected {
            prop_assert!(allowed.iter().any(|p| p.matches(topic)));
        }
        prop_assert_eq!(&retained, &expected);
        prop_assert_eq!(topics(&mut guests), &expected[..]);
        prop_assert_eq!(topics(&mut bounds), &expected[..]);
        if let Ok(subscription) = subscribed {
            let past = guest.history(subscription, &Query::default()).unwrap_or_default();
            let past: Vec<String> = past.iter().map(|past| past.publication.name.to_string()).collect();
            // Where the subscription is as wide as a pattern with a history, or a single topic.
            prop_assert!(past.iter().all(|topic| expected.contains(topic)));
        }
    }
}
