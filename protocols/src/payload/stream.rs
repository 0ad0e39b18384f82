//! A value as a stream of its parts, which every encoding here can read and write.
//!
//! A reader calls a [`Sink`] once for each scalar and at both ends of each container. There is no
//! tree between them, so what a conversion holds is its output and one word for each open container.

use std::io;

use super::{Format, Limits, Unconvertible};

/// Which container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Map,
}

/// Where in its container a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    FirstElement,
    NextElement,
    FirstKey,
    NextKey,
    /// After its key.
    MapValue,
}

impl Place {
    pub(super) fn is_key(self) -> bool {
        matches!(self, Place::FirstKey | Place::NextKey)
    }

    /// The place of the `index`th element of an array.
    pub(super) fn element(index: u64) -> Place {
        if index == 0 { Place::FirstElement } else { Place::NextElement }
    }

    /// The place of the `index`th key of a map.
    pub(super) fn key(index: u64) -> Place {
        if index == 0 { Place::FirstKey } else { Place::NextKey }
    }
}

/// A value that contains no other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Right in its own encoding, and in no other.
    Foreign(Unconvertible),
}

/// What takes a value in parts.
pub(super) trait Sink {
    fn scalar(&mut self, place: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible>;

    /// `entries` counts elements or key-value pairs, where the encoding announces them.
    fn begin(&mut self, place: Place, kind: Kind, entries: Option<u64>) -> Result<(), Unconvertible>;

    /// `entries` is what there really was.
    fn end(&mut self, kind: Kind, entries: u64) -> Result<(), Unconvertible>;
}

/// A sink that only lets the reader check.
pub(super) struct Discard;

impl Sink for Discard {
    fn scalar(&mut self, _: Place, _: Scalar<'_>) -> Result<(), Unconvertible> {
        Ok(())
    }

    fn begin(&mut self, _: Place, _: Kind, _: Option<u64>) -> Result<(), Unconvertible> {
        Ok(())
    }

    fn end(&mut self, _: Kind, _: u64) -> Result<(), Unconvertible> {
        Ok(())
    }
}

/// What a value has to be where it is going to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Any,
    Array,
    /// A map, each of whose keys is text.
    TextMap,
}

/// Holds a value to what is expected of it, on its way to `sink`.
pub(super) struct Expecting<'s> {
    pub(super) sink: &'s mut dyn Sink,
    pub(super) expect: Expect,
    depth: usize,
}

impl<'s> Expecting<'s> {
    pub(super) fn new(sink: &'s mut dyn Sink, expect: Expect) -> Self {
        Expecting { sink, expect, depth: 0 }
    }

    fn admit(&self, place: Place, kind: Option<Kind>, is_text: bool) -> Result<(), Unconvertible> {
        match self.expect {
            Expect::Array if place == Place::Root && kind != Some(Kind::Array) => {
                Err(Unconvertible::NotAnArray)
            }
            Expect::TextMap if place == Place::Root && kind != Some(Kind::Map) => Err(Unconvertible::NotAMap),
            Expect::TextMap if self.depth == 1 && place.is_key() && !is_text => {
                Err(Unconvertible::KeyNotText)
            }
            Expect::Any | Expect::Array | Expect::TextMap => Ok(()),
        }
    }
}

impl Sink for Expecting<'_> {
    fn scalar(&mut self, place: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible> {
        self.admit(place, None, matches!(scalar, Scalar::Text(_)))?;
        self.sink.scalar(place, scalar)
    }

    fn begin(&mut self, place: Place, kind: Kind, entries: Option<u64>) -> Result<(), Unconvertible> {
        self.admit(place, Some(kind), false)?;
        self.depth += 1;
        self.sink.begin(place, kind, entries)
    }

    fn end(&mut self, kind: Kind, entries: u64) -> Result<(), Unconvertible> {
        self.depth -= 1;
        self.sink.end(kind, entries)
    }
}

/// The limits of one reading, as far as they are used up.
pub(super) struct Budget {
    limits: Limits,
    elements: usize,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        Budget { limits: *limits, elements: 0 }
    }

    /// Counts a value. Its key, if it has one, counts with it.
    pub(super) fn spend(&mut self, place: Place) -> Result<(), Unconvertible> {
        self.elements += usize::from(!place.is_key());
        if self.elements > self.limits.elements_max {
            return Err(Unconvertible::TooMany { max: self.limits.elements_max });
        }
        Ok(())
    }

    /// Asks for one container more inside `depth` open ones.
    pub(super) fn descend(&self, depth: usize) -> Result<(), Unconvertible> {
        if depth >= self.limits.depth_max {
            return Err(Unconvertible::TooDeep { max: self.limits.depth_max });
        }
        Ok(())
    }
}

/// The containers open around the next value, outermost first. Takes the place of recursion.
pub(super) struct Nest {
    levels: Vec<Level>,
    budget: Budget,
    format: Format,
}

struct Level {
    kind: Kind,
    /// Keys and values counted apart; absent where a break ends the container.
    announced: Option<u64>,
    seen: u64,
}

