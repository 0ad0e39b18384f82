//! What must hold of the STOMP codec for all input, however it is cut and whoever made it.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use tandem_protocols::stomp::codec::{Decoder, Encoder, Item, Limits, encode};
use tandem_protocols::stomp::frame::{Command, Frame, Headers, Side, Version};
use tandem_protocols::stomp::usual::UsualHead;

/// Room that a growing buffer may take beyond what is in it.
const SLACK: usize = 2;

// --------------------------------------------------------------------------------------------- harness

fn decoder(version: Option<Version>, side: Side) -> Decoder {
    let mut decoder = Decoder::new(side, Limits::default());
    if let Some(version) = version {
        decoder.set_version(version);
    }
    decoder
}

/// What a stream says, up to its first error.
#[derive(Debug, Default, PartialEq)]
struct Said {
    frames: Vec<Frame>,
    beats: usize,
    error: Option<&'static str>,
}

fn read(mut decoder: Decoder, chunks: impl IntoIterator<Item = Bytes>) -> Said {
    let limits = Limits::default();
    let most = (limits.header_block_bytes_max + limits.body_bytes_max) as usize * SLACK;
    let mut said = Said::default();
    for mut chunk in chunks {
        loop {
            match decoder.decode(&mut chunk) {
                Ok(Some(Item::Frame(frame))) => said.frames.push(frame),
                Ok(Some(Item::HeartBeats(beats))) => said.beats += beats,
                Ok(None) => break,
                Err(violation) => {
                    said.error = Some(violation.message());
                    assert!(violation.to_string().len() < 1000, "an error is short, whatever was sent");
                    return said;
                }
            }
            if !decoder.is_inside_frame() {
                assert_eq!(decoder.buffered_bytes(), 0, "no heap between frames");
            }
        }
        assert!(chunk.is_empty(), "all input is taken");
        assert!(decoder.buffered_bytes() <= most);
    }
    said
}

/// The input in pieces that end at the given places.
fn cut(bytes: &Bytes, cuts: &[Index]) -> Vec<Bytes> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let mut start = 0;
    let mut pieces = Vec::new();
    for end in ends {
        pieces.push(bytes.slice(start..end));
        start = end;
    }
    pieces
}

fn one_by_one(bytes: &Bytes) -> Vec<Bytes> {
    (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect()
}

// ------------------------------------------------------------------------------------------- strategies

fn version() -> impl Strategy<Value = Version> {
    select(&Version::ALL)
}

/// Text with much of what is special in a header.
fn header_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z-]{1,10}",
        vec(select(&['\n', '\r', ':', '\\', '\0', ' ', 'n', 'c', 'r', 'a', 'é']), 0..8)
            .prop_map(|chars| chars.into_iter().collect()),
        any::<String>(),
        Just("content-length".to_owned()),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), vec(select(&[0, b'\n', b'a', 0xff]), 0..20), vec(any::<u8>(), 0..300)]
}

fn frame(commands: &'static [Command]) -> impl Strategy<Value = Frame> {
    (select(commands), vec((header_text(), header_text()), 0..6), body()).prop_map(
        |(command, headers, body)| {
            let body = if command.may_have_body() { body.into() } else { Bytes::new() };
            Frame { command, headers: headers.into_iter().collect(), body }
        },
    )
}

const FROM_CLIENT: &[Command] = &[
    Command::Send,
    Command::Subscribe,
    Command::Unsubscribe,
    Command::Begin,
    Command::Commit,
    Command::Abort,
    Command::Ack,
    Command::Nack,
    Command::Disconnect,
];

const FROM_SERVER: &[Command] = &[Command::Message, Command::Receipt, Command::Error];

const OPENING: &[Command] = &[Command::Connect, Command::Stomp];

/// A stream of frames, heart-beats and rubbish between them, as a peer of `version` sends it.
fn stream(version: Version) -> impl Strategy<Value = Bytes> {
    const BETWEEN: &[&[u8]] = &[b"", b"\n", b"\0", b"\r\n", b"\n\n\0\n"];
    let between = select(BETWEEN);
    vec((frame(FROM_CLIENT), between), 1..5).prop_map(move |frames| {
        let mut out = BytesMut::new();
        for (frame, between) in frames {
            out.extend_from_slice(&encode(version, &frame));
            out.extend_from_slice(between);
        }
        out.freeze()
    })
}

