//! What was sent, once: to a topic, a queue or a procedure.
//!
//! A [`Publication`] is shared by everyone who receives it. What a language makes of it is kept beside it
//! ([`Encodings`]), so that a thousand receivers of one dialect cost one encoding. The house knows nothing
//! of what is in those bytes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use tandem_protocols::payload::Payload;

use crate::core::access::Principal;
pub use crate::core::access::SessionId;
use crate::core::budget::Charge;
use crate::core::eligibility::Eligibility;
use crate::core::name::Name;
use crate::metrics;

/// What travels with a payload by name, in the order in which it was given.
///
/// STOMP's user headers and WAMP's payload options (`ppt_*`, `enc_*`) are both of this kind. The first of
/// two equal names counts. Nearly all of them are text; what is not comes through for its own language only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Option<Arc<[Named]>>);

type Named = (Box<str>, Attribute);

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Text, for everybody.
    Text(Box<str>),
    /// A value of one language, encoded as that language likes it.
    Foreign(Bytes),
}

impl Attribute {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Attribute::Text(text) => text.len(),
            Attribute::Foreign(bytes) => bytes.len(),
        }
    }

    /// True when it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Attribute {
        Attribute::Text(text.into())
    }
}

impl Attributes {
    /// The value of the first attribute of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether they ask that the message outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.get(PERSISTENT) == Some("true")
    }

    /// All that are text, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter_map(|(name, value)| match value {
            Attribute::Text(text) => Some((name, &**text)),
            Attribute::Foreign(_) => None,
        })
    }

    /// All of them, in order.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().flat_map(|list| list.iter().map(|(name, value)| (&**name, value)))
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes that they hold, for accounting.
    pub fn bytes(&self) -> usize {
        let length = |value: &Attribute| match value {
            Attribute::Text(text) => text.len(),
            Attribute::Foreign(bytes) => bytes.len(),
        };
        self.all().map(|(name, value)| name.len() + length(value) + size_of::<Named>()).sum()
    }
}

impl<N: Into<Box<str>>, V: Into<Attribute>> FromIterator<(N, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Attributes {
        let list: Vec<_> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Attributes(if list.is_empty() { None } else { Some(list.into()) })
    }
}

/// Something to publish or to put into a queue.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic or queue.
    pub name: Name,
    /// The application's data.
    pub payload: Payload,
    /// What travels with it.
    pub attributes: Attributes,
}

/// How the wire should carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A WebSocket text message.
    Text,
    /// A WebSocket binary message.
    Binary,
    /// The wire has no kinds: RawSocket, plain TCP.
    Raw,
}

/// One message of a language, whole. Its bytes are `head` followed by `body`, so that a part that many
/// receivers share need not be copied for the part that they do not.
#[derive(Clone, Debug)]
pub struct Message {
    /// How the wire should carry it.
    pub kind: Kind,
    /// The first bytes; often all of them.
    pub head: Bytes,
    /// The bytes after those; often none.
    pub body: Bytes,
}

