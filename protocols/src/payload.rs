//! Application data, in the encoding it arrived in.
//!
//! A payload is never decoded to be passed on. It is converted only where its receiver reads another
//! encoding than its sender wrote, and then once per encoding, however many receivers there are.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

pub use self::border::encode_bytes;
pub use self::content_type::ContentType;
pub use self::transcode::{Limits, Unconvertible, transcode};

mod border;
mod cbor;
mod content_type;
mod json;
mod msgpack;
pub mod skip;
mod split;
mod stream;
mod transcode;

/// A self-describing encoding of structured values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// RFC 8259. Binary values are strings of U+0000 followed by base64, as WAMP defines.
    Json,
    /// MessagePack.
    MsgPack,
    /// RFC 8949.
    Cbor,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Json => "JSON",
            Format::MsgPack => "MessagePack",
            Format::Cbor => "CBOR",
        })
    }
}

/// How the bytes of a [`Body`] are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One structured value.
    Structured(Format),
    /// UTF-8 text.
    Text,
    /// Bytes that mean nothing to the house.
    Binary,
}

impl Encoding {
    /// What a media type says. Its case and its parameters do not matter; a text is UTF-8, whatever its
    /// `charset` is.
    ///
    /// ```
    /// use tandem_protocols::payload::{Encoding, Format};
    ///
    /// let problem = Encoding::from_content_type(Some("application/problem+json; charset=utf-8"));
    /// assert_eq!(problem, Encoding::Structured(Format::Json));
    /// assert_eq!(Encoding::from_content_type(None), Encoding::Binary);
    /// ```
    pub fn from_content_type(content_type: Option<&str>) -> Encoding {
        match content_type.map(str::as_bytes) {
            None => Encoding::Binary,
            Some(b"text/plain") => Encoding::Text,
            Some(b"application/json") => Encoding::Structured(Format::Json),
            Some(b"application/octet-stream") => Encoding::Binary,
            Some(_) => Encoding::of_media_type(content_type.unwrap_or_default()),
        }
    }

    fn of_media_type(content_type: &str) -> Encoding {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        let begins =
            |head: &str| media_type.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head));
        let ends = |tail: &str| {
            let at = media_type.len().checked_sub(tail.len());
            at.and_then(|at| media_type.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(tail))
        };
        if is("application/json") || ends("+json") {
            Encoding::Structured(Format::Json)
        } else if is("application/cbor") || ends("+cbor") {
            Encoding::Structured(Format::Cbor)
        } else if is("application/msgpack") || is("application/x-msgpack") || is("application/vnd.msgpack") {
            Encoding::Structured(Format::MsgPack)
        } else if begins("text/") {
            Encoding::Text
        } else {
            Encoding::Binary
        }
    }
}

/// What one value stands for when its reader has positional and keyword arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The first and only positional argument.
    Value,
    /// An array: the positional arguments.
    Args,
    /// A map: the keyword arguments.
    Kwargs,
    /// `{"args": [], "kwargs": {}}`: both.
    Full,
}

impl Shape {
    /// The name of the STOMP header that says the shape.
    pub const HEADER: &str = "x-wamp-payload";

    /// The shape that a header's value names; nothing if it is no word for one.
    pub fn from_word(word: &str) -> Option<Shape> {
        match word {
            "args" => Some(Shape::Args),
            "kwargs" => Some(Shape::Kwargs),
            "full" => Some(Shape::Full),
            _ => None,
        }
    }

    /// The header's value; nothing for a plain value, which has no such header.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Shape::Value => None,
            Shape::Args => Some("args"),
            Shape::Kwargs => Some("kwargs"),
            Shape::Full => Some("full"),
        }
    }
}

/// Positional and keyword arguments, each still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The encoding of both.
    pub format: Format,
    /// One encoded array; empty bytes where there is none.
    pub args: Bytes,
    /// One encoded map; empty bytes where there is none.
    pub kwargs: Bytes,
}

/// One value, with what is known of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The media type as its sender wrote it, if at all.
    pub content_type: Option<ContentType>,
    /// How to read `bytes`.
    pub encoding: Encoding,
    /// What the value stands for.
    pub shape: Shape,
    /// The value.
    pub bytes: Bytes,
}

/// What a sender handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// As WAMP carries it.
    Arguments(Arguments),
    /// As STOMP carries it.
    Body(Body),
    /// One binary value in the place of the arguments, which only sender and receiver can read
    /// (WAMP's transparent payload).
    Opaque(Bytes),
}

