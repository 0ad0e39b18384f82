//! Frames from bytes and bytes from frames.
//!
//! ```text
//! stream  = *( EOL / NUL / frame )
//! frame   = command EOL *( header EOL ) EOL *OCTET NUL
//! header  = name ":" value
//! EOL     = [ CR ] LF         in 1.2 and in opening frames; LF in 1.0 and 1.1
//! ```
//!
//! Where the specifications are silent, or the world does not follow them:
//!
//! - Opening frames (CONNECT, STOMP, CONNECTED) are in no version yet: CR LF is an end of line in them, and a
//!   backslash is a backslash.
//! - Between frames CR LF and stray NULs are skipped in every version. An end of line there is a heart-beat.
//! - A value may hold colons and may be empty, a name may not be empty. A NUL in a header is an error: a
//!   reader that searches for the end of the frame would find it there.
//! - In 1.2 a CR that no LF follows is an error, in 1.0 and 1.1 it is data.
//! - 1.0 pads values with leading blanks, which are dropped; those of CONNECT by [`state::accept`], once the
//!   version is known.
//! - Of repeated headers the first one counts, but every `content-length` must be a number within the limit.
//! - A body where none may be is skipped in 1.0 and 1.1 and an error in 1.2.
//! - Headers are UTF-8.
//!
//! What is written arrives as it was or not at all: a header that a version has no way to write (CR in 1.1,
//! CR or LF in 1.0 and in opening frames, NUL anywhere) is left out, never written raw or changed. Only
//! leading blanks of a value are lost on a 1.0 reader that takes them for padding.
//!
//! [`state::accept`]: crate::stomp::state::accept

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use memchr::{memchr, memchr2};
use nom::bytes::complete::{tag, take_until};
use nom::combinator::rest;
use nom::sequence::{separated_pair, terminated};
use nom::{IResult, Parser};

use crate::stomp::error::{Reason, Violation, quote};
use crate::stomp::frame::{Command, Frame, Side, Version};
use crate::stomp::headers::{Ends, Headers, trimmed};

/// What is sent when there is nothing to say.
pub const HEART_BEAT: &[u8] = b"\n";

/// Octets of a command. The longest one has eleven; what is longer is not STOMP.
pub const COMMAND_BYTES_MAX: usize = 16;

/// What a reader accepts. It refuses what is larger before it makes room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Headers of a frame.
    pub headers_max: u32,
    /// Headers of a frame that opens a connection.
    pub opening_headers_max: u32,
    /// Octets of one header line, without its end.
    pub header_line_bytes_max: u32,
    /// Octets of all header lines, with their ends.
    pub header_block_bytes_max: u32,
    /// Octets of a body.
    pub body_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers_max: 64,
            opening_headers_max: 32,
            header_line_bytes_max: 8 << 10,
            header_block_bytes_max: 32 << 10,
            body_bytes_max: 1 << 20,
        }
    }
}

/// What bytes mean, which is what the versions differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grammar {
    /// Before a version was agreed on.
    Opening,
    V10,
    V11,
    V12,
}

impl Grammar {
    const fn of(version: Version) -> Self {
        match version {
            Version::V10 => Self::V10,
            Version::V11 => Self::V11,
            Version::V12 => Self::V12,
        }
    }

    const fn has_crlf(self) -> bool {
        matches!(self, Self::Opening | Self::V12)
    }

    const fn has_escapes(self) -> bool {
        matches!(self, Self::V11 | Self::V12)
    }

    /// The letter that stands for an octet after a backslash.
    const fn escape(self, octet: u8) -> Option<u8> {
        match (self, octet) {
            (Self::Opening | Self::V10, _) => None,
            (_, b'\n') => Some(b'n'),
            (_, b':') => Some(b'c'),
            (_, b'\\') => Some(b'\\'),
            (Self::V12, b'\r') => Some(b'r'),
            _ => None,
        }
    }

    /// The octet that a letter after a backslash stands for.
    fn unescape(self, letter: u8) -> Option<u8> {
        [b'\n', b':', b'\\', b'\r'].into_iter().find(|octet| self.escape(*octet) == Some(letter))
    }

    /// Whether an octet may mean something else than itself in some version.
    #[inline]
    const fn is_special(octet: u8) -> bool {
        SPECIAL[octet as usize]
    }

    /// Whether a name and a value can be written so that exactly they are read.
    fn can_write(self, name: &str, value: &str) -> bool {
        let raw = |octet| self.escape(octet).is_none();
        let fits = |text: &str| text.bytes().all(|octet| !matches!(octet, b'\n' | b'\r' | 0) || !raw(octet));
        !name.is_empty() && fits(name) && fits(value) && !(raw(b':') && name.contains(':'))
    }
}

/// Those octets that may mean something else than themselves.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut at = 0;
    while at < 256 {
        special[at] = matches!(at as u8, b'\n' | b'\r' | b':' | b'\\' | 0);
        at += 1;
    }
    special
};

// ---------------------------------------------------------------------------------------------- reading

/// What a [`Decoder`] finds in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// So many ends of line between frames.
    HeartBeats(usize),
}

/// Reads frames from chunks of any size, be they what TCP handed over or the messages of a WebSocket.
///
/// Between frames it owns no heap. No octet is looked at more than twice, however the frames are cut. After an error
/// nothing can be read any more.
///
/// ```
/// use bytes::Bytes;
/// use tandem_protocols::stomp::codec::{Decoder, Item, Limits};
/// use tandem_protocols::stomp::frame::{Command, Frame, Side};
///
/// let mut decoder = Decoder::new(Side::Server, Limits::default());
/// let mut input = Bytes::from_static(b"\nCONNECT\naccept-version:1.2\n\n\0SEND\ndest");
/// assert_eq!(decoder.decode(&mut input)?, Some(Item::HeartBeats(1)));
/// let connect = Frame::new(Command::Connect).with("accept-version", "1.2");
/// assert_eq!(decoder.decode(&mut input)?, Some(Item::Frame(connect)));
/// // The rest stays in `input` until the next call, so that the version can be set in between.
/// decoder.set_version(tandem_protocols::stomp::frame::Version::V12);
/// assert_eq!(decoder.decode(&mut input)?, None);
/// # Ok::<(), tandem_protocols::stomp::error::Violation>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    stage: Stage,
    limits: Arc<Limits>,
    grammar: Grammar,
    side: Side,
}

const _: () = assert!(size_of::<Decoder>() <= 32, "every idle connection has one");

