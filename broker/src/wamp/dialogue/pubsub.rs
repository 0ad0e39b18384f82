//! PUBLISH, SUBSCRIBE, UNSUBSCRIBE, and EVENT.
//!
//! An unknown word for `match` is a protocol violation, as every known option of a wrong type is. Options
//! that are not supported are passed over.
//!
//! Sharded subscriptions are a sketch in the specification, which names two options and no rule. Here: of the
//! subscribers of one subscription that gave a node key (`nkey` of SUBSCRIBE), exactly one gets an event with a
//! resource key (`rkey` of PUBLISH), always the same one as long as they are the same; subscribers without a
//! node key get every event, and events without a resource key go to everybody. `exclude_me` and the lists hold
//! after that choice: what is kept from its node goes to no other. The first node key that a session gives for a
//! subscription counts.
//!
//! With the option `persistent: true`, or the entry `persistent: "true"` of `x_headers`, what is retained outlives the
//! broker. PUBLISHED comes when all that is to outlive it is safe: also where the configuration says that it is to.
//!
//! Of those that narrow who gets an event, `exclude` and its kin that are empty exclude nobody, while
//! `eligible` and its kin that are empty leave nobody.

use std::borrow::Cow;
use std::sync::Arc;

use tandem_protocols::payload::{Carried, Format, Unconvertible};
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{Publish, Published, Subscribe, Subscribed, Unsubscribe, Unsubscribed};
use tandem_protocols::wamp::options::{PublishOptions, SubscribeOptions, WithdrawOptions};

use crate::core::access::SessionId;
use crate::core::bundle::{Bundle, Plain};
use crate::core::eligibility::{Eligibility, Lists};
use crate::core::message::{Attributes, Frame, Message, Publication, SharedMessages, Variant};
use crate::core::parcel::SubscriptionId;
use crate::core::protocol::Output;
use crate::core::queues::durable::Progress;
use crate::core::realm::Outgoing;
use crate::core::shard::ShardKey;
use crate::core::topics::{PublishTerms, Retain};
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::queue::with_persistence;
use crate::wamp::fault::Fault;
use crate::wamp::luggage;
use crate::wamp::voice::{Voice, id, note_too_long, note_unconvertible};

/// About what an EVENT takes beside its arguments: the most that it does in JSON, with what separates it from the next.
const EVENT_HEAD_BYTES: usize = 48;

/// Why a subscription ended that its holder did not end.
const REVOKED: &str = "wamp.subscription.revoked";

