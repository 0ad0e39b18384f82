//! Rules for tests that try a session under several of them.

use tandem_broker::core::access::Action;
use tandem_broker::core::access::rules::{Effect, Rule, Rules};
use tandem_broker::core::name::Pattern;

/// Everybody may do this.
fn allow(actions: &[Action], pattern: Pattern, disclose: Option<bool>) -> Rule {
    Rule { number: 1, role: None, actions: actions.into(), pattern, effect: Effect::Allow { disclose } }
}

/// None; all that allow everything, without disclosure and with it; or those that allow to subscribe, and to publish to these
/// names at most.
pub fn rules(which: u8, publishable: Option<&str>) -> Rules {
    let all = || Pattern::prefix("").unwrap();
    let publish = |prefix| allow(&[Action::Publish], Pattern::prefix(prefix).unwrap(), None);
    let rules = match which {
        0 => vec![],
        1 => vec![allow(&Action::ALL, all(), None)],
        2 => vec![allow(&Action::ALL, all(), Some(true))],
        _ => [allow(&[Action::Subscribe], all(), None)].into_iter().chain(publishable.map(publish)).collect(),
    };
    Rules::new(rules).unwrap()
}
