//! Who of those that subscribed is kept from one topic.
//!
//! A publication has many receivers of few roles: each role is judged once.

use std::sync::Arc;

use crate::core::access::Principal;
use crate::core::access::rules::Rules;

/// Roles whose judgement is kept while one publication is handed out. Of more than that, each receiver is judged.
const ROLES_MAX: usize = 16;

/// The gate to a topic.
#[derive(Debug)]
pub struct Gate<'a> {
    rules: &'a Rules,
    topic: &'a str,
    judged: Vec<(Arc<str>, bool)>,
}

impl<'a> Gate<'a> {
    /// The gate to a topic; `None` where the rules keep nobody out.
    pub fn new(rules: &'a Rules, topic: &'a str) -> Option<Gate<'a>> {
        rules.judges_deliveries().then(|| Gate { rules, topic, judged: Vec::new() })
    }

    /// Whether a subscriber may have what is published there.
    pub fn admits(&mut self, who: &Principal) -> bool {
        if who.is_house() {
            return true;
        }
        let is_known = |role: &Arc<str>| Arc::ptr_eq(role, &who.role) || **role == *who.role;
        if let Some((_, admitted)) = self.judged.iter().find(|(role, _)| is_known(role)) {
            return *admitted;
        }
        let admitted = self.rules.may_receive(who, self.topic);
        if self.judged.len() < ROLES_MAX {
            self.judged.push((who.role.clone(), admitted));
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::Action;
    use crate::core::access::rules::{Effect, Rule};
    use crate::core::testing::{exact, principal};

    #[test]
    fn each_role_is_judged_by_itself_however_many_there_are() {
        let deny = |number: usize| Rule {
            number,
            role: Some(format!("role{}", number * 2).into()),
            actions: vec![Action::Subscribe],
            pattern: exact("t"),
            effect: Effect::Deny,
        };
        let allow = Rule { role: None, effect: Effect::Allow { disclose: None }, ..deny(100) };
        let rules = Rules::new((0..ROLES_MAX).map(deny).chain([allow]).collect()).unwrap();
        let mut gate = Gate::new(&rules, "t").unwrap();
        for _ in 0..2 {
            for number in 0..ROLES_MAX * 2 {
                let admitted = gate.admits(&principal("joe", &format!("role{number}")));
                assert_eq!(admitted, number % 2 == 1, "{number}");
            }
        }
        assert_eq!(gate.judged.len(), ROLES_MAX);
        assert!(gate.admits(&Principal::house()));
    }

    #[test]
    fn there_is_no_gate_where_nobody_is_kept_out() {
        assert!(Gate::new(&Rules::default(), "t").is_none());
    }
}
