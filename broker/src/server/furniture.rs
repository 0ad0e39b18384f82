//! What a realm is given before anybody enters it: rules, somebody to ask where they do not decide, the queues of
//! the configuration and who looks after them, and WAMP's meta API.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::authorizer::ProcedureAuthorizer;
use crate::config::{Config, ConfigError};
use crate::core::access::Refusal;
use crate::core::access::authorizer::Authorizer;
use crate::core::access::rules::Rules;
use crate::core::mailbox::mailbox;
use crate::core::realm::Realm;
use crate::core::realms::Realms;
use crate::local::{self, LocalCaller};
use crate::server::wall_time_ms;
use crate::wamp::MetaApi;

/// Furnishes realms by a configuration.
pub(super) struct Furniture {
    /// Whose permissions count now.
    config: Mutex<Arc<Config>>,
    /// Of the house's members in the realms.
    tasks: TaskTracker,
    /// Asked in place of procedures.
    authorizer: Option<Arc<dyn Authorizer>>,
}

impl Furniture {
    /// By this configuration, which was checked; the members of the house run as these tasks.
    pub(super) fn new(config: &Config, tasks: TaskTracker) -> Furniture {
        Furniture { config: Mutex::new(Arc::new(config.clone())), tasks, authorizer: None }
    }

    /// The same where an application decides what rules leave open.
    pub(super) fn asking(self, authorizer: Option<Arc<dyn Authorizer>>) -> Furniture {
        Furniture { authorizer, ..self }
    }

    /// Furnishes a realm that nobody has entered. Must be called in a tokio runtime.
    pub(super) fn furnish(&self, realm: &Arc<Realm>) {
        let config = self.config.lock().clone();
        let rules = config.rules(realm.name());
        self.rule(realm, rules.expect("all rules together were found right, and these are some of them"));
        arrange_queues(realm, &config);
        let tending = local::tend(realm).expect("members of the house are not counted, and always let in");
        self.tasks.spawn(tending);
        let meta = serve_meta(realm).expect("a realm that nobody is in takes a member of the house");
        self.tasks.spawn(meta);
    }

    /// Takes the permissions of another configuration, which was checked, for all realms that there are and will be.
    pub(super) fn reload(&self, config: &Config, realms: &Realms) -> Result<(), ConfigError> {
        let living = realms.living();
        let rules: Vec<Rules> =
            living.iter().map(|realm| config.rules(realm.name())).collect::<Result<_, _>>()?;
        *self.config.lock() = Arc::new(config.clone());
        for (realm, rules) in living.iter().zip(rules) {
            self.rule(realm, rules);
        }
        Ok(())
    }

    /// Gives a realm its rules and, if they need one, somebody to be asked.
    fn rule(&self, realm: &Arc<Realm>, rules: Rules) {
        if rules.asks() && !realm.has_authorizer() {
            self.find_authorizer(realm);
        }
        realm.set_rules(rules);
    }

    fn find_authorizer(&self, realm: &Arc<Realm>) {
        if let Some(authorizer) = &self.authorizer {
            return realm.set_authorizer(Some(authorizer.clone()));
        }
        let joined = LocalCaller::join(realm);
        let (caller, attending) = joined.expect("members of the house are not counted, and always let in");
        realm.set_authorizer(Some(Arc::new(ProcedureAuthorizer::new(caller))));
        let realm = realm.clone();
        self.tasks.spawn(async move {
            attending.await;
            // It holds the realm that holds it.
            realm.set_authorizer(None);
        });
    }
}

/// Makes the queues that are there from the start, and binds them. What the limits of a realm do not allow is left
/// out, and said.
fn arrange_queues(realm: &Realm, config: &Config) {
    let queues = config.queues().expect("the configuration was found right");
    for (name, properties) in queues {
        if let Err(why) = realm.declare_queue(&name, properties) {
            tracing::error!(realm = &**realm.name(), queue = %name, %why, "a queue of the configuration is not made");
        }
    }
    let bindings = config.bindings().expect("the configuration was found right");
    for (pattern, queue) in bindings {
        if let Err(why) = realm.bind_queue(&pattern, &queue) {
            tracing::error!(realm = &**realm.name(), %queue, %why, "a binding of the configuration is not made");
        }
    }
}

/// WAMP's meta API in a realm: a member of this process, as long as the future is driven. It ends when the realm
/// says farewell, and until then holds the realm; it counts as no session.
fn serve_meta(realm: &Arc<Realm>) -> Result<impl Future<Output = ()> + Send + use<>, Refusal> {
    let (mailbox, inbox) = mailbox(local::BOUNDS);
    let mut meta = MetaApi::join(realm, mailbox, Arc::new(wall_time_ms))?;
    Ok(local::attend(inbox, move |parcel| meta.receive(parcel)))
}
