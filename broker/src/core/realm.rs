//! A realm: one address space, and the sessions that met in it.
//!
//! [`Realm::join`] hands out a [`Member`], through which a session does everything that it does. Dropping
//! it leaves the realm and undoes what was done: subscriptions, registrations and consumers go, what was
//! not acknowledged becomes ready again, calls that were under way are answered.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use std::{fmt, iter};

use arc_swap::Guard;
use parking_lot::{Mutex, RwLock};

use tandem_protocols::payload::{Format, Payload};

use crate::core::access::authorizer::{Answers, Authorizer, Decision, Inquiry, Question};
use crate::core::access::rules::{Effect, Judgement, Rules, SharedRules, Why};
use crate::core::access::{self, Action, Principal, REPLY_PREFIX, Refusal};
use crate::core::budget::Budget;
use crate::core::bundle::{BUNDLE_BYTES_MAX, Due};
use crate::core::calls::{Answered, CallTerms, Caller, Calls, CancelMode, Canceled, Offer};
use crate::core::consumption::{Consumption, Consumptions};
use crate::core::durable::{
    DURABLE_NAME_BYTES_MAX, Definition, Durable, DurableTerms, Durables, Owner, ReadFilter,
};
use crate::core::guests::Guests;
use crate::core::history::{History, Past, Query, WallClock, is_recorded};
use crate::core::mailbox::{Batch, Mailbox};
pub use crate::core::message::Outgoing;
use crate::core::message::{Attributes, Encodings, Handling, Publication, SessionId};
use crate::core::name::{InvalidName, Name, Pattern};
use crate::core::notice::Origin;
use crate::core::parcel::{Answer, ConsumerId, Failure, Farewell, Parcel, RegistrationId, SubscriptionId};
use crate::core::publishing::Publishing;
use crate::core::queues::durable::{Asker, Keeping, Progress};
use crate::core::queues::{
    ConsumeTerms, ConsumerKey, Credit, Filter, Founding, Properties, Queue, QueueLimits, QueueTerms, Queues,
    Settlement, Step,
};
use crate::core::reserved::is_reserved;
use crate::core::retained::RetainedLimits;
use crate::core::shard::ShardKey;
use crate::core::store::StoredQueue;
use crate::core::subscriptions::Subscriptions;
use crate::core::testament::{Scope, Testaments};
use crate::core::topics::{PublishTerms, Receiver, Retain, Sink, Subscriber, Topics};
use crate::core::watch::Watch;
use crate::metrics;

/// The source of chance: numbers that nobody can guess, or, in a simulation, those of a seed.
pub type Entropy = Arc<dyn Fn() -> u64 + Send + Sync>;

/// WAMP's largest number that is exact in every language.
const ID_MAX: u64 = 1 << 53;

/// What a realm allows.
#[derive(Clone, Copy, Debug)]
pub struct RealmLimits {
    /// Sessions at a time.
    pub sessions_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Registrations of one session.
    pub registrations_max: usize,
    /// Consumers of one session.
    pub consumers_max: usize,
    /// Bytes of topic messages on their way, before publishers are no longer read.
    pub in_flight_bytes_max: usize,
    /// What topics may keep for those who subscribe later.
    pub retained: RetainedLimits,
    /// What queues may hold.
    pub queues: QueueLimits,
}

/// What a realm remembers, and by which clock.
#[derive(Default)]
pub struct Memory {
    /// Of what is published.
    pub history: Option<History>,
    /// What it does with persistent messages.
    pub keeping: Keeping,
    /// Topics whose retained messages are persistent, whatever their publishers say.
    pub retained_durably: Vec<Pattern>,
    /// Tells milliseconds since 1970. Without it time stands still for queues.
    pub clock: Option<WallClock>,
}

/// A realm.
pub struct Realm {
    name: Arc<str>,
    limits: RealmLimits,
    entropy: Entropy,
    guests: Guests,
    topics: Topics,
    calls: Calls,
    queues: Queues,
    durables: Mutex<Durables>,
    budget: Arc<Budget>,
    watch: Arc<Watch>,
    rules: SharedRules,
    authorizer: RwLock<Option<Arc<dyn Authorizer>>>,
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Realm {
    /// An empty realm.
    pub fn new(name: &str, limits: RealmLimits, entropy: Entropy) -> Arc<Realm> {
        Realm::with_memory(name, limits, entropy, Memory::default())
    }

    /// An empty realm that will remember what is published.
    pub fn with_history(name: &str, limits: RealmLimits, entropy: Entropy, history: History) -> Arc<Realm> {
        Realm::with_memory(name, limits, entropy, Memory { history: Some(history), ..Memory::default() })
    }

    /// A realm that will remember what it is told to. What a store had of it is for
    /// [`Realm::restore`] and [`Topics::restore`].
    pub fn with_memory(name: &str, limits: RealmLimits, entropy: Entropy, memory: Memory) -> Arc<Realm> {
        let topics = Topics::new(limits.retained);
        let topics = match memory.history {
            Some(history) => topics.with_history(history),
            None => topics,
        };
        let topics = topics.keeping(&memory.keeping, memory.retained_durably);
        let (watch, rules) = (Arc::default(), SharedRules::default());
        let clock = memory.clock.unwrap_or_else(|| Arc::new(|| 0));
        Arc::new(Realm {
            name: name.into(),
            guests: Guests::new(limits.sessions_max, Arc::clone(&watch)),
            topics: topics.watched(Arc::clone(&watch)).under(rules.clone()),
            calls: Calls::seeded(entropy()).watched(Arc::clone(&watch)).under(rules.clone()),
            watch,
            queues: Queues::with_keeping(limits.queues, clock, memory.keeping),
            durables: Mutex::default(),
            budget: Budget::new(limits.in_flight_bytes_max),
            rules,
            authorizer: RwLock::default(),
            entropy,
            limits,
        })
    }

    /// What may be done in it, from now on. Those who took from queues under the rules before stop where they may
    /// not any more; subscriptions and registrations are judged again whenever they match something.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(rules);
        self.guests.tell_all(|| Parcel::RulesChanged);
    }

    /// What may be done in it.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// Whether there is somebody to be asked.
    pub fn has_authorizer(&self) -> bool {
        self.authorizer.read().is_some()
    }

    /// Who is asked where the rules say so.
    pub fn set_authorizer(&self, authorizer: Option<Arc<dyn Authorizer>>) {
        // The one before may be the last that holds a member of this realm: it goes after the lock.
        let _before = std::mem::replace(&mut *self.authorizer.write(), authorizer);
    }

    /// Makes a queue that stays, whoever uses it.
    pub fn declare_queue(&self, name: &Name, properties: Properties) -> Result<(), Refusal> {
        self.queues.declare(name, properties, None).map(drop)
    }

    /// Lets a queue, which is made if need be and stays, have all messages of these topics, whoever may get
    /// them.
    pub fn bind_queue(&self, pattern: &Pattern, queue: &Name) -> Result<(), Refusal> {
        let queue = match self.queues.get(queue) {
            Some(queue) => queue,
            None => self.queues.declare(queue, Properties::default(), None)?,
        };
        self.feed(pattern, &queue, Arc::new(Principal::house())).map(drop)
    }

    /// Subscribes a queue that belongs to no session.
    fn feed(
        &self,
        pattern: &Pattern,
        queue: &Arc<Queue>,
        principal: Arc<Principal>,
    ) -> Result<(SubscriptionId, Subscriber), Refusal> {
        let receiver = Receiver { principal, sink: Sink::Queue(queue.clone()) };
        // No session has that number.
        let subscriber = Subscriber { session: SessionId(0), binding: queue.id() };
        let binding = self.topics.subscribe(pattern, subscriber, receiver)?;
        Ok((binding, subscriber))
    }