/// Frames like most: nothing in them stands for something else, but lengths may be wrong and names repeated.
fn plain_stream() -> impl Strategy<Value = Bytes> {
    let command = select(&["SEND", "SEND", "SEND", "SUBSCRIBE", "ACK", "MESSAGE", "CONNECT"]);
    let name = prop_oneof![
        4 => "[a-z-]{1,6}",
        1 => Just("content-length".to_owned()),
        1 => Just(String::new()),
    ];
    let value = prop_oneof!["[a-z:/é .]{0,12}", "[0-9]{1,2}"];
    let ending = prop_oneof![4 => Just(&b"\0"[..]), 1 => Just(&b"\0\n"[..]), 1 => Just(&b""[..])];
    vec((command, vec((name, value), 0..5), "[a-z\n]{0,12}", any::<bool>(), ending), 1..4).prop_map(
        |frames| {
            let mut out = Vec::new();
            for (command, headers, body, sized, ending) in frames {
                out.extend_from_slice(command.as_bytes());
                out.push(b'\n');
                for (name, value) in headers {
                    out.extend_from_slice(format!("{name}:{value}\n").as_bytes());
                }
                if sized {
                    out.extend_from_slice(format!("content-length:{}\n", body.len()).as_bytes());
                }
                out.push(b'\n');
                out.extend_from_slice(body.as_bytes());
                out.extend_from_slice(ending);
            }
            out.into()
        },
    )
}

/// Frames with one head, and with what is nearly that.
fn usual_stream() -> impl Strategy<Value = Bytes> {
    const LINES: &[&str] =
        &["a:b", "a:b", "a:b", "a:b\r", "a: b", "a:\\c", "a:c", "b:a\na:b", "content-length:1"];
    const LENGTHS: &[&str] = &["0", "1", "2", "02", "3", "10", "1:", "3\r", " 3", "4294967298", ""];
    const BODIES: &[&str] = &["", "x", "xy", "x\0z", "xyz", "\n\n\0", "0123456789"];
    const ENDS: &[&str] = &["\0", "\0", "\0\n", "\0\r", ""];
    let length = prop_oneof![
        4 => Just(None),
        1 => select(LENGTHS).prop_map(Some),
    ];
    let frame =
        (select(&["SEND", "SEND", "SEND", "MESSAGE"]), select(LINES), length, select(BODIES), select(ENDS));
    (any::<bool>(), vec(frame, 2..8)).prop_map(|(sized, frames)| {
        let mut out = String::new();
        for (command, line, length, body, end) in frames {
            let length = length.map(str::to_owned).or(sized.then(|| body.len().to_string()));
            let length = length.map(|length| format!("content-length:{length}\n")).unwrap_or_default();
            out += &format!("{command}\n{line}\n{length}\n{body}{end}");
        }
        out.into()
    })
}

/// Tokens of the grammar in no good order.
fn rubbish() -> impl Strategy<Value = Bytes> {
    const TOKENS: &[&[u8]] = &[
        b"SEND",
        b"SUBSCRIBE",
        b"CONNECT",
        b"STOMP",
        b"ACK",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r",
        b"\0",
        b":",
        b"\\",
        b"\\n",
        b"a",
        b"content-length:",
        b"5",
        b"99999999999999999999",
        b"-1",
        b" ",
        b"\xff",
        b"\xc3\xa9",
    ];
    prop_oneof![
        vec(select(TOKENS), 0..40).prop_map(|tokens| tokens.concat().into()),
        vec(any::<u8>(), 0..200).prop_map(Bytes::from),
    ]
}

// ------------------------------------------------------------------------------------------- properties

/// Whether the writer sends that header in that version exactly.
fn can_write(version: Version, command: Command, name: &str, value: &str) -> bool {
    let raw: &[char] = match version {
        _ if OPENING.contains(&command) => &['\n', '\r', '\0'],
        Version::V10 => &['\n', '\r', '\0'],
        Version::V11 => &['\r', '\0'],
        Version::V12 => &['\0'],
    };
    let escapes = raw.len() < 3;
    let is_length = name.trim().eq_ignore_ascii_case("content-length");
    !name.is_empty()
        && !is_length
        && !name.contains(raw)
        && !value.contains(raw)
        && (escapes || !name.contains(':'))
}

/// The headers that must arrive: those that the version can express, in their order.
fn expected(version: Version, frame: &Frame) -> Headers {
    let can = frame.headers.iter().filter(|header| can_write(version, frame.command, header.0, header.1));
    let mut headers: Headers = can.collect();
    let is_opening = OPENING.contains(&frame.command);
    if version == Version::V10 && !is_opening {
        headers.trim_values();
    }
    headers
}

fn without_length(headers: &Headers) -> Headers {
    headers.iter().filter(|header| header.0 != "content-length").collect()
}