/// How far the reader is. What a frame needs is on the heap, and only while the frame is incomplete.
#[derive(Debug)]
enum Stage {
    /// Between frames, perhaps in the middle of a CR LF.
    Between { cr: bool },
    /// In the first line.
    Command(Box<Line>),
    /// In the headers, up to the empty line.
    Head(Box<Head>),
    /// After the empty line, up to the NUL.
    Body(Box<Body>),
    /// After an error.
    Failed,
}

impl Decoder {
    /// A reader of what is sent to `side`, before a version is agreed on. Many may share their limits.
    pub fn new(side: Side, limits: impl Into<Arc<Limits>>) -> Self {
        Self { stage: Stage::Between { cr: false }, limits: limits.into(), grammar: Grammar::Opening, side }
    }

    /// Sets the version of all that follows the opening frame.
    pub const fn set_version(&mut self, version: Version) {
        self.grammar = Grammar::of(version);
    }

    /// Sets the limits for what is read from now on.
    pub fn set_limits(&mut self, limits: impl Into<Arc<Limits>>) {
        self.limits = limits.into();
    }

    /// Octets of heap that an incomplete frame takes, not counting fixed sizes.
    pub fn buffered_bytes(&self) -> usize {
        match &self.stage {
            Stage::Between { .. } | Stage::Command(_) | Stage::Failed => 0,
            Stage::Head(head) => head.block.capacity(),
            Stage::Body(body) => body.octets.capacity() + body.frame.headers.text_bytes(),
        }
    }

    /// Whether a frame has begun and not ended.
    pub const fn is_inside_frame(&self) -> bool {
        matches!(self.stage, Stage::Command(_) | Stage::Head(_) | Stage::Body(_))
    }

    /// Takes the next frame or heart-beats off the input. `None` means that all input was taken.
    ///
    /// The body of a frame that lies whole in `input` is a slice of it.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Item>, Violation> {
        self.decode_with(input, &mut Headers::new())
    }

    /// The same, in the memory of headers that are not needed any more, if it is of use.
    pub fn decode_with(&mut self, input: &mut Bytes, spare: &mut Headers) -> Result<Option<Item>, Violation> {
        if matches!(self.stage, Stage::Between { cr: false }) {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(frame) = self.whole(input, spare) {
                return Ok(Some(Item::Frame(frame)));
            }
            spare.clear();
        }
        match mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Between { cr } => self.between(cr, input),
            Stage::Command(line) => self.command(*line, input),
            Stage::Head(head) => self.head(*head, input),
            Stage::Body(body) => self.body(*body, input),
            Stage::Failed => Err(Violation::new(Reason::BadFrame, "nothing can be read after an error")),
        }
    }

    /// How long a body may be in a frame that the next octet begins, if it can begin one.
    pub(super) fn next_body_bytes_max(&self) -> Option<usize> {
        let is_between = matches!(self.stage, Stage::Between { cr: false });
        is_between.then_some(self.limits.body_bytes_max as usize)
    }

    /// Takes a frame that lies whole at the beginning of the input and is like most: in a version with escapes, but
    /// without any, and its lines end without CR. All else, and whatever is wrong, is left to those that go step by
    /// step.
    fn whole(&self, input: &mut Bytes, spare: &mut Headers) -> Option<Frame> {
        if !self.grammar.has_escapes() {
            return None;
        }
        let line = input.iter().take(COMMAND_BYTES_MAX).position(|octet| *octet == b'\n')?;
        let command = Command::from_name(&input[..line])?;
        if self.objection(command).is_some() {
            return None;
        }
        let head = line + 1;
        spare.clear();
        let (length, block) = whole_headers(&input[head..], &self.limits, spare)?;
        let start = head + block + 1;
        let rest = input.get(start..)?;
        let body_bytes = match length {
            Some(length) => length,
            None => memchr(0, rest)?,
        };
        let most = if command.may_have_body() { self.limits.body_bytes_max as usize } else { 0 };
        if body_bytes > most || rest.get(body_bytes) != Some(&0) {
            return None;
        }
        spare.lay(str::from_utf8(&input[head..head + block]).ok()?);
        let headers = mem::take(spare);
        let ends_here = rest.len() == body_bytes + 1;
        input.advance(start);
        let body = if body_bytes == 0 {
            input.advance(1);
            Bytes::new()
        } else if ends_here {
            let mut body = mem::take(input);
            body.truncate(body_bytes);
            body
        } else {
            let body = input.split_to(body_bytes);
            input.advance(1);
            body
        };
        Some(Frame { command, headers, body })
    }

    fn between(&mut self, mut cr: bool, input: &mut Bytes) -> Result<Option<Item>, Violation> {
        let (mut taken, mut beats) = (0, 0);
        for octet in input.iter() {
            match (octet, cr) {
                (b'\n', _) => (beats, cr) = (beats + 1, false),
                (_, true) => break,
                (b'\r', false) => cr = true,
                (0, false) => {}
                _ => break,
            }
            taken += 1;
        }
        input.advance(taken);
        if beats > 0 || input.is_empty() {
            self.stage = Stage::Between { cr };
            return Ok((beats > 0).then_some(Item::HeartBeats(beats)));
        }
        if cr {
            return Err(lone_cr());
        }
        self.command(Line::default(), input)
    }

    fn command(&mut self, mut line: Line, input: &mut Bytes) -> Result<Option<Item>, Violation> {
        let Some(name) = line.feed(input)? else {
            self.stage = Stage::Command(Box::new(line));
            return Ok(None);
        };
        let name = match name.strip_suffix(b"\r") {
            Some(name) if self.grammar.has_crlf() => name,
            _ => name,
        };
        let unknown = || Violation::new(Reason::BadCommand, format!("{} is not a command", quote(name)));
        let command = Command::from_name(name).ok_or_else(unknown)?;
        self.permit(command)?;
        self.head(Head::new(command), input)
    }

    /// Refuses a frame as soon as its first line is known, before its headers and body cost anything.
    fn permit(&self, command: Command) -> Result<(), Violation> {
        match self.objection(command) {
            Some(why) => Err(Violation::new(Reason::BadCommand, format!("{command} {why}"))),
            None => Ok(()),
        }
    }

    /// Why there can be no frame with that command now.
    fn objection(&self, command: Command) -> Option<&'static str> {
        if command.sender() == self.side {
            return Some("goes the other way");
        }
        match self.grammar {
            Grammar::Opening if command.is_opening() || command == Command::Error => None,
            Grammar::Opening => Some("cannot be the first frame"),
            Grammar::V10 | Grammar::V11 | Grammar::V12 if command.is_opening() => {
                Some("can only be the first frame")
            }
            Grammar::V10 | Grammar::V11 | Grammar::V12 => None,
        }
    }

    fn head(&mut self, mut head: Head, input: &mut Bytes) -> Result<Option<Item>, Violation> {
        let Some((headers, length)) = head.feed(input, self.grammar, &self.limits)? else {
            self.stage = Stage::Head(Box::new(head));
            return Ok(None);
        };
        let frame = Frame { command: head.command, headers, body: Bytes::new() };
        self.body(Body { frame, length, passed: 0, octets: Vec::new() }, input)
    }

    fn body(&mut self, mut body: Body, input: &mut Bytes) -> Result<Option<Item>, Violation> {
        if !body.frame.command.may_have_body() {
            body.skip(input, self.grammar, &self.limits)?;
        } else if let Some(length) = body.length {
            body.take(length, input);
        } else {
            body.take_to_nul(input, &self.limits)?;
        }
        match input.first() {
            None => {
                self.stage = Stage::Body(Box::new(body));
                Ok(None)
            }
            Some(0) => {
                input.advance(1);
                self.stage = Stage::Between { cr: false };
                Ok(Some(Item::Frame(body.finish())))
            }
            Some(_) => {
                let detail = "the body is longer than content-length says";
                Err(Violation::new(Reason::BadFrame, detail))
            }
        }
    }
}

