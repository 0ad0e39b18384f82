//! The messages of the basic and the advanced profile.
//!
//! The table in this file is the grammar: a message is the list of its type code and its fields, in the order
//! in which they stand here. Fields that end a message may be missing where the comment says so. The optional
//! Arguments|list and ArgumentsKw|dict are one field, `payload`, and stay encoded.
//!
//! Deviations: request ID 0 is allowed where a router revokes something (UNSUBSCRIBED, UNREGISTERED), and
//! nowhere else. EVENT_RECEIVED, UNSUBSCRIBE.Options and UNREGISTER.Options are not in the specification but
//! in its test vectors or in autobahn. Which peer may send what, and when, is not decided here.

use std::borrow::Cow;

use bytes::Bytes;

use crate::payload::{Arguments, Content, Format};
use crate::wamp::dict::Dict;
use crate::wamp::error::{Misuse, Violation};
use crate::wamp::field::{Elements, Get, Put};
use crate::wamp::id::Id;
use crate::wamp::wire::{Reader, Writer, comma_size, uint_size};

macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $name:ident $(<$text:ident>)? = $code:literal $wire:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $element:literal,)*
        }
    )*) => {
        /// The type of a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum MessageType {
            $($(#[$doc])* $name = $code,)*
        }

        impl MessageType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The type of a code; `None` where the code means nothing.
            #[must_use]
    #[inline]
            pub fn from_code(code: u64) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name as the specification writes it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                }
            }
        }

        /// Any message.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message<Text = String> {
            $($(#[$doc])* $name($name $(<$text>)?),)*
        }

        impl<Text> Message<Text> {
            /// The type.
            #[must_use]
    #[inline]
            pub fn message_type(&self) -> MessageType {
                match self {
                    $(Self::$name(_) => MessageType::$name,)*
                }
            }

            /// Reads the fields of a message of this type.
            pub(super) fn read_from<'a, R: Reader<'a>>(
                message_type: MessageType,
                elements: &mut Elements<'a, R>,
            ) -> Result<Self, Violation>
            where
                Text: Get<'a>,
            {
                match message_type {
                    $(MessageType::$name => $name::read_from(elements, $wire).map(Self::$name),)*
                }
            }
        }

        impl<Text: Put> Put for Message<Text> {
            fn count(&self) -> usize {
                match self {
                    $(Self::$name(message) => message.count(),)*
                }
            }

            fn size(&self, format: Format) -> usize {
                match self {
                    $(Self::$name(message) => message.size(format),)*
                }
            }

            fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
                match self {
                    $(Self::$name(message) => message.put(writer, format),)*
                }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $name $(<$text = String>)? {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl<'a $(, $text: Get<'a>)?> Get<'a> for $name $(<$text>)? {
                fn read_from<R: Reader<'a>>(
                    elements: &mut Elements<'a, R>,
                    _name: &str,
                ) -> Result<Self, Violation> {
                    Ok(Self { $($field: <$type>::read_from(elements, concat!($wire, ".", $element))?,)* })
                }
            }

            impl $(<$text: Put>)? Put for $name $(<$text>)? {
                fn count(&self) -> usize {
                    0 $(+ self.$field.count())*
                }

                fn size(&self, format: Format) -> usize {
                    0 $(+ self.$field.size(format))*
                }

                fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
                    $(self.$field.put(writer, format)?;)*
                    Ok(())
                }
            }

            impl From<$name> for Message {
                fn from(message: $name) -> Self {
                    Self::$name(message)
                }
            }
        )*
    };
}

