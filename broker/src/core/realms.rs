//! The realms: those that there always are, and those that are made when the first session enters them.
//!
//! A name that fits a pattern is a realm to be. It is made once somebody was found to be who they say, so that
//! strangers make none, and it is gone when it was empty for a while: without sessions other than the house's own,
//! without messages in queues and without retained ones. What was remembered of its past goes with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::access::{Principal, Refusal, SessionId};
use crate::core::mailbox::Mailbox;
use crate::core::name::{Name, Pattern};
use crate::core::notice::Origin;
use crate::core::parcel::{Farewell, Parcel};
use crate::core::realm::{Member, Realm};
use crate::core::reserved::is_reserved;
use crate::core::trust::TrustLevels;

/// How often a session tries to enter a realm that is going while it comes.
const TRIES_MAX: usize = 8;

/// Which realms are made.
#[derive(Clone, Debug)]
pub struct RealmPattern {
    /// Their names.
    pub pattern: Pattern,
    /// How many of them at a time.
    pub realms_max: usize,
    /// How long one may be empty.
    pub idle_time_max: Duration,
}

/// Makes a realm of that name.
pub type Make = Box<dyn Fn(&str) -> Arc<Realm> + Send + Sync>;

/// Is told of realms.
pub type Hook = Box<dyn Fn(&Arc<Realm>) + Send + Sync>;

/// The realms.
pub struct Realms {
    fixed: Vec<Arc<Realm>>,
    patterns: Vec<RealmPattern>,
    make: Make,
    trust: TrustLevels,
    hook: OnceLock<Hook>,
    made: Mutex<Made>,
    /// Who comes in is asked to leave.
    ending: AtomicBool,
}

#[derive(Default)]
struct Made {
    realms: HashMap<Arc<str>, Temporary>,
    /// No more are made.
    closed: bool,
}

struct Temporary {
    realm: Arc<Realm>,
    /// The place of its pattern.
    pattern: usize,
    /// Since when it was seen to be empty.
    idle_since: Option<Instant>,
}

impl fmt::Debug for Realms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realms")
            .field("fixed", &self.fixed)
            .field("patterns", &self.patterns)
            .finish_non_exhaustive()
    }
}

impl Realms {
    /// These and no others. There must be one.
    pub fn fixed(realms: Vec<Arc<Realm>>) -> Realms {
        Realms::with_patterns(realms, Vec::new(), Box::new(|name| unreachable!("no pattern has {name}")))
    }

    /// These, of which there must be one, and those that are made.
    pub fn with_patterns(fixed: Vec<Arc<Realm>>, patterns: Vec<RealmPattern>, make: Make) -> Realms {
        assert!(!fixed.is_empty(), "there is a default realm");
        let trust = TrustLevels::default();
        let (hook, made, ending) = (OnceLock::new(), Mutex::default(), AtomicBool::new(false));
        Realms { fixed, patterns, make, trust, hook, made, ending }
    }

    /// The same, and those who enter are trusted so.
    pub fn trusting(self, trust: TrustLevels) -> Realms {
        Realms { trust, ..self }
    }

    /// Tells this one of each realm that there is, and of each that will be, before anybody enters it. May be asked
    /// for once.
    pub fn watch(&self, hook: Hook) {
        let hook = self.hook.get_or_init(|| hook);
        self.living().iter().for_each(hook);
    }

    /// The realms that there always are, the default first.
    pub fn always(&self) -> &[Arc<Realm>] {
        &self.fixed
    }

    /// The one for those who do not say.
    pub fn default_realm(&self) -> &Arc<Realm> {
        &self.fixed[0]
    }

    /// All that there are now.
    pub fn living(&self) -> Vec<Arc<Realm>> {
        let made = self.made.lock();
        self.fixed.iter().chain(made.realms.values().map(|made| &made.realm)).cloned().collect()
    }

    /// The realm of that name, if there is one now.
    pub fn get(&self, name: &str) -> Option<Arc<Realm>> {
        let fixed = self.fixed.iter().find(|realm| **realm.name() == *name).cloned();
        fixed.or_else(|| self.made.lock().realms.get(name).map(|made| made.realm.clone()))
    }

    /// Whether there is a realm of that name, or could be.
    pub fn admits(&self, name: &str) -> bool {
        self.get(name).is_some() || self.pattern(name).is_some()
    }

