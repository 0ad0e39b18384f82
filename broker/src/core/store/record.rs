//! A publication as bytes, for a store.
//!
//! MessagePack maps, so that what a later version adds is passed over by an earlier one, and what it leaves
//! out has a default. All attributes are in it, whatever they mean. Not in it: what the dialects made of the
//! publication, its charge, and who may get it, which queues do not ask.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use tandem_protocols::payload::{Arguments, Body, Content, ContentType, Encoding, Format, Payload, Shape};

use crate::core::access::Principal;
use crate::core::message::{Attribute, Encodings, Handling, Publication, SessionId};
use crate::core::name::Name;

/// How a principal is known that was read from a record.
const STORED_METHOD: &str = "stored";

#[derive(Serialize, Deserialize)]
struct Record {
    id: u64,
    publisher: u64,
    content: StoredContent,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<(Box<str>, StoredAttribute)>,
    /// Name and role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disclosed: Option<(Box<str>, Box<str>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handling: Option<Handling>,
    /// The topic that brought it, where it is not what the queue is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<Box<str>>,
}

/// What a queue must know of a message to order it, also while only the store has it. What is not said is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// Its priority, as the queue took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// When it is too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Until when nobody gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at_ms: Option<u64>,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<str>>,
    /// Whether it is the last of its group.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ends_group: bool,
}

impl Note {
    /// The note as bytes: none if it says nothing.
    pub fn encode(&self) -> Bytes {
        if *self == Note::default() {
            return Bytes::new();
        }
        rmp_serde::to_vec_named(self).expect("memory takes what is written, and all parts have a form").into()
    }

    /// The note that these bytes were made of. `None` if they are none.
    pub fn decode(bytes: &[u8]) -> Option<Note> {
        if bytes.is_empty() { Some(Note::default()) } else { rmp_serde::from_slice(bytes).ok() }
    }
}

#[derive(Serialize, Deserialize)]
enum StoredAttribute {
    T(Box<str>),
    F(Bytes),
}

#[derive(Serialize, Deserialize)]
enum StoredContent {
    /// Format, positional and keyword arguments.
    A(u8, Bytes, Bytes),
    /// Media type, encoding, shape and value.
    B(Option<Box<str>>, u8, u8, Bytes),
    /// Opaque bytes.
    O(Bytes),
}

const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];
const SHAPES: [Shape; 4] = [Shape::Value, Shape::Args, Shape::Kwargs, Shape::Full];
const ENCODINGS: [Encoding; 5] = [
    Encoding::Structured(Format::Json),
    Encoding::Structured(Format::MsgPack),
    Encoding::Structured(Format::Cbor),
    Encoding::Text,
    Encoding::Binary,
];

/// The publication as bytes.
pub fn encode(publication: &Publication) -> Bytes {
    encode_all(publication, None)
}

/// The same for one that a topic brought into a queue: it keeps the topic's name.
pub fn encode_brought(publication: &Publication) -> Bytes {
    encode_all(publication, Some(publication.name.as_str().into()))
}

fn encode_all(publication: &Publication, topic: Option<Box<str>>) -> Bytes {
    let content = match publication.payload.content() {
        Content::Arguments(Arguments { format, args, kwargs }) => {
            StoredContent::A(place(&FORMATS, format), args.clone(), kwargs.clone())
        }
        Content::Body(Body { content_type, encoding, shape, bytes }) => StoredContent::B(
            content_type.as_deref().map(Box::from),
            place(&ENCODINGS, encoding),
            place(&SHAPES, shape),
            bytes.clone(),
        ),
        Content::Opaque(bytes) => StoredContent::O(bytes.clone()),
    };
    let attribute = |(name, value): (&str, &Attribute)| {
        let value = match value {
            Attribute::Text(text) => StoredAttribute::T(text.clone()),
            Attribute::Foreign(bytes) => StoredAttribute::F(bytes.clone()),
        };
        (Box::from(name), value)
    };
    let record = Record {
        id: publication.id,
        publisher: publication.publisher.0,
        content,
        attributes: publication.attributes.all().map(attribute).collect(),
        disclosed: publication.disclosed.as_ref().map(|who| ((&*who.id).into(), (&*who.role).into())),
        trust: publication.trust,
        handling: publication.handling.as_deref().cloned(),
        topic,
    };
    let mut bytes = Vec::with_capacity(publication.cost());
    let written = record.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
    written.expect("memory takes what is written, and all parts have a form");
    bytes.into()
}

/// The publication that these bytes were made of, in the queue of this name. `None` if they are none.
pub fn decode(name: &Name, bytes: &[u8]) -> Option<Publication> {
    decode_brought(name, bytes).map(|(publication, _)| publication)
}

