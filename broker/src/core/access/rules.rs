//! Permission rules: what the roles of a realm may do with which names.
//!
//! A rule is for one role or for all, for some actions, and for all names that its pattern means. It denies, allows,
//! or says whom to ask. Of all rules that apply, one that denies decides; else one that allows; else one that says
//! whom to ask. Where none applies the answer is no, unless there are no rules at all: then it is yes. Among equals
//! the one that was written first is named as the one that decided.
//!
//! Roles and names are compared as they are: nothing in them is a pattern, and nothing is put into one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::core::access::authorizer::Question;
use crate::core::access::{ADMIN_ROLE, Action, GUARDED_PROCEDURES, Principal, SessionId};
use crate::core::access::{REPLY_PREFIX, WAMP_PREFIX};
use crate::core::index::Index;
use crate::core::name::{MatchKind, Name, Pattern};
use crate::core::reserved::is_reserved;

/// How many rules a realm may have. A subscription to a pattern looks at all of them.
pub const RULES_MAX: usize = 4096;

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its place among those that were written, from 1: for whoever asks which one decided.
    pub number: usize,
    /// The role that it is for; `None` for all.
    pub role: Option<Box<str>>,
    /// The actions that it is for.
    pub actions: Vec<Action>,
    /// The names that it is for.
    pub pattern: Pattern,
    /// What it says.
    pub effect: Effect,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No.
    Deny,
    /// Yes.
    Allow {
        /// Whether receivers and callees are told who publishes or calls; if nothing is said, whoever does decides.
        disclose: Option<bool>,
    },
    /// That this procedure is to be asked.
    Ask {
        /// The procedure.
        authorizer: Name,
        /// How long its answer may be kept.
        keep: Option<Duration>,
    },
}

/// The rules of a realm.
#[derive(Debug, Default)]
pub struct Rules {
    list: Vec<Rule>,
    for_all: ByAction,
    by_role: HashMap<Box<str>, ByAction>,
    asks: bool,
    judges_deliveries: bool,
    judges_registrations: bool,
    generation: u64,
}

/// By action and pattern, the places of rules in the list.
#[derive(Debug, Default)]
struct ByAction([Index<Vec<usize>>; Action::ALL.len()]);

/// Why rules cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRules {
    /// More than [`RULES_MAX`].
    #[error("there are more than {RULES_MAX} rules")]
    TooMany,
    /// The rule of that number has holes in places where too many others have none.
    #[error("rule {0}: too many different sets of holes are in use")]
    TooManyHoleSets(usize),
}

/// What becomes of somebody's wish, and which rule decides, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is granted.
    Allowed {
        /// The rule, if it takes one.
        rule: Option<usize>,
        /// See [`Effect::Allow`].
        disclose: Option<bool>,
    },
    /// The authorizer of this rule decides.
    Asked(usize),
    /// It is refused.
    Refused(Why),
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The name belongs to the house or to WAMP's router, whatever the rules say.
    Reserved,
    /// The procedure is for administrators, unless a rule names it for others.
    Guarded,
    /// This rule denies it.
    Denied(usize),
    /// No rule mentions it.
    Unmentioned,
}

/// The first rules of each kind that apply.
#[derive(Default)]
struct Found {
    denies: Option<usize>,
    allows: Option<usize>,
    asks: Option<usize>,
    disclose: Option<bool>,
}

impl Found {
    fn note(&mut self, place: usize, rule: &Rule) {
        let first = |known: &mut Option<usize>| *known = Some(known.map_or(place, |known| known.min(place)));
        match &rule.effect {
            Effect::Deny => first(&mut self.denies),
            Effect::Ask { .. } => first(&mut self.asks),
            Effect::Allow { disclose } => {
                first(&mut self.allows);
                // As everywhere, no wins.
                self.disclose = match (self.disclose, *disclose) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (known, said) => said.or(known),
                };
            }
        }
    }

    fn judgement(self) -> Judgement {
        match self {
            Found { denies: Some(rule), .. } => Judgement::Refused(Why::Denied(rule)),
            Found { allows: rule @ Some(_), disclose, .. } => Judgement::Allowed { rule, disclose },
            Found { asks: Some(rule), .. } => Judgement::Asked(rule),
            Found { .. } => Judgement::Refused(Why::Unmentioned),
        }
    }
}