    /// Makes again what a store had of the realm: queues, and durable subscriptions. For the start, before there are
    /// sessions.
    pub fn restore(&self, stored: Vec<StoredQueue>, read_filter: ReadFilter<'_>) {
        let (durables, queues): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|found| Definition::is_in(&found.properties));
        self.queues.restore(queues);
        for found in durables {
            if let Err(why) = self.restore_durable(&found, read_filter) {
                let (realm, queue, messages) = (&*self.name, &*found.name, found.messages.len());
                tracing::error!(realm, queue, messages, why, "a durable subscription is left in the store");
                metrics::STORE_UNREADABLE.add(messages as i64);
            }
        }
    }

    fn restore_durable(&self, found: &StoredQueue, read_filter: ReadFilter<'_>) -> Result<(), String> {
        let definition = Definition::read(&found.properties).ok_or("it is not known what it was for")?;
        let Definition { name, pattern, filter, owner } = &definition;
        let filter = match filter {
            Some(text) => Some(read_filter(text).ok_or_else(|| format!("{text:?} is no selector any more"))?),
            None => None,
        };
        let mut durables = self.durables.lock();
        if durables.get(name).is_ok() {
            return Err(format!("there is one of the name {name:?} already"));
        }
        let properties = Properties::read(&found.properties);
        let founding = Founding { properties, filter, definition: definition.written() };
        let queue = self.queues.restore_founded(found, founding).map_err(|why| why.to_string())?;
        let owner = Arc::new(owner.principal());
        let role = owner.role.clone();
        let (binding, subscriber) = self.feed(pattern, &queue, owner).map_err(|why| why.to_string())?;
        durables.insert(name, Durable { queue, pattern: pattern.clone(), role, binding, subscriber });
        Ok(())
    }

    /// How many durable subscriptions there are.
    pub fn durable_subscriptions(&self) -> usize {
        self.durables.lock().len()
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many sessions are in it, the house's own not counted.
    pub fn sessions(&self) -> usize {
        self.guests.len()
    }

    /// Its sessions.
    pub fn guests(&self) -> &Guests {
        &self.guests
    }

    /// From now on a mailbox of the house is told what changes, while somebody subscribes to what only the house
    /// publishes; and what is made bears the time. False if somebody else watches already.
    pub fn observe(&self, mailbox: Mailbox, clock: WallClock) -> bool {
        self.watch.observe(mailbox, clock)
    }

    /// Whether somebody watches.
    pub fn is_observed(&self) -> bool {
        self.watch.is_observed()
    }

    /// Its topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Its calls.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Its queues.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// A number for a session that is to be, for [`join_as`](Realm::join_as).
    pub fn propose_id(&self) -> SessionId {
        SessionId(self.random_id())
    }

    /// Lets a session of this process in.
    pub fn join(self: &Arc<Realm>, principal: Principal, mailbox: Mailbox) -> Result<Member, Refusal> {
        self.join_as(self.propose_id(), principal, mailbox)
    }

    /// The same, under this number unless a session has it.
    pub fn join_as(
        self: &Arc<Realm>,
        proposed: SessionId,
        principal: Principal,
        mailbox: Mailbox,
    ) -> Result<Member, Refusal> {
        self.join_from(proposed, principal, Origin::LOCAL, mailbox)
    }

    /// The same, and remembers where the session comes from.
    pub fn join_from(
        self: &Arc<Realm>,
        proposed: SessionId,
        principal: Principal,
        origin: Origin,
        mailbox: Mailbox,
    ) -> Result<Member, Refusal> {
        let principal = Arc::new(principal);
        let (peer, dialect) = (origin.peer.clone(), origin.dialect);
        let numbers = iter::once(proposed).chain(iter::repeat_with(|| self.propose_id()));
        let gone = || Refusal::NoSuchRealm(self.name.to_string());
        let id = self.guests.admit(numbers, &principal, origin, &mailbox).ok_or_else(gone)??;
        let Principal { id: user, role, .. } = &*principal;
        tracing::debug!(%peer, realm = &*self.name, session = id.0, %user, %role, dialect, "a session begins");
        Ok(Member {
            id,
            realm: self.clone(),
            principal,
            mailbox,
            subscriptions: Subscriptions::default(),
            consumptions: Consumptions::default(),
            publishing: Publishing::default(),
            rare: None,
        })
    }

    /// True while nobody but the house is in it, and nothing in it waits for anybody.
    pub fn is_idle(&self) -> bool {
        self.guests.is_empty() && self.holds_nothing()
    }

    /// Lets nobody in any more, if it is idle.
    pub fn retire(&self) -> bool {
        let retires = self.guests.retire(|| self.holds_nothing());
        if retires {
            self.queues.leave_store();
        }
        retires
    }

    fn holds_nothing(&self) -> bool {
        self.queues.bytes() == 0 && !self.topics.retains_any() && self.durables.lock().is_empty()
    }

    /// Asks all sessions to end.
    pub fn say_farewell(&self, farewell: Farewell) {
        self.guests.say_farewell(&farewell);
    }

    /// While memory is short its publishers are not read.
    pub fn squeeze(&self, squeezed: bool) {
        self.budget.squeeze(squeezed);
    }

    /// Takes a subscription away from a session, and tells it. True when it had a part in it.
    pub fn revoke_subscription(
        &self,
        id: SubscriptionId,
        session: SessionId,
        reason: Option<Arc<str>>,
    ) -> bool {
        let revoked = self.topics.remove_session(id, session);
        // Told only by whoever took it: the session may end it at the same time.
        if revoked && let Some(mailbox) = self.guests.mailbox(session) {
            mailbox.push(Parcel::SubscriptionRevoked { subscription: id, reason });
        }
        revoked
    }

    /// Uniform in 1 to 2^53.
    fn random_id(&self) -> u64 {
        ((self.entropy)() & (ID_MAX - 1)) + 1
    }
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Publish to a topic.
    Publish(Outgoing, Option<Arc<Handling>>),
    /// Put into a queue.
    Send(Outgoing, SendTerms),
    /// Settle a delivery.
    Settle(ConsumerId, u64, Settlement),
}

/// How something is to be put into a queue, beyond what it is.
#[derive(Clone, Debug, Default)]
pub struct SendTerms {
    /// What the queue is to do with it.
    pub handling: Option<Arc<Handling>>,
    /// What the queue must be like.
    pub queue: QueueTerms,
}

/// How a session takes messages: of a queue, or of topics with acknowledgement.
#[derive(Clone, Debug, Default)]
pub struct TakeTerms {
    /// As a consumer.
    pub consumer: ConsumeTerms,
    /// What the queue must be like.
    pub queue: QueueTerms,
}

/// A session's place in a realm.
#[derive(Debug)]
pub struct Member {
    id: SessionId,
    realm: Arc<Realm>,
    principal: Arc<Principal>,
    mailbox: Mailbox,
    subscriptions: Subscriptions,
    consumptions: Consumptions,
    publishing: Publishing,
    rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<Member>() <= 80, "every idle session has one");

/// What few sessions have.
#[derive(Debug, Default)]
struct Rare {
    /// In order of their numbers.
    registrations: Vec<RegistrationId>,
    testaments: Testaments,
    /// What an authorizer said, in a realm that has one.
    answers: Option<Answers>,
}