/// The same, and whether a topic brought it, whose name it then bears.
pub fn decode_brought(queue: &Name, bytes: &[u8]) -> Option<(Publication, bool)> {
    let Record { id, publisher, content, attributes, disclosed, trust, handling, topic } =
        rmp_serde::from_slice(bytes).ok()?;
    let from_topic = topic.is_some();
    let name = topic.map_or(Some(queue.clone()), |topic| Name::parse(&topic).ok())?;
    let content = match content {
        StoredContent::A(format, args, kwargs) => {
            Content::Arguments(Arguments { format: at(&FORMATS, format)?, args, kwargs })
        }
        StoredContent::B(content_type, encoding, shape, bytes) => Content::Body(Body {
            content_type: content_type.map(|text| ContentType::from(&*text)),
            encoding: at(&ENCODINGS, encoding)?,
            shape: at(&SHAPES, shape)?,
            bytes,
        }),
        StoredContent::O(bytes) => Content::Opaque(bytes),
    };
    let attribute = |(name, value)| match value {
        StoredAttribute::T(text) => (name, Attribute::Text(text)),
        StoredAttribute::F(bytes) => (name, Attribute::Foreign(bytes)),
    };
    let principal = |(id, role): (Box<str>, Box<str>)| Arc::new(Principal::new(id, role, STORED_METHOD));
    let publication = Publication {
        id,
        name,
        publisher: SessionId(publisher),
        payload: Payload::new(content),
        attributes: attributes.into_iter().map(attribute).collect(),
        disclosed: disclosed.map(principal),
        trust,
        eligibility: None,
        handling: handling.map(Arc::new),
        encodings: Encodings::default(),
        charge: None,
    };
    Some((publication, from_topic))
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let place = all.iter().position(|known| known == one);
    place.and_then(|place| u8::try_from(place).ok()).expect("the lists above are whole, and short")
}

fn at<T: Copy>(all: &[T], place: u8) -> Option<T> {
    all.get(usize::from(place)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::name;

    fn publication(content: Content) -> Publication {
        let attributes = [
            ("persistent", Attribute::from("true")),
            ("priority", Attribute::from("7")),
            ("enc_key", Attribute::Foreign(Bytes::from_static(b"\x81\x00"))),
        ];
        let who = Principal::new("alice", "user", "ticket");
        Publication {
            id: (1 << 53) - 1,
            name: name("a.queue"),
            publisher: SessionId(77),
            payload: Payload::new(content),
            attributes: attributes.into_iter().collect(),
            disclosed: Some(Arc::new(who)),
            trust: Some(3),
            eligibility: None,
            handling: Some(Arc::new(Handling {
                priority: Some(7),
                ttl_ms: Some(1000),
                ..Handling::default()
            })),
            encodings: Encodings::default(),
            charge: None,
        }
    }

    #[test]
    fn a_publication_comes_back_as_it_was() {
        let bytes = Bytes::from_static(b"\x00\xffbytes");
        let mut contents = vec![Content::Opaque(bytes.clone())];
        for format in FORMATS {
            let (args, kwargs) = (bytes.clone(), Bytes::new());
            contents.push(Content::Arguments(Arguments { format, args, kwargs }));
        }
        for encoding in ENCODINGS {
            for shape in SHAPES {
                for content_type in [None, Some(ContentType::from("text/x; y=\"z\""))] {
                    contents.push(Content::Body(Body {
                        content_type,
                        encoding,
                        shape,
                        bytes: bytes.clone(),
                    }));
                }
            }
        }
        for content in contents {
            let before = publication(content);
            let after = decode(&before.name, &encode(&before)).unwrap();
            assert_eq!((after.id, after.publisher, after.trust), (before.id, before.publisher, before.trust));
            assert_eq!(after.payload.content(), before.payload.content());
            assert_eq!(after.attributes, before.attributes);
            assert_eq!(after.handling, before.handling);
            let (was, is) = (before.disclosed.clone().unwrap(), after.disclosed.clone().unwrap());
            assert_eq!((&was.id, &was.role), (&is.id, &is.role));
            assert_eq!(after.cost(), before.cost());
        }
    }

    #[test]
    fn what_a_topic_brought_keeps_its_name() {
        let before = publication(Content::Opaque(Bytes::from_static(b"x")));
        let queue = name("tandem.durable.1");
        let (after, from_topic) = decode_brought(&queue, &encode_brought(&before)).unwrap();
        assert_eq!((after.name, from_topic), (before.name.clone(), true));
        let (after, from_topic) = decode_brought(&queue, &encode(&before)).unwrap();
        assert_eq!((after.name, from_topic), (queue, false));
    }

    #[test]
    fn a_note_comes_back_as_it_was_and_one_that_says_nothing_has_no_bytes() {
        let group = Some("g".into());
        let note = Note {
            priority: Some(9),
            expires_at_ms: Some(1),
            deliver_at_ms: Some(2),
            group,
            ends_group: true,
        };
        assert_eq!(Note::decode(&note.encode()), Some(note));
        assert!(Note::default().encode().is_empty());
        assert_eq!(Note::decode(&[]), Some(Note::default()));
        assert_eq!(Note::decode(&[0xc1]), None);
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        #[derive(Serialize)]
        struct Later {
            id: u64,
            publisher: u64,
            content: StoredContent,
            flavour: &'static str,
        }
        let content = StoredContent::O(Bytes::from_static(b"x"));
        let later = Later { id: 1, publisher: 2, content, flavour: "sweet" };
        let bytes = rmp_serde::to_vec_named(&later).unwrap();
        assert_eq!(decode(&name("q"), &bytes).unwrap().id, 1);
    }

    #[test]
    fn what_is_no_publication_is_none() {
        let whole = encode(&publication(Content::Opaque(Bytes::from_static(b"x"))));
        for end in 0..whole.len() {
            assert!(decode(&name("q"), &whole[..end]).is_none());
        }
    }
}
