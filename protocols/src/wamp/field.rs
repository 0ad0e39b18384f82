//! The elements of a message: how each type of them is read and written.

use std::borrow::Cow;

use bytes::Bytes;

use crate::payload::{Arguments, Content, Format};
use crate::wamp::dict::Dict;
use crate::wamp::error::{Misuse, Violation};
use crate::wamp::id::Id;
use crate::wamp::wire::{Reader, Seq, Shape, Token, Writer, dict_size, read_dict, write_dict};

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

    /// Reads an element that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<Token<'a>, Violation> {
        if self.next()? { self.reader.token() } else { Err(Violation::new(format!("{name} is missing"))) }
    }

    /// Makes sure that nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), Violation> {
        if self.next()? {
            return Err(Violation::new("the message has too many elements"));
        }
        if !self.reader.is_at_end() {
            return Err(Violation::new("something follows the message"));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<bool, Violation> {
        self.ended = self.ended || !self.reader.next(&mut self.seq)?;
        Ok(!self.ended)
    }

    fn dict(&mut self, token: Token<'a>, name: &str) -> Result<Dict, Violation> {
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
    fn container(&mut self) -> Result<Bytes, Violation> {
        let start = self.reader.position();
        if let Token::List(mut seq) | Token::Dict(mut seq) = self.reader.token()?
            && !self.reader.next(&mut seq)?
        {
            return Ok(Bytes::new());
        }
        self.reader.rewind(start);
        let end = self.reader.skip()?;
        Ok(self.source.slice(start..end))
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

fn wrong(name: &str, expected: &str) -> Violation {
    Violation::new(format!("{name} is not {expected}"))
}

/// Something that can be read as an element of a message, or as several at its end.
pub(super) trait Get: Sized {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation>;
}

/// Something that can be written as elements of a message.
pub(super) trait Put {
    /// How many elements it is.
    fn count(&self) -> usize;
    /// About how many bytes it takes; the buffer is made that large.
    fn size(&self) -> usize;
    fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse>;
}

impl Get for Id {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.required(name)?.id().ok_or_else(|| wrong(name, "an ID"))
    }
}

impl Put for Id {
    fn count(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        17
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        writer.int(self.get().into());
        Ok(())
    }
}

/// The request that is answered; 0 where the router acts by itself.
impl Get for Option<Id> {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        let token = elements.required(name)?;
        if token.uint() == Some(0) {
            return Ok(None);
        }
        token.id().map(Some).ok_or_else(|| wrong(name, "an ID or 0"))
    }
}

impl Put for Option<Id> {
    fn count(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        17
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        writer.int(self.map_or(0, Id::get).into());
        Ok(())
    }
}

impl Get for String {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        match elements.required(name)? {
            Token::Str(text) => Ok(text.into_owned()),
            _ => Err(wrong(name, "a string")),
        }
    }
}

impl Put for str {
    fn count(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        self.len() + 6
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

    fn size(&self) -> usize {
        self.as_str().size()
    }

    fn put<W: Writer>(&self, writer: &mut W, format: Format) -> Result<(), Misuse> {
        self.as_str().put(writer, format)
    }
}

impl Get for Dict {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        let token = elements.required(name)?;
        elements.dict(token, name)
    }
}

impl Put for Dict {
    fn count(&self) -> usize {
        1
    }

    fn size(&self) -> usize {
        dict_size(self)
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        write_dict(writer, self);
        Ok(())
    }
}

/// A dictionary at the end that may be missing.
impl Get for Option<Dict> {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        if !elements.next()? {
            return Ok(None);
        }
        match elements.reader.token()? {
            Token::Null => Ok(None),
            token => elements.dict(token, name).map(Some),
        }
    }
}

impl Put for Option<Dict> {
    fn count(&self) -> usize {
        usize::from(self.is_some())
    }

    fn size(&self) -> usize {
        self.as_ref().map_or(0, dict_size)
    }

    fn put<W: Writer>(&self, writer: &mut W, _format: Format) -> Result<(), Misuse> {
        if let Some(dict) = self {
            write_dict(writer, dict);
        }
        Ok(())
    }
}

impl Get for Content {
    fn read_from<'a, R: Reader<'a>>(elements: &mut Elements<'a, R>, name: &str) -> Result<Self, Violation> {
        elements.payload(name)
    }
}

impl Put for Content {
    fn count(&self) -> usize {
        match self {
            Self::Arguments(Arguments { kwargs, .. }) if !kwargs.is_empty() => 2,
            Self::Arguments(Arguments { args, .. }) => usize::from(!args.is_empty()),
            Self::Opaque(_) | Self::Body(_) => 1,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Arguments(arguments) => arguments.args.len() + arguments.kwargs.len() + 4,
            Self::Opaque(bytes) => bytes.len() / 3 * 4 + 14,
            Self::Body(_) => 0,
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
            Self::Body(_) => return Err(Misuse::Body),
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

            fn size(&self) -> usize {
                0 $(+ self.$index.size())*
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
