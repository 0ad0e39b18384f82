//! What a destination means.
//!
//! ```text
//! /topic/<name>         SEND: publish          SUBSCRIBE: subscribe; "*" is one component, a last "#" or
//!                                              ">" is that and everything below
//! /queue/<name>         SEND: enqueue          SUBSCRIBE: consume
//! /call/<name>          SEND: call
//! /procedure/<name>                            SUBSCRIBE: register; patterns as for topics
//! /invocation/<number>  SEND: answer a call
//! /reply-queue/<opaque> SEND: answer a message that had it in "reply-to"
//! /temp-queue/<word>    SEND: enqueue          SUBSCRIBE: consume. A queue of this session's own, which is also
//!                                              made and subscribed to by a "reply-to" that names it
//! /session/auth         SEND: go on by another token
//! /dsub/<name>                                 SUBSCRIBE: consume from a durable subscription that exists
//! /amq/queue/<name>     SEND: enqueue          SUBSCRIBE: consume; the queue must exist
//! /exchange/amq.topic/<name>                   as /topic/<name>
//! /exchange/amq.direct/<name>                  as /topic/amq.direct.<name>, without wildcards
//! /exchange/amq.fanout                         as /topic/amq.fanout, whatever follows
//! ```
//!
//! The exchanges are those that every RabbitMQ has; there are no others.
//!
//! Names are percent-encoded: a `/` in one is `%2F`, and a component that is `*` itself is `%2A`.

use std::borrow::Cow;

use tandem_protocols::stomp::error::Reason;

use crate::core::access::{HOUSE_PREFIX, REPLY_PREFIX};
use crate::core::name::{InvalidName, Name, Pattern};
use crate::stomp::fault::Fault;

/// What `reply-to` begins with when it asks for a queue of the session's own.
pub(super) const TEMP_QUEUE: &str = "/temp-queue/";

const TOPIC: &str = "/topic/";
const QUEUE: &str = "/queue/";

/// How the header begins that says a destination.
const HEADER: &str = "destination:";

/// What the topics begin with that are RabbitMQ's direct exchange.
const DIRECT: &str = "amq.direct.";

/// The topic that is RabbitMQ's fanout exchange.
const FANOUT: &str = "amq.fanout";

/// Where a SEND goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Topic(Name),
    Queue(Name),
    /// A queue that must exist.
    ExistingQueue(Name),
    /// A queue of this session's own.
    Temp,
    /// A queue for answers, of whatever session.
    Reply(Name),
    Call(Name),
    Invocation(u64),
    /// The session's own time.
    Renewal,
}

impl Target {
    /// Whether a destination is this one's name as it is, behind the word for its kind. If it is, and led here once,
    /// it leads here again.
    pub(super) fn is_spelled(&self, text: &str) -> bool {
        let (prefix, name) = match self {
            Target::Topic(name) => (TOPIC, name),
            Target::Queue(name) => (QUEUE, name),
            _ => return false,
        };
        text.strip_prefix(prefix) == Some(name.as_str())
    }
}

/// Where the messages of a SUBSCRIBE come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Topic(Pattern),
    Queue(Name),
    /// A queue that must exist.
    ExistingQueue(Name),
    /// A queue of this session's own.
    Temp,
    /// A durable subscription that must exist, by its name.
    Durable(String),
    Procedure(Pattern),
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Topic,
    Queue,
    Reply,
    Procedure,
}

/// Reads the destination of a SEND.
pub(super) fn target(text: &str) -> Result<Target, Fault> {
    let (kind, rest) = split(text)?;
    match kind {
        "topic" => Ok(Target::Topic(concrete(text, rest)?)),
        "queue" => queue(text, rest).map(Target::Queue),
        "amq" => queue(text, rest).map(Target::ExistingQueue),
        "exchange" => Ok(Target::Topic(match exchange(text, rest)? {
            Exchange::Topic(key) => concrete(text, key)?,
            Exchange::Literal(key) => name(text, &decode(text, &key)?)?,
        })),
        "reply-queue" => name(text, &format!("{REPLY_PREFIX}{rest}")).map(Target::Reply),
        "call" => Ok(Target::Call(concrete(text, rest)?)),
        "invocation" => match rest.parse() {
            Ok(number) if rest.bytes().all(|octet| octet.is_ascii_digit()) => Ok(Target::Invocation(number)),
            _ => Err(invalid(text, "names no invocation")),
        },
        "temp-queue" => temp(text, rest).map(|()| Target::Temp),
        "session" if rest == "auth" => Ok(Target::Renewal),
        "dsub" => Err(invalid(text, "can only be subscribed to")),
        "procedure" => Err(invalid(text, "is called by a message to /call/")),
        _ => Err(unknown(text)),
    }
}