    /// A number for a session that is to be.
    pub fn propose_id(&self) -> SessionId {
        self.default_realm().propose_id()
    }

    /// Lets a session into a realm, which is made if it is to be; under this number unless a session has it.
    pub fn join(
        &self,
        name: &str,
        proposed: SessionId,
        principal: &Principal,
        origin: &Origin,
        mailbox: &Mailbox,
    ) -> Result<Member, Refusal> {
        let principal = Principal { trust: self.trust.of(principal), ..principal.clone() };
        for _ in 0..TRIES_MAX {
            let realm = self.open(name)?;
            match realm.join_from(proposed, principal.clone(), origin.clone(), mailbox.clone()) {
                // It went in between: there may be another.
                Err(Refusal::NoSuchRealm(_)) => {}
                Ok(member) if self.ending.load(Ordering::Relaxed) => {
                    mailbox.push(Parcel::Farewell(Farewell::Shutdown));
                    return Ok(member);
                }
                result => return result,
            }
        }
        Err(Refusal::NoSuchRealm(name.to_owned()))
    }

    /// The realm of that name, made if it is to be.
    pub fn open(&self, name: &str) -> Result<Arc<Realm>, Refusal> {
        if let Some(realm) = self.get(name) {
            return Ok(realm);
        }
        let unknown = || Refusal::NoSuchRealm(name.to_owned());
        let pattern = self.pattern(name).ok_or_else(unknown)?;
        {
            let made = self.made.lock();
            // Somebody may have made it since it was looked for, and it is not one more than there may be.
            if let Some(known) = made.realms.get(name) {
                return Ok(known.realm.clone());
            }
            made.check_room(pattern, &self.patterns)?;
        }
        // Nothing is called under the lock. Whoever makes the same at the same time may be first.
        let realm = (self.make)(name);
        if let Some(hook) = self.hook.get() {
            hook(&realm);
        }
        let entered = self.made.lock().enter(&realm, pattern, &self.patterns);
        match entered {
            Ok(entered) if Arc::ptr_eq(&entered, &realm) => {
                tracing::info!(realm = name, "realm made");
                Ok(realm)
            }
            other => {
                realm.say_farewell(Farewell::Shutdown);
                other
            }
        }
    }

    /// Lets go of realms that have been empty for as long as they may.
    pub fn sweep(&self, now: Instant) {
        let mut gone = Vec::new();
        self.made.lock().realms.retain(|name, made| {
            if !made.realm.is_idle() {
                made.idle_since = None;
                return true;
            }
            let since = *made.idle_since.get_or_insert(now);
            let idle_time_max =
                self.patterns.get(made.pattern).map_or(Duration::MAX, |known| known.idle_time_max);
            if now.saturating_duration_since(since) < idle_time_max || !made.realm.retire() {
                return true;
            }
            gone.push((name.clone(), made.realm.clone()));
            false
        });
        for (name, realm) in gone {
            // To the house's own members.
            realm.say_farewell(Farewell::Shutdown);
            tracing::info!(realm = &*name, "realm gone: it was empty");
        }
    }

    /// From now on no more realms are made, and who still comes in is asked to leave at once.
    pub fn begin_to_end(&self) {
        self.made.lock().closed = true;
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Asks all sessions in all realms to end; no more realms are made.
    pub fn say_farewell(&self, farewell: Farewell) {
        self.made.lock().closed = true;
        for realm in self.living() {
            realm.say_farewell(farewell.clone());
        }
    }

    /// The place of the first pattern that has the name, if a realm can bear it.
    fn pattern(&self, name: &str) -> Option<usize> {
        let place = self.patterns.iter().position(|known| known.pattern.matches(name))?;
        (Name::parse(name).is_ok() && !is_reserved(name)).then_some(place)
    }
}

impl Made {
    fn check_room(&self, pattern: usize, patterns: &[RealmPattern]) -> Result<(), Refusal> {
        let realms_max = patterns.get(pattern).map_or(0, |known| known.realms_max);
        let count = self.realms.values().filter(|made| made.pattern == pattern).count();
        if self.closed || count >= realms_max {
            return Err(Refusal::TooMany("realms of this kind", realms_max));
        }
        Ok(())
    }