proptest! {
    #[test]
    fn chunks_say_what_the_whole_says(
        (version, bytes) in version().prop_flat_map(|version| (Just(version), stream(version))),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let whole = read(decoder(Some(version), Side::Server), [bytes.clone()]);
        prop_assert_eq!(whole.error, None);
        prop_assert!(!whole.frames.is_empty());
        let pieces = read(decoder(Some(version), Side::Server), cut(&bytes, &cuts));
        prop_assert_eq!(&pieces, &whole);
        let octets = read(decoder(Some(version), Side::Server), one_by_one(&bytes));
        prop_assert_eq!(&octets, &whole);
    }

    /// What lies whole in the input is read at once, and what does not, step by step.
    #[test]
    fn plain_frames_say_the_same_however_they_are_cut(
        version in version(),
        bytes in plain_stream(),
        (headers_max, header_line_bytes_max) in (0..6_u32, 0..30_u32),
        (header_block_bytes_max, body_bytes_max) in (0..80_u32, 0..15_u32),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let limits = Limits {
            headers_max,
            header_line_bytes_max,
            header_block_bytes_max,
            body_bytes_max,
            ..Limits::default()
        };
        let decoder = |is_limited: bool| {
            let mut decoder = decoder(Some(version), Side::Server);
            if is_limited {
                decoder.set_limits(limits);
            }
            decoder
        };
        for is_limited in [false, true] {
            let whole = read(decoder(is_limited), [bytes.clone()]);
            prop_assert_eq!(&read(decoder(is_limited), cut(&bytes, &cuts)), &whole);
            prop_assert_eq!(&read(decoder(is_limited), one_by_one(&bytes)), &whole);
        }
    }

    /// Whatever is taken for one more frame with the head of one before, at whatever place, is what all are read as.
    #[test]
    fn a_frame_with_a_usual_head_is_what_all_frames_are_read_as(
        version in version(),
        bytes in prop_oneof![usual_stream(), usual_stream(), plain_stream()],
        (header_line_bytes_max, header_block_bytes_max) in (0..30_u32, 0..60_u32),
        (body_bytes_max, is_limited) in (0..15_u32, any::<bool>()),
        cuts in vec(any::<Index>(), 0..3),
    ) {
        let limits = Limits { header_line_bytes_max, header_block_bytes_max, body_bytes_max, ..Limits::default() };
        let mut decoder = decoder(Some(version), Side::Server);
        if is_limited {
            decoder.set_limits(limits);
        }
        let mut usual: Vec<(UsualHead, Frame)> = Vec::new();
        'stream: for mut chunk in cut(&bytes, &cuts) {
            loop {
                let (before, places): (_, Vec<_>) =
                    (chunk.clone(), usual.iter().map(|(head, _)| head.body(&decoder, &chunk)).collect());
                let item = match decoder.decode(&mut chunk) {
                    Ok(Some(item)) => item,
                    Ok(None) => break prop_assert!(places.iter().all(Option::is_none)),
                    Err(_) => {
                        prop_assert!(places.iter().all(Option::is_none));
                        break 'stream;
                    }
                };
                for (place, (_, like)) in places.into_iter().zip(&usual) {
                    let (Some(place), Item::Frame(frame)) = (&place, &item) else {
                        prop_assert_eq!(place, None);
                        continue;
                    };
                    prop_assert_eq!(&frame.body, &before[place.clone()]);
                    prop_assert_eq!(&chunk, &before[place.end + 1..]);
                    prop_assert_eq!(frame.command, like.command);
                    prop_assert_eq!(without_length(&frame.headers), without_length(&like.headers));
                    prop_assert_eq!(frame.headers.len(), like.headers.len());
                }
                if let Item::Frame(frame) = item {
                    usual.extend(UsualHead::of(frame.command, &frame.headers).map(|head| (head, frame)));
                }
            }
        }
    }

    #[test]
    fn rubbish_says_the_same_however_it_is_cut(
        version in proptest::option::of(version()),
        bytes in rubbish(),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let whole = read(decoder(version, Side::Server), [bytes.clone()]);
        let pieces = read(decoder(version, Side::Server), cut(&bytes, &cuts));
        let octets = read(decoder(version, Side::Server), one_by_one(&bytes));
        prop_assert_eq!(&pieces, &whole);
        prop_assert_eq!(&octets, &whole);
    }

    #[test]
    fn a_damaged_stream_harms_nobody(
        (version, bytes) in version().prop_flat_map(|version| (Just(version), stream(version))),
        damages in vec((any::<Index>(), any::<u8>(), any::<bool>()), 1..4),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let mut bytes = bytes.to_vec();
        for (at, octet, inserts) in damages {
            let at = at.index(bytes.len());
            if inserts { bytes.insert(at, octet) } else { bytes[at] = octet }
        }
        let bytes = Bytes::from(bytes);
        let whole = read(decoder(Some(version), Side::Server), [bytes.clone()]);
        let pieces = read(decoder(Some(version), Side::Server), cut(&bytes, &cuts));
        prop_assert_eq!(&pieces, &whole);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else(
        version in version(),
        frame in prop_oneof![
            frame(FROM_CLIENT).prop_map(|frame| (Side::Server, frame)),
            frame(FROM_SERVER).prop_map(|frame| (Side::Client, frame)),
        ],
    ) {
        let (side, frame) = frame;
        let said = read(decoder(Some(version), side), [encode(version, &frame)]);
        prop_assert_eq!((said.error, said.frames.len(), said.beats), (None, 1, 0));
        let read = &said.frames[0];
        prop_assert_eq!(without_length(&read.headers), expected(version, &frame));
        prop_assert_eq!(&read.body, &frame.body);
        let lengths = read.headers.len() - without_length(&read.headers).len();
        let has_length = !frame.body.is_empty() || frame.command == Command::Message;
        prop_assert_eq!(lengths, usize::from(has_length));
    }

    #[test]
    fn an_opening_frame_has_no_escapes_in_any_version(version in version(), frame in frame(OPENING)) {
        let said = read(decoder(None, Side::Server), [encode(version, &frame)]);
        prop_assert_eq!((said.error, said.frames.len()), (None, 1));
        prop_assert_eq!(&said.frames[0].headers, &expected(version, &frame));
    }

    #[test]
    fn a_careless_reader_finds_no_header_that_was_not_written(
        version in version(),
        frame in frame(FROM_SERVER),
    ) {
        // A reader that knows no escapes and takes LF, CR and NUL for ends of whatever it reads.
        let bytes = encode(version, &Frame { body: Bytes::new(), ..frame.clone() });
        let lines = bytes.split(|octet| matches!(octet, b'\n' | b'\r' | 0)).filter(|line| !line.is_empty());
        let written = expected(version, &frame).len() + usize::from(frame.command == Command::Message);
        prop_assert_eq!(lines.count(), 1 + written);
    }

    #[test]
    fn a_message_of_head_and_tail_is_a_message(
        version in version(),
        message in frame(&[Command::Message]),
        subscription in header_text(),
    ) {
        let (mut out, mut end) = (Vec::new(), Vec::new());
        let mut tail = Encoder::resume(&mut end, version, Command::Message);
        for (name, value) in message.headers.iter() {
            tail.header(name, value);
        }
        tail.finish(&message.body);
        let mut head = Encoder::begin(&mut out, version, Command::Message);
        let written = head.header("subscription", &subscription);
        head.pause();
        out.append(&mut end);

        let mut whole = Frame::new(Command::Message);
        whole.headers = [("subscription", subscription.as_str())].into_iter().chain(message.headers.iter()).collect();
        whole.body = message.body;
        prop_assert_eq!(written, can_write(version, Command::Message, "subscription", &subscription));
        prop_assert_eq!(out, encode(version, &whole));
    }
}