/// Reads the destination of a SUBSCRIBE.
pub(super) fn source(text: &str) -> Result<Source, Fault> {
    let (kind, rest) = split(text)?;
    match kind {
        "topic" => Ok(Source::Topic(pattern(text, rest)?)),
        "queue" => queue(text, rest).map(Source::Queue),
        "amq" => queue(text, rest).map(Source::ExistingQueue),
        "exchange" => Ok(Source::Topic(match exchange(text, rest)? {
            Exchange::Topic(key) => pattern(text, key)?,
            Exchange::Literal(key) => Pattern::exact(name(text, &decode(text, &key)?)?),
        })),
        "temp-queue" => temp(text, rest).map(|()| Source::Temp),
        "dsub" => Ok(Source::Durable(decode(text, rest)?.into_owned())),
        "procedure" => Ok(Source::Procedure(pattern(text, rest)?)),
        "reply-queue" => Err(invalid(text, "cannot be subscribed to")),
        "call" | "invocation" | "session" => Err(invalid(text, "can only be sent to")),
        _ => Err(unknown(text)),
    }
}

/// Writes a name as the destination that leads to it.
pub(super) fn write(place: Place, name: &Name) -> String {
    let (prefix, name) = written(place, name);
    [prefix, &name].concat()
}

/// The same in two pieces.
pub(super) fn written(place: Place, name: &Name) -> (&'static str, Cow<'_, str>) {
    let (header, name) = header(place, name);
    (&header[HEADER.len()..], name)
}

/// The same as a header in two pieces, of which the first one needs no escape.
pub(super) fn header(place: Place, name: &Name) -> (&'static str, Cow<'_, str>) {
    let (prefix, name) = match place {
        Place::Topic => match name.as_str().strip_prefix(DIRECT) {
            Some(key) => ("destination:/exchange/amq.direct/", key),
            None if name.as_str() == FANOUT => ("destination:/exchange/", FANOUT),
            None => ("destination:/topic/", name.as_str()),
        },
        Place::Queue => ("destination:/queue/", name.as_str()),
        Place::Procedure => ("destination:/procedure/", name.as_str()),
        Place::Reply => {
            ("destination:/reply-queue/", name.as_str().strip_prefix(REPLY_PREFIX).unwrap_or(name.as_str()))
        }
    };
    let stands_for_something = |octet: u8| matches!(octet, b'*' | b'>' | b'%' | b'/');
    if !name.bytes().fold(false, |found, octet| found | stands_for_something(octet)) {
        return (prefix, Cow::Borrowed(name));
    }
    let mut text = String::with_capacity(name.len() + 2);
    for (at, component) in name.split('.').enumerate() {
        if at > 0 {
            text.push('.');
        }
        match component {
            "*" => text.push_str("%2A"),
            ">" => text.push_str("%3E"),
            _ if !component.contains(['%', '/']) => text.push_str(component),
            _ => text.push_str(&component.replace('%', "%25").replace('/', "%2F")),
        }
    }
    (prefix, Cow::Owned(text))
}

fn split(text: &str) -> Result<(&str, &str), Fault> {
    let parts = text.strip_prefix('/').and_then(|text| text.split_once('/'));
    let (kind, rest) = parts.ok_or_else(|| unknown(text))?;
    let rest = match kind {
        "exchange" => return Ok((kind, rest)),
        "amq" => rest.strip_prefix("queue/").ok_or_else(|| unknown(text))?,
        _ => rest,
    };
    if rest.contains('/') {
        return Err(invalid(text, "goes too deep: a / in a name is written %2F"));
    }
    Ok((kind, rest))
}

/// What an exchange of RabbitMQ's is here.
enum Exchange<'a> {
    /// Topics, with wildcards where one subscribes.
    Topic(&'a str),
    /// One topic, encoded.
    Literal(String),
}

