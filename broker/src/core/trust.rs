//! How far the operator trusts somebody: a number that goes with what they publish and call, for receivers to judge
//! by. What it means is theirs to say; the house only passes it on.

use std::collections::HashMap;

use crate::core::access::{Principal, Provider};

/// The levels of users and roles.
#[derive(Clone, Debug, Default)]
pub struct TrustLevels {
    users: HashMap<String, u32>,
    roles: HashMap<String, u32>,
}

impl TrustLevels {
    /// Those of users of the configuration, and of roles.
    pub fn new(
        users: impl IntoIterator<Item = (String, u32)>,
        roles: impl IntoIterator<Item = (String, u32)>,
    ) -> TrustLevels {
        TrustLevels { users: users.into_iter().collect(), roles: roles.into_iter().collect() }
    }

    /// The level of somebody; the user's goes before the role's. Somebody whom an application let in has the role's
    /// only, whatever their name.
    pub fn of(&self, who: &Principal) -> Option<u32> {
        let by_name = || {
            self.users.get(&*who.id).filter(|_| who.provider == Provider::Static && who.method != "anonymous")
        };
        by_name().or_else(|| self.roles.get(&*who.role)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_the_configuration_may_have_a_level_and_everybody_has_that_of_the_role() {
        let levels = TrustLevels::new([("joe".into(), 3)], [("admin".into(), 9), ("guest".into(), 0)]);
        let of = |id: &str, role: &str, provider| {
            levels.of(&Principal { provider, ..Principal::new(id, role, "ticket") })
        };
        assert_eq!(
            (of("joe", "admin", Provider::Static), of("ann", "admin", Provider::Static)),
            (Some(3), Some(9))
        );
        assert_eq!(
            (of("joe", "admin", Provider::Dynamic), of("joe", "user", Provider::Dynamic)),
            (Some(9), None)
        );
        assert_eq!((of("x", "guest", Provider::Static), of("x", "user", Provider::Static)), (Some(0), None));
    }
}