fn lone_cr() -> Violation {
    Violation::new(Reason::BadFrame, "a CR is not followed by LF")
}

fn nul_in_head() -> Violation {
    Violation::new(Reason::BadFrame, "a NUL before the end of the headers")
}

/// The first line of a frame, as far as it was read; room for a CR is in it.
#[derive(Debug, Default)]
struct Line {
    octets: [u8; COMMAND_BYTES_MAX + 1],
    used: u8,
}

impl Line {
    /// Takes the rest of the line. `None`: it goes on in the next chunk.
    fn feed(&mut self, input: &mut Bytes) -> Result<Option<&[u8]>, Violation> {
        let used = usize::from(self.used);
        let room = self.octets.len() - used;
        let window = &input[..input.len().min(room + 1)];
        let end = memchr2(b'\n', 0, window);
        let part = &window[..end.unwrap_or(window.len())];
        if part.len() > room {
            let detail = format!("a command cannot begin with {}", quote(&self.octets));
            return Err(Violation::new(Reason::BadCommand, detail));
        }
        self.octets[used..used + part.len()].copy_from_slice(part);
        let used = used + part.len();
        self.used = used as u8;
        if end.is_some_and(|end| window[end] == 0) {
            return Err(nul_in_head());
        }
        input.advance(end.map_or(part.len(), |end| end + 1));
        Ok(end.map(|_| &self.octets[..used]))
    }
}

/// The headers of a frame, as far as they were read.
#[derive(Debug)]
struct Head {
    command: Command,
    /// Earlier chunks, from the line after the command on.
    block: Vec<u8>,
    /// Header lines that have ended.
    lines: u32,
    /// Octets of the line that has not, and whether the last one is a CR.
    line_bytes: usize,
    line_cr: bool,
}

impl Head {
    const fn new(command: Command) -> Self {
        Self { command, block: Vec::new(), lines: 0, line_bytes: 0, line_cr: false }
    }

    /// Takes header lines up to the empty one. `None`: they go on in the next chunk.
    fn feed(
        &mut self,
        input: &mut Bytes,
        grammar: Grammar,
        limits: &Limits,
    ) -> Result<Option<(Headers, Option<usize>)>, Violation> {
        let Some(end) = self.scan(input, grammar, limits)? else {
            self.block.extend_from_slice(input);
            input.clear();
            return Ok(None);
        };
        let part = &input[..end];
        let block = if self.block.is_empty() {
            part
        } else {
            self.block.extend_from_slice(part);
            &self.block
        };
        let headers = parse_headers(block, self.lines, grammar, limits)?;
        input.advance(end);
        Ok(Some(headers))
    }

    /// Where the empty line ends, if it does in this chunk. Looks at no octet twice and checks every limit.
    fn scan(&mut self, chunk: &[u8], grammar: Grammar, limits: &Limits) -> Result<Option<usize>, Violation> {
        let too_large = |what| Err(Violation::new(Reason::FrameTooLarge, what));
        let lines_max =
            if self.command.is_opening() { limits.opening_headers_max } else { limits.headers_max };
        let mut start = 0;
        loop {
            let rest = &chunk[start..];
            let end = memchr2(b'\n', 0, rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            self.line_bytes += part.len();
            self.line_cr = part.last().map_or(self.line_cr, |octet| *octet == b'\r');
            let has_cr = grammar.has_crlf() && self.line_cr;
            if self.line_bytes - usize::from(has_cr) > limits.header_line_bytes_max as usize {
                return too_large("a header is too long");
            }
            if self.block.len() + start + part.len() > limits.header_block_bytes_max as usize {
                return too_large("the headers are too long");
            }
            let Some(end) = end else { return Ok(None) };
            if rest[end] == 0 {
                return Err(nul_in_head());
            }
            start += end + 1;
            if self.line_bytes == usize::from(has_cr) {
                return Ok(Some(start));
            }
            self.lines += 1;
            if self.lines > lines_max {
                return too_large("there are too many headers");
            }
            (self.line_bytes, self.line_cr) = (0, false);
        }
    }
}

/// `*( header LF ) LF` at the beginning of `rest`, with nothing in it that stands for something else: notes where the
/// names and values lie; what `content-length` says, and where the empty line begins. `None` if it is anything else.
fn whole_headers(rest: &[u8], limits: &Limits, headers: &mut Headers) -> Option<(Option<usize>, usize)> {
    let (mut length, mut start, mut colon) = (None, 0, None);
    for place in special_places(rest) {
        match (rest[place], colon) {
            (b':', None) if place > start => colon = Some(place),
            (b':', Some(_)) => {}
            (b'\n', Some(name_end)) => {
                let (name, value) = (&rest[start..name_end], &rest[name_end + 1..place]);
                let line_max = limits.header_line_bytes_max as usize;
                if place - start > line_max || headers.len() >= limits.headers_max as usize {
                    return None;
                }
                if name == b"content-length" {
                    let this = content_length(str::from_utf8(value).ok()?, limits).ok()?;
                    length.get_or_insert(this);
                }
                let ends = Ends { name: u32::try_from(name_end).ok()?, value: u32::try_from(place).ok()? };
                headers.note(name, ends);
                (start, colon) = (place + 1, None);
            }
            (b'\n', None) if place == start => {
                let within = start <= limits.header_block_bytes_max as usize;
                return within.then_some((length, start));
            }
            _ => return None,
        }
    }
    None
}

/// Where the special octets are, in order. Looks at eight at a time, as few are.
fn special_places(octets: &[u8]) -> impl Iterator<Item = usize> {
    let (words, rest) = octets.as_chunks::<8>();
    let in_words = words.iter().enumerate().flat_map(|(at, word)| {
        let mut found = special_in(u64::from_le_bytes(*word));
        std::iter::from_fn(move || {
            let bit = (found != 0).then(|| found.trailing_zeros())?;
            found &= found - 1;
            Some(at * 8 + bit as usize / 8)
        })
        .filter(|place| Grammar::is_special(octets[*place]))
    });
    let before = octets.len() - rest.len();
    in_words.chain((before..octets.len()).filter(|place| Grammar::is_special(octets[*place])))
}

/// The highest bit of each octet that is special, and perhaps of some that are not.
const fn special_in(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    let colon = word ^ (ONES * b':' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let colon = colon.wrapping_sub(ONES) & !colon;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | colon | backslash) & (ONES << 7)
}

/// `*( header EOL ) EOL`, of which it is known that it ends with the only empty line.
fn parse_headers(
    block: &[u8],
    count: u32,
    grammar: Grammar,
    limits: &Limits,
) -> Result<(Headers, Option<usize>), Violation> {
    // Most blocks have neither, and then no line needs to be searched for them.
    let crs = grammar.has_crlf() && memchr(b'\r', block).is_some();
    let escapes = (grammar.has_escapes() && memchr(b'\\', block).is_some()).then_some(grammar);
    let mut headers = Headers::with_capacity(count as usize, block.len());
    let mut length = None;
    let mut block = block;
    for _ in 0..count {
        let (after, line) = line(block).map_err(|_| no_colon(block))?;
        block = after;
        let line = if crs { without_cr(line)? } else { line };
        let (_, (name, value)) = header(line).map_err(|_| no_colon(line))?;
        if name.is_empty() {
            return Err(Violation::new(Reason::BadFrame, "a header has no name"));
        }
        let (name, value) = (text(name, escapes)?, text(value, escapes)?);
        let value = if grammar == Grammar::V10 { trimmed(&value) } else { &*value };
        headers.push(&name, value);
        if name == "content-length" {
            let value = if grammar == Grammar::Opening { trimmed(value) } else { value };
            let this = content_length(value, limits)?;
            length.get_or_insert(this);
        }
    }
    Ok((headers, length))
}

fn line(input: &[u8]) -> IResult<&[u8], &[u8]> {
    terminated(take_until("\n"), tag("\n")).parse(input)
}

fn header(line: &[u8]) -> IResult<&[u8], (&[u8], &[u8])> {
    separated_pair(take_until(":"), tag(":"), rest).parse(line)
}

/// A line that may end with a CR, and may have none elsewhere.
fn without_cr(line: &[u8]) -> Result<&[u8], Violation> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if memchr(b'\r', line).is_some() { Err(lone_cr()) } else { Ok(line) }
}