impl Message {
    /// A message in one piece.
    pub fn new(kind: Kind, bytes: Bytes) -> Message {
        Message { kind, head: bytes, body: Bytes::new() }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// True when it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was made of something, each by the parameter that tells it apart. There are few.
#[derive(Debug)]
struct Forms<P>(Mutex<Vec<(P, Bytes)>>);

impl<P> Default for Forms<P> {
    fn default() -> Forms<P> {
        Forms(Mutex::default())
    }
}

impl<P: PartialEq> Forms<P> {
    /// The form for `parameter`, made by `make` for the first who asks.
    fn get_or_make(&self, parameter: P, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut made = self.0.lock();
        if let Some((_, bytes)) = made.iter().find(|(known, _)| *known == parameter) {
            return bytes.clone();
        }
        let bytes = make();
        made.push((parameter, bytes.clone()));
        bytes
    }
}

/// A message that several receivers get, and what the wires made of it.
#[derive(Debug)]
pub struct SharedMessage {
    /// What they get.
    pub message: Message,
    /// Compressed forms, each by the parameter that tells them apart (the window's bits).
    compressed: Forms<u8>,
    /// The same as it lies in the frames of a wire that has some of its own.
    wrapped: OnceLock<Arc<SharedMessage>>,
}

impl SharedMessage {
    /// Shares a message.
    pub fn new(message: Message) -> SharedMessage {
        SharedMessage { message, compressed: Forms::default(), wrapped: OnceLock::new() }
    }

    /// The same in a wire's own frames, made by `wrap` for the first who asks. There is one such wire.
    pub fn wrapped(&self, wrap: impl FnOnce(&Message) -> Message) -> Arc<SharedMessage> {
        self.wrapped.get_or_init(|| Arc::new(SharedMessage::new(wrap(&self.message)))).clone()
    }

    /// The compressed form for `parameter`, made by `compress` for the first who asks.
    pub fn compressed(&self, parameter: u8, compress: impl FnOnce(&Message) -> Bytes) -> Bytes {
        self.compressed.get_or_make(parameter, || compress(&self.message))
    }
}

/// Several messages, each whole, that several receivers get one after the other, and what the wires made of them.
#[derive(Debug)]
pub struct SharedMessages {
    kind: Kind,
    /// All of them, without a gap.
    bytes: Bytes,
    /// Where each ends.
    ends: Box<[u32]>,
    length_max: usize,
    /// All of them as they lie on the wire that has a way for several.
    framed: OnceLock<Bytes>,
    /// The same compressed, each by the parameter that tells them apart (the window's bits, and from what length on).
    compressed: Forms<(u8, u32)>,
    /// For wires that take one at a time.
    singles: OnceLock<Box<[Arc<SharedMessage>]>>,
}

impl SharedMessages {
    /// Messages of one kind: these bytes, each up to one of these ends, which rise to the last byte.
    pub fn new(kind: Kind, bytes: Bytes, ends: Vec<u32>) -> SharedMessages {
        let ends = ends.into_boxed_slice();
        let (framed, compressed, singles) = Default::default();
        let mut messages = SharedMessages { kind, bytes, ends, length_max: 0, framed, compressed, singles };
        messages.length_max = messages.iter().map(<[u8]>::len).max().unwrap_or_default();
        messages
    }

    /// How the wire should carry each.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the longest.
    pub fn length_max(&self) -> usize {
        self.length_max
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places().map(|(start, end)| &self.bytes[start..end])
    }

    /// All of them as they lie on a wire, made by `frame` for the first who asks. There is one such wire.
    pub fn framed(&self, frame: impl FnOnce(&SharedMessages) -> Bytes) -> &Bytes {
        self.framed.get_or_init(|| frame(self))
    }

    /// The same for a wire that compresses, made by `frame` for the first who asks with this parameter.
    pub fn compressed(&self, parameter: (u8, u32), frame: impl FnOnce(&SharedMessages) -> Bytes) -> Bytes {
        self.compressed.get_or_make(parameter, || frame(self))
    }

    /// Each as a message of its own, in order.
    pub fn singles(&self) -> &[Arc<SharedMessage>] {
        self.singles.get_or_init(|| {
            let single = |(start, end)| Message::new(self.kind, self.bytes.slice(start..end));
            self.places().map(|place| Arc::new(SharedMessage::new(single(place)))).collect()
        })
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.ends.iter().map(|end| *end as usize);
        std::iter::once(0).chain(ends.clone()).zip(ends)
    }
}

/// One message on its way to one peer.
#[derive(Clone, Debug)]
pub enum Frame {
    /// For this peer alone.
    Own(Message),
    /// The same for several.
    Shared(Arc<SharedMessage>),
}

impl Frame {
    /// The message in it.
    pub fn message(&self) -> &Message {
        match self {
            Frame::Own(message) => message,
            Frame::Shared(shared) => &shared.message,
        }
    }
}

/// Tells apart what one dialect makes of a publication for different subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant<'a> {
    /// By the number of a subscription.
    Number(u64),
    /// By the name that the receiver gave to its subscription.
    Text(&'a str),
}

#[derive(Debug, PartialEq, Eq)]
enum OwnedVariant {
    Number(u64),
    Text(Box<str>),
}

impl OwnedVariant {
    fn is(&self, variant: Variant<'_>) -> bool {
        match (self, variant) {
            (OwnedVariant::Number(own), Variant::Number(other)) => *own == other,
            (OwnedVariant::Text(own), Variant::Text(other)) => **own == *other,
            _ => false,
        }
    }
}

/// How many encodings of one publication, or of one bundle, are kept. Receivers beyond that get their own copy.
const ENCODINGS_MAX: usize = 16;

/// What the dialects made of one publication, or of several: a `T` each.
#[derive(Debug)]
pub struct Encodings<T = SharedMessage> {
    // Most publications have one, which needs no memory of its own.
    made: Mutex<SmallVec<[Encoding<T>; 1]>>,
}

impl<T> Default for Encodings<T> {
    fn default() -> Encodings<T> {
        Encodings { made: Mutex::default() }
    }
}

/// What one dialect made of it, for one variant.
#[derive(Debug)]
struct Encoding<T> {
    dialect: &'static str,
    variant: OwnedVariant,
    shared: Arc<T>,
}

impl<T> Encoding<T> {
    fn is(&self, dialect: &'static str, variant: Variant<'_>) -> bool {
        self.dialect == dialect && self.variant.is(variant)
    }
}

impl Encodings {
    /// The encoding of this dialect and variant, if somebody asked for it before and it was kept.
    pub fn get(&self, dialect: &'static str, variant: Variant<'_>) -> Option<Frame> {
        let made = self.made.lock();
        let found = made.iter().find(|encoding| encoding.is(dialect, variant));
        found.map(|encoding| Frame::Shared(encoding.shared.clone()))
    }

    /// The encoding of this dialect and variant, made by `encode` for the first who asks.
    pub fn get_or_make<E>(
        &self,
        dialect: &'static str,
        variant: Variant<'_>,
        encode: impl FnOnce() -> Result<Message, E>,
    ) -> Result<Frame, E> {
        self.share(dialect, variant, || encode().map(SharedMessage::new)).map(Frame::Shared)
    }
}

impl<T> Encodings<T> {
    /// The encoding of this dialect and variant, made by `encode` for the first who asks.
    pub fn share<E>(
        &self,
        dialect: &'static str,
        variant: Variant<'_>,
        encode: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut made = self.made.lock();
        if let Some(encoding) = made.iter().find(|encoding| encoding.is(dialect, variant)) {
            return Ok(encoding.shared.clone());
        }
        metrics::ENCODINGS.add(1);
        let shared = Arc::new(encode()?);
        if made.len() >= ENCODINGS_MAX {
            return Ok(shared);
        }
        let variant = match variant {
            Variant::Number(number) => OwnedVariant::Number(number),
            Variant::Text(text) => OwnedVariant::Text(text.into()),
        };
        made.push(Encoding { dialect, variant, shared: shared.clone() });
        Ok(shared)
    }
}

/// What a sender asks of the queues that its message comes into. Times are in milliseconds; those that are
/// absolute since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handling {
    /// The higher the earlier.
    pub priority: Option<u8>,
    /// From when on nobody is to get it.
    pub expires_at_ms: Option<u64>,
    /// How long it may wait.
    pub ttl_ms: Option<u64>,
    /// Until when nobody is to get it.
    pub deliver_at_ms: Option<u64>,
    /// How long nobody is to get it.
    pub delay_ms: Option<u64>,
    /// All messages of a group go to one consumer.
    pub group: Option<Box<str>>,
    /// After this one the group may go to another consumer.
    pub ends_group: bool,
}

/// What was sent, once.
#[derive(Debug)]
pub struct Publication {
    /// Random, 1 to 2^53.
    pub id: u64,
    /// The topic or queue that it was sent to.
    pub name: Name,
    /// Who sent it.
    pub publisher: SessionId,
    /// The application's data.
    pub payload: Payload,
    /// What travels with it.
    pub attributes: Attributes,
    /// Who the publisher is, if receivers are told.
    pub disclosed: Option<Arc<Principal>>,
    /// How far the publisher is trusted, if there is a word about it.
    pub trust: Option<u32>,
    /// Who may get it, if not everybody who subscribed.
    pub eligibility: Option<Arc<Eligibility>>,
    /// What its sender asks of queues that it comes into, if anything.
    pub handling: Option<Arc<Handling>>,
    /// What the dialects made of it.
    pub encodings: Encodings,
    /// Its share of the memory that the realm allows for messages on their way.
    pub charge: Option<Charge>,
}

/// What a publication costs beside its payload and attributes, roughly, in bytes.
pub const PUBLICATION_OVERHEAD: usize = 256;

/// The attribute that asks for a message in a queue to outlive the process, if its value is `true`.
pub const PERSISTENT: &str = "persistent";

impl Publication {
    /// One with nothing beside its payload.
    pub fn new(id: u64, name: Name, publisher: SessionId, payload: Payload) -> Publication {
        Publication {
            id,
            name,
            publisher,
            payload,
            attributes: Attributes::default(),
            disclosed: None,
            trust: None,
            eligibility: None,
            handling: None,
            encodings: Encodings::default(),
            charge: None,
        }
    }