#[test]
fn what_our_writer_never_writes_can_be_cut_anywhere_too() {
    let v11 = Some(Version::V11);
    let table = [
        (Some(Version::V12), &b"SEND\r\na:b\r\n\r\nx\0\r\n\r\nACK\r\nid:1\r\n\r\n\0\r\n"[..], 2, 3),
        (None, b"\r\nCONNECT\r\na:b\r\n\r\nbody\0\0\r\n", 1, 2),
        (v11, b"SUBSCRIBE\n\nbody\0\nSEND\n\n\0", 2, 1),
        (v11, b"SUBSCRIBE\ncontent-length:9\n\nbo\0dy\nACK\0\nSEND\ncontent-length:3\n\n\0\0\0\0", 2, 1),
        (v11, b"SEND\na:b\r\n\n\0", 1, 0),
    ];
    for (version, bytes, frames, beats) in table {
        let bytes = Bytes::from_static(bytes);
        let whole = read(decoder(version, Side::Server), [bytes.clone()]);
        assert_eq!((whole.frames.len(), whole.beats, whole.error), (frames, beats, None), "{bytes:?}");
        assert_eq!(read(decoder(version, Side::Server), one_by_one(&bytes)), whole);
        for at in 0..bytes.len() {
            let halves = [bytes.slice(..at), bytes.slice(at..)];
            assert_eq!(read(decoder(version, Side::Server), halves), whole, "{bytes:?} at {at}");
        }
    }
}