    /// Adds a realm, unless there is one of its name; gives the one that there is then.
    fn enter(
        &mut self,
        realm: &Arc<Realm>,
        pattern: usize,
        patterns: &[RealmPattern],
    ) -> Result<Arc<Realm>, Refusal> {
        if let Some(made) = self.realms.get(realm.name()) {
            return Ok(made.realm.clone());
        }
        self.check_room(pattern, patterns)?;
        let temporary = Temporary { realm: realm.clone(), pattern, idle_since: None };
        self.realms.insert(realm.name().clone(), temporary);
        Ok(realm.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tandem_protocols::payload::{Content, Payload};

    use super::*;
    use crate::core::mailbox::Inbox;
    use crate::core::message::{Attributes, Outgoing};
    use crate::core::parcel::Parcel;
    use crate::core::queues::Credit;
    use crate::core::testing::{exact, large_mailbox, name, principal, realm, take};
    use crate::core::topics::{PublishTerms, Retain};

    const IDLE: Duration = Duration::from_secs(60);

    fn realms() -> Realms {
        let tenants =
            RealmPattern { pattern: Pattern::prefix("tenant.").unwrap(), realms_max: 2, idle_time_max: IDLE };
        let pattern = Pattern::wildcard("app..test").unwrap();
        let tests = RealmPattern { pattern, realms_max: 1, idle_time_max: Duration::ZERO };
        Realms::with_patterns(
            vec![realm("main"), realm("tenant.fixed")],
            vec![tenants, tests],
            Box::new(realm),
        )
    }

    fn join(realms: &Realms, name: &str) -> Result<(Member, Inbox), Refusal> {
        let (mailbox, inbox) = large_mailbox();
        let member =
            realms.join(name, realms.propose_id(), &principal("u", "r"), &Origin::LOCAL, &mailbox)?;
        Ok((member, inbox))
    }

    fn to(text: &str) -> Outgoing {
        let payload = Payload::new(Content::Opaque("x".into()));
        Outgoing { name: name(text), payload, attributes: Attributes::default() }
    }

    #[test]
    fn a_realm_is_made_for_the_first_who_enters_it_and_no_other_sees_it() {
        let realms = realms();
        for unknown in ["other", "tenant", "tenant.", "tenant..a", "tenant.a b", "app.x.y.test", "wamp.x", ""]
        {
            assert!(!realms.admits(unknown), "{unknown}");
            assert_eq!(join(&realms, unknown).err(), Some(Refusal::NoSuchRealm(unknown.to_owned())));
        }
        assert!(realms.admits("tenant.a") && realms.get("tenant.a").is_none(), "asking makes none");
        let (mut first, mut inbox) = join(&realms, "tenant.a").unwrap();
        let (second, _) = join(&realms, "tenant.a").unwrap();
        let (third, _) = join(&realms, "tenant.b").unwrap();
        assert!(Arc::ptr_eq(first.realm(), second.realm()));
        first.subscribe(&exact("t")).unwrap();
        third.publish(to("t"), false).unwrap();
        assert!(take(&mut inbox).is_empty());
        second.publish(to("t"), false).unwrap();
        assert_eq!(take(&mut inbox).len(), 1);
        assert_eq!(realms.living().len(), 4);
        assert_eq!(realms.default_realm().name().as_ref(), "main");
    }

    #[test]
    fn no_more_are_made_than_their_pattern_allows() {
        let realms = realms();
        let (_a, _b) = (join(&realms, "tenant.a").unwrap(), join(&realms, "tenant.b").unwrap());
        assert_eq!(join(&realms, "tenant.c").err(), Some(Refusal::TooMany("realms of this kind", 2)));
        join(&realms, "tenant.a").unwrap();
        join(&realms, "tenant.fixed").unwrap();
        join(&realms, "app.x.test").unwrap();
        assert!(join(&realms, "app.y.test").is_err());
        realms.sweep(Instant::now());
        join(&realms, "app.y.test").unwrap();
    }

    #[test]
    fn an_empty_realm_goes_after_a_while_and_one_that_keeps_something_does_not() {
        let (realms, start) = (realms(), Instant::now());
        let (member, _inbox) = join(&realms, "tenant.a").unwrap();
        realms.sweep(start);
        realms.sweep(start + IDLE);
        assert!(realms.get("tenant.a").is_some(), "somebody is in it");
        let kept = |member: Member, now: Instant| {
            drop(member);
            realms.sweep(now);
            realms.sweep(now + IDLE);
            realms.get("tenant.a").is_some()
        };

        let retaining = |retain| PublishTerms { retain, ..PublishTerms::default() };
        member.publish_under(to("t"), retaining(Retain::Set)).unwrap();
        assert!(kept(member, start), "a message is retained");
        let (member, _inbox) = join(&realms, "tenant.a").unwrap();
        member.publish_under(to("t"), retaining(Retain::Remove)).unwrap();
        member.send(to("q")).unwrap();
        assert!(kept(member, start), "a message is in a queue");
        let (mut member, mut inbox) = join(&realms, "tenant.a").unwrap();
        let consumer = member.consume(&name("q"), Credit { messages: 1, bytes: 99 }).unwrap();
        let Some(Parcel::Delivery(delivery)) = take(&mut inbox).pop() else { panic!("no delivery") };
        member.settle(consumer, delivery.sequence, crate::core::queues::Settlement::Accept).unwrap();
        drop(member);

        realms.sweep(start);
        realms.sweep(start + IDLE - Duration::from_millis(1));
        let (member, _inbox) = join(&realms, "tenant.a").unwrap();
        realms.sweep(start + IDLE);
        assert!(!kept(member, start + IDLE), "its time begins anew");
        assert_eq!(realms.living().len(), 2, "those that there always are stay");
    }

    #[test]
    fn the_house_is_told_before_anybody_enters_and_keeps_no_realm_alive() {
        let realms = Arc::new(realms());
        let (told, members) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, house) = (told.clone(), members.clone());
        realms.watch(Box::new(move |realm| {
            assert_eq!(realm.sessions(), 0);
            count.fetch_add(1, Ordering::Relaxed);
            let (mailbox, inbox) = large_mailbox();
            house.lock().push((realm.join(Principal::house(), mailbox).unwrap(), inbox));
        }));
        assert_eq!(told.load(Ordering::Relaxed), 2);
        let (member, _inbox) = join(&realms, "tenant.a").unwrap();
        join(&realms, "tenant.a").unwrap();
        assert_eq!((told.load(Ordering::Relaxed), member.realm().sessions()), (3, 1));
        let realm = member.realm().clone();
        drop(member);
        let now = Instant::now();
        realms.sweep(now);
        realms.sweep(now + IDLE);
        assert!(realms.get("tenant.a").is_none());
        let (_, inbox) = &mut members.lock()[2];
        assert!(matches!(take(inbox)[..], [Parcel::Farewell(Farewell::Shutdown)]));
        let (mailbox, _inbox) = large_mailbox();
        let late = realm.join(principal("u", "r"), mailbox).err();
        assert_eq!(late, Some(Refusal::NoSuchRealm("tenant.a".to_owned())), "nobody is left behind in it");
    }

    #[test]
    fn everybody_everywhere_hears_the_farewell_and_no_realm_is_made_after_it() {
        let realms = realms();
        let mut members = [join(&realms, "main").unwrap(), join(&realms, "tenant.a").unwrap()];
        realms.say_farewell(Farewell::Shutdown);
        for (_, inbox) in &mut members {
            assert!(matches!(take(inbox)[..], [Parcel::Farewell(Farewell::Shutdown)]));
        }
        assert!(join(&realms, "tenant.b").is_err());
    }

    #[test]
    fn who_comes_in_while_the_end_begins_is_asked_to_leave_at_once() {
        let realms = realms();
        let (_first, mut inbox) = join(&realms, "main").unwrap();
        realms.begin_to_end();
        assert!(take(&mut inbox).is_empty(), "who was there is asked in their time");
        let (_late, mut inbox) = join(&realms, "main").unwrap();
        assert!(matches!(take(&mut inbox)[..], [Parcel::Farewell(Farewell::Shutdown)]));
        assert!(join(&realms, "tenant.b").is_err());
    }

    #[test]
    fn many_who_come_while_their_realm_goes_all_get_in() {
        let realms = Arc::new(realms());
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        join(&realms, "app.x.test").unwrap();
                    }
                });
            }
            scope.spawn(|| (0..2000).for_each(|_| realms.sweep(start)));
        });
        realms.sweep(start);
        assert_eq!(realms.living().len(), 2);
    }
}
