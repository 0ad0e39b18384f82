//! The elements of a message: how each type of them is read and written.

use std::borrow::Cow;

use bytes::Bytes;

use crate::payload::{Arguments, Carried, Content, Format};
use crate::wamp::dict::Dict;
use crate::wamp::error::{Misuse, Violation};
use crate::wamp::id::Id;
use crate::wamp::wire::{
    Reader, Seq, Shape, Token, Writer, bytes_size, comma_size, dict_size, read_dict, str_size, uint_size,
    write_dict,
};

/// A message that is being read, element by element.
pub(super) struct Elements<'a, R> {
    reader: R,
    seq: Seq,
    ended: bool,
    /// What `reader` reads; arguments are slices of it.
    source: &'a Bytes,
    format: Format,
    /// The options name `enc_algo`, so that a string in the place of the arguments is a payload.
    transparent: bool,
}

impl<'a, R: Reader<'a>> Elements<'a, R> {
    /// Enters the list that every message is.
    pub(super) fn enter(mut reader: R, source: &'a Bytes, format: Format) -> Result<Self, Violation> {
        match reader.token()? {
            Token::List(seq) => Ok(Self { reader, seq, ended: false, source, format, transparent: false }),
            _ => Err(Violation::new("a message is a list")),
        }
    }

    /// Goes to an element that must be there.
    #[inline]
    fn required(&mut self, name: &str) -> Result<(), Violation> {
        if self.next()? { Ok(()) } else { Err(missing(name)) }
    }

    /// Reads an element that is an integer; `None` where it is something else.
    #[inline]
    pub(super) fn uint(&mut self, name: &str) -> Result<Option<u64>, Violation> {
        self.required(name)?;
        self.reader.uint()
    }

    /// Reads an element that is a string.
    #[inline]
    pub(super) fn str(&mut self, name: &str) -> Result<Cow<'a, str>, Violation> {
        self.required(name)?;
        self.reader.str()?.ok_or_else(|| wrong(name, "a string"))
    }

    /// Makes sure that nothing follows.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), Violation> {
        if self.next()? {
            return Err(Violation::new("the message has too many elements"));
        }
        if !self.reader.is_at_end() {
            return Err(Violation::new("something follows the message"));
        }
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<bool, Violation> {
        self.ended = self.ended || !self.reader.next(&mut self.seq)?;
        Ok(!self.ended)
    }

    #[inline]
    fn dict(&mut self, name: &str) -> Result<Dict, Violation> {
        if self.reader.pass_empty_dict() {
            self.transparent = false;
            return Ok(Dict::new());
        }
        let token = self.reader.token()?;
        self.dict_of(token, name)
    }

    fn dict_of(&mut self, token: Token<'a>, name: &str) -> Result<Dict, Violation> {
        let Token::Dict(seq) = token else { return Err(wrong(name, "a dictionary")) };
        let dict = read_dict(&mut self.reader, seq).map_err(|violation| violation.within(name))?;
        self.transparent = dict.get("enc_algo").is_some();
        Ok(dict)
    }

    fn payload(&mut self, name: &str) -> Result<Content, Violation> {
        let mut arguments = Arguments { format: self.format, args: Bytes::new(), kwargs: Bytes::new() };
        if !self.next()? {
            return Ok(Content::Arguments(arguments));
        }
        match self.reader.peek()? {
            Shape::List => arguments.args = self.container()?,
            Shape::Null => drop(self.reader.token()?),
            Shape::Dict | Shape::Other => return self.opaque().map_err(|violation| violation.within(name)),
        }
        if self.next()? {
            match self.reader.peek()? {
                Shape::Dict => arguments.kwargs = self.container()?,
                Shape::Null => drop(self.reader.token()?),
                Shape::List | Shape::Other => return Err(wrong(name, "followed by a dictionary")),
            }
        }
        Ok(Content::Arguments(arguments))
    }

    /// The encoded list or dictionary that comes next; no bytes where it is empty.
    #[inline]
    fn container(&mut self) -> Result<Bytes, Violation> {
        let extent = self.reader.container()?;
        Ok(extent.map_or_else(Bytes::new, |(start, end)| self.source.slice(start..end)))
    }

    fn opaque(&mut self) -> Result<Content, Violation> {
        let bytes = match self.reader.token()? {
            Token::Bytes(bytes) => bytes,
            Token::Str(Cow::Borrowed(text)) if self.transparent => Cow::Borrowed(text.as_bytes()),
            Token::Str(Cow::Owned(text)) if self.transparent => Cow::Owned(text.into_bytes()),
            _ => return Err(Violation::new("neither a list nor binary")),
        };
        Ok(Content::Opaque(match bytes {
            Cow::Borrowed(bytes) => self.source.slice_ref(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        }))
    }
}

#[cold]
fn missing(name: &str) -> Violation {
    Violation::new(format!("{name} is missing"))
}

#[cold]
fn wrong(name: &str, expected: &str) -> Violation {
    Violation::new(format!("{name} is not {expected}"))
}

/// Something that can be read as an element of a message, or as several at its end.
pub(super) trait Get<'a>: Sized {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation>;
}

/// Something that can be written as elements of a message.
pub(super) trait Put {
    /// How many elements it is.
    fn count(&self) -> usize;
    /// How many bytes it takes, with what separates it from the element before: a buffer of exactly that size becomes
    /// [`Bytes`] without another allocation. What only seldom is in a message may take fewer, and what JSON must escape more.
    fn size(&self, format: Format) -> usize;
    fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse>;
}