impl Rules {
    /// These rules, in the order in which they were written.
    pub fn new(list: Vec<Rule>) -> Result<Rules, InvalidRules> {
        if list.len() > RULES_MAX {
            return Err(InvalidRules::TooMany);
        }
        let mut rules = Rules::default();
        for (place, rule) in list.iter().enumerate() {
            let by_action = match &rule.role {
                None => &mut rules.for_all,
                Some(role) => rules.by_role.entry(role.clone()).or_default(),
            };
            for action in &rule.actions {
                let places = by_action.0[*action as usize].get_or_insert_with(&rule.pattern, Vec::new);
                places.map_err(|_| InvalidRules::TooManyHoleSets(rule.number))?.push(place);
            }
            let denies = |action| rule.effect == Effect::Deny && rule.actions.contains(&action);
            rules.asks |= matches!(rule.effect, Effect::Ask { .. });
            rules.judges_deliveries |= denies(Action::Subscribe);
            rules.judges_registrations |= denies(Action::Register);
        }
        rules.list = list;
        Ok(rules)
    }

    /// The rule at a place that a judgement named.
    pub fn get(&self, place: usize) -> Option<&Rule> {
        self.list.get(place)
    }

    /// True where there are no rules: everybody may do everything that is not reserved.
    pub fn is_open(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a rule says whom to ask.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// The procedures that rules say to ask.
    pub fn authorizers(&self) -> impl Iterator<Item = &Name> {
        self.list.iter().filter_map(|rule| match &rule.effect {
            Effect::Ask { authorizer, .. } => Some(authorizer),
            Effect::Deny | Effect::Allow { .. } => None,
        })
    }

    /// The question to an authorizer that a rule of these raises. Answers to it count as long as these rules do.
    #[expect(clippy::too_many_arguments, reason = "they are the question's, and its generation is ours")]
    pub(in crate::core) fn question(
        &self,
        realm: Arc<str>,
        session: SessionId,
        principal: Arc<Principal>,
        action: Action,
        pattern: Pattern,
        authorizer: Name,
        keep: Option<Duration>,
    ) -> Question {
        let generation = self.generation;
        Question { realm, session, principal, action, pattern, authorizer, keep, generation }
    }

    /// Whether somebody who subscribed may be kept from some of the topics.
    pub fn judges_deliveries(&self) -> bool {
        self.judges_deliveries
    }

    /// Whether somebody who registered may be kept from serving some of the procedures.
    pub fn judges_registrations(&self) -> bool {
        self.judges_registrations
    }

    /// Decides whether somebody may do something with a name.
    pub fn judge(&self, who: &Principal, action: Action, name: &str) -> Judgement {
        if let Some(judgement) = self.without_rules(who, action, name) {
            return judgement;
        }
        let guarded = is_guarded(who, action, name);
        let mut found = Found::default();
        for by_action in self.of(who) {
            by_action.0[action as usize].for_each_match(name, |places| {
                let rules = places.iter().filter_map(|place| Some((*place, self.list.get(*place)?)));
                let counts = |rule: &Rule| !guarded || rule.effect == Effect::Deny || rule.lifts_guard();
                rules.filter(|(_, rule)| counts(rule)).for_each(|(place, rule)| found.note(place, rule));
            });
        }
        match found.judgement() {
            Judgement::Refused(Why::Unmentioned) if guarded => Judgement::Refused(Why::Guarded),
            judgement => judgement,
        }
    }

    /// Decides whether somebody may do something with all names that a pattern means. A rule allows it, or denies it,
    /// where it is for all of them; what others deny in part is withheld later.
    pub fn judge_pattern(&self, who: &Principal, action: Action, pattern: &Pattern) -> Judgement {
        if let Some(name) = pattern.name() {
            return self.judge(who, action, name.as_str());
        }
        if let Some(judgement) = self.without_rules(who, action, pattern.as_str()) {
            return judgement;
        }
        let mut found = Found::default();
        let is_for = |rule: &Rule| rule.role.as_deref().is_none_or(|role| role == &*who.role);
        for (place, rule) in self.list.iter().enumerate() {
            if rule.actions.contains(&action) && is_for(rule) && rule.pattern.covers(pattern) {
                found.note(place, rule);
            }
        }
        found.judgement()
    }

    /// Whether a subscriber gets what is published to a topic that its subscription matches. Whom a rule says to ask
    /// was asked about the subscription.
    pub fn may_receive(&self, who: &Principal, topic: &str) -> bool {
        !matches!(self.judge(who, Action::Subscribe, topic), Judgement::Refused(_))
    }

    /// Whether a subscriber may be kept, for the role that it has, from some of the topics that a pattern means.
    pub fn withholds(&self, who: &Principal, pattern: &Pattern) -> bool {
        self.list.iter().any(|rule| {
            rule.effect == Effect::Deny
                && rule.role.as_deref() == Some(&*who.role)
                && rule.actions.contains(&Action::Subscribe)
                && rule.pattern.may_meet(pattern)
        })
    }

    /// Whether a callee gets the calls of a procedure that its registration matches, likewise.
    pub fn may_serve(&self, who: &Principal, procedure: &str) -> bool {
        !matches!(self.judge(who, Action::Register, procedure), Judgement::Refused(_))
    }

    /// The judgement, where the rules have nothing to say.
    fn without_rules(&self, who: &Principal, action: Action, name: &str) -> Option<Judgement> {
        let allowed = Judgement::Allowed { rule: None, disclose: None };
        if who.is_house() || (action == Action::Send && name.starts_with(REPLY_PREFIX)) {
            return Some(allowed);
        }
        if is_reserved(name) && !matches!(action, Action::Subscribe | Action::Call) {
            return Some(Judgement::Refused(Why::Reserved));
        }
        if !self.is_open() {
            return None;
        }
        let guarded = is_guarded(who, action, name);
        Some(if guarded { Judgement::Refused(Why::Guarded) } else { allowed })
    }

    fn of(&self, who: &Principal) -> impl Iterator<Item = &ByAction> {
        [Some(&self.for_all), self.by_role.get(&*who.role)].into_iter().flatten()
    }
}

impl Rule {
    /// Whether it says, and not by the way, that its role may call procedures of the router.
    fn lifts_guard(&self) -> bool {
        let is_plain = matches!(self.pattern.kind(), MatchKind::Exact | MatchKind::Prefix);
        is_plain && self.pattern.as_str().starts_with(WAMP_PREFIX)
    }
}

fn is_guarded(who: &Principal, action: Action, name: &str) -> bool {
    action == Action::Call && *who.role != *ADMIN_ROLE && GUARDED_PROCEDURES.contains(&name)
}

/// The rules that a realm has at the moment.
#[derive(Clone, Debug, Default)]
pub struct SharedRules(Arc<Current>);

#[derive(Debug, Default)]
struct Current {
    /// Read for each message of each session: nothing is counted that sessions of several threads would fight over.
    rules: ArcSwap<Rules>,
    /// Whether they ask: it is wanted for each message of each session, and mostly no.
    asks: AtomicBool,
    /// Whether there are any: mostly not, and then there is no need to read them.
    are_some: AtomicBool,
    storing: Mutex<()>,
}

impl SharedRules {
    /// Those of now.
    pub fn load(&self) -> Guard<Arc<Rules>> {
        self.0.rules.load()
    }