fn no_colon(line: &[u8]) -> Violation {
    Violation::new(Reason::BadFrame, format!("{} is not a header", quote(line)))
}

/// A name or a value, without the escapes that the grammar has, if they are to be looked for.
fn text(raw: &[u8], escapes: Option<Grammar>) -> Result<Cow<'_, str>, Violation> {
    let bad = |why| Violation::new(Reason::BadFrame, format!("{} in a header {why}", quote(raw)));
    let raw_text = str::from_utf8(raw).map_err(|_| bad("is not UTF-8"))?;
    let Some(grammar) = escapes.filter(|_| raw.contains(&b'\\')) else {
        return Ok(Cow::Borrowed(raw_text));
    };
    let mut plain = String::with_capacity(raw.len());
    let mut pieces = raw_text.split('\\');
    plain.extend(pieces.next());
    while let Some(piece) = pieces.next() {
        let octet = piece.bytes().next().and_then(|letter| grammar.unescape(letter));
        match (octet, piece) {
            (Some(octet), _) => {
                plain.push(char::from(octet));
                plain.push_str(&piece[1..]);
            }
            // Two backslashes: `split` found nothing between them.
            (None, "") => match pieces.next() {
                Some(after) => {
                    plain.push('\\');
                    plain.push_str(after);
                }
                None => return Err(bad("ends with a backslash")),
            },
            (None, _) => return Err(bad("has an escape that this version does not know")),
        }
    }
    Ok(Cow::Owned(plain))
}

/// Digits, nothing else, of a number within the limit.
fn content_length(value: &str, limits: &Limits) -> Result<usize, Violation> {
    if value.is_empty() || !value.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Violation::invalid_header("content-length", value));
    }
    // Digits fail to be a number only by being too many.
    match value.parse::<u32>() {
        Ok(length) if length <= limits.body_bytes_max => Ok(length as usize),
        Ok(_) | Err(_) => Err(body_too_large(limits)),
    }
}

fn body_too_large(limits: &Limits) -> Violation {
    let detail = format!("a body has at most {} octets", limits.body_bytes_max);
    Violation::new(Reason::FrameTooLarge, detail)
}

/// A frame that lacks the rest of its body.
#[derive(Debug)]
struct Body {
    frame: Frame,
    /// What `content-length` says.
    length: Option<usize>,
    /// Octets that were skipped because no body may be here.
    passed: usize,
    /// Earlier chunks.
    octets: Vec<u8>,
}

impl Body {
    /// Takes what is missing of `length` octets.
    fn take(&mut self, length: usize, input: &mut Bytes) {
        let missing = length - self.octets.len() - self.frame.body.len();
        if missing == 0 {
            return;
        }
        if self.octets.is_empty() && input.len() > length {
            self.frame.body = input.split_to(length);
            return;
        }
        let part = input.len().min(missing);
        // Grows with what has come, not with what was announced.
        let wanted = (self.octets.len() + part).max(self.octets.capacity() * 2).min(length);
        self.octets.reserve_exact(wanted - self.octets.len());
        self.octets.extend_from_slice(&input[..part]);
        input.advance(part);
    }

    /// Takes all octets before the NUL.
    fn take_to_nul(&mut self, input: &mut Bytes, limits: &Limits) -> Result<(), Violation> {
        let nul = memchr(0, input);
        let part = nul.unwrap_or(input.len());
        if self.octets.len() + part > limits.body_bytes_max as usize {
            return Err(body_too_large(limits));
        }
        if nul.is_some() && self.octets.is_empty() && part > 0 {
            self.frame.body = input.split_to(part);
            return Ok(());
        }
        self.octets.extend_from_slice(&input[..part]);
        input.advance(part);
        Ok(())
    }