fn exchange<'a>(text: &str, rest: &'a str) -> Result<Exchange<'a>, Fault> {
    let (exchange, key) = rest.split_once('/').unwrap_or((rest, ""));
    match exchange {
        FANOUT => Ok(Exchange::Literal(FANOUT.to_owned())),
        "amq.topic" | "amq.direct" if key.contains('/') => {
            Err(invalid(text, "goes too deep: a / in a name is written %2F"))
        }
        "amq.topic" => Ok(Exchange::Topic(key)),
        "amq.direct" => Ok(Exchange::Literal(format!("{DIRECT}{key}"))),
        _ => Err(Fault::new(
            Reason::NotFound,
            format!("there is no exchange for '{text}': there are amq.topic, amq.direct and amq.fanout"),
        )),
    }
}

fn temp(text: &str, word: &str) -> Result<(), Fault> {
    if word.is_empty() { Err(invalid(text, "names no queue")) } else { Ok(()) }
}

/// A name of the peer's, for a queue. Those of the house are reached in other ways.
fn queue(text: &str, rest: &str) -> Result<Name, Fault> {
    let name = name(text, &decode(text, rest)?)?;
    if name.as_str().starts_with(HOUSE_PREFIX) {
        return Err(Fault::new(Reason::AccessRefused, format!("'{text}' is reserved")));
    }
    Ok(name)
}

/// The name of one thing: without holes and tail.
fn concrete(text: &str, rest: &str) -> Result<Name, Fault> {
    let may_be_a_pattern = rest.bytes().any(|octet| matches!(octet, b'*' | b'#' | b'>'));
    if may_be_a_pattern && rest.split('.').any(|component| matches!(component, "*" | "#" | ">")) {
        return Err(invalid(text, "is a pattern, which nothing can be sent to"));
    }
    name(text, &decode(text, rest)?)
}

fn pattern(text: &str, rest: &str) -> Result<Pattern, Fault> {
    let (parts, tail) = match rest.rsplit_once('.') {
        Some((parts, "#" | ">")) => (Some(parts), true),
        None if matches!(rest, "#" | ">") => (None, true),
        _ => (Some(rest), false),
    };
    let components = parts.into_iter().flat_map(|parts| parts.split('.'));
    if components.clone().any(|component| matches!(component, "#" | ">")) {
        return Err(invalid(text, "has a '#' or '>' that is not its last component"));
    }
    if !tail && components.clone().all(|component| component != "*") {
        return name(text, &decode(text, rest)?).map(Pattern::exact);
    }
    let decoded = components.map(|component| match component {
        "*" => Ok(None),
        _ => decode(text, component).map(Some),
    });
    let decoded: Vec<Option<Cow<'_, str>>> = decoded.collect::<Result<_, Fault>>()?;
    Pattern::components(decoded.iter().map(Option::as_deref), tail).map_err(|why| bad_name(text, why))
}

fn name(text: &str, name: &str) -> Result<Name, Fault> {
    Name::parse(name).map_err(|why| bad_name(text, why))
}

fn decode<'a>(text: &str, encoded: &'a str) -> Result<Cow<'a, str>, Fault> {
    if !encoded.as_bytes().contains(&b'%') {
        return Ok(Cow::Borrowed(encoded));
    }
    let mut octets = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || rest.next().and_then(|octet| char::from(octet).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(invalid(text, "has a % that two hexadecimal digits do not follow"));
        };
        octets.push((high * 16 + low) as u8);
    }
    String::from_utf8(octets).map(Cow::Owned).map_err(|_| invalid(text, "is not UTF-8 once it is decoded"))
}

fn bad_name(text: &str, why: InvalidName) -> Fault {
    Fault::new(Reason::InvalidDestination, format!("the name in '{text}' {why}"))
}

fn invalid(text: &str, why: &str) -> Fault {
    Fault::new(Reason::InvalidDestination, format!("'{text}' {why}"))
}