    /// Whether those of now say whom to ask.
    pub fn asks(&self) -> bool {
        self.0.asks.load(Ordering::Acquire)
    }

    /// Whether publishing or sending to a name is allowed without a look at the rules, for there are none.
    pub fn allow_all(&self, name: &str) -> bool {
        !self.0.are_some.load(Ordering::Acquire) && !is_reserved(name)
    }

    /// Others from now on. What was subscribed to and registered under those before is judged again whenever it
    /// matters.
    pub fn store(&self, mut rules: Rules) {
        let _one_at_a_time = self.0.storing.lock();
        rules.generation = self.0.rules.load().generation + 1;
        rules.judges_deliveries = !rules.is_open();
        rules.judges_registrations = !rules.is_open();
        self.0.asks.store(rules.asks, Ordering::Release);
        let are_some = !rules.is_open();
        // Nobody goes by there being none after the first is there.
        if are_some {
            self.0.are_some.store(true, Ordering::Release);
        }
        self.0.rules.store(Arc::new(rules));
        self.0.are_some.store(are_some, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::testing::{exact, name, principal};

    const YES: Effect = Effect::Allow { disclose: None };

    fn ask() -> Effect {
        Effect::Ask { authorizer: name("com.authorize"), keep: None }
    }

    fn rule(role: &str, actions: &[Action], pattern: Pattern, effect: Effect) -> Rule {
        let role = (role != "*").then(|| role.into());
        Rule { number: 0, role, actions: actions.into(), pattern, effect }
    }

    fn rules(list: impl IntoIterator<Item = Rule>) -> Rules {
        let numbered = list.into_iter().zip(1..).map(|(rule, number)| Rule { number, ..rule });
        Rules::new(numbered.collect()).unwrap()
    }

    fn patterns() -> [(Pattern, [bool; 4]); 4] {
        // Whether they mean a.b, a.bc, a.b.c and x.b.
        [
            (exact("a.b"), [true, false, false, false]),
            (Pattern::prefix("a.b").unwrap(), [true, true, true, false]),
            (Pattern::wildcard(".b").unwrap(), [true, false, false, true]),
            (Pattern::components([Some("a"), Some("b")], true).unwrap(), [true, false, true, false]),
        ]
    }

    #[test]
    fn a_rule_is_for_its_role_its_actions_and_its_names_and_for_nothing_else() {
        for (pattern, means) in patterns() {
            for action in Action::ALL {
                for (role, admits) in [("user", [true, false]), ("*", [true, true])] {
                    let rules = rules([rule(role, &[action], pattern.clone(), YES)]);
                    for (who, admitted) in [("user", admits[0]), ("users", admits[1])] {
                        for (text, meant) in ["a.b", "a.bc", "a.b.c", "x.b"].into_iter().zip(means) {
                            for other in Action::ALL {
                                let judgement = rules.judge(&principal("joe", who), other, text);
                                let allowed = matches!(judgement, Judgement::Allowed { rule: Some(0), .. });
                                let expected = admitted && meant && other == action;
                                assert_eq!(
                                    allowed, expected,
                                    "{pattern} {action} {role}: {who} {other} {text}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_wins_then_yes_then_whom_to_ask() {
        let all = |effect| rule("*", &Action::ALL, Pattern::prefix("").unwrap(), effect);
        let one = |effect| rule("user", &[Action::Call], exact("a"), effect);
        let joe = principal("joe", "user");
        let judge = |list: [Rule; 3]| rules(list).judge(&joe, Action::Call, "a");
        assert_eq!(judge([all(ask()), all(YES), one(Effect::Deny)]), Judgement::Refused(Why::Denied(2)));
        assert_eq!(
            judge([one(YES), all(Effect::Deny), one(Effect::Deny)]),
            Judgement::Refused(Why::Denied(1))
        );
        let allowed = Judgement::Allowed { rule: Some(1), disclose: None };
        assert_eq!(judge([all(ask()), all(YES), one(YES)]), allowed);
        assert_eq!(
            judge([rule("x", &[Action::Call], exact("a"), YES), all(ask()), one(ask())]),
            Judgement::Asked(1)
        );
        let others = rules([one(YES)]).judge(&joe, Action::Call, "b");
        assert_eq!(others, Judgement::Refused(Why::Unmentioned));
    }

    #[test]
    fn of_what_is_said_of_disclosure_no_wins_too() {
        let says = |disclose| rule("*", &[Action::Publish], exact("a"), Effect::Allow { disclose });
        let joe = principal("joe", "user");
        for (said, together) in [
            ([None, None], None),
            ([None, Some(true)], Some(true)),
            ([Some(true), None], Some(true)),
            ([Some(true), Some(false)], Some(false)),
            ([Some(false), Some(true)], Some(false)),
        ] {
            let judgement = rules(said.map(says)).judge(&joe, Action::Publish, "a");
            assert_eq!(judgement, Judgement::Allowed { rule: Some(0), disclose: together });
        }
    }

    #[test]
    fn without_rules_everything_is_allowed_but_what_is_reserved_or_guarded() {
        let open = Rules::default();
        let (joe, root, house) = (principal("joe", "user"), principal("root", "admin"), Principal::house());
        for action in Action::ALL {
            let may = |who, name| matches!(open.judge(who, action, name), Judgement::Allowed { .. });
            assert!(may(&joe, "a.b"));
            for name in ["wamp.x", "tandem.x"] {
                assert_eq!(
                    may(&root, name),
                    matches!(action, Action::Call | Action::Subscribe),
                    "{action} {name}"
                );
                assert!(may(&house, name));
            }
            assert_eq!(
                may(&joe, "tandem.reply.x"),
                matches!(action, Action::Call | Action::Subscribe | Action::Send)
            );
            let kill = "wamp.session.kill";
            assert_eq!(may(&joe, kill), action == Action::Subscribe);
            assert_eq!(may(&root, kill), matches!(action, Action::Call | Action::Subscribe));
        }
    }

    #[test]
    fn what_is_allowed_without_a_look_is_what_no_rules_allow() {
        let shared = SharedRules::default();
        let joe = principal("joe", "user");
        for name in ["a.b", "wamp.x", "tandem.x", "tandem.reply.x", "wamp"] {
            for action in [Action::Publish, Action::Send] {
                let judgement = shared.load().judge(&joe, action, name);
                let allowed = matches!(judgement, Judgement::Allowed { disclose: None, .. });
                assert!(allowed || !shared.allow_all(name), "{action} {name}");
            }
        }
        assert!(shared.allow_all("a.b"));
        shared.store(rules([rule("*", &[Action::Publish], exact("a.b"), YES)]));
        assert!(!shared.allow_all("a.b"));
        shared.store(Rules::default());
        assert!(shared.allow_all("a.b"));
    }

    #[test]
    fn a_guarded_procedure_takes_a_rule_that_means_it() {
        let call = |role: &str, pattern| rule(role, &[Action::Call], pattern, YES);
        let list = rules([
            call("*", Pattern::prefix("").unwrap()),
            call("*", Pattern::prefix("wamp").unwrap()),
            call("*", Pattern::wildcard("wamp..").unwrap()),
            call("operator", Pattern::prefix("wamp.session.").unwrap()),
            call("killer", exact("wamp.session.kill")),
            rule("broken", &[Action::Call], exact("wamp.session.kill"), Effect::Deny),
        ]);
        let judge = |role: &str, procedure| list.judge(&principal("joe", role), Action::Call, procedure);
        assert_eq!(judge("user", "wamp.session.kill"), Judgement::Refused(Why::Guarded));
        assert!(matches!(judge("user", "wamp.session.count"), Judgement::Allowed { rule: Some(0), .. }));
        assert!(matches!(judge("operator", "wamp.session.kill"), Judgement::Allowed { rule: Some(3), .. }));
        assert!(matches!(judge("killer", "wamp.session.kill"), Judgement::Allowed { rule: Some(4), .. }));
        assert_eq!(judge("killer", "wamp.session.kill_all"), Judgement::Refused(Why::Guarded));
        assert_eq!(judge("broken", "wamp.session.kill"), Judgement::Refused(Why::Denied(5)));
        assert!(matches!(judge("admin", "wamp.session.kill_all"), Judgement::Allowed { rule: Some(0), .. }));
        // An administrator passes the guard, and is then one of many whom no rule mentions.
        let for_others = rules([call("user", exact("a"))]);
        let admin = for_others.judge(&principal("root", "admin"), Action::Call, "wamp.session.kill");
        assert_eq!(admin, Judgement::Refused(Why::Unmentioned));
    }

    #[test]
    fn reserved_names_stay_so_whatever_the_rules_say() {
        let everything = rule("*", &Action::ALL, Pattern::prefix("").unwrap(), YES);
        let named = rule("*", &Action::ALL, Pattern::prefix("wamp.").unwrap(), YES);
        let rules = rules([everything, named]);
        let root = principal("root", "admin");
        for action in [Action::Publish, Action::Register, Action::Send, Action::Consume] {
            for name in ["wamp.session.kill", "tandem.bound.x"] {
                assert_eq!(rules.judge(&root, action, name), Judgement::Refused(Why::Reserved));
                let below = rules.judge_pattern(&root, action, &Pattern::prefix(name).unwrap());
                assert_eq!(below, Judgement::Refused(Why::Reserved));
            }
        }
    }

    #[test]
    fn names_and_roles_are_compared_as_they_are() {
        let odd = ["*", "a*", "a.b", ".*", "#", "%", "user#", "[a-z]"];
        for role in odd.into_iter().filter(|role| *role != "*") {
            let rules = rules([rule(role, &[Action::Call], exact("a.*"), YES)]);
            for who in odd.iter().chain(&["a", "user", "ab", ""]) {
                let who = principal("*", who);
                for called in ["a.*", "a.b", "a.x", "a"] {
                    let allowed =
                        matches!(rules.judge(&who, Action::Call, called), Judgement::Allowed { .. });
                    assert_eq!(
                        allowed,
                        *who.role == *role && called == "a.*",
                        "{role} {} {called}",
                        who.role
                    );
                }
            }
        }
    }

    #[test]
    fn a_realm_has_no_more_rules_than_it_may() {
        let one = || rule("*", &[Action::Call], exact("a"), YES);
        assert!(Rules::new((0..RULES_MAX).map(|_| one()).collect()).is_ok());
        assert_eq!(Rules::new((0..=RULES_MAX).map(|_| one()).collect()).err(), Some(InvalidRules::TooMany));
        let holes = |number: usize| {
            let part = |bit: usize| if number & (1 << bit) == 0 { None } else { Some("a") };
            let pattern = Pattern::components((0..10).map(part), false).unwrap();
            Rule { number, ..rule("*", &[Action::Call], pattern, YES) }
        };
        let error = Rules::new((0..1024).map(holes).collect()).err();
        assert!(matches!(error, Some(InvalidRules::TooManyHoleSets(number)) if number > 0), "{error:?}");
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

    fn any_rule() -> impl Strategy<Value = Rule> {
        let role = prop_oneof![Just("*"), Just("user"), Just("other")];
        let actions = prop::sample::subsequence(Action::ALL.to_vec(), 1..=3);
        let effect = prop_oneof![Just(YES), Just(Effect::Deny), Just(ask())];
        (role, actions, pattern(), effect)
            .prop_map(|(role, actions, p, effect)| rule(role, &actions, p, effect))
    }

    /// The rule itself, without an index.
    fn naive(list: &[Rule], role: &str, action: Action, meets: impl Fn(&Pattern) -> bool) -> Judgement {
        let applies = |rule: &&Rule| {
            rule.role.as_deref().is_none_or(|own| own == role)
                && rule.actions.contains(&action)
                && meets(&rule.pattern)
        };
        let first = |is: fn(&Effect) -> bool| list.iter().position(|rule| applies(&rule) && is(&rule.effect));
        if list.is_empty() {
            Judgement::Allowed { rule: None, disclose: None }
        } else if let Some(rule) = first(|effect| *effect == Effect::Deny) {
            Judgement::Refused(Why::Denied(rule))
        } else if let Some(rule) = first(|effect| *effect == YES) {
            Judgement::Allowed { rule: Some(rule), disclose: None }
        } else {
            let asked = first(|effect| matches!(effect, Effect::Ask { .. }));
            asked.map_or(Judgement::Refused(Why::Unmentioned), Judgement::Asked)
        }
    }

    proptest! {
        #[test]
        fn the_index_judges_as_the_list_does(
            list in prop::collection::vec(any_rule(), 0..12),
            text in "[ab](\\.[ab]){0,3}",
            wanted in pattern(),
        ) {
            let rules = rules(list.clone());
            for role in ["user", "other", "third"] {
                for action in Action::ALL {
                    let who = principal("joe", role);
                    let one = naive(&list, role, action, |pattern| pattern.matches(&text));
                    prop_assert_eq!(rules.judge(&who, action, &text), one);
                    let many = naive(&list, role, action, |pattern| pattern.covers(&wanted));
                    prop_assert_eq!(rules.judge_pattern(&who, action, &wanted), many);
                }
            }
        }

        /// Who may subscribe to a pattern gets of it what no rule denies; what a rule denies nobody gets.
        #[test]
        fn what_is_delivered_is_allowed(
            list in prop::collection::vec(any_rule(), 1..12),
            topics in prop::collection::vec("[ab](\\.[ab]){0,3}", 1..20),
            wanted in pattern(),
        ) {
            let rules = rules(list.clone());
            let who = principal("joe", "user");
            let subscribed = !matches!(rules.judge_pattern(&who, Action::Subscribe, &wanted), Judgement::Refused(_));
            for topic in topics.iter().filter(|topic| subscribed && wanted.matches(topic)) {
                let denied = list.iter().any(|rule| {
                    rule.effect == Effect::Deny
                        && rule.role.as_deref().is_none_or(|role| role == "user")
                        && rule.actions.contains(&Action::Subscribe)
                        && rule.pattern.matches(topic)
                });
                prop_assert_eq!(rules.may_receive(&who, topic), !denied);
                prop_assert!(!denied || rules.judges_deliveries());
            }
        }
    }
}
