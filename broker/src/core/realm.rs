//! A realm: one address space, and the sessions that met in it.
//!
//! [`Realm::join`] hands out a [`Member`], through which a session does everything that it does. Dropping
//! it leaves the realm and undoes what was done: subscriptions, registrations and consumers go, what was
//! not acknowledged becomes ready again, calls that were under way are answered.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use tandem_protocols::payload::Payload;

use crate::core::access::{self, Action, Principal, REPLY_PREFIX, Refusal};
use crate::core::budget::Budget;
use crate::core::calls::{Answered, CallTerms, Caller, Calls, CancelMode, Canceled, Offer};
use crate::core::durable::{DURABLE_NAME_BYTES_MAX, Durable, DurableTerms, Durables};
use crate::core::history::{History, Past, Query, WallClock};
use crate::core::mailbox::Mailbox;
pub use crate::core::message::Outgoing;
use crate::core::message::{Attributes, Encodings, Handling, Publication, SessionId};
use crate::core::name::{Name, Pattern};
use crate::core::parcel::{Answer, ConsumerId, Failure, Farewell, Parcel, RegistrationId, SubscriptionId};
use crate::core::queues::{
    ConsumeTerms, ConsumerKey, Credit, Filter, Properties, Queue, QueueLimits, QueueTerms, Queues,
    Settlement, Step,
};
use crate::core::retained::RetainedLimits;
use crate::core::testament::{Scope, Testaments};
use crate::core::topics::{PublishTerms, Receiver, Retain, Sink, Subscriber, Topics};
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

/// A realm.
pub struct Realm {
    name: Arc<str>,
    limits: RealmLimits,
    entropy: Entropy,
    sessions: Mutex<HashMap<SessionId, Mailbox>>,
    topics: Topics,
    calls: Calls,
    queues: Queues,
    durables: Mutex<Durables>,
    budget: Arc<Budget>,
}