fn unknown(text: &str) -> Fault {
    invalid(
        text,
        "is no destination: they begin with /topic/, /queue/, /temp-queue/, /dsub/, /exchange/, /amq/queue/, /call/ or /procedure/",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn a_destination_names_a_thing_of_the_house() {
        for (text, expected) in [
            ("/topic/a.b", Target::Topic(named("a.b"))),
            ("/topic/a%2Fb", Target::Topic(named("a/b"))),
            ("/topic/caf%c3%A9", Target::Topic(named("café"))),
            ("/topic/a.%2A", Target::Topic(named("a.*"))),
            ("/queue/q", Target::Queue(named("q"))),
            ("/call/p.q", Target::Call(named("p.q"))),
            ("/exchange/amq.topic/a.b", Target::Topic(named("a.b"))),
            ("/exchange/amq.direct/a.*", Target::Topic(named("amq.direct.a.*"))),
            ("/exchange/amq.fanout", Target::Topic(named("amq.fanout"))),
            ("/exchange/amq.fanout/any/thing", Target::Topic(named("amq.fanout"))),
            ("/amq/queue/q", Target::ExistingQueue(named("q"))),
            ("/temp-queue/t", Target::Temp),
            ("/invocation/12", Target::Invocation(12)),
            ("/session/auth", Target::Renewal),
            ("/reply-queue/ab", Target::Reply(named("tandem.reply.ab"))),
        ] {
            assert_eq!(target(text).expect(text), expected);
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [
            "",
            "topic",
            "/topic",
            "topic/a",
            "/topic/",
            "/topic/a/b",
            "/topic/a..b",
            "/topic/a b",
            "/topic/a%2",
            "/topic/a%zz",
            "/topic/a%ff",
            "/topic/a#",
            "/topic/a.*",
            "/topic/a.#",
            "/topic/>",
            "/exchange/a",
            "/exchange/amq.headers/a",
            "/exchange/amq.topic/a/b",
            "/exchange/amq.topic/a.*",
            "/exchange/amq.topic",
            "/exchange/amq.direct",
            "/temp-queue/",
            "/amq/q",
            "/dsub/d",
            "/queue/",
            "/queue/tandem.reply.a",
            "/invocation/",
            "/invocation/+1",
            "/invocation/x",
            "/procedure/p",
            "/reply-queue/a/b",
            "/session/",
            "/session/x",
            "/session/auth/x",
        ] {
            assert!(target(text).is_err(), "{text}");
        }
        for text in [
            "/temp-queue/",
            "/amq/q",
            "/dsub/d/e",
            "/reply-queue/a",
            "/call/p",
            "/session/auth",
            "/topic/a/b",
            "/topic/a.#.b",
            "/topic/>.b",
            "/topic/*.%2E",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn stars_are_holes_and_a_last_hash_or_angle_is_a_tail() {
        let matches = |text: &str, name: &str| match source(text).expect(text) {
            Source::Topic(pattern) => pattern.matches(name),
            other => panic!("{other:?}"),
        };
        assert!(matches("/topic/a.*.c", "a.b.c") && !matches("/topic/a.*.c", "a.b"));
        for tail in ["/topic/a.#", "/topic/a.>"] {
            assert!(matches(tail, "a") && matches(tail, "a.b.c") && !matches(tail, "ab"));
        }
        assert!(matches("/topic/#", "x.y") && matches("/topic/*", "x") && !matches("/topic/*", "x.y"));
        assert!(matches("/topic/a.%2A", "a.*") && !matches("/topic/a.%2A", "a.b"));
        assert!(matches("/topic/a*b", "a*b"));
    }

    #[test]
    fn a_destination_that_is_spelled_like_its_target_leads_there_always() {
        for text in ["/topic/a.b", "/queue/q"] {
            let target = target(text).expect(text);
            assert!(target.is_spelled(text) && !target.is_spelled("/topic/a.c"));
        }
        // What is written otherwise could be the spelling of something else.
        for text in ["/topic/a%2Eb", "/topic/a%252Fb", "/exchange/amq.topic/a", "/amq/queue/q"] {
            assert!(!target(text).expect(text).is_spelled(text), "{text}");
        }
        assert_ne!(target("/topic/a%2Fb").expect("a topic"), target("/topic/a%252Fb").expect("a topic"));
    }

    #[test]
    fn what_was_written_is_read_back() {
        for text in ["a.b", "a/b", "a.*", ">", "50%", "é*", "a%2Fb"] {
            let name = named(text);
            assert_eq!(target(&write(Place::Topic, &name)).expect(text), Target::Topic(name.clone()));
            assert_eq!(target(&write(Place::Queue, &name)).expect(text), Target::Queue(name.clone()));
            let direct = named(&format!("amq.direct.{text}"));
            assert_eq!(target(&write(Place::Topic, &direct)).expect(text), Target::Topic(direct));
            let procedure = write(Place::Procedure, &name);
            assert_eq!(source(&procedure).expect(text), Source::Procedure(Pattern::exact(name)));
        }
        assert_eq!(write(Place::Topic, &named("a.*.b/c>")), "/topic/a.%2A.b%2Fc>");
        assert_eq!(write(Place::Reply, &named("tandem.reply.ab")), "/reply-queue/ab");
        assert_eq!(write(Place::Topic, &named("com.example")), "/topic/com.example");
    }
}