impl<'a> Get<'a> for Id {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.uint(name)?.and_then(Id::new).ok_or_else(|| wrong(name, "an ID"))
    }
}

impl Put for Id {
    fn count(&self) -> usize {
        1
    }

    fn size(&self, format: Format) -> usize {
        comma_size(format) + uint_size(format, self.get())
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        writer.uint(self.get());
        Ok(())
    }
}

/// The request that is answered; 0 where the router acts by itself.
impl<'a> Get<'a> for Option<Id> {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        match elements.uint(name)? {
            Some(0) => Ok(None),
            number => number.and_then(Id::new).map(Some).ok_or_else(|| wrong(name, "an ID or 0")),
        }
    }
}

impl Put for Option<Id> {
    fn count(&self) -> usize {
        1
    }

    fn size(&self, format: Format) -> usize {
        comma_size(format) + uint_size(format, self.map_or(0, Id::get))
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        writer.uint(self.map_or(0, Id::get));
        Ok(())
    }
}

impl<'a> Get<'a> for Cow<'a, str> {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.str(name)
    }
}

impl<'a> Get<'a> for String {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.str(name).map(Cow::into_owned)
    }
}

impl Put for str {
    fn count(&self) -> usize {
        1
    }

    fn size(&self, format: Format) -> usize {
        comma_size(format) + str_size(format, self)
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        writer.str(self);
        Ok(())
    }
}

impl Put for String {
    fn count(&self) -> usize {
        1
    }

    fn size(&self, format: Format) -> usize {
        self.as_str().size(format)
    }

    fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
        self.as_str().put(writer, format)
    }
}

impl<'a> Get<'a> for Dict {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.required(name)?;
        elements.dict(name)
    }
}

impl Put for Dict {
    fn count(&self) -> usize {
        1
    }

    fn size(&self, format: Format) -> usize {
        comma_size(format) + dict_size(format, self)
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        write_dict(writer, self);
        Ok(())
    }
}

/// A dictionary at the end that may be missing.
impl<'a> Get<'a> for Option<Dict> {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        if !elements.next()? {
            return Ok(None);
        }
        match elements.reader.token()? {
            Token::Null => Ok(None),
            token => elements.dict_of(token, name).map(Some),
        }
    }
}

impl Put for Option<Dict> {
    fn count(&self) -> usize {
        usize::from(self.is_some())
    }

    fn size(&self, format: Format) -> usize {
        self.as_ref().map_or(0, |dict| dict.size(format))
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        if let Some(dict) = self {
            write_dict(writer, dict);
        }
        Ok(())
    }
}

impl<'a> Get<'a> for Content {
    fn read_from<R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.payload(name)
    }
}

impl Put for Content {
    fn count(&self) -> usize {
        self.carried().map_or(1, |carried| carried.count())
    }

    fn size(&self, format: Format) -> usize {
        self.carried().map_or(0, |carried| carried.size(format))
    }

    fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
        self.carried().ok_or(Misuse::Body)?.put(writer, format)
    }
}

impl Put for Carried<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Arguments(Arguments { kwargs, .. }) if !kwargs.is_empty() => 2,
            Self::Arguments(Arguments { args, .. }) => usize::from(!args.is_empty()),
            Self::Opaque(_) => 1,
        }
    }

    fn size(&self, format: Format) -> usize {
        let comma = comma_size(format);
        match self {
            Self::Arguments(Arguments { args, kwargs, .. }) if kwargs.is_empty() && args.is_empty() => 0,
            Self::Arguments(Arguments { args, kwargs, .. }) if kwargs.is_empty() => comma + args.len(),
            Self::Arguments(Arguments { args, kwargs, .. }) => {
                let args = if args.is_empty() { 1 + comma_size(format) } else { args.len() };
                comma + args + comma + kwargs.len()
            }
            Self::Opaque(bytes) => comma + bytes_size(format, bytes),
        }
    }

    fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
        match self {
            Self::Arguments(Arguments { args, kwargs, .. }) if args.is_empty() && kwargs.is_empty() => {}
            Self::Arguments(Arguments { format: found, .. }) if *found != format => {
                return Err(Misuse::OtherFormat { expected: format, found: *found });
            }
            Self::Arguments(Arguments { args, kwargs, .. }) => {
                if args.is_empty() {
                    writer.list(0);
                    writer.end_list();
                } else {
                    writer.raw(args);
                }
                if !kwargs.is_empty() {
                    writer.raw(kwargs);
                }
            }
            Self::Opaque(bytes) => writer.bytes(bytes),
        }
        Ok(())
    }
}

macro_rules! put_tuple {
    ($($type:ident $index:tt),*) => {
        /// Elements in order, borrowed.
        impl<$($type: Put + ?Sized),*> Put for ($(&$type,)*) {
            fn count(&self) -> usize {
                0 $(+ self.$index.count())*
            }

            fn size(&self, format: Format) -> usize {
                0 $(+ self.$index.size(format))*
            }

            fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
                $(self.$index.put(writer, format)?;)*
                Ok(())
            }
        }
    };
}

put_tuple!(A 0, B 1, C 2);
put_tuple!(A 0, B 1, C 2, D 3);