    /// Whether it is to outlive the process, as far as it lies in a queue.
    pub fn is_persistent(&self) -> bool {
        self.attributes.is_persistent()
    }

    /// What it costs a queue or mailbox that holds it, in bytes.
    pub fn cost(&self) -> usize {
        // It is asked for at each mailbox, twice.
        if let Some(charge) = &self.charge {
            return charge.bytes();
        }
        let eligibility = self.eligibility.as_ref().map_or(0, |eligibility| eligibility.bytes());
        let handling = self.handling.as_ref().map_or(0, |handling| {
            size_of::<Handling>() + handling.group.as_ref().map_or(0, |group| group.len())
        });
        self.payload.len() + self.attributes.bytes() + eligibility + handling + PUBLICATION_OVERHEAD
    }

    /// The same for queues, whose bytes are bounded otherwise: a consumer that does not acknowledge is no
    /// reason to stop publishers.
    pub fn uncharged(&self) -> Publication {
        Publication {
            id: self.id,
            name: self.name.clone(),
            publisher: self.publisher,
            payload: self.payload.clone(),
            attributes: self.attributes.clone(),
            disclosed: self.disclosed.clone(),
            trust: self.trust,
            eligibility: self.eligibility.clone(),
            handling: self.handling.clone(),
            encodings: Encodings::default(),
            charge: None,
        }
    }
}