impl Nest {
    pub(super) fn new(format: Format, limits: &Limits) -> Self {
        Nest { levels: Vec::new(), budget: Budget::new(limits), format }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Takes the next place.
    pub(super) fn take(&mut self) -> Result<Place, Unconvertible> {
        let place = match self.levels.last_mut() {
            None => Place::Root,
            Some(level) => {
                let index = level.seen;
                level.seen += 1;
                match level.kind {
                    Kind::Array => Place::element(index),
                    Kind::Map if index % 2 == 0 => Place::key(index),
                    Kind::Map => Place::MapValue,
                }
            }
        };
        self.budget.spend(place)?;
        Ok(place)
    }

    /// Opens a container with `rest` bytes of input left: an entry takes a byte at least, so that an
    /// announcement above that is a lie, known before anything is done for it.
    pub(super) fn open(
        &mut self,
        kind: Kind,
        entries: Option<u64>,
        rest: usize,
    ) -> Result<(), Unconvertible> {
        self.budget.descend(self.levels.len())?;
        let announced = match (kind, entries) {
            (_, None) => None,
            (Kind::Array, Some(entries)) => Some(entries),
            (Kind::Map, Some(entries)) => Some(entries.saturating_mul(2)),
        };
        if announced.is_some_and(|items| items > rest as u64) {
            return Err(Unconvertible::Malformed { format: self.format });
        }
        self.levels.push(Level { kind, announced, seen: 0 });
        Ok(())
    }

    /// Whether only a break ends the innermost container.
    pub(super) fn awaits_break(&self) -> bool {
        self.levels.last().is_some_and(|level| level.announced.is_none())
    }

    /// Ends the innermost container by a break.
    pub(super) fn break_off(&mut self) -> Result<(Kind, u64), Unconvertible> {
        match self.levels.pop() {
            Some(level) if level.kind == Kind::Array || level.seen % 2 == 0 => Ok(level.closed()),
            Some(_) | None => Err(Unconvertible::Malformed { format: self.format }),
        }
    }

    /// Ends the innermost container, if it has all that it announced.
    pub(super) fn close_complete(&mut self) -> Option<(Kind, u64)> {
        self.levels.pop_if(|level| level.announced == Some(level.seen)).map(|level| level.closed())
    }
}

impl Level {
    fn closed(&self) -> (Kind, u64) {
        match self.kind {
            Kind::Array => (Kind::Array, self.seen),
            Kind::Map => (Kind::Map, self.seen / 2),
        }
    }
}

/// Output with an upper bound.
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    bytes_max: usize,
}

impl Buffer {
    /// For the conversion of an input of `input_bytes`.
    pub(super) fn new(input_bytes: usize, limits: &Limits) -> Self {
        let bytes_max =
            input_bytes.saturating_mul(limits.expansion_max).saturating_add(limits.expansion_free_bytes);
        Buffer { bytes: Vec::with_capacity(input_bytes.min(bytes_max)), bytes_max }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Unconvertible> {
        if bytes.len() > self.bytes_max - self.bytes.len() {
            return Err(self.full());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The only error that writing here can end in.
    pub(super) fn full(&self) -> Unconvertible {
        Unconvertible::TooLarge { max: self.bytes_max }
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(|_| io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Heads of containers in an encoding that announces lengths, written when the length is not yet known.
///
/// One byte is kept free for the head, which is enough for a small container. A large one is noted, and
/// its head put in at the end, all in one copy: each byte moves once, however deep it lies.
#[derive(Default)]
pub(super) struct Heads {
    /// Where each open container of unknown length begins; nothing for one of known length.
    open: Vec<Option<usize>>,
    long: Vec<(usize, Head)>,
}

/// The head of a container, at most nine bytes long.
#[derive(Clone, Copy)]
pub(super) struct Head {
    bytes: [u8; 9],
    len: u8,
}

impl Head {
    pub(super) fn new(head: &[u8]) -> Self {
        let mut bytes = [0; 9];
        bytes[..head.len()].copy_from_slice(head);
        Head { bytes, len: head.len() as u8 }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Heads {
    /// Begins a container, with its head if that is known.
    pub(super) fn begin(&mut self, out: &mut Buffer, head: Option<Head>) -> Result<(), Unconvertible> {
        match head {
            Some(head) => {
                self.open.push(None);
                out.put(head.as_slice())
            }
            None => {
                self.open.push(Some(out.bytes.len()));
                out.put(&[0])
            }
        }
    }

    /// Ends the innermost container. `head` is asked only where it was not known.
    pub(super) fn end(
        &mut self,
        out: &mut Buffer,
        head: impl FnOnce() -> Result<Head, Unconvertible>,
    ) -> Result<(), Unconvertible> {
        if let Some(at) = self.open.pop().flatten() {
            match head()?.as_slice() {
                [byte] => out.bytes[at] = *byte,
                long => self.long.push((at, Head::new(long))),
            }
        }
        Ok(())
    }

    /// The whole output, with the long heads in their places.
    pub(super) fn finish(mut self, out: Buffer) -> Result<Vec<u8>, Unconvertible> {
        if self.long.is_empty() {
            return Ok(out.bytes);
        }
        self.long.sort_unstable_by_key(|(at, _)| *at);
        let grown: usize = self.long.iter().map(|(_, head)| usize::from(head.len) - 1).sum();
        if grown > out.bytes_max - out.bytes.len() {
            return Err(out.full());
        }
        let mut whole = Vec::with_capacity(out.bytes.len() + grown);
        let mut from = 0;
        for (at, head) in &self.long {
            whole.extend_from_slice(&out.bytes[from..*at]);
            whole.extend_from_slice(head.as_slice());
            from = at + 1;
        }
        whole.extend_from_slice(&out.bytes[from..]);
        Ok(whole)
    }
}

/// A reader of one of the binary encodings, over `'a` bytes.
pub(super) trait Reader<'a> {
    /// Reads one value and leaves what follows it.
    fn value(&mut self, sink: &mut dyn Sink, limits: &Limits) -> Result<(), Unconvertible>;

    /// Reads the head of a container, past any tags; nothing if the value is none.
    fn container(&mut self) -> Result<Option<(Kind, Option<u64>)>, Unconvertible>;

    /// Takes the end of a container that announced no length, if it is here.
    fn take_break(&mut self) -> bool;

    /// What is not yet read.
    fn rest(&self) -> &'a [u8];
}