// ----------------------------------------------------------------------------------------------- limits

/// Feeds `chunk` again and again. How many octets went in before the error, and the most heap until then.
fn flood(mut decoder: Decoder, start: &'static [u8], chunk: &Bytes, bytes_max: usize) -> (usize, usize) {
    assert_eq!(decoder.decode(&mut Bytes::from_static(start)).expect("a good start"), None);
    let (mut sent, mut most) = (0, 0);
    while sent < bytes_max {
        sent += chunk.len();
        if let Err(violation) = decoder.decode(&mut chunk.clone()) {
            assert_eq!(violation.message(), "Frame too large");
            assert_eq!(decoder.buffered_bytes(), 0, "nothing is kept after an error");
            return (sent, most);
        }
        most = most.max(decoder.buffered_bytes());
    }
    panic!("{bytes_max} octets were taken");
}

#[test]
fn floods_end_at_the_limit_and_take_little_memory() {
    const GIB: usize = 1 << 30;
    let limits = Limits::default();
    let large = Bytes::from(vec![b'a'; 64 << 10]);
    let small = Bytes::from(vec![b'a'; 100]);
    let line_max = limits.header_line_bytes_max as usize;
    let body_max = limits.body_bytes_max as usize;
    for version in [None, Some(Version::V10), Some(Version::V11), Some(Version::V12)] {
        let command: &[u8] = if version.is_none() { b"CONNECT\n" } else { b"SEND\n" };
        // One line without end, then a million headers in one chunk and in many.
        for chunk in [&large, &small] {
            let (sent, most) = flood(decoder(version, Side::Server), command, chunk, GIB);
            assert!(sent <= line_max + chunk.len() && most <= line_max * SLACK, "{sent} {most}");
        }
        for chunk in [b"a:1\n".repeat(1_000_000), b"a:1\n".to_vec()].map(Bytes::from) {
            let (sent, most) = flood(decoder(version, Side::Server), command, &chunk, 4_000_000);
            assert!(sent <= 65 * 4 + chunk.len() && most <= 65 * 4 * SLACK, "{sent} {most}");
        }
        let long_header = Bytes::from([b"a:".to_vec(), vec![b'b'; 4000], b"\n".to_vec()].concat());
        let (sent, most) = flood(decoder(version, Side::Server), command, &long_header, GIB);
        let block_max = limits.header_block_bytes_max as usize;
        assert!(sent <= block_max + long_header.len() && most <= block_max * SLACK, "{sent} {most}");
    }
    // A body without end.
    for version in Version::ALL {
        for chunk in [&large, &small] {
            let (sent, most) = flood(decoder(Some(version), Side::Server), b"SEND\n\n", chunk, GIB);
            assert!(sent <= body_max + chunk.len() && most <= body_max * SLACK, "{sent} {most}");
        }
    }
    // A body where none may be takes no memory at all.
    for (version, start) in [(None, &b"CONNECT\n\n"[..]), (Some(Version::V11), b"ACK\n\n")] {
        let (sent, most) = flood(decoder(version, Side::Server), start, &large, GIB);
        assert!(sent <= body_max + large.len() && most == 0, "{sent} {most}");
    }
}

#[test]
fn an_announced_body_takes_no_memory_before_it_comes() {
    let mut decoder = decoder(Some(Version::V12), Side::Server);
    let mut head = Bytes::from_static(b"SEND\ncontent-length:1048576\n\n");
    assert_eq!(decoder.decode(&mut head).expect("within the limit"), None);
    assert!(decoder.buffered_bytes() < 100);
    assert_eq!(decoder.decode(&mut Bytes::from(vec![b'a'; 1000])).expect("a part"), None);
    assert!(decoder.buffered_bytes() < 2200);
    for _ in 0..1047 {
        assert_eq!(decoder.decode(&mut Bytes::from(vec![b'a'; 1000])).expect("a part"), None);
        assert!(decoder.buffered_bytes() < (1 << 20) + 100);
    }
    let Ok(Some(Item::Frame(frame))) =
        decoder.decode(&mut Bytes::from([[b'a'; 576].to_vec(), vec![0]].concat()))
    else {
        panic!("the end")
    };
    assert_eq!(frame.body.len(), 1 << 20);
    assert_eq!(decoder.buffered_bytes(), 0);
}