messages! {
    /// A client asks to join a realm.
    Hello = 1 "HELLO" {
        /// The realm.
        realm: String = "Realm",
        /// Roles, features, and how the client can authenticate.
        details: Dict = "Details",
    }
    /// The router lets the client in.
    Welcome = 2 "WELCOME" {
        /// The new session.
        session: Id = "Session",
        /// Roles, features, and who the client is.
        details: Dict = "Details",
    }
    /// Either peer gives up before or instead of a session.
    Abort = 3 "ABORT" {
        /// May say more, as `message`.
        details: Dict = "Details",
        /// An error URI.
        reason: String = "Reason",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// The router wants proof of who the client is.
    Challenge = 4 "CHALLENGE" {
        /// The authentication method.
        auth_method: String = "AuthMethod",
        /// What the method needs.
        extra: Dict = "Extra",
    }
    /// The client's proof.
    Authenticate = 5 "AUTHENTICATE" {
        /// The proof.
        signature: String = "Signature",
        /// What the method needs.
        extra: Dict = "Extra",
    }
    /// Either peer ends the session, or agrees that it ends.
    Goodbye = 6 "GOODBYE" {
        /// May say more, as `message`.
        details: Dict = "Details",
        /// A close URI.
        reason: String = "Reason",
    }
    /// A request failed.
    Error = 8 "ERROR" {
        /// The type of the request.
        request_type: MessageType = "REQUEST.Type",
        /// The request.
        request: Id = "REQUEST.Request",
        /// Details.
        details: Dict = "Details",
        /// An error URI.
        error: String = "Error",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// A client publishes an event.
    Publish<Text> = 16 "PUBLISH" {
        /// The request.
        request: Id = "Request",
        /// Options.
        options: Dict = "Options",
        /// The topic.
        topic: Text = "Topic",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// The event has been published.
    Published = 17 "PUBLISHED" {
        /// The request.
        request: Id = "PUBLISH.Request",
        /// The publication.
        publication: Id = "Publication",
    }
    /// A client subscribes to a topic.
    Subscribe = 32 "SUBSCRIBE" {
        /// The request.
        request: Id = "Request",
        /// Options.
        options: Dict = "Options",
        /// The topic, or the pattern.
        topic: String = "Topic",
    }
    /// The client is subscribed.
    Subscribed = 33 "SUBSCRIBED" {
        /// The request.
        request: Id = "SUBSCRIBE.Request",
        /// The subscription.
        subscription: Id = "Subscription",
    }
    /// A client gives a subscription up.
    Unsubscribe = 34 "UNSUBSCRIBE" {
        /// The request.
        request: Id = "Request",
        /// The subscription.
        subscription: Id = "SUBSCRIBED.Subscription",
        /// Optional.
        options: Option<Dict> = "Options",
    }
    /// The client is not subscribed any more.
    Unsubscribed = 35 "UNSUBSCRIBED" {
        /// The request; `None`, written 0, where the router took the subscription away.
        request: Option<Id> = "UNSUBSCRIBE.Request",
        /// Optional: which subscription was taken away, and why.
        details: Option<Dict> = "Details",
    }
    /// An event for a subscriber.
    Event = 36 "EVENT" {
        /// The subscription.
        subscription: Id = "SUBSCRIBED.Subscription",
        /// The publication.
        publication: Id = "PUBLISHED.Publication",
        /// Details.
        details: Dict = "Details",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// A client calls a procedure.
    Call<Text> = 48 "CALL" {
        /// The request.
        request: Id = "Request",
        /// Options.
        options: Dict = "Options",
        /// The procedure.
        procedure: Text = "Procedure",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// A client gives a call up.
    Cancel = 49 "CANCEL" {
        /// The call.
        request: Id = "CALL.Request",
        /// Options.
        options: Dict = "Options",
    }
    /// The result of a call, or a part of it.
    CallResult = 50 "RESULT" {
        /// The call.
        request: Id = "CALL.Request",
        /// Details.
        details: Dict = "Details",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// A client offers a procedure.
    Register = 64 "REGISTER" {
        /// The request.
        request: Id = "Request",
        /// Options.
        options: Dict = "Options",
        /// The procedure, or the pattern.
        procedure: String = "Procedure",
    }
    /// The procedure is registered.
    Registered = 65 "REGISTERED" {
        /// The request.
        request: Id = "REGISTER.Request",
        /// The registration.
        registration: Id = "Registration",
    }
    /// A client withdraws a procedure.
    Unregister = 66 "UNREGISTER" {
        /// The request.
        request: Id = "Request",
        /// The registration.
        registration: Id = "REGISTERED.Registration",
        /// Optional.
        options: Option<Dict> = "Options",
    }
    /// The procedure is not registered any more.
    Unregistered = 67 "UNREGISTERED" {
        /// The request; `None`, written 0, where the router took the registration away.
        request: Option<Id> = "UNREGISTER.Request",
        /// Optional: which registration was taken away, and why.
        details: Option<Dict> = "Details",
    }
    /// The router calls a procedure of a callee.
    Invocation = 68 "INVOCATION" {
        /// The invocation.
        request: Id = "Request",
        /// The registration.
        registration: Id = "REGISTERED.Registration",
        /// Details.
        details: Dict = "Details",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// The router wants an invocation stopped.
    Interrupt = 69 "INTERRUPT" {
        /// The invocation.
        request: Id = "INVOCATION.Request",
        /// Options.
        options: Dict = "Options",
    }
    /// The result of an invocation, or a part of it.
    Yield = 70 "YIELD" {
        /// The invocation.
        request: Id = "INVOCATION.Request",
        /// Options.
        options: Dict = "Options",
        /// Optional.
        payload: Content = "Arguments",
    }
    /// A subscriber acknowledges an event.
    EventReceived = 337 "EVENT_RECEIVED" {
        /// The publication.
        publication: Id = "EVENT.Publication",
    }
}

impl MessageType {
    /// The code that stands first in the message.
    #[must_use]
    #[inline]
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl<'a> Get<'a> for MessageType {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements
            .uint(name)?
            .and_then(Self::from_code)
            .ok_or_else(|| Violation::new(format!("{name} is not the code of a message")))
    }
}

impl Put for MessageType {
    fn count(&self) -> usize {
        1
    }

    fn size(&self, format: Format) -> usize {
        comma_size(format) + uint_size(format, self.code().into())
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        writer.uint(self.code().into());
        Ok(())
    }
}

/// A message as it comes in: what clients send most keeps its name where it lies in their bytes.
pub type Incoming<'a> = Message<Cow<'a, str>>;

impl<Text> Message<Text> {
    /// The name of the type, as the specification writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.message_type().name()
    }

    /// The request that the message makes, or that it answers.
    #[must_use]
    pub fn request(&self) -> Option<Id> {
        match self {
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Abort(_)
            | Self::Challenge(_)
            | Self::Authenticate(_)
            | Self::Goodbye(_)
            | Self::Event(_)
            | Self::EventReceived(_) => None,
            Self::Error(Error { request, .. })
            | Self::Publish(Publish { request, .. })
            | Self::Published(Published { request, .. })
            | Self::Subscribe(Subscribe { request, .. })
            | Self::Subscribed(Subscribed { request, .. })
            | Self::Unsubscribe(Unsubscribe { request, .. })
            | Self::Call(Call { request, .. })
            | Self::Cancel(Cancel { request, .. })
            | Self::CallResult(CallResult { request, .. })
            | Self::Register(Register { request, .. })
            | Self::Registered(Registered { request, .. })
            | Self::Unregister(Unregister { request, .. })
            | Self::Invocation(Invocation { request, .. })
            | Self::Interrupt(Interrupt { request, .. })
            | Self::Yield(Yield { request, .. }) => Some(*request),
            Self::Unsubscribed(Unsubscribed { request, .. })
            | Self::Unregistered(Unregistered { request, .. }) => *request,
        }
    }

    /// What the message carries, where its type can carry something.
    #[must_use]
    pub fn payload(&self) -> Option<&Content> {
        match self {
            Self::Abort(Abort { payload, .. })
            | Self::Error(Error { payload, .. })
            | Self::Publish(Publish { payload, .. })
            | Self::Event(Event { payload, .. })
            | Self::Call(Call { payload, .. })
            | Self::CallResult(CallResult { payload, .. })
            | Self::Invocation(Invocation { payload, .. })
            | Self::Yield(Yield { payload, .. }) => Some(payload),
            _ => None,
        }
    }
}

/// The payload of a message that carries nothing.
#[must_use]
pub fn nothing() -> Content {
    Content::Arguments(Arguments { format: Format::Json, args: Bytes::new(), kwargs: Bytes::new() })
}