/// Application data on its way from one sender to any number of receivers.
///
/// A clone costs a reference count, and all clones share what has been converted. A payload that every
/// receiver reads as it came never allocates for more.
///
/// ```
/// use bytes::Bytes;
/// use tandem_protocols::payload::{Arguments, Carried, Content, Format, Payload};
///
/// let payload = Payload::new(Content::Arguments(Arguments {
///     format: Format::Json,
///     args: Bytes::from_static(b"[\"hello\"]"),
///     kwargs: Bytes::new(),
/// }));
/// let Carried::Arguments(arguments) = payload.arguments(Format::MsgPack)? else { unreachable!() };
/// assert_eq!(arguments.args, &b"\x91\xa5hello"[..]);
/// assert_eq!(payload.body()?.bytes, &b"hello"[..]);
/// # Ok::<(), tandem_protocols::payload::Unconvertible>(())
/// ```
#[derive(Clone)]
pub struct Payload(Arc<Inner>);

struct Inner {
    content: Content,
    /// Boxed, because most payloads never need it.
    conversions: OnceLock<Box<Conversions>>,
}

/// Each made when first asked for; a failure is kept as well.
#[derive(Default)]
struct Conversions {
    json: OnceLock<Result<Arguments, Unconvertible>>,
    msgpack: OnceLock<Result<Arguments, Unconvertible>>,
    cbor: OnceLock<Result<Arguments, Unconvertible>>,
    body: OnceLock<Result<Body, Unconvertible>>,
}

/// What a WAMP message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried<'a> {
    /// In the encoding that was asked for.
    Arguments(&'a Arguments),
    /// To be written as one binary value in the place of the arguments: see [`encode_bytes`].
    Opaque(&'a Bytes),
}

impl Carried<'static> {
    /// What a message carries that carries nothing.
    #[inline]
    pub fn nothing() -> Self {
        static NOTHING: Arguments =
            Arguments { format: Format::Json, args: Bytes::new(), kwargs: Bytes::new() };
        Carried::Arguments(&NOTHING)
    }
}

impl Content {
    /// The content as a WAMP message carries it; a body must be made into arguments before.
    #[inline]
    pub fn carried(&self) -> Option<Carried<'_>> {
        match self {
            Content::Arguments(arguments) => Some(Carried::Arguments(arguments)),
            Content::Opaque(bytes) => Some(Carried::Opaque(bytes)),
            Content::Body(_) => None,
        }
    }
}

impl Payload {
    /// A payload as its sender handed it in.
    #[inline]
    pub fn new(content: Content) -> Self {
        Payload(Arc::new(Inner { content, conversions: OnceLock::new() }))
    }

    /// What the sender handed in.
    #[inline]
    pub fn content(&self) -> &Content {
        &self.0.content
    }

    /// How many bytes the sender handed in. Conversions do not change it, so that what a mailbox was
    /// charged for a payload is what it is given back.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0.content {
            Content::Arguments(arguments) => arguments.args.len() + arguments.kwargs.len(),
            Content::Body(body) => body.bytes.len(),
            Content::Opaque(bytes) => bytes.len(),
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a WAMP receiver gets, converted at most once for each format.
    ///
    /// # Errors
    ///
    /// When a body is not what it claims to be, or when `format` has no form for it.
    #[inline]
    pub fn arguments(&self, format: Format) -> Result<Carried<'_>, Unconvertible> {
        let limits = &Limits::DEFAULT;
        let kept = || {
            let conversions = self.conversions();
            match format {
                Format::Json => &conversions.json,
                Format::MsgPack => &conversions.msgpack,
                Format::Cbor => &conversions.cbor,
            }
        };
        let converted = match &self.0.content {
            Content::Opaque(bytes) => return Ok(Carried::Opaque(bytes)),
            Content::Arguments(arguments) if arguments.format == format => {
                return Ok(Carried::Arguments(arguments));
            }
            Content::Arguments(arguments) => {
                kept().get_or_init(|| border::convert_arguments(arguments, format, limits))
            }
            Content::Body(body) => kept().get_or_init(|| border::arguments_of(body, format, limits)),
        };
        converted.as_ref().map(Carried::Arguments).map_err(|why| *why)
    }

    /// What a STOMP receiver gets, made at most once.
    ///
    /// # Errors
    ///
    /// When the arguments have no form in JSON, which is what a body is where it is neither a text nor
    /// bytes.
    pub fn body(&self) -> Result<&Body, Unconvertible> {
        let made = match &self.0.content {
            Content::Body(body) => return Ok(body),
            Content::Arguments(arguments) => {
                self.conversions().body.get_or_init(|| border::body_of(arguments, &Limits::DEFAULT))
            }
            Content::Opaque(bytes) => {
                self.conversions().body.get_or_init(|| Ok(border::body_of_opaque(bytes)))
            }
        };
        made.as_ref().map_err(|why| *why)
    }

    fn conversions(&self) -> &Conversions {
        self.0.conversions.get_or_init(Box::default)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.content == other.0.content
    }
}