impl Dialogue {
    pub(in crate::wamp) fn publish(
        &mut self,
        publish: Publish<Cow<'_, str>>,
        received_bytes: usize,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        let request = publish.request;
        let Wishes { acknowledge, terms, attributes } = Wishes::of(&publish.options)?;
        let ticket = if acknowledge { self.ticket_of_publication(request)? } else { 0 };
        let published = attributes.and_then(|attributes| {
            let name = self.name(&publish.topic)?;
            let payload = luggage::payload(publish.payload, received_bytes);
            let outgoing = Outgoing { name, payload, attributes };
            Ok(self.member.publish_soon(outgoing, terms, ticket)?)
        });
        match published {
            Ok((publication, progress)) => {
                self.has_published.set(true);
                match progress {
                    _ if !acknowledge => {}
                    // Its own EVENT, if it gets one, comes by way of the mailbox, hence after this.
                    Progress::Done => voice.say(Published { request, publication: id(publication) }),
                    Progress::Storing => self.await_store(request, publication),
                }
                Ok(())
            }
            Err(Fault::Refused(uri, sentence)) if !acknowledge => {
                // The publisher does not want to know.
                tracing::debug!(uri, sentence, "a publication was refused");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Takes a PUBLISH as nearly all of them are, from where it lies in what was read. False where nothing was done, for it is
    /// of another form, or is to be looked at more closely: [`publish`](Dialogue::publish) knows all of them.
    pub(in crate::wamp) fn publish_in_place(&mut self, octets: &[u8], format: Format) -> bool {
        if self.strictness.request_ids || self.strictness.uris {
            return false;
        }
        let Some(publish) = codec::decode_usual_publish(format, octets) else { return false };
        let is_published = self.member.publish_arguments_soon(publish.topic, format, publish.args);
        if is_published {
            self.has_published.set(true);
        }
        is_published
    }

    pub(in crate::wamp) fn subscribe(
        &mut self,
        subscribe: &Subscribe,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        let options = SubscribeOptions::parse(&subscribe.options)?;
        let pattern = self.pattern(&subscribe.topic, options.match_policy)?;
        // A WAMP session has one subscription to a pattern: there is nobody to tell apart.
        let tag = options.get_retained.then_some(0);
        let node = options.nkey.map(|key| ShardKey::of(key.as_bytes()));
        let subscription = self.member.subscribe_as(&pattern, tag, node)?;
        voice.say(Subscribed { request: subscribe.request, subscription: id(subscription.0) });
        Ok(())
    }

    pub(in crate::wamp) fn unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        unsubscribe.options.as_ref().map(WithdrawOptions::parse).transpose()?;
        let subscription = SubscriptionId(unsubscribe.subscription.get());
        self.member.unsubscribe(subscription)?;
        voice.say(Unsubscribed { request: Some(unsubscribe.request), details: None });
        Ok(())
    }

    /// Says that the router took a subscription away.
    pub(in crate::wamp) fn bring_subscription_revocation(
        &mut self,
        subscription: SubscriptionId,
        reason: Option<&str>,
        voice: &mut Voice,
    ) {
        // The peer may have ended it at the same time, and was told so.
        if self.member.unsubscribe(subscription).is_err() {
            return;
        }
        let details =
            Dict::new().with("subscription", subscription.0).with("reason", reason.unwrap_or(REVOKED));
        voice.say(Unsubscribed { request: None, details: Some(details) });
    }

    /// Says an EVENT, which is the same for all subscribers of a subscription that read one dialect.
    pub(in crate::wamp) fn bring_event(
        &self,
        publication: &Arc<Publication>,
        subscription: SubscriptionId,
        voice: &mut Voice,
    ) {
        // Clients close the session at an event of a subscription that they ended.
        let Some(is_pattern) = self.member.is_to_pattern(subscription) else { return };
        let mut details = Dict::new();
        if is_pattern {
            details.insert("topic", publication.name.as_str());
        }
        let variant = Variant::Number(subscription.0);
        let frame = publication
            .encodings
            .get_or_make(voice.dialect(), variant, || event(publication, subscription, details, voice));
        match frame {
            Ok(frame) if voice.fits(frame.message().len()) => voice.push(Output::Send(frame)),
            Ok(frame) => say_without_payload(publication, subscription, is_pattern, &frame, voice),
            Err(why) => note_unconvertible(why),
        }
    }

    /// Says several EVENTs, which are the same for all subscribers of a subscription that read one dialect.
    pub(in crate::wamp) fn bring_events(
        &self,
        bundle: &Bundle,
        subscription: SubscriptionId,
        voice: &mut Voice,
    ) {
        let Some(is_pattern) = self.member.is_to_pattern(subscription) else { return };
        let variant = Variant::Number(subscription.0);
        let made = bundle
            .encodings
            .share(voice.dialect(), variant, || events(bundle, subscription, is_pattern, voice));
        match made {
            Ok(messages) if voice.fits(messages.length_max()) => voice.push(Output::SendAll(messages)),
            // Each for itself, then: not all of them can be said as they are.
            Ok(_) | Err(_) => {
                bundle.singles().for_each(|publication| self.bring_event(&publication, subscription, voice));
            }
        }
    }

    /// Says the EVENT of a topic that was kept from before the subscription.
    pub(in crate::wamp) fn bring_retained(
        &self,
        publication: &Publication,
        subscription: SubscriptionId,
        voice: &mut Voice,
    ) {
        let Some(is_pattern) = self.member.is_to_pattern(subscription) else { return };
        let mut details = Dict::new().with("retained", true);
        if is_pattern {
            details.insert("topic", publication.name.as_str());
        }
        match event(publication, subscription, details, voice) {
            Ok(message) if voice.fits(message.len()) => voice.push(Output::Send(Frame::Own(message))),
            Ok(message) => {
                say_without_payload(publication, subscription, is_pattern, &Frame::Own(message), voice);
            }
            Err(why) => note_unconvertible(why),
        }
    }
}

/// Says an EVENT that is too long for the peer without its payload and what describes that, so that the peer
/// knows that there was something: it is one of the ways that the specification names. One that is too long also
/// then, for its topic, is left out.
fn say_without_payload(
    publication: &Publication,
    subscription: SubscriptionId,
    is_pattern: bool,
    whole: &Frame,
    voice: &mut Voice,
) {
    note_too_long(whole.message().len());
    let mut details = Dict::new().with("payload_limit_exceeded", true);
    if is_pattern {
        details.insert("topic", publication.name.as_str());
    }
    let details = disclosure(publication, details);
    let (subscription, number) = (id(subscription.0), id(publication.id));
    let bytes = codec::encode_event(voice.format, subscription, number, &details, Carried::nothing());
    let bytes = bytes.expect("it has no payload");
    if voice.fits(bytes.len()) {
        voice.say_encoded(bytes);
    }
}

/// Encodes an EVENT whose details begin with these.
fn event(
    publication: &Publication,
    subscription: SubscriptionId,
    details: Dict,
    voice: &Voice,
) -> Result<Message, Unconvertible> {
    let details = self::details(publication, details);
    let payload = publication.payload.arguments(voice.format)?;
    let (subscription, number) = (id(subscription.0), id(publication.id));
    let bytes = codec::encode_event(voice.format, subscription, number, &details, payload);
    Ok(voice.wrap(bytes.expect("the payload was converted, and is below 4 GiB")))
}

/// Encodes the EVENTs of a bundle.
fn events(
    bundle: &Bundle,
    subscription: SubscriptionId,
    is_pattern: bool,
    voice: &Voice,
) -> Result<SharedMessages, Unconvertible> {
    if let Some(plain) = bundle.plain(voice.format).filter(|_| !is_pattern) {
        return Ok(plain_events(plain, subscription, voice));
    }
    let (mut bytes, mut ends) = (Vec::with_capacity(bundle.cost()), Vec::with_capacity(bundle.count()));
    let subscription = id(subscription.0);
    for publication in bundle.publications() {
        let mut details = Dict::new();
        if is_pattern {
            details.insert("topic", publication.name.as_str());
        }
        let details = self::details(publication, details);
        let (number, payload) = (id(publication.id), publication.payload.arguments(voice.format)?);
        voice.append(&mut bytes, |out| {
            let appended = codec::append_event(voice.format, subscription, number, &details, payload, out);
            appended.expect("the payload was converted, and is below 4 GiB");
        });
        ends.push(u32::try_from(bytes.len()).expect("a bundle is bounded far below 4 GiB"));
    }
    Ok(SharedMessages::new(voice.kind(), bytes.into(), ends))
}

/// The same where there is nothing to say of them but their arguments.
fn plain_events(plain: &Plain, subscription: SubscriptionId, voice: &Voice) -> SharedMessages {
    let mut bytes = Vec::with_capacity(plain.bytes() + plain.count() * EVENT_HEAD_BYTES);
    let mut ends = Vec::with_capacity(plain.count());
    let subscription = id(subscription.0);
    for (number, args) in plain.iter() {
        voice.append(&mut bytes, |out| {
            codec::append_usual_event(voice.format, subscription, id(number), args, out);
        });
        ends.push(u32::try_from(bytes.len()).expect("a bundle is bounded far below 4 GiB"));
    }
    SharedMessages::new(voice.kind(), bytes.into(), ends)
}

/// What the details of an event say of its publication, after these.
pub(in crate::wamp) fn details(publication: &Publication, details: Dict) -> Dict {
    let mut details = disclosure(publication, details);
    luggage::unpack(&publication.attributes, &mut details);
    details
}

/// Who the publisher is, after these, if receivers are told.
fn disclosure(publication: &Publication, mut details: Dict) -> Dict {
    if let Some(publisher) = &publication.disclosed {
        details.insert("publisher", publication.publisher.0);
        details.insert("publisher_authid", &*publisher.id);
        details.insert("publisher_authrole", &*publisher.role);
    }
    if let Some(level) = publication.trust {
        details.insert("trustlevel", u64::from(level));
    }
    details
}

/// What a publisher asks for.
struct Wishes {
    acknowledge: bool,
    terms: PublishTerms,
    /// What is wrong with them, only those learn who want to know.
    attributes: Result<Attributes, Fault>,
}

impl Wishes {
    fn of(options: &Dict) -> Result<Wishes, Violation> {
        if options.is_empty() {
            // As nearly all of them are.
            let terms = PublishTerms { exclude_me: true, ..PublishTerms::default() };
            return Ok(Wishes { acknowledge: false, terms, attributes: Ok(Attributes::default()) });
        }
        let parsed = PublishOptions::parse(options)?;
        Ok(Wishes { acknowledge: parsed.acknowledge, terms: terms(&parsed), attributes: attributes(options) })
    }
}

/// What travels with a publication by these options.
pub(in crate::wamp) fn attributes(options: &Dict) -> Result<Attributes, Fault> {
    with_persistence(luggage::attributes(options)?, options)
}

/// The terms that a publisher asks for.
pub(in crate::wamp) fn terms(options: &PublishOptions<'_>) -> PublishTerms {
    PublishTerms {
        exclude_me: options.exclude_me.unwrap_or(true),
        disclose_me: options.disclose_me.unwrap_or(false),
        retain: if options.retain { Retain::Set } else { Retain::No },
        eligibility: eligibility(options),
        handling: None,
    }
}

/// Whom the publisher keeps the event from; `None` if from nobody.
fn eligibility(options: &PublishOptions<'_>) -> Option<Arc<Eligibility>> {
    let sessions = |list: &Vec<Id>| list.iter().map(|id| SessionId(id.get())).collect::<Vec<_>>();
    let texts = |list: &Vec<&str>| list.iter().map(|text| Box::from(*text)).collect::<Vec<_>>();
    let PublishOptions { exclude, exclude_authid, exclude_authrole, .. } = options;
    let PublishOptions { eligible, eligible_authid, eligible_authrole, .. } = options;
    let excludes = exclude.is_some() || exclude_authid.is_some() || exclude_authrole.is_some();
    let chooses = eligible.is_some() || eligible_authid.is_some() || eligible_authrole.is_some();
    if !excludes && !chooses && options.rkey.is_none() {
        return None;
    }
    let eligibility = Eligibility {
        sessions: Lists::new(
            exclude.as_ref().map(sessions).unwrap_or_default(),
            eligible.as_ref().map(sessions),
        ),
        ids: Lists::new(
            exclude_authid.as_ref().map(texts).unwrap_or_default(),
            eligible_authid.as_ref().map(texts),
        ),
        roles: Lists::new(
            exclude_authrole.as_ref().map(texts).unwrap_or_default(),
            eligible_authrole.as_ref().map(texts),
        ),
        shard: options.rkey.map(|key| ShardKey::of(key.as_bytes())),
    };
    (!eligibility.is_empty()).then(|| Arc::new(eligibility))
}