    /// Passes over a body that may not be here, or refuses it.
    fn skip(&mut self, input: &mut Bytes, grammar: Grammar, limits: &Limits) -> Result<(), Violation> {
        let part = match self.length {
            Some(length) => input.len().min(length - self.passed),
            None => memchr(0, input).unwrap_or(input.len()),
        };
        if grammar == Grammar::V12 && (part > 0 || self.length.is_some_and(|length| length > 0)) {
            let detail = format!("{} cannot have a body", self.frame.command);
            return Err(Violation::new(Reason::BadFrame, detail));
        }
        self.passed += part;
        if self.passed > limits.body_bytes_max as usize {
            return Err(body_too_large(limits));
        }
        input.advance(part);
        Ok(())
    }

    fn finish(self) -> Frame {
        if self.octets.is_empty() {
            return self.frame;
        }
        Frame { body: Bytes::from(self.octets.into_boxed_slice()), ..self.frame }
    }
}

// ---------------------------------------------------------------------------------------------- writing

/// A whole frame as bytes.
///
/// Headers that `version` cannot write are left out, as is a `content-length` of the caller's and a body
/// where none may be. An ERROR before a version was agreed on is written in 1.0.
pub fn encode(version: Version, frame: &Frame) -> Bytes {
    let Frame { command, headers, body } = frame;
    // Exactly, if nothing is left out and nothing needs an escape: then the bytes are where they are to stay.
    let lines = Encoder::command_bytes(*command) + headers.text_bytes() + 2 * headers.len();
    let mut out = Vec::with_capacity(lines + Encoder::end_bytes(*command, body.len()));
    let mut encoder = Encoder::begin(&mut out, version, *command);
    for (name, value) in headers.iter() {
        encoder.header(name, value);
    }
    encoder.finish(body);
    Bytes::from(out)
}

/// Writes a frame piece by piece.
///
/// A MESSAGE differs from receiver to receiver only in its first lines. Its tail is written once for each
/// version and shared; the head is written for each receiver. As the head comes first, and of repeated
/// headers the first one counts, nothing in the tail can override it.
///
/// ```
/// use tandem_protocols::stomp::codec::Encoder;
/// use tandem_protocols::stomp::frame::{Command, Version};
///
/// let mut out = Vec::new();
/// let mut tail = Encoder::resume(&mut out, Version::V12, Command::Message);
/// tail.header("destination", "/topic/a");
/// tail.finish(b"hello");
/// let tail = std::mem::take(&mut out);
///
/// let mut head = Encoder::begin(&mut out, Version::V12, Command::Message);
/// head.header("subscription", "0");
/// head.pause();
/// let head = out;
///
/// assert_eq!(head, b"MESSAGE\nsubscription:0\n");
/// assert_eq!(tail, b"destination:/topic/a\ncontent-length:5\n\nhello\0");
/// ```
#[derive(Debug)]
#[must_use = "a frame has an end"]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    grammar: Grammar,
    command: Command,
}

impl<'a> Encoder<'a> {
    /// Writes the first line.
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>, version: Version, command: Command) -> Self {
        out.extend_from_slice(command.as_str().as_bytes());
        out.push(b'\n');
        Self::resume(out, version, command)
    }

    /// Goes on where another writer of the same version and command has paused, or will.
    #[inline]
    pub fn resume(out: &'a mut Vec<u8>, version: Version, command: Command) -> Self {
        let grammar = if command.is_opening() { Grammar::Opening } else { Grammar::of(version) };
        Self { out, grammar, command }
    }

    /// The octets of the first line.
    #[inline]
    pub const fn command_bytes(command: Command) -> usize {
        command.as_str().len() + 1
    }

    /// The octets of a header in which nothing needs an escape.
    #[inline]
    pub const fn header_bytes(name: &str, value_bytes: usize) -> usize {
        name.len() + value_bytes + 2
    }

    /// The octets that [`known`](Self::known) and [`number`](Self::number) write if nothing needs an escape.
    #[inline]
    pub const fn known_bytes(begin: &str, value_bytes: usize) -> usize {
        begin.len() + value_bytes + 1
    }

    /// The octets that [`finish`](Self::finish) writes.
    pub fn end_bytes(command: Command, body_bytes: usize) -> usize {
        let body_bytes = if command.may_have_body() { body_bytes } else { 0 };
        let length =
            if has_length(command, body_bytes) { LENGTH.len() + decimals(body_bytes as u64) + 1 } else { 0 };
        length + body_bytes + 2
    }

    /// Writes a header, or answers `false` and leaves it out, because the version has no way to write it.
    ///
    /// `content-length` is always left out: it is written by [`finish`](Self::finish), which knows it. So are
    /// names that a careless reader could take for it.
    pub fn header(&mut self, name: &str, value: &str) -> bool {
        if is_length(name) || name.is_empty() {
            return false;
        }
        if !(is_plain(name) && is_plain(value)) {
            return self.put_escaped(name, value);
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b':');
        self.line(value);
        true
    }

    /// The same for a header of which it is known how it begins: with a name, a colon, and perhaps some of the value,
    /// and that this needs no escapes.
    #[inline]
    pub fn known(&mut self, begin: &'static str, value: &str) -> bool {
        debug_assert!(begin.split_once(':').is_some_and(|(name, value)| is_plain(name) && is_plain(value)));
        if !is_plain(value) {
            return self.put_known_escaped(begin, value);
        }
        self.out.extend_from_slice(begin.as_bytes());
        self.line(value);
        true
    }

    /// The same for a value that is a number.
    #[inline]
    pub fn number(&mut self, begin: &'static str, value: u64) {
        self.numbers(begin, [value]);
    }

    /// The same for one that is several, with hyphens between.
    #[inline]
    pub fn numbers<const N: usize>(&mut self, begin: &'static str, value: [u64; N]) {
        debug_assert!(begin.split_once(':').is_some_and(|(name, value)| is_plain(name) && is_plain(value)));
        self.out.extend_from_slice(begin.as_bytes());
        for (at, number) in value.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b'-');
            }
            self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        self.out.push(b'\n');
    }

    #[inline]
    fn line(&mut self, value: &str) {
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'\n');
    }

    #[cold]
    fn put_escaped(&mut self, name: &str, value: &str) -> bool {
        if !self.grammar.can_write(name, value) {
            return false;
        }
        self.escaped(name);
        self.out.push(b':');
        self.escaped(value);
        self.out.push(b'\n');
        true
    }

    #[cold]
    fn put_known_escaped(&mut self, begin: &'static str, value: &str) -> bool {
        // The name is fit, whatever it is.
        if !self.grammar.can_write("name", value) {
            return false;
        }
        self.out.extend_from_slice(begin.as_bytes());
        self.escaped(value);
        self.out.push(b'\n');
        true
    }

    fn escaped(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        let special = |octet: &u8| self.grammar.escape(*octet);
        while let Some((at, letter)) = rest.iter().enumerate().find_map(|(at, o)| Some((at, special(o)?))) {
            self.out.extend_from_slice(&rest[..at]);
            self.out.extend_from_slice(&[b'\\', letter]);
            rest = &rest[at + 1..];
        }
        self.out.extend_from_slice(rest);
    }

    /// Ends this piece in the middle of the headers.
    pub fn pause(self) {}

    /// Writes the length, the empty line, the body and the NUL.
    ///
    /// The length is written of every body and in every MESSAGE.
    #[inline]
    pub fn finish(self, body: &[u8]) {
        let body = if self.command.may_have_body() { body } else { &[] };
        if has_length(self.command, body.len()) {
            self.out.extend_from_slice(LENGTH.as_bytes());
            self.out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
            self.out.push(b'\n');
        }
        self.out.reserve_exact(body.len() + 2);
        self.out.push(b'\n');
        self.out.extend_from_slice(body);
        self.out.push(0);
    }
}