impl Eq for Payload {}

/// Names the content's kind and length only: application data is not for logs.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0.content {
            Content::Arguments(_) => "arguments",
            Content::Body(_) => "body",
            Content::Opaque(_) => "opaque",
        };
        write!(f, "Payload({kind}, {} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_names_an_encoding() {
        let structured = Encoding::Structured;
        for (content_type, encoding) in [
            ("application/json", structured(Format::Json)),
            ("Application/JSON;charset=utf-8", structured(Format::Json)),
            ("application/vnd.api+json", structured(Format::Json)),
            ("application/cbor", structured(Format::Cbor)),
            ("application/senml+CBOR ; a=b", structured(Format::Cbor)),
            ("application/msgpack", structured(Format::MsgPack)),
            ("application/x-msgpack", structured(Format::MsgPack)),
            ("application/vnd.msgpack", structured(Format::MsgPack)),
            ("text/plain", Encoding::Text),
            ("TEXT/html;charset=utf-8", Encoding::Text),
            ("text/x+json", structured(Format::Json)),
            ("application/octet-stream", Encoding::Binary),
            ("application/jsonx", Encoding::Binary),
            ("text", Encoding::Binary),
            ("\u{e4}\u{e4}\u{e4}\u{e4}", Encoding::Binary),
            ("", Encoding::Binary),
        ] {
            assert_eq!(Encoding::from_content_type(Some(content_type)), encoding, "{content_type}");
        }
        assert_eq!(Encoding::from_content_type(None), Encoding::Binary);
    }

    #[test]
    fn a_shape_and_its_word_name_each_other() {
        for shape in [Shape::Args, Shape::Kwargs, Shape::Full] {
            assert_eq!(shape.word().and_then(Shape::from_word), Some(shape));
        }
        assert_eq!(Shape::Value.word(), None);
        assert_eq!(Shape::from_word("value"), None);
    }

    fn list(format: Format, args: &'static [u8]) -> Payload {
        let args = Bytes::from_static(args);
        Payload::new(Content::Arguments(Arguments { format, args, kwargs: Bytes::new() }))
    }

    #[test]
    fn all_clones_share_one_conversion() {
        let payload = list(Format::Json, b"[1,2]");
        let clone = payload.clone();
        let Ok(Carried::Arguments(first)) = payload.arguments(Format::Cbor) else { unreachable!() };
        let Ok(Carried::Arguments(second)) = clone.arguments(Format::Cbor) else { unreachable!() };
        assert!(std::ptr::eq(first, second));
        assert!(std::ptr::eq(payload.body().unwrap(), clone.body().unwrap()));
        assert_eq!(payload.len(), 5);
    }

    #[test]
    fn a_payload_read_as_it_came_converts_nothing() {
        let payload = list(Format::Json, b"[1,2]");
        let Ok(Carried::Arguments(arguments)) = payload.arguments(Format::Json) else { unreachable!() };
        assert_eq!(&arguments.args[..], b"[1,2]");
        assert!(payload.0.conversions.get().is_none());
    }

    #[test]
    fn a_failed_conversion_is_kept() {
        let payload = list(Format::MsgPack, b"\x91");
        let failure = Unconvertible::Malformed { format: Format::MsgPack };
        assert_eq!(payload.arguments(Format::Json), Err(failure));
        let kept = payload.0.conversions.get().and_then(|conversions| conversions.json.get());
        assert_eq!(kept, Some(&Err(failure)));
        assert_eq!(payload.arguments(Format::Json), Err(failure));
    }

    #[test]
    fn an_opaque_payload_stays_bytes_everywhere() {
        let bytes = Bytes::from_static(b"\x01\x02");
        let payload = Payload::new(Content::Opaque(bytes.clone()));
        for format in [Format::Json, Format::MsgPack, Format::Cbor] {
            assert_eq!(payload.arguments(format), Ok(Carried::Opaque(&bytes)));
        }
        let body = payload.body().unwrap();
        assert_eq!((body.encoding, body.shape, &body.bytes), (Encoding::Binary, Shape::Value, &bytes));
    }

    /// A handle is a pointer; what it points to is the content, two counts and the empty cache.
    #[test]
    fn an_unconverted_payload_costs_few_bytes() {
        assert_eq!(size_of::<Payload>(), size_of::<usize>());
        assert_eq!(size_of::<Content>(), 72);
        assert_eq!(size_of::<Inner>(), size_of::<Content>() + 16);
    }
}