impl Member {
    /// The number of the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The realm.
    pub fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }

    /// Who the session is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// True while the realm wants its publishers not to be read; `waker` is woken when that ends.
    pub fn congested(&self, waker: &Waker) -> bool {
        self.realm.budget.exceeded(waker) || self.realm.queues.congested(waker)
    }

    /// Until when the session should publish nothing, because those that it publishes to do not keep up; no longer than
    /// `time_max`. `waker` is woken when that ends before.
    pub fn paced_until(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        self.publishing.get()?.pace.waits(waker, now, time_max)
    }

    /// Subscribes to topics. Doing it again for the same pattern changes nothing.
    pub fn subscribe(&mut self, pattern: &Pattern) -> Result<SubscriptionId, Refusal> {
        self.subscribe_and_replay(pattern, None)
    }

    /// The same, and with a tag what is kept of the topics comes into the mailbox, under that tag.
    pub fn subscribe_and_replay(
        &mut self,
        pattern: &Pattern,
        tag: Option<u64>,
    ) -> Result<SubscriptionId, Refusal> {
        self.subscribe_as(pattern, tag, None)
    }

    /// The same as one of those who share the shards of the subscription. What is kept of the topics comes of all
    /// shards.
    pub fn subscribe_as(
        &mut self,
        pattern: &Pattern,
        tag: Option<u64>,
        node: Option<ShardKey>,
    ) -> Result<SubscriptionId, Refusal> {
        self.permit_pattern(Action::Subscribe, pattern)?;
        let limit = self.realm.limits.subscriptions_max;
        if self.subscriptions.count() >= limit {
            let known =
                self.realm.topics.get(pattern).filter(|id| self.subscriptions.is_pattern(*id).is_some());
            known.ok_or(Refusal::TooMany("subscriptions of a session", limit))?;
        }
        let mailbox = self.mailbox.clone();
        let receiver = self.receiver(match node {
            None => Sink::Mailbox(mailbox),
            Some(key) => Sink::Node(Box::new((mailbox, key))),
        });
        let id = self.realm.topics.subscribe_and_replay(pattern, self.subscriber(0), receiver, tag)?;
        self.subscriptions.insert(id, pattern.name().is_none());
        Ok(id)
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> Result<(), Refusal> {
        if !self.subscriptions.remove(id) {
            return Err(Refusal::NoSuchSubscription);
        }
        self.realm.topics.unsubscribe(id, self.subscriber(0));
        Ok(())
    }

    /// Whether a subscription of the session, not a bound one, is to more than one topic; `None` if it has none of
    /// that number.
    pub fn is_to_pattern(&self, id: SubscriptionId) -> Option<bool> {
        self.subscriptions.is_pattern(id)
    }

    /// What was published in the past to the topics of a subscription, whoever holds it, as far as this session
    /// may subscribe to it.
    pub fn history(&self, subscription: SubscriptionId, query: &Query) -> Result<Vec<Past>, Refusal> {
        let topics = &self.realm.topics;
        let pattern = topics.pattern(subscription).ok_or(Refusal::NoSuchSubscription)?;
        self.permit_pattern(Action::Subscribe, &pattern)?;
        let rules = self.realm.rules();
        let may_see = |topic: &str| !rules.judges_deliveries() || rules.may_receive(&self.principal, topic);
        let past = topics.history();
        let past = past.and_then(|history| history.query(&pattern, &self.principal, query, may_see));
        past.ok_or(Refusal::HistoryUnavailable)
    }

    /// Subscribes to topics with acknowledgement: through a queue of its own that is bound to them.
    pub fn bind(&mut self, pattern: &Pattern, credit: Credit) -> Result<ConsumerId, Refusal> {
        self.bind_filtered(pattern, credit, None)
    }

    /// The same, for what passes a filter.
    pub fn bind_filtered(
        &mut self,
        pattern: &Pattern,
        credit: Credit,
        filter: Option<Arc<dyn Filter>>,
    ) -> Result<ConsumerId, Refusal> {
        self.permit_pattern(Action::Subscribe, pattern)?;
        let key = self.next_consumer()?;
        let name = self.private_name("bound");
        let queue = self.realm.queues.unnamed(&name, key, self.mailbox.clone(), credit, filter)?;
        let receiver = self.receiver(Sink::Queue(queue.clone()));
        let binding = self.realm.topics.subscribe(pattern, self.subscriber(key.consumer.0), receiver)?;
        self.consumptions.insert(key.consumer, Consumption { queue, binding: Some(binding) });
        Ok(key.consumer)
    }

    /// Subscribes to topics by a queue that outlives the session: by that name, whoever subscribes. The queue is
    /// made if need be; whether the store knows that comes into the mailbox under the ticket, if it must.
    pub fn subscribe_durably(
        &mut self,
        name: &str,
        durable: DurableTerms,
        credit: Credit,
        terms: ConsumeTerms,
        ticket: u64,
    ) -> Result<(ConsumerId, Progress), Refusal> {
        self.permit_pattern(Action::Subscribe, &durable.pattern)?;
        self.permit_dead_letters(&durable.properties)?;
        if name.len() > DURABLE_NAME_BYTES_MAX {
            return Err(Refusal::TooMany(
                "bytes in the name of a durable subscription",
                DURABLE_NAME_BYTES_MAX,
            ));
        }
        let key = self.next_consumer()?;
        let asker = self.told_under(ticket);
        let mut durables = self.realm.durables.lock();
        let (queue, progress, is_new) = match durables.fitting(name, &durable)? {
            Some(queue) => {
                self.permit_sharing(durables.get(name)?)?;
                // Somebody may just have made it.
                let progress =
                    if queue.is_founding() { self.realm.queues.flush(asker) } else { Progress::Done };
                (queue, progress, false)
            }
            None => {
                let definition = Definition {
                    name: name.to_owned(),
                    pattern: durable.pattern.clone(),
                    filter: durable.filter.as_ref().map(|filter| filter.text().to_owned()),
                    owner: Owner::of(&self.principal),
                };
                let DurableTerms { properties, filter, .. } = durable;
                let founding = Founding { properties, filter, definition: definition.written() };
                let (queue, progress) =
                    self.realm.queues.found(&self.private_name("durable"), founding, asker)?;
                (queue, progress, true)
            }
        };
        let added = queue.add_consumer(key, self.mailbox.clone(), credit, terms);
        if is_new {
            let fed = added.and_then(|()| self.realm.feed(&durable.pattern, &queue, self.principal.clone()));
            let (binding, subscriber) = fed.inspect_err(|_| {
                self.realm.queues.delete(&queue);
                self.realm.queues.leave(&queue, key);
            })?;
            let (pattern, role) = (durable.pattern, self.principal.role.clone());
            durables.insert(name, Durable { queue: queue.clone(), pattern, role, binding, subscriber });
        } else {
            added?;
        }
        drop(durables);
        self.consumptions.insert(key.consumer, Consumption { queue, binding: None });
        Ok((key.consumer, progress))
    }

    /// Takes messages of a durable subscription that exists.
    pub fn consume_durable(
        &mut self,
        name: &str,
        credit: Credit,
        terms: ConsumeTerms,
    ) -> Result<ConsumerId, Refusal> {
        let durable = self.realm.durables.lock().get(name)?.clone();
        self.permit_pattern(Action::Subscribe, &durable.pattern)?;
        self.permit_sharing(&durable)?;
        let queue = durable.queue;
        let key = self.next_consumer()?;
        {
            // Somebody may have ended it since: nobody consumes from what is not fed any more.
            let durables = self.realm.durables.lock();
            if !Arc::ptr_eq(&durables.get(name)?.queue, &queue) {
                return Err(Refusal::NoSuchDurable(name.to_owned()));
            }
            queue.add_consumer(key, self.mailbox.clone(), credit, terms)?;
        }
        self.consumptions.insert(key.consumer, Consumption { queue, binding: None });
        Ok(key.consumer)
    }

    /// Ends a durable subscription, with all that waits in it, unless others consume from it. Whether the store knows
    /// comes into the mailbox under the ticket, if it must.
    pub fn end_durable(&mut self, name: &str, ticket: u64) -> Result<Progress, Refusal> {
        self.permit_end_of_durable(name)?;
        let durable = {
            let mut durables = self.realm.durables.lock();
            let queue = &durables.get(name)?.queue;
            let own = self.consumptions.iter().filter(|(_, own)| Arc::ptr_eq(&own.queue, queue)).count();
            durables.remove(name, own)?
        };
        self.realm.topics.unsubscribe(durable.binding, durable.subscriber);
        self.realm.queues.delete(&durable.queue);
        Ok(self.flush(ticket))
    }

    /// Whether there is such a durable subscription, which the session may end.
    pub fn permit_end_of_durable(&self, name: &str) -> Result<(), Refusal> {
        let pattern = self.realm.durables.lock().get(name)?.pattern.clone();
        self.permit_pattern(Action::Subscribe, &pattern).map(drop)
    }

    /// Publishes to a topic, and gives the number of the publication.
    pub fn publish(&self, outgoing: Outgoing, exclude_me: bool) -> Result<u64, Refusal> {
        self.publish_under(outgoing, PublishTerms { exclude_me, ..PublishTerms::default() })
    }

    /// The same, on terms. What must be stored may yet fail, which comes into the mailbox under the ticket 0.
    pub fn publish_under(&self, outgoing: Outgoing, terms: PublishTerms) -> Result<u64, Refusal> {
        self.publish_for(outgoing, terms, 0).map(|(id, _)| id)
    }

    /// The same. Whether the store has what queues and topics keep of it comes into the mailbox under the ticket, if it
    /// must.
    pub fn publish_for(
        &self,
        outgoing: Outgoing,
        terms: PublishTerms,
        ticket: u64,
    ) -> Result<(u64, Progress), Refusal> {
        let said = self.permit(Action::Publish, &outgoing.name)?;
        self.publish_permitted(outgoing, terms, said, || Some(self.told_under(ticket)))
    }

    /// The same for a session whose pump takes in what came together: it may come to its receivers only with
    /// [`publish_gathered`](Member::publish_gathered), which is to be called before the session does anything but publish, and
    /// at the end of what came together.
    pub fn publish_soon(
        &self,
        outgoing: Outgoing,
        mut terms: PublishTerms,
        ticket: u64,
    ) -> Result<(u64, Progress), Refusal> {
        let said = self.permit(Action::Publish, &outgoing.name)?;
        let is_plain = terms.retain == Retain::No && terms.eligibility.is_none();
        if !Batch::is_under_way()
            || !is_plain
            || self.realm.topics.may_remember()
            || self.is_kept_of_topic(&outgoing)?
        {
            return self.publish_permitted(outgoing, terms, said, || Some(self.told_under(ticket)));
        }
        terms.disclose_me = access::disclosure(terms.disclose_me, said)?;
        let publication = self.publication_under(outgoing, &terms);
        let (id, exclude) = (publication.id, terms.exclude_me.then_some(self.id));
        let gathered = &self.publishing.get_or_begin().gathered;
        let due = gathered.lock().add(publication, exclude, &self.realm.budget);
        self.publish_due(due);
        Ok((id, Progress::Done))
    }

    /// The same for arguments alone, on no terms but that the session itself gets nothing: they are copied to those that it
    /// published so before. False where nothing was done, for there is more to it than that, or it may not be allowed.
    pub fn publish_arguments_soon(&self, topic: &str, format: Format, args: &[u8]) -> bool {
        let Realm { topics, rules, budget, .. } = &*self.realm;
        let goes_alone = !Batch::is_under_way() || topics.may_remember() || args.len() > BUNDLE_BYTES_MAX;
        if goes_alone || self.principal.trust.is_some() || !rules.allow_all(topic) {
            return false;
        }
        let (id, arguments) = (self.realm.random_id(), (format, args));
        let gathered = &self.publishing.get_or_begin().gathered;
        let added = gathered.lock().add_plain(id, topic, self.id, arguments, budget);
        let Ok(due) = added else { return false };
        metrics::PUBLICATIONS.add(1);
        self.publish_due(due);
        true
    }

    /// The name that a text is, as [`Name::parse`]; made only once for what goes to one topic.
    pub fn name(&self, text: &str) -> Result<Name, InvalidName> {
        match self.publishing.get() {
            None => Name::parse(text),
            Some(publishing) => publishing.gathered.lock().name(text),
        }
    }

    /// Publishes what was [gathered](Member::publish_soon).
    pub fn publish_gathered(&self) {
        if let Some(publishing) = self.publishing.get() {
            let due = publishing.gathered.lock().take(&self.realm.budget);
            self.publish_due(due);
        }
    }

    fn publish_due(&self, due: Option<Due>) {
        match due {
            None => {}
            Some(Due::One(publication, exclude)) => self.publish_plainly(&publication, exclude),
            Some(Due::Several(bundle, exclude)) => match self.realm.topics.reach_together(&bundle, exclude) {
                Some(reach) => self.publishing.get_or_begin().pace.note(bundle.cost(), reach),
                None => {
                    let publications = bundle.singles();
                    publications.for_each(|publication| self.publish_plainly(&publication, exclude));
                }
            },
        }
    }

    fn publish_plainly(&self, publication: &Arc<Publication>, exclude: Option<SessionId>) {
        // Only what is to be retained may be refused.
        if let Ok((reach, _)) = self.realm.topics.reach(publication, exclude, Retain::No, || None) {
            self.publishing.get_or_begin().pace.note(publication.cost(), reach);
        }
    }

    /// The same, to everybody but one session.
    pub fn publish_past(&self, outgoing: Outgoing, session: SessionId) -> Result<u64, Refusal> {
        self.permit(Action::Publish, &outgoing.name)?;
        self.publish_gathered();
        let publication = self.charged_publication(outgoing, &PublishTerms::default());
        let _stored_in_its_time =
            self.realm.topics.publish(&publication, Some(session), Retain::No, || None)?;
        Ok(publication.id)
    }

    /// The same where [`permit`](Member::permit) was asked before, in another message of the peer: rules that change
    /// meanwhile count, and whom they say to ask is not asked again.
    pub fn publish_later(&self, outgoing: Outgoing, terms: PublishTerms) -> Result<u64, Refusal> {
        let said = self.permit_later(Action::Publish, &outgoing.name)?;
        self.publish_permitted(outgoing, terms, said, || Some(self.told_under(0))).map(|(id, _)| id)
    }

    fn charged_publication(&self, outgoing: Outgoing, terms: &PublishTerms) -> Arc<Publication> {
        let mut publication = self.publication_under(outgoing, terms);
        // Until nobody holds it any more.
        publication.charge = Some(self.realm.budget.charge(publication.cost()));
        Arc::new(publication)
    }

    fn publication_under(&self, outgoing: Outgoing, terms: &PublishTerms) -> Publication {
        metrics::PUBLICATIONS.add(1);
        let mut publication = self.publication(outgoing);
        publication.disclosed = terms.disclose_me.then(|| self.principal.clone());
        publication.eligibility = terms.eligibility.clone();
        publication.handling = terms.handling.clone();
        publication
    }

    fn publish_permitted(
        &self,
        outgoing: Outgoing,
        mut terms: PublishTerms,
        said: Option<bool>,
        asker: impl Fn() -> Option<Asker>,
    ) -> Result<(u64, Progress), Refusal> {
        terms.disclose_me = access::disclosure(terms.disclose_me, said)?;
        let is_kept = self.is_kept_of_topic(&outgoing)?;
        if is_recorded(terms.eligibility.as_deref()) {
            self.realm.topics.admit(&outgoing.name)?;
        }
        self.publish_admitted(outgoing, terms, is_kept, asker)
    }

    /// The same where the store was asked before, too: whatever it takes by now, only what is to be retained may yet be
    /// refused.
    fn publish_admitted(
        &self,
        outgoing: Outgoing,
        terms: PublishTerms,
        is_kept: bool,
        asker: impl Fn() -> Option<Asker>,
    ) -> Result<(u64, Progress), Refusal> {
        self.publish_gathered();
        let publication = self.charged_publication(outgoing, &terms);
        let PublishTerms { exclude_me, retain, .. } = terms;
        let exclude = exclude_me.then_some(self.id);
        let told_by_topics = || if is_kept { None } else { asker() };
        let (reach, progress) = self.realm.topics.reach(&publication, exclude, retain, told_by_topics)?;
        self.publishing.get_or_begin().pace.note(publication.cost(), reach);
        if !is_kept {
            return Ok((publication.id, progress));
        }
        // All queues that keep it have submitted it by now: it is safe when what was submitted up to here is.
        if let Some(asker) = asker() {
            let _storing = self.realm.queues.flush(asker);
        }
        Ok((publication.id, Progress::Storing))
    }

    /// Whether queues that are bound to its topic keep a message, which may be refused. Then nobody gets it.
    fn is_kept_of_topic(&self, outgoing: &Outgoing) -> Result<bool, Refusal> {
        let Realm { queues, topics, .. } = &*self.realm;
        if !queues.has_store() || !outgoing.attributes.is_persistent() {
            return Ok(false);
        }
        if !topics.feeds_lasting_queue(&outgoing.name) {
            return Ok(false);
        }
        queues.admit().map(|()| true)
    }

    /// Publishes to a topic when the session ends.
    pub fn add_testament(
        &mut self,
        scope: Scope,
        outgoing: Outgoing,
        mut terms: PublishTerms,
    ) -> Result<(), Refusal> {
        let said = self.permit(Action::Publish, &outgoing.name)?;
        terms.disclose_me = access::disclosure(terms.disclose_me, said)?;
        self.rare.get_or_insert_default().testaments.add(scope, outgoing, terms)
    }

    /// Forgets what was to be published when the session ends in that way.
    pub fn flush_testaments(&mut self, scope: Scope) {
        if let Some(rare) = &mut self.rare {
            rare.testaments.flush(scope);
        }
    }

    fn execute_testaments(&mut self) {
        let testaments = self.rare.take().map(|rare| rare.testaments).unwrap_or_default();
        for (outgoing, terms) in testaments.into_order() {
            // Permissions may have changed since, and what is retained has its limits: nobody is left to be told.
            let _published_or_refused = self.publish_later(outgoing, terms);
        }
    }

    /// Puts a message into a queue, and gives its number. A persistent one may yet fail, which comes into the
    /// mailbox under the ticket 0.
    pub fn send(&self, outgoing: Outgoing) -> Result<u64, Refusal> {
        self.send_for(outgoing, SendTerms::default(), 0).map(|(id, _)| id)
    }

    /// The same, on terms.
    pub fn send_under(&self, outgoing: Outgoing, terms: SendTerms) -> Result<u64, Refusal> {
        self.send_for(outgoing, terms, 0).map(|(id, _)| id)
    }

    /// The same. Whether the store has it comes into the mailbox under the ticket, if it must.
    pub fn send_for(
        &self,
        outgoing: Outgoing,
        terms: SendTerms,
        ticket: u64,
    ) -> Result<(u64, Progress), Refusal> {
        self.permit(Action::Send, &outgoing.name)?;
        self.permit_dead_letters(&terms.queue.properties)?;
        self.send_permitted(outgoing, terms, ticket)
    }

    /// The same where it was asked for before; see [`publish_later`](Member::publish_later).
    pub fn send_later(&self, outgoing: Outgoing, ticket: u64) -> Result<(u64, Progress), Refusal> {
        self.permit_later(Action::Send, &outgoing.name)?;
        self.send_permitted(outgoing, SendTerms::default(), ticket)
    }

    fn send_permitted(
        &self,
        outgoing: Outgoing,
        terms: SendTerms,
        ticket: u64,
    ) -> Result<(u64, Progress), Refusal> {
        let publication = Arc::new(Publication { handling: terms.handling, ..self.publication(outgoing) });
        let id = publication.id;
        if publication.name.as_str().starts_with(REPLY_PREFIX) {
            // Whoever waited for it may be gone; that is nobody's fault here.
            self.realm.queues.send_existing(publication)?;
            return Ok((id, Progress::Done));
        }
        let asker = self.asker(&publication, ticket);
        Ok((id, self.realm.queues.send_for(publication, &terms.queue, asker)?))
    }

    /// Tells under the ticket when all that this session sent and settled is safe, as far as it is kept.
    pub fn flush(&self, ticket: u64) -> Progress {
        self.realm.queues.flush(self.told_under(ticket))
    }

    fn asker(&self, publication: &Publication, ticket: u64) -> Option<Asker> {
        publication.is_persistent().then(|| self.told_under(ticket))
    }

    fn told_under(&self, ticket: u64) -> Asker {
        Asker { mailbox: self.mailbox.clone(), ticket }
    }

    /// Takes messages from a queue.
    pub fn consume(&mut self, queue: &Name, credit: Credit) -> Result<ConsumerId, Refusal> {
        self.consume_under(queue, credit, TakeTerms::default())
    }

    /// The same, on terms.
    pub fn consume_under(
        &mut self,
        queue: &Name,
        credit: Credit,
        terms: TakeTerms,
    ) -> Result<ConsumerId, Refusal> {
        self.permit(Action::Consume, queue)?;
        let TakeTerms { consumer, queue: wanted } = terms;
        self.permit_dead_letters(&wanted.properties)?;
        let key = self.next_consumer()?;
        let mailbox = self.mailbox.clone();
        let queue = self.realm.queues.consume_on(queue, key, mailbox, credit, consumer, &wanted)?;
        self.consumptions.insert(key.consumer, Consumption { queue, binding: None });
        Ok(key.consumer)
    }

    /// Makes a queue that only this session consumes from, for answers: others send to it by its name,
    /// which nobody can guess.
    pub fn reply_queue(&mut self, credit: Credit) -> Result<(Name, ConsumerId), Refusal> {
        let key = self.next_consumer()?;
        let name = self.private_name("reply");
        let queue = self.realm.queues.own(&name, key, self.mailbox.clone(), credit)?;
        self.consumptions.insert(key.consumer, Consumption { queue, binding: None });
        Ok((name, key.consumer))
    }

    /// Settles a delivery.
    pub fn settle(
        &mut self,
        consumer: ConsumerId,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<(), Refusal> {
        self.settle_for(consumer, sequence, settlement, None).map(|_| ())
    }

    /// The same. Whether the store knows it comes into the mailbox under the ticket, if it must.
    pub fn settle_for(
        &mut self,
        consumer: ConsumerId,
        sequence: u64,
        settlement: Settlement,
        ticket: Option<u64>,
    ) -> Result<Progress, Refusal> {
        self.settle_all_for(consumer, &[sequence], settlement, ticket)
    }

    /// Settles all of these deliveries of a consumer, or none if it does not hold one of them.
    pub fn settle_all_for(
        &mut self,
        consumer: ConsumerId,
        sequences: &[u64],
        settlement: Settlement,
        ticket: Option<u64>,
    ) -> Result<Progress, Refusal> {
        let queue = &self.consumption(consumer)?.queue;
        let asker = ticket.map(|ticket| self.told_under(ticket));
        self.realm.queues.settle_for(queue, self.key(consumer), sequences, settlement, asker)
    }

    /// Stops deliveries to a consumer. What it holds it may still settle.
    pub fn close_consumer(&mut self, consumer: ConsumerId) -> Result<(), Refusal> {
        let consumption = self.consumption(consumer)?;
        consumption.queue.close(self.key(consumer));
        if let Some(binding) = consumption.binding {
            self.realm.topics.unsubscribe(binding, self.subscriber(consumer.0));
        }
        self.release_if_settled(consumer);
        Ok(())
    }

    /// Forgets a closed consumer once it holds nothing any more.
    pub fn release_if_settled(&mut self, consumer: ConsumerId) {
        let key = self.key(consumer);
        if let Some(settled) = self.consumptions.remove_if(consumer, |known| known.queue.is_settled(key)) {
            self.realm.queues.leave(&settled.queue, key);
        }
    }

    /// Takes all of these steps or, when one is refused, none. Whom rules say to ask was asked by
    /// [`permit`](Member::permit), before.
    pub fn commit(&mut self, operations: Vec<Operation>) -> Result<(), Refusal> {
        self.commit_for(operations, 0).map(|_| ())
    }

    /// The same. Whether the store has them comes into the mailbox under the ticket, if it must.
    pub fn commit_for(&mut self, operations: Vec<Operation>, ticket: u64) -> Result<Progress, Refusal> {
        let mut steps = Vec::new();
        let mut publications = Vec::new();
        let mut is_published_kept = false;
        for operation in operations {
            match operation {
                Operation::Publish(outgoing, handling) => {
                    let said = self.permit_later(Action::Publish, &outgoing.name)?;
                    let disclose_me = access::disclosure(false, said)?;
                    let is_kept = self.is_kept_of_topic(&outgoing)?;
                    is_published_kept |= self.realm.topics.admit(&outgoing.name)? || is_kept;
                    let terms = PublishTerms { handling, disclose_me, ..PublishTerms::default() };
                    publications.push((outgoing, terms, is_kept));
                }
                Operation::Send(outgoing, SendTerms { handling, queue }) => {
                    self.permit_later(Action::Send, &outgoing.name)?;
                    if let Some(queue) = &queue.properties.dead_letters {
                        self.permit_later(Action::Send, queue)?;
                    }
                    let publication = Publication { handling, ..self.publication(outgoing) };
                    steps.push(Step::Send(Arc::new(publication), queue));
                }
                Operation::Settle(consumer, sequence, settlement) => {
                    let queue = self.consumption(consumer)?.queue.clone();
                    steps.push(Step::Settle { queue, consumer: self.key(consumer), sequence, settlement });
                }
            }
        }
        // Once, and when the last of it is safe.
        let asker = (!is_published_kept).then(|| self.told_under(ticket));
        let progress = self.realm.queues.commit_for(steps, asker)?;
        for (outgoing, terms, is_kept) in publications {
            // Nothing of it is refused any more: what was before it is done.
            let _told_of_all = self.publish_admitted(outgoing, terms, is_kept, || None)?;
        }
        if is_published_kept { Ok(self.flush(ticket)) } else { Ok(progress) }
    }

    /// Registers a procedure, or all that match a pattern.
    pub fn register(&mut self, pattern: &Pattern) -> Result<RegistrationId, Refusal> {
        self.offer(pattern, Offer::default())
    }

    /// The same, with more to say about it.
    pub fn offer(&mut self, pattern: &Pattern, offer: Offer) -> Result<RegistrationId, Refusal> {
        self.permit_pattern(Action::Register, pattern)?;
        let limit = self.realm.limits.registrations_max;
        let held = self.rare.as_ref().map_or(0, |rare| rare.registrations.len());
        if held >= limit && !self.principal.is_house() {
            return Err(Refusal::TooMany("registrations of a session", limit));
        }
        let id = self.realm.calls.register(pattern, self.id, &self.mailbox, offer, &self.principal)?;
        let registrations = &mut self.rare.get_or_insert_default().registrations;
        if let Err(place) = registrations.binary_search(&id) {
            registrations.insert(place, id);
        }
        Ok(id)
    }

    /// Whether the session has a part in a registration.
    pub fn has_registered(&self, id: RegistrationId) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.registrations.binary_search(&id).is_ok())
    }

    /// Forgets a registration that was taken away. False if the session had no part in it any more.
    pub fn forget_registration(&mut self, id: RegistrationId) -> bool {
        let Some(rare) = &mut self.rare else { return false };
        let place = rare.registrations.binary_search(&id);
        place.map(|place| rare.registrations.remove(place)).is_ok()
    }

    /// Ends a registration. Calls that are under way are still answered.
    pub fn unregister(&mut self, id: RegistrationId) -> Result<(), Refusal> {
        self.realm.calls.unregister(id, self.id)?;
        self.forget_registration(id);
        Ok(())
    }

    /// Calls a procedure. The answer comes into the mailbox under `call`.
    pub fn call(&self, call: u64, outgoing: Outgoing, mut terms: CallTerms) -> Result<(), Refusal> {
        let Outgoing { name, payload, attributes } = outgoing;
        let said = self.permit(Action::Call, &name)?;
        terms.discloses = access::disclosure(terms.discloses, said)?;
        let (principal, mailbox) = (self.principal.clone(), self.mailbox.clone());
        let caller = Caller { session: self.id, principal, call, mailbox, terms };
        self.realm.calls.call(caller, name, payload, attributes)
    }

    /// Sends more arguments of a call that announced them. False when it is not under way any more; when
    /// they are refused the call has ended.
    pub fn proceed(
        &self,
        call: u64,
        arguments: (Payload, Attributes),
        more_follows: bool,
    ) -> Result<bool, Refusal> {
        self.realm.calls.proceed(self.id, call, arguments, more_follows)
    }

    /// Whether an invocation is to be answered.
    pub fn is_invoked(&self, invocation: u64) -> bool {
        self.realm.calls.is_invoked(self.id, invocation)
    }

    /// Gives a call up.
    pub fn cancel(&self, call: u64, mode: CancelMode) -> Canceled {
        self.realm.calls.cancel(self.id, call, mode)
    }

    /// Ends a call that took too long. True when it was under way.
    pub fn expire(&self, call: u64) -> bool {
        self.realm.calls.expire(self.id, call)
    }

    /// Answers an invocation.
    pub fn answer(&self, invocation: u64, result: Result<Answer, Failure>) -> Answered {
        self.realm.calls.answer(self.id, invocation, result)
    }

    /// Says that an invocation cannot be brought to the peer: another callee may have it.
    pub fn decline(&self, invocation: u64, failure: Failure) {
        self.realm.calls.decline(self.id, invocation, failure);
    }

    // ---- permissions ---------------------------------------------------------------------------------

    /// Whether the session may do something with a name; and whether others are told who does it, if that was said.
    pub fn permit(&self, action: Action, name: &Name) -> Result<Option<bool>, Refusal> {
        if matches!(action, Action::Publish | Action::Send) && self.realm.rules.allow_all(name.as_str()) {
            return Ok(None);
        }
        let rules = self.realm.rules();
        let judgement = rules.judge(&self.principal, action, name.as_str());
        self.follow(&rules, judgement, action, name.as_str(), || Pattern::exact(name.clone()))
    }

    /// The same with all names that a pattern means.
    fn permit_pattern(&self, action: Action, pattern: &Pattern) -> Result<Option<bool>, Refusal> {
        let rules = self.realm.rules();
        let judgement = rules.judge_pattern(&self.principal, action, pattern);
        self.follow(&rules, judgement, action, pattern.as_str(), || pattern.clone())
    }

    /// The same where whom the rules say to ask was asked before.
    fn permit_later(&self, action: Action, name: &Name) -> Result<Option<bool>, Refusal> {
        let rules = self.realm.rules();
        match rules.judge(&self.principal, action, name.as_str()) {
            Judgement::Asked(_) => Ok(None),
            judgement => {
                self.follow(&rules, judgement, action, name.as_str(), || Pattern::exact(name.clone()))
            }
        }
    }

    fn follow(
        &self,
        rules: &Rules,
        judgement: Judgement,
        action: Action,
        spelling: &str,
        pattern: impl FnOnce() -> Pattern,
    ) -> Result<Option<bool>, Refusal> {
        let forbidden = || {
            metrics::FORBIDDEN.add(1);
            let Principal { id, role, .. } = &*self.principal;
            tracing::debug!(session = self.id.0, user = %id, %role, %action, name = spelling, "no permission");
            Refusal::Forbidden { action, name: spelling.into() }
        };
        let rule = match judgement {
            Judgement::Allowed { disclose, .. } => return Ok(disclose),
            Judgement::Refused(Why::Reserved) => return Err(Refusal::Reserved(spelling.to_owned())),
            Judgement::Refused(_) => return Err(forbidden()),
            Judgement::Asked(rule) => rules.get(rule).map(|rule| &rule.effect),
        };
        let Some(Effect::Ask { authorizer, keep }) = rule else { return Err(Refusal::AuthorizationFailed) };
        let (realm, principal) = (self.realm.name.clone(), self.principal.clone());
        let question =
            rules.question(realm, self.id, principal, action, pattern(), authorizer.clone(), *keep);
        // Only a session that was told beforehand holds its message.
        let answers = self.rare.as_ref().and_then(|rare| rare.answers.as_ref());
        let Some(answers) = answers else { return Err(Refusal::AuthorizationFailed) };
        match answers.find(&question) {
            None => Err(Refusal::Undecided(Box::new(question))),
            Some(Ok(decision)) if decision.allow => Ok(decision.disclose),
            Some(Ok(_)) => Err(forbidden()),
            Some(Err(refusal)) => Err(refusal),
        }
    }

    /// Whether something that the session does next may end as [`Refusal::Undecided`]. It is told the time then: what
    /// an authorizer said is kept for a while.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        let asks = self.realm.rules.asks();
        if asks {
            self.answers().note_time(now);
        } else if let Some(rare) = &mut self.rare {
            rare.answers = None;
        }
        asks
    }

    /// Asks a question. The answer goes to [`note_answer`](Member::note_answer), and then the session does again what
    /// raised the question.
    pub fn inquire(&self, question: &Question) -> Inquiry {
        match &*self.realm.authorizer.read() {
            Some(authorizer) => Inquiry(authorizer.authorize(question.clone())),
            None => Inquiry(Box::pin(std::future::ready(Err(Refusal::AuthorizationFailed)))),
        }
    }

    /// Takes the answer to a question. False when the same message raised too many of them.
    pub fn note_answer(
        &mut self,
        question: Question,
        answer: Result<Decision, Refusal>,
        now: Instant,
    ) -> bool {
        self.answers().put(question, answer, now)
    }

    /// What raised questions was done, or refused: answers that are not kept are forgotten.
    pub fn forget_answers(&mut self) {
        if let Some(answers) = self.rare.as_mut().and_then(|rare| rare.answers.as_mut()) {
            answers.clear();
        }
    }

    fn answers(&mut self) -> &mut Answers {
        self.rare.get_or_insert_default().answers.get_or_insert_default()
    }

    /// The rules changed: stops taking from queues that the session may not take from any more, and says which
    /// consumers that ended.
    pub fn judge_consumers(&mut self) -> Vec<(ConsumerId, Refusal)> {
        let rules = self.realm.rules();
        let refusal = |consumption: &Consumption| {
            let name = consumption.queue.name();
            let durables = self.realm.durables.lock();
            // Their queues have names of the house's.
            let durable = is_reserved(name.as_str()).then(|| durables.of(&consumption.queue)).flatten();
            let (judgement, action, name) = match durable {
                Some(durable) if self.withholds(&rules, durable) => {
                    return Some(Refusal::Forbidden {
                        action: Action::Subscribe,
                        name: durable.pattern.as_str().into(),
                    });
                }
                Some(Durable { pattern, .. }) => {
                    let judgement = rules.judge_pattern(&self.principal, Action::Subscribe, pattern);
                    (judgement, Action::Subscribe, pattern.as_str().into())
                }
                None => {
                    let judgement = rules.judge(&self.principal, Action::Consume, name.as_str());
                    (judgement, Action::Consume, name.as_str().into())
                }
            };
            let is_refused = matches!(judgement, Judgement::Refused(why) if why != Why::Reserved);
            is_refused.then_some(Refusal::Forbidden { action, name })
        };
        let own = self.consumptions.iter().filter(|(_, consumption)| consumption.binding.is_none());
        let refused = own.filter_map(|(key, consumption)| Some((*key, consumption, refusal(consumption)?)));
        let ended = refused.map(|(consumer, consumption, refusal)| {
            metrics::FORBIDDEN.add(1);
            consumption.queue.close(self.key(consumer));
            (consumer, refusal)
        });
        ended.collect()
    }

    /// Whether something of what a durable subscription was filled with is not for the session.
    fn withholds(&self, rules: &Rules, durable: &Durable) -> bool {
        durable.role != self.principal.role && rules.withholds(&self.principal, &durable.pattern)
    }

    fn permit_sharing(&self, durable: &Durable) -> Result<(), Refusal> {
        if !self.withholds(&self.realm.rules(), durable) {
            return Ok(());
        }
        metrics::FORBIDDEN.add(1);
        Err(Refusal::Forbidden { action: Action::Subscribe, name: durable.pattern.as_str().into() })
    }

    /// Who says where dead letters go must be allowed to send there: rejecting a message is a way to do it.
    pub fn permit_dead_letters(&self, properties: &Properties) -> Result<(), Refusal> {
        match &properties.dead_letters {
            Some(queue) => self.permit(Action::Send, queue).map(drop),
            None => Ok(()),
        }
    }

    fn publication(&self, outgoing: Outgoing) -> Publication {
        Publication {
            id: self.realm.random_id(),
            name: outgoing.name,
            publisher: self.id,
            payload: outgoing.payload,
            attributes: outgoing.attributes,
            disclosed: None,
            trust: self.principal.trust,
            eligibility: None,
            handling: None,
            encodings: Encodings::default(),
            charge: None,
        }
    }

    fn receiver(&self, sink: Sink) -> Receiver {
        Receiver { principal: self.principal.clone(), sink }
    }

    fn subscriber(&self, binding: u64) -> Subscriber {
        Subscriber { session: self.id, binding }
    }

    fn key(&self, consumer: ConsumerId) -> ConsumerKey {
        ConsumerKey { session: self.id, consumer }
    }

    fn next_consumer(&mut self) -> Result<ConsumerKey, Refusal> {
        let limit = self.realm.limits.consumers_max;
        if self.consumptions.count() >= limit {
            return Err(Refusal::TooMany("consumers of a session", limit));
        }
        let next = self.consumptions.next_id();
        Ok(self.key(next))
    }

    fn consumption(&self, consumer: ConsumerId) -> Result<&Consumption, Refusal> {
        self.consumptions.get(consumer).ok_or(Refusal::NoSuchDelivery)
    }

    /// A name in the house's own part of the address space that nobody can guess.
    fn private_name(&self, kind: &str) -> Name {
        let (high, low) = ((self.realm.entropy)(), (self.realm.entropy)());
        let name = format!("tandem.{kind}.{high:016x}{low:016x}");
        Name::parse(&name).expect("three components of letters and digits are a name")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.publish_gathered();
        let Member { realm, id, .. } = &*self;
        for subscription in self.subscriptions.iter() {
            realm.topics.unsubscribe(subscription, Subscriber { session: *id, binding: 0 });
        }
        for (consumer, Consumption { queue, binding }) in self.consumptions.iter() {
            if let Some(binding) = binding {
                realm.topics.unsubscribe(*binding, Subscriber { session: *id, binding: consumer.0 });
            }
            realm.queues.leave(queue, ConsumerKey { session: *id, consumer: *consumer });
        }
        realm.calls.leave(*id);
        // Not for this session, which takes nothing any more, but while it is one.
        self.execute_testaments();
        self.realm.guests.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::core::calls::CANCELED;
    use crate::core::mailbox::Inbox;
    use crate::core::message::Attributes;
    use crate::core::testing::{UNIT, exact, large_mailbox, name, payload, take};

    const CREDIT: Credit = Credit { messages: 2, bytes: 1 << 20 };

    fn realm(limits: impl FnOnce(&mut RealmLimits)) -> Arc<Realm> {
        let queues =
            QueueLimits { queues_max: 9, messages_max: 99, bytes_max: 1 << 20, total_bytes_max: 1 << 20 };
        let mut all = RealmLimits {
            sessions_max: 3,
            subscriptions_max: 2,
            registrations_max: 2,
            consumers_max: 3,
            in_flight_bytes_max: 1 << 20,
            retained: RetainedLimits::default(),
            queues,
        };
        limits(&mut all);
        let last = AtomicU64::new(0);
        Realm::new("test", all, Arc::new(move || last.fetch_add(1, Ordering::Relaxed)))
    }

    fn join(realm: &Arc<Realm>) -> (Member, Inbox) {
        let principal = Principal::new("u", "r", "anonymous");
        let (mailbox, inbox) = large_mailbox();
        (realm.join(principal, mailbox).unwrap(), inbox)
    }

    fn to(text: &str) -> Outgoing {
        Outgoing { name: name(text), payload: payload(), attributes: Attributes::default() }
    }

    #[test]
    fn dropping_a_member_undoes_everything() {
        let realm = realm(|_| {});
        let (mut member, mut inbox) = join(&realm);
        let (mut other, mut others) = join(&realm);
        member.subscribe(&exact("t")).unwrap();
        member.bind(&Pattern::prefix("t").unwrap(), CREDIT).unwrap();
        member.consume(&name("q"), CREDIT).unwrap();
        let (reply, _) = member.reply_queue(CREDIT).unwrap();
        let offer = Offer { takes_interrupts: true, ..Offer::default() };
        member.offer(&exact("p"), offer).unwrap();
        other.offer(&exact("p2"), offer).unwrap();
        for n in 1..=3 {
            other.publish(to("t"), true).unwrap();
            other.send(to("q")).unwrap();
            other.send(to(reply.as_str())).unwrap();
            other.call(n, to("p"), CallTerms::default()).unwrap();
            member.call(n, to("p2"), CallTerms::default()).unwrap();
        }
        // 3 events, and of the others what its credit allows.
        assert_eq!(take(&mut inbox).len(), 3 + 2 + 2 + 2 + 3);
        assert_eq!((realm.calls().pending(), realm.queues().len()), (6, 2));
        drop(member);
        assert_eq!(realm.sessions(), 1);
        assert!(realm.topics().is_empty());
        assert_eq!((realm.calls().registrations(), realm.calls().pending()), (1, 0));
        assert_eq!((realm.queues().len(), realm.queues().bytes()), (1, 3 * UNIT), "what was sent to q");
        assert_eq!(realm.budget.bytes(), 0);
        let told = take(&mut others);
        let is_canceled = |parcel: &&Parcel| {
            matches!(parcel, Parcel::Outcome(outcome)
                if outcome.result.as_ref().is_err_and(|failure| &*failure.error == CANCELED))
        };
        assert_eq!(told.iter().filter(is_canceled).count(), 3);
        assert_eq!(told.iter().filter(|parcel| matches!(parcel, Parcel::Interrupt { .. })).count(), 3);

        let consumer = other.consume(&name("q"), Credit { messages: 9, ..CREDIT }).unwrap();
        let redelivered: Vec<u32> = take(&mut others)
            .into_iter()
            .map(|parcel| match parcel {
                Parcel::Delivery(delivery) => {
                    other.settle(consumer, delivery.sequence, Settlement::Accept).unwrap();
                    delivery.redeliveries
                }
                parcel => panic!("not a delivery: {parcel:?}"),
            })
            .collect();
        assert_eq!(redelivered, [1, 1, 0]);
        drop(other);
        assert_eq!((realm.sessions(), realm.queues().len(), realm.queues().bytes()), (0, 0, 0));
    }

    #[test]
    fn each_limit_of_a_session_is_reached() {
        let realm = realm(|_| {});
        let (mut member, _inbox) = join(&realm);
        let first = member.subscribe(&exact("t1")).unwrap();
        member.subscribe(&exact("t2")).unwrap();
        assert_eq!(member.subscribe(&exact("t1")), Ok(first), "this changes nothing");
        let too_many = |what| Err(Refusal::TooMany(what, 2));
        assert_eq!(member.subscribe(&exact("t3")), too_many("subscriptions of a session"));
        member.unsubscribe(first).unwrap();
        assert_eq!(member.unsubscribe(first), Err(Refusal::NoSuchSubscription));
        member.subscribe(&exact("t3")).unwrap();

        let registration = member.register(&exact("p1")).unwrap();
        member.register(&exact("p2")).unwrap();
        assert!(matches!(member.register(&exact("p3")), Err(Refusal::TooMany(_, 2))));
        member.unregister(registration).unwrap();
        member.register(&exact("p3")).unwrap();

        let consumer = member.consume(&name("q"), CREDIT).unwrap();
        member.bind(&exact("t"), CREDIT).unwrap();
        member.reply_queue(CREDIT).unwrap();
        assert!(matches!(member.consume(&name("q"), CREDIT), Err(Refusal::TooMany(_, 3))));
        assert!(matches!(member.bind(&exact("t"), CREDIT), Err(Refusal::TooMany(_, 3))));
        assert!(matches!(member.reply_queue(CREDIT), Err(Refusal::TooMany(_, 3))));
        member.close_consumer(consumer).unwrap();
        member.consume(&name("q"), CREDIT).unwrap();
    }

    #[test]
    fn a_realm_takes_no_more_sessions_than_it_may() {
        let realm = realm(|limits| limits.sessions_max = 1);
        let (member, _inbox) = join(&realm);
        let (mailbox, _other) = large_mailbox();
        let refused = realm.join(member.principal().clone(), mailbox);
        assert_eq!(refused.err(), Some(Refusal::TooMany("sessions", 1)));
        drop(member);
        join(&realm);
    }

    #[test]
    fn a_publisher_is_congested_until_its_events_are_read() {
        let realm = realm(|limits| limits.in_flight_bytes_max = UNIT);
        let (mut subscriber, mut inbox) = join(&realm);
        subscriber.subscribe(&exact("t")).unwrap();
        let (publisher, _unused) = join(&realm);
        publisher.publish(to("t"), false).unwrap();
        assert!(!publisher.congested(Waker::noop()));
        publisher.publish(to("t"), false).unwrap();
        assert!(publisher.congested(Waker::noop()));
        take(&mut inbox);
        assert!(!publisher.congested(Waker::noop()));
    }

    #[test]
    fn a_closed_consumer_stays_until_it_settled_what_it_holds() {
        let realm = realm(|_| {});
        let (mut member, mut inbox) = join(&realm);
        let bound = member.bind(&exact("t"), CREDIT).unwrap();
        member.publish(to("t"), false).unwrap();
        member.publish(to("t"), true).unwrap();
        assert_eq!(take(&mut inbox).len(), 1);
        member.close_consumer(bound).unwrap();
        assert!(realm.topics().is_empty());
        assert_eq!(realm.queues().bytes(), UNIT);
        member.settle(bound, 1, Settlement::Accept).unwrap();
        member.release_if_settled(bound);
        assert_eq!(realm.queues().bytes(), 0);
        assert_eq!(member.settle(bound, 1, Settlement::Accept), Err(Refusal::NoSuchDelivery));
        assert_eq!(member.close_consumer(bound), Err(Refusal::NoSuchDelivery));
    }

    #[test]
    fn a_transaction_that_is_refused_publishes_nothing() {
        let realm = realm(|_| {});
        let (mut member, mut inbox) = join(&realm);
        member.subscribe(&exact("t")).unwrap();
        let unknown = Operation::Settle(ConsumerId(9), 1, Settlement::Accept);
        let operations =
            vec![Operation::Publish(to("t"), None), Operation::Send(to("q"), SendTerms::default()), unknown];
        assert_eq!(member.commit(operations.clone()), Err(Refusal::NoSuchDelivery));
        let reserved =
            vec![Operation::Send(to("q"), SendTerms::default()), Operation::Publish(to("wamp.x"), None)];
        assert_eq!(member.commit(reserved), Err(Refusal::Reserved("wamp.x".to_owned())));
        assert_eq!((take(&mut inbox).len(), realm.queues().len()), (0, 0));
        assert_eq!(member.commit(operations[..2].to_vec()), Ok(()));
        assert_eq!((take(&mut inbox).len(), realm.queues().len()), (1, 1));
    }

    #[test]
    fn everybody_hears_the_farewell() {
        let realm = realm(|_| {});
        let mut members = [join(&realm), join(&realm)];
        realm.say_farewell(Farewell::Shutdown);
        for (_, inbox) in &mut members {
            assert!(matches!(take(inbox)[..], [Parcel::Farewell(Farewell::Shutdown)]));
        }
    }
}