const LENGTH: &str = "content-length:";

#[inline]
fn has_length(command: Command, body_bytes: usize) -> bool {
    body_bytes > 0 || command == Command::Message
}

/// How many digits a number has.
#[inline]
pub fn decimals(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Whether nothing in a text means something else in any version.
#[inline]
pub(super) fn is_plain(text: &str) -> bool {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let is_special = |octets: &[u8]| octets.iter().any(|octet| Grammar::is_special(*octet));
    let mut words = words.iter();
    !(words.any(|word| special_in(u64::from_le_bytes(*word)) != 0 && is_special(word)) || is_special(rest))
}

/// Whether some reader takes the name for `content-length`: there are those that trim and ignore case.
fn is_length(name: &str) -> bool {
    name.len() >= "content-length".len() && name.trim().eq_ignore_ascii_case("content-length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three versions and the time before one is agreed on, as this file's tables name them.
    const OPEN: Option<Version> = None;
    const V10: Option<Version> = Some(Version::V10);
    const V11: Option<Version> = Some(Version::V11);
    const V12: Option<Version> = Some(Version::V12);

    fn decoder(version: Option<Version>, side: Side) -> Decoder {
        let mut decoder = Decoder::new(side, Limits::default());
        if let Some(version) = version {
            decoder.set_version(version);
        }
        decoder
    }

    /// All frames of an input, or the error's text.
    fn frames(version: Option<Version>, bytes: &[u8]) -> Result<Vec<Frame>, &'static str> {
        let mut decoder = decoder(version, Side::Server);
        let mut input = Bytes::copy_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(item) = decoder.decode(&mut input).map_err(|violation| violation.message())? {
            if let Item::Frame(frame) = item {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    /// The only frame of an input, as command, headers and body.
    fn frame(version: Option<Version>, bytes: &[u8]) -> Result<Frame, &'static str> {
        let mut frames = frames(version, bytes)?;
        assert_eq!(frames.len(), 1, "{bytes:?}");
        Ok(frames.remove(0))
    }

    /// What the header line `line` of a SEND, or of a CONNECT before a version is agreed on, stands for.
    fn header_line(version: Option<Version>, line: &[u8]) -> Result<(String, String), &'static str> {
        let command = if version.is_none() { "CONNECT" } else { "SEND" };
        let frame = frame(version, &[command.as_bytes(), b"\n", line, b"\n\n\0"].concat())?;
        assert_eq!(frame.headers.len(), 1);
        let (name, value) = frame.headers.iter().next().expect("there is one");
        Ok((name.to_owned(), value.to_owned()))
    }

    #[test]
    fn g1_commands_and_names_are_case_sensitive() {
        let sent = frame(V12, b"SEND\nFoo:1\nfoo:2\n\nbody\0").unwrap();
        assert_eq!(sent, Frame::new(Command::Send).with("Foo", "1").with("foo", "2").with_body("body"));
        for bad in [&b"send\n\n\0"[..], b"SEND \n\n\0", b" SEND\n\n\0", b"FOO\n\n\0", b"SENDSENDSENDSENDSEND"]
        {
            assert_eq!(frames(V12, bad), Err("Bad command"));
        }
        assert_eq!(frames(V12, b"SEN\0"), Err("Bad frame"));
    }

    #[test]
    fn g2_an_end_of_line_may_have_a_cr_in_1_2_and_before_a_version_only() {
        let plain = Frame::new(Command::Send).with("a", "b");
        assert_eq!(frame(V12, b"SEND\r\na:b\r\n\r\n\0\r\n").unwrap(), plain);
        assert_eq!(frame(V12, b"SEND\na:b\r\n\n\0").unwrap(), plain);
        let connect = Frame::new(Command::Connect).with("a", "b");
        assert_eq!(frame(OPEN, b"CONNECT\r\na:b\r\n\r\n\0").unwrap(), connect);
        for version in [V10, V11] {
            assert_eq!(frames(version, b"SEND\r\n"), Err("Bad command"));
            assert_eq!(header_line(version, b"a:b\r").unwrap().1, "b\r");
            assert_eq!(header_line(version, b"a:b\rc").unwrap().1, "b\rc");
            assert_eq!(frames(version, b"SEND\na:b\n\r\n\n"), Err("Bad frame"));
        }
        for version in [OPEN, V12] {
            for line in [&b"a:b\rc"[..], b"a\r:b", b"a:b\r\r", b"\r\r"] {
                assert_eq!(header_line(version, line), Err("Bad frame"), "{line:?}");
            }
        }
        assert_eq!(frames(V12, b"SEND\n\n\0\rX"), Err("Bad frame"));
        let (mut decoder, mut input) = (decoder(V12, Side::Server), Bytes::from_static(b"\n\r\r\n"));
        assert_eq!(
            decoder.decode(&mut input),
            Ok(Some(Item::HeartBeats(1))),
            "what came before an error counts"
        );
        assert_eq!(decoder.decode(&mut input), Err(lone_cr()));
    }

    #[test]
    fn g3_ends_of_line_and_nuls_between_frames_are_skipped() {
        for version in [V10, V11, V12] {
            let mut decoder = decoder(version, Side::Server);
            let mut input = Bytes::from_static(b"\n\0\r\n\nSEND\n\n\0\0\n\0ACK\n\n\0");
            let items: Vec<_> = std::iter::from_fn(|| decoder.decode(&mut input).unwrap()).collect();
            let (send, ack) = (Frame::new(Command::Send), Frame::new(Command::Ack));
            assert_eq!(
                items,
                [Item::HeartBeats(3), Item::Frame(send), Item::HeartBeats(1), Item::Frame(ack)]
            );
        }
    }

    #[test]
    fn g4_a_header_is_split_at_its_first_colon() {
        for version in [OPEN, V10, V11, V12] {
            assert_eq!(header_line(version, b"a:b:c").unwrap(), ("a".into(), "b:c".into()));
            assert_eq!(header_line(version, b"a:").unwrap(), ("a".into(), String::new()));
            for bad in [&b":a"[..], b":", b"a", b"a\0:b"] {
                assert_eq!(header_line(version, bad), Err("Bad frame"), "{bad:?}");
            }
        }
    }

    #[test]
    fn g5_escapes_are_those_of_the_version_and_others_are_fatal() {
        let bad = Err("Bad frame");
        // The text on the wire, and what it stands for in the opening and 1.0, in 1.1, in 1.2.
        let table = [
            (r"\n", Ok(r"\n"), Ok("\n"), Ok("\n")),
            (r"\c", Ok(r"\c"), Ok(":"), Ok(":")),
            (r"\\", Ok(r"\\"), Ok("\\"), Ok("\\")),
            (r"\r", Ok(r"\r"), bad, Ok("\r")),
            (r"\t", Ok(r"\t"), bad, bad),
            (r"x\", Ok(r"x\"), bad, bad),
            (r"\\\", Ok(r"\\\"), bad, bad),
            (r"\\n\nn", Ok(r"\\n\nn"), Ok("\\n\nn"), Ok("\\n\nn")),
            (r"\\\c\\", Ok(r"\\\c\\"), Ok("\\:\\"), Ok("\\:\\")),
            (r"\é", Ok(r"\é"), bad, bad),
            (r"\N", Ok(r"\N"), bad, bad),
        ];
        for (raw, plain, in_v11, in_v12) in table {
            for (version, expected) in [(OPEN, plain), (V10, plain), (V11, in_v11), (V12, in_v12)] {
                let in_value = header_line(version, format!("x:{raw}").as_bytes());
                assert_eq!(in_value.as_ref().map(|header| header.1.as_str()), expected.as_ref().copied());
                let in_name = header_line(version, format!("{raw}:x").as_bytes());
                assert_eq!(in_name.as_ref().map(|header| header.0.as_str()), expected.as_ref().copied());
            }
        }
    }

    #[test]
    fn g6_only_1_0_pads_values() {
        assert_eq!(header_line(V10, b"login: \tx ").unwrap().1, "x ");
        for version in [OPEN, V11, V12] {
            assert_eq!(header_line(version, b"login : x").unwrap(), ("login ".into(), " x".into()));
        }
    }

    #[test]
    fn g7_repeated_headers_are_kept_and_the_first_one_counts() {
        let frame = frame(V12, b"SEND\na:1\na:2\n\n\0").unwrap();
        assert_eq!((frame.headers.get("a"), frame.headers.len()), (Some("1"), 2));
    }

    #[test]
    fn g8_content_length_is_digits_within_the_limit() {
        let with =
            |version, lines: &str, body: &str| frame(version, format!("SEND\n{lines}\n\n{body}").as_bytes());
        for version in [V10, V11, V12] {
            let sent = with(version, "content-length:5", "a\0b\nc\0").unwrap();
            assert_eq!(sent.body, "a\0b\nc");
            assert_eq!(with(version, "content-length:0", "\0").unwrap().body, "");
            assert_eq!(with(version, "content-length:0000000000000001", "a\0").unwrap().body, "a");
            assert_eq!(with(version, "content-length:1\ncontent-length:2", "a\0").unwrap().body, "a");
            for (line, expected) in [
                ("-1", "Invalid header"),
                ("+1", "Invalid header"),
                ("", "Invalid header"),
                ("5 ", "Invalid header"),
                ("1e3", "Invalid header"),
                ("0x5", "Invalid header"),
                ("\u{665}", "Invalid header"),
                ("1048577", "Frame too large"),
                ("1000000000", "Frame too large"),
                ("4294967295", "Frame too large"),
                ("4294967296", "Frame too large"),
                ("18446744073709551616", "Frame too large"),
                ("1\ncontent-length:-1", "Invalid header"),
                ("1\ncontent-length:18446744073709551616", "Frame too large"),
            ] {
                assert_eq!(with(version, &format!("content-length:{line}"), ""), Err(expected), "{line}");
            }
            // Too short and too long.
            assert_eq!(with(version, "content-length:2", "abc\0"), Err("Bad frame"));
            assert_eq!(with(version, "content-length:0", "abc\0"), Err("Bad frame"));
        }
        for version in [V11, V12] {
            assert_eq!(with(version, "content-length: 5", "hello\0"), Err("Invalid header"));
        }
        assert_eq!(with(V10, "content-length: 5", "hello\0").unwrap().body, "hello", "padding of 1.0");
        assert_eq!(frame(OPEN, b"CONNECT\ncontent-length: 0\n\n\0").unwrap().body, "", "may be 1.0");
    }

    #[test]
    fn g9_a_body_where_none_may_be_is_an_error_in_1_2_and_skipped_before() {
        let plain = b"SUBSCRIBE\nid:0\n\nbody\0SEND\n\n\0";
        let sized = b"SUBSCRIBE\ncontent-length:4\n\nb\0dy\0SEND\n\n\0";
        for bytes in [&plain[..], sized] {
            for version in [V10, V11] {
                let frames = frames(version, bytes).unwrap();
                assert_eq!((frames.len(), frames[0].body.len()), (2, 0));
            }
            assert_eq!(frames(V12, bytes), Err("Bad frame"));
        }
        assert!(frame(V12, b"SUBSCRIBE\ncontent-length:0\n\n\0").is_ok());
        assert_eq!(frame(OPEN, b"CONNECT\n\nbody\0").unwrap().body, "");
        assert_eq!(frames(V11, b"ACK\ncontent-length:1\n\nab\0"), Err("Bad frame"));
    }

    #[test]
    fn g12_headers_are_utf8() {
        for version in [OPEN, V10, V11, V12] {
            assert_eq!(header_line(version, "é:ü".as_bytes()).unwrap(), ("é".into(), "ü".into()));
            // The colon divides a character, and both halves are wrong.
            for bad in [&b"a:\xff"[..], b"\xff:a", b"a\xc3:\xa9"] {
                assert_eq!(header_line(version, bad), Err("Bad frame"), "{bad:?}");
            }
        }
    }

    #[test]
    fn c1_a_connection_begins_with_its_opening_frame_and_has_only_one() {
        for command in Command::ALL {
            let bytes = format!("{command}\n\n\0");
            let opens = matches!(command, Command::Connect | Command::Stomp);
            let from_client = command.sender() == Side::Client;
            assert_eq!(frames(OPEN, bytes.as_bytes()).is_ok(), opens, "{command}");
            for version in [V10, V11, V12] {
                assert_eq!(frames(version, bytes.as_bytes()).is_ok(), from_client && !opens, "{command}");
            }
            let answers = matches!(command, Command::Connected | Command::Error);
            let mut client = decoder(OPEN, Side::Client);
            assert_eq!(client.decode(&mut Bytes::from(bytes)).is_ok(), answers, "{command}");
        }
    }

    #[test]
    fn nothing_is_read_after_an_error() {
        let mut decoder = decoder(V12, Side::Server);
        assert!(decoder.decode(&mut Bytes::from_static(b"FOO\n")).is_err());
        assert!(decoder.decode(&mut Bytes::from_static(b"SEND\n\n\0")).is_err());
        assert!(!decoder.is_inside_frame());
    }

    #[test]
    fn a_body_that_lies_whole_in_the_input_is_not_copied() {
        for bytes in [&b"SEND\n\nhello\0"[..], b"SEND\ncontent-length:5\n\nhello\0"] {
            let input = Bytes::copy_from_slice(bytes);
            let mut decoder = decoder(V12, Side::Server);
            let Some(Item::Frame(frame)) = decoder.decode(&mut input.clone()).unwrap() else { panic!() };
            assert_eq!(frame.body, "hello");
            assert_eq!(frame.body.as_ptr(), input[input.len() - 6..].as_ptr());
        }
    }

    #[test]
    fn limits_hold_exactly() {
        let limits = Limits {
            headers_max: 2,
            opening_headers_max: 1,
            header_line_bytes_max: 10,
            header_block_bytes_max: 20,
            body_bytes_max: 5,
        };
        let read = |version: Option<Version>, bytes: &str| {
            let mut decoder = decoder(version, Side::Server);
            decoder.set_limits(limits);
            let frame = decoder.decode(&mut Bytes::copy_from_slice(bytes.as_bytes()));
            frame.map(|frame| assert!(frame.is_some())).map_err(|violation| violation.message())
        };
        let too_large = Err("Frame too large");
        let table = [
            (V12, "SEND\na:1\nb:2\n\n\0", Ok(())),
            (V12, "SEND\na:1\nb:2\nc:3\n", too_large),
            (OPEN, "CONNECT\na:1\n\n\0", Ok(())),
            (OPEN, "CONNECT\na:1\nb:2\n", too_large),
            (V12, "SEND\na:456789012\r\n\n\0", too_large),
            (V12, "SEND\na:34567890\r\n\n\0", Ok(())),
            (V11, "SEND\na:34567890\r", too_large),
            (V12, "SEND\na:345678\nb:345678\n\n\0", Ok(())),
            (V12, "SEND\na:34567890\nb:34567890\n", too_large),
            (V12, "SEND\n\n12345\0", Ok(())),
            (V12, "SEND\n\n123456", too_large),
            (V12, "SEND\ncontent-length:5\n", too_large),
            (V11, "ACK\n\n123456", too_large),
        ];
        for (version, bytes, expected) in table {
            assert_eq!(read(version, bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn special_octets_are_found_wherever_they_are() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let table: Vec<u8> =
            all.iter().chain(all.iter().rev()).chain(b"\0\x01\n:;:\\]\\\r ").copied().collect();
        for start in 0..9 {
            for end in [start, start + 1, start + 7, table.len() - start] {
                let octets = &table[start..end.max(start)];
                let expected = (0..octets.len()).filter(|at| Grammar::is_special(octets[*at]));
                assert!(special_places(octets).eq(expected));
            }
        }
        let texts = ["", "a", "abcdefgh", "abcdefgh:", "abcdefg:h", "abcdefg\u{1}\u{80}", "abcdefgh\\i"];
        for text in texts {
            assert_eq!(is_plain(text), !text.bytes().any(Grammar::is_special), "{text:?}");
        }
    }

    #[test]
    fn a_header_is_written_so_that_it_is_read_again_or_not_at_all() {
        let write = |version, command, name: &str, value: &str| {
            let mut out = Vec::new();
            let written = Encoder::resume(&mut out, version, command).header(name, value);
            assert_eq!(written, !out.is_empty());
            String::from_utf8(out).unwrap()
        };
        let send = Command::Send;
        // A name and a value, and how they are written in 1.0 and in opening frames, in 1.1, in 1.2.
        let table = [
            ("a", "b", "a:b\n", "a:b\n", "a:b\n"),
            ("a", "", "a:\n", "a:\n", "a:\n"),
            ("", "a", "", "", ""),
            ("a", "b:c", "a:b:c\n", "a:b\\cc\n", "a:b\\cc\n"),
            ("a:b", "c", "", "a\\cb:c\n", "a\\cb:c\n"),
            ("a", "\\", "a:\\\n", "a:\\\\\n", "a:\\\\\n"),
            ("a", "b\nc:d", "", "a:b\\nc\\cd\n", "a:b\\nc\\cd\n"),
            ("a\n", "b", "", "a\\n:b\n", "a\\n:b\n"),
            ("a", "b\r", "", "", "a:b\\r\n"),
            ("a\r", "b", "", "", "a\\r:b\n"),
            ("a", "b\0", "", "", ""),
            ("a\0", "b", "", "", ""),
            ("content-length", "9", "", "", ""),
            (" Content-Length", "9", "", "", ""),
        ];
        for (name, value, in_v10, in_v11, in_v12) in table {
            assert_eq!(write(Version::V10, send, name, value), in_v10);
            assert_eq!(write(Version::V11, send, name, value), in_v11);
            assert_eq!(write(Version::V12, send, name, value), in_v12);
            for command in [Command::Connect, Command::Stomp, Command::Connected] {
                assert_eq!(write(Version::V12, command, name, value), in_v10, "C6: no escapes");
            }
        }
    }

    #[test]
    fn g11_a_length_is_written_of_every_body_and_in_every_message() {
        let written = |frame: &Frame| encode(Version::V12, frame);
        assert_eq!(written(&Frame::new(Command::Message)), "MESSAGE\ncontent-length:0\n\n\0");
        assert_eq!(written(&Frame::new(Command::Send)), "SEND\n\n\0");
        assert_eq!(written(&Frame::new(Command::Error).with_body("a\0")), "ERROR\ncontent-length:2\n\na\0\0");
        assert_eq!(written(&Frame::new(Command::Receipt).with_body("a")), "RECEIPT\n\n\0");
    }
}