/// What a realm may have.
#[derive(Default)]
pub struct Furniture {
    /// What is remembered of what is published.
    pub history: Option<History>,
    /// Tells milliseconds since 1970. Without it time stands still for queues.
    pub clock: Option<WallClock>,
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Realm {
    /// An empty realm.
    pub fn new(name: &str, limits: RealmLimits, entropy: Entropy) -> Arc<Realm> {
        Realm::furnished(name, limits, entropy, Furniture::default())
    }

    /// An empty realm that will remember what is published.
    pub fn with_history(name: &str, limits: RealmLimits, entropy: Entropy, history: History) -> Arc<Realm> {
        Realm::furnished(name, limits, entropy, Furniture { history: Some(history), ..Furniture::default() })
    }

    /// An empty realm with what not every realm has.
    pub fn furnished(name: &str, limits: RealmLimits, entropy: Entropy, furniture: Furniture) -> Arc<Realm> {
        let Furniture { history, clock } = furniture;
        let topics = Topics::new(limits.retained);
        Arc::new(Realm {
            name: name.into(),
            sessions: Mutex::default(),
            topics: match history {
                Some(history) => topics.with_history(history),
                None => topics,
            },
            calls: Calls::seeded(entropy()),
            queues: match clock {
                Some(clock) => Queues::with_clock(limits.queues, clock),
                None => Queues::new(limits.queues),
            },
            durables: Mutex::default(),
            budget: Budget::new(limits.in_flight_bytes_max),
            entropy,
            limits,
        })
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

    /// How many durable subscriptions there are.
    pub fn durable_subscriptions(&self) -> usize {
        self.durables.lock().len()
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many sessions are in it.
    pub fn sessions(&self) -> usize {
        self.sessions.lock().len()
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

    /// Lets a session in.
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
        let mut sessions = self.sessions.lock();
        if sessions.len() >= self.limits.sessions_max {
            return Err(Refusal::TooMany("sessions", self.limits.sessions_max));
        }
        let mut id = proposed;
        while sessions.contains_key(&id) {
            id = self.propose_id();
        }
        sessions.insert(id, mailbox.clone());
        metrics::SESSIONS.add(1);
        Ok(Member {
            id,
            realm: self.clone(),
            principal: Arc::new(principal),
            mailbox,
            subscriptions: Vec::new(),
            registrations: Vec::new(),
            consumers: BTreeMap::new(),
            last_consumer: 0,
            testaments: None,
        })
    }

    /// Asks all sessions to end.
    pub fn say_farewell(&self, farewell: Farewell) {
        let mailboxes: Vec<Mailbox> = self.sessions.lock().values().cloned().collect();
        for mailbox in mailboxes {
            mailbox.push(Parcel::Farewell(farewell));
        }
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
    subscriptions: Vec<SubscriptionId>,
    registrations: Vec<RegistrationId>,
    consumers: BTreeMap<ConsumerId, Consumption>,
    last_consumer: u64,
    /// Few sessions have any.
    testaments: Option<Box<Testaments>>,
}

#[derive(Debug)]
struct Consumption {
    queue: Arc<Queue>,
    /// The subscription that feeds the queue, if it is bound to topics.
    binding: Option<SubscriptionId>,
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
        self.realm.budget.exceeded(waker)
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
        access::check(&self.principal, Action::Subscribe, pattern.as_str())?;
        let limit = self.realm.limits.subscriptions_max;
        if self.subscriptions.len() >= limit {
            let known = self.realm.topics.get(pattern).filter(|id| self.subscriptions.contains(id));
            known.ok_or(Refusal::TooMany("subscriptions of a session", limit))?;
        }
        let receiver = self.receiver(Sink::Mailbox(self.mailbox.clone()));
        let id = self.realm.topics.subscribe_and_replay(pattern, self.subscriber(0), receiver, tag)?;
        if !self.subscriptions.contains(&id) {
            self.subscriptions.push(id);
        }
        Ok(id)
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> Result<(), Refusal> {
        let place = self.subscriptions.iter().position(|known| *known == id);
        let place = place.ok_or(Refusal::NoSuchSubscription)?;
        self.subscriptions.swap_remove(place);
        self.realm.topics.unsubscribe(id, self.subscriber(0));
        Ok(())
    }

    /// What was published in the past to the topics of a subscription, whoever holds it, as far as this session
    /// may subscribe to it.
    pub fn history(&self, subscription: SubscriptionId, query: &Query) -> Result<Vec<Past>, Refusal> {
        let topics = &self.realm.topics;
        let pattern = topics.pattern(subscription).ok_or(Refusal::NoSuchSubscription)?;
        access::check(&self.principal, Action::Subscribe, pattern.as_str())?;
        let past = topics.history().and_then(|history| history.query(&pattern, &self.principal, query));
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
        access::check(&self.principal, Action::Subscribe, pattern.as_str())?;
        let key = self.next_consumer()?;
        let name = self.private_name("bound");
        let queue = self.realm.queues.unnamed(&name, key, self.mailbox.clone(), credit, filter)?;
        let receiver = self.receiver(Sink::Queue(queue.clone()));
        let binding = self.realm.topics.subscribe(pattern, self.subscriber(key.consumer.0), receiver)?;
        self.consumers.insert(key.consumer, Consumption { queue, binding: Some(binding) });
        Ok(key.consumer)
    }

    /// Subscribes to topics by a queue that outlives the session: by that name, whoever subscribes. The queue is
    /// made if need be.
    pub fn subscribe_durably(
        &mut self,
        name: &str,
        durable: DurableTerms,
        credit: Credit,
        terms: ConsumeTerms,
    ) -> Result<ConsumerId, Refusal> {
        access::check(&self.principal, Action::Subscribe, durable.pattern.as_str())?;
        self.check_dead_letters(&durable.properties)?;
        if name.len() > DURABLE_NAME_BYTES_MAX {
            return Err(Refusal::TooMany(
                "bytes in the name of a durable subscription",
                DURABLE_NAME_BYTES_MAX,
            ));
        }
        let key = self.next_consumer()?;
        let mut durables = self.realm.durables.lock();
        let (queue, is_new) = match durables.fitting(name, &durable)? {
            Some(queue) => (queue, false),
            None => {
                let queue_name = self.private_name("durable");
                (self.realm.queues.declare(&queue_name, durable.properties, durable.filter)?, true)
            }
        };
        let added = queue.add_consumer(key, self.mailbox.clone(), credit, terms);
        if is_new {
            let fed = added.and_then(|()| self.realm.feed(&durable.pattern, &queue, self.principal.clone()));
            let (binding, subscriber) = fed.inspect_err(|_| {
                self.realm.queues.delete(&queue);
                self.realm.queues.leave(&queue, key);
            })?;
            let pattern = durable.pattern;
            durables.insert(name, Durable { queue: queue.clone(), pattern, binding, subscriber });
        } else {
            added?;
        }
        drop(durables);
        self.consumers.insert(key.consumer, Consumption { queue, binding: None });
        Ok(key.consumer)
    }

    /// Takes messages of a durable subscription that exists.
    pub fn consume_durable(
        &mut self,
        name: &str,
        credit: Credit,
        terms: ConsumeTerms,
    ) -> Result<ConsumerId, Refusal> {
        let Durable { queue, pattern, .. } = self.realm.durables.lock().get(name)?.clone();
        access::check(&self.principal, Action::Subscribe, pattern.as_str())?;
        let key = self.next_consumer()?;
        queue.add_consumer(key, self.mailbox.clone(), credit, terms)?;
        self.consumers.insert(key.consumer, Consumption { queue, binding: None });
        Ok(key.consumer)
    }

    /// Ends a durable subscription, with all that waits in it, unless others consume from it.
    pub fn end_durable(&mut self, name: &str) -> Result<(), Refusal> {
        let pattern = self.realm.durables.lock().get(name)?.pattern.clone();
        access::check(&self.principal, Action::Subscribe, pattern.as_str())?;
        let durable = {
            let mut durables = self.realm.durables.lock();
            let queue = &durables.get(name)?.queue;
            let own = self.consumers.values().filter(|own| Arc::ptr_eq(&own.queue, queue)).count();
            durables.remove(name, own)?
        };
        self.realm.topics.unsubscribe(durable.binding, durable.subscriber);
        self.realm.queues.delete(&durable.queue);
        Ok(())
    }

    /// Publishes to a topic, and gives the number of the publication.
    pub fn publish(&self, outgoing: Outgoing, exclude_me: bool) -> Result<u64, Refusal> {
        self.publish_under(outgoing, PublishTerms { exclude_me, ..PublishTerms::default() })
    }

    /// The same, on terms.
    pub fn publish_under(&self, outgoing: Outgoing, terms: PublishTerms) -> Result<u64, Refusal> {
        access::check(&self.principal, Action::Publish, outgoing.name.as_str())?;
        self.publish_unchecked(outgoing, terms)
    }

    fn publish_unchecked(&self, outgoing: Outgoing, terms: PublishTerms) -> Result<u64, Refusal> {
        let PublishTerms { exclude_me, disclose_me, retain, eligibility, handling } = terms;
        metrics::PUBLICATIONS.add(1);
        let mut publication = self.publication(outgoing);
        publication.disclosed = disclose_me.then(|| self.principal.clone());
        publication.eligibility = eligibility;
        publication.handling = handling;
        // Until nobody holds it any more.
        publication.charge = Some(self.realm.budget.charge(publication.cost()));
        let (publication, exclude) = (Arc::new(publication), exclude_me.then_some(self.id));
        match retain {
            Retain::No => self.realm.topics.publish(&publication, exclude),
            Retain::Set | Retain::Remove => {
                self.realm.topics.publish_and_retain(&publication, exclude, retain)?
            }
        };
        Ok(publication.id)
    }

    /// Publishes to a topic when the session ends.
    pub fn add_testament(
        &mut self,
        scope: Scope,
        outgoing: Outgoing,
        terms: PublishTerms,
    ) -> Result<(), Refusal> {
        access::check(&self.principal, Action::Publish, outgoing.name.as_str())?;
        self.testaments.get_or_insert_default().add(scope, outgoing, terms)
    }

    /// Forgets what was to be published when the session ends in that way.
    pub fn flush_testaments(&mut self, scope: Scope) {
        if let Some(testaments) = &mut self.testaments {
            testaments.flush(scope);
        }
    }

    fn execute_testaments(&mut self) {
        let testaments = self.testaments.take().map(|testaments| *testaments).unwrap_or_default();
        for (outgoing, terms) in testaments.into_order() {
            // Permissions may have changed since, and what is retained has its limits: nobody is left to be told.
            let _published_or_refused = self.publish_under(outgoing, terms);
        }
    }

    /// Puts a message into a queue, and gives its number.
    pub fn send(&self, outgoing: Outgoing) -> Result<u64, Refusal> {
        self.send_under(outgoing, SendTerms::default())
    }

    /// The same, on terms.
    pub fn send_under(&self, outgoing: Outgoing, terms: SendTerms) -> Result<u64, Refusal> {
        access::check(&self.principal, Action::Send, outgoing.name.as_str())?;
        self.check_dead_letters(&terms.queue.properties)?;
        let publication = Arc::new(Publication { handling: terms.handling, ..self.publication(outgoing) });
        let id = publication.id;
        if publication.name.as_str().starts_with(REPLY_PREFIX) {
            // Whoever waited for it may be gone; that is nobody's fault here.
            self.realm.queues.send_existing(publication)?;
        } else {
            self.realm.queues.send_on(publication, &terms.queue)?;
        }
        Ok(id)
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
        access::check(&self.principal, Action::Consume, queue.as_str())?;
        let TakeTerms { consumer, queue: wanted } = terms;
        self.check_dead_letters(&wanted.properties)?;
        let key = self.next_consumer()?;
        let mailbox = self.mailbox.clone();
        let queue = self.realm.queues.consume_on(queue, key, mailbox, credit, consumer, &wanted)?;
        self.consumers.insert(key.consumer, Consumption { queue, binding: None });
        Ok(key.consumer)
    }

    /// Makes a queue that only this session consumes from, for answers: others send to it by its name,
    /// which nobody can guess.
    pub fn reply_queue(&mut self, credit: Credit) -> Result<(Name, ConsumerId), Refusal> {
        let key = self.next_consumer()?;
        let name = self.private_name("reply");
        let queue = self.realm.queues.own(&name, key, self.mailbox.clone(), credit)?;
        self.consumers.insert(key.consumer, Consumption { queue, binding: None });
        Ok((name, key.consumer))
    }

    /// Settles a delivery.
    pub fn settle(
        &mut self,
        consumer: ConsumerId,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<(), Refusal> {
        let consumption = self.consumption(consumer)?;
        self.realm.queues.settle(&consumption.queue, self.key(consumer), sequence, settlement)
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
        if let Entry::Occupied(known) = self.consumers.entry(consumer)
            && known.get().queue.is_settled(key)
        {
            self.realm.queues.leave(&known.remove().queue, key);
        }
    }

    /// Takes all of these steps or, when one is refused, none.
    pub fn commit(&mut self, operations: Vec<Operation>) -> Result<(), Refusal> {
        let mut steps = Vec::new();
        let mut publications = Vec::new();
        for operation in operations {
            match operation {
                Operation::Publish(outgoing, handling) => {
                    access::check(&self.principal, Action::Publish, outgoing.name.as_str())?;
                    publications.push((outgoing, handling));
                }
                Operation::Send(outgoing, SendTerms { handling, queue }) => {
                    access::check(&self.principal, Action::Send, outgoing.name.as_str())?;
                    self.check_dead_letters(&queue.properties)?;
                    let publication = Publication { handling, ..self.publication(outgoing) };
                    steps.push(Step::Send(Arc::new(publication), queue));
                }
                Operation::Settle(consumer, sequence, settlement) => {
                    let queue = self.consumption(consumer)?.queue.clone();
                    steps.push(Step::Settle { queue, consumer: self.key(consumer), sequence, settlement });
                }
            }
        }
        self.realm.queues.commit(steps)?;
        for (outgoing, handling) in publications {
            self.publish_unchecked(outgoing, PublishTerms { handling, ..PublishTerms::default() })?;
        }
        Ok(())
    }

    /// Registers a procedure, or all that match a pattern.
    pub fn register(&mut self, pattern: &Pattern) -> Result<RegistrationId, Refusal> {
        self.offer(pattern, Offer::default())
    }

    /// The same, with more to say about it.
    pub fn offer(&mut self, pattern: &Pattern, offer: Offer) -> Result<RegistrationId, Refusal> {
        access::check(&self.principal, Action::Register, pattern.as_str())?;
        let limit = self.realm.limits.registrations_max;
        if self.registrations.len() >= limit {
            return Err(Refusal::TooMany("registrations of a session", limit));
        }
        let id = self.realm.calls.register(pattern, self.id, &self.mailbox, offer)?;
        if !self.registrations.contains(&id) {
            self.registrations.push(id);
        }
        Ok(id)
    }

    /// Forgets a registration that was taken away.
    pub fn forget_registration(&mut self, id: RegistrationId) {
        self.registrations.retain(|known| *known != id);
    }

    /// Ends a registration. Calls that are under way are still answered.
    pub fn unregister(&mut self, id: RegistrationId) -> Result<(), Refusal> {
        self.realm.calls.unregister(id, self.id)?;
        self.registrations.retain(|known| *known != id);
        Ok(())
    }

    /// Calls a procedure. The answer comes into the mailbox under `call`.
    pub fn call(&self, call: u64, outgoing: Outgoing, terms: CallTerms) -> Result<(), Refusal> {
        let Outgoing { name, payload, attributes } = outgoing;
        access::check(&self.principal, Action::Call, name.as_str())?;
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

    /// Who says where dead letters go must be allowed to send there: rejecting a message is a way to do it.
    fn check_dead_letters(&self, properties: &Properties) -> Result<(), Refusal> {
        match &properties.dead_letters {
            Some(queue) => access::check(&self.principal, Action::Send, queue.as_str()),
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
        if self.consumers.len() >= limit {
            return Err(Refusal::TooMany("consumers of a session", limit));
        }
        self.last_consumer += 1;
        Ok(self.key(ConsumerId(self.last_consumer)))
    }

    fn consumption(&self, consumer: ConsumerId) -> Result<&Consumption, Refusal> {
        self.consumers.get(&consumer).ok_or(Refusal::NoSuchDelivery)
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
        let Member { realm, id, .. } = &*self;
        for subscription in &self.subscriptions {
            realm.topics.unsubscribe(*subscription, Subscriber { session: *id, binding: 0 });
        }
        for (consumer, Consumption { queue, binding }) in &self.consumers {
            if let Some(binding) = binding {
                realm.topics.unsubscribe(*binding, Subscriber { session: *id, binding: consumer.0 });
            }
            realm.queues.leave(queue, ConsumerKey { session: *id, consumer: *consumer });
        }
        realm.calls.leave(*id);
        // Not for this session, which takes nothing any more, but while it is one.
        self.execute_testaments();
        self.realm.sessions.lock().remove(&self.id);
        metrics::SESSIONS.add(-1);
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
        let principal = Principal { id: "u".into(), role: "r".into(), method: "anonymous" };
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
