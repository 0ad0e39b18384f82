//! One encoded value into another encoding, as a stream, within limits.
//!
//! Nothing is built of the value but its new bytes. A length that is only announced allocates nothing.

use bytes::Bytes;
use thiserror::Error;

use super::Format;
use super::cbor::{self, CborReader, CborWriter};
use super::json::{self, JsonWriter};
use super::msgpack::{MsgPackReader, MsgPackWriter};
use super::stream::{Buffer, Discard, Expect, Expecting, Reader, Sink};

/// What a conversion may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers inside each other. JSON is read by recursion and never deeper than 127.
    pub depth_max: usize,
    /// Values in all, each array element and each map entry counting once.
    pub elements_max: usize,
    /// How many times its input an output may be, on top of `expansion_free_bytes`.
    pub expansion_max: usize,
    /// Output bytes that `expansion_max` does not govern, so that a small array of booleans or of
    /// short floats (up to seven times longer in JSON) is not refused.
    pub expansion_free_bytes: usize,
}

impl Limits {
    /// What a broker allows.
    pub const DEFAULT: Limits =
        Limits { depth_max: 64, elements_max: 100_000, expansion_max: 4, expansion_free_bytes: 64 * 1024 };

    /// For a value that is checked and not converted: only its depth matters, because checking costs
    /// no memory and its time is that of its length.
    fn check(&self) -> Limits {
        Limits { elements_max: usize::MAX, ..*self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

/// Why a payload cannot be given to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unconvertible {
    /// Cut short, followed by something else, or never right.
    #[error("the payload is not one valid {format} value")]
    Malformed {
        /// What it claims to be.
        format: Format,
    },
    /// A text that is not UTF-8.
    #[error("a text in the payload is not UTF-8")]
    NotUtf8,
    /// A JSON string that begins with U+0000, but does not continue as padded base64.
    #[error("a JSON string begins with U+0000 and is not base64")]
    NotBase64,
    /// JSON could not tell such a text from bytes.
    #[error("JSON cannot carry a text that begins with U+0000")]
    TextLikeBytes,
    /// JSON has no NaN and no infinities.
    #[error("JSON cannot carry a number that is not finite")]
    NotFinite,
    /// An integer that 64 bits do not hold.
    #[error("an integer in the payload needs more than 64 bits")]
    NumberTooLarge,
    /// Neither JSON nor keyword arguments have other keys.
    #[error("a key in the payload is not a text")]
    KeyNotText,
    /// The other encodings have nothing like it.
    #[error("{what} in the payload has no counterpart in the receiver's encoding")]
    NoCounterpart {
        /// A noun with its article.
        what: &'static str,
    },
    /// [`Limits::depth_max`].
    #[error("the payload is nested more than {max} deep")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// [`Limits::elements_max`].
    #[error("the payload has more than {max} elements")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// [`Limits::expansion_max`].
    #[error("the payload would be longer than {max} bytes in the receiver's encoding")]
    TooLarge {
        /// The limit for this payload.
        max: usize,
    },
    /// Positional arguments that are not an array.
    #[error("the positional arguments in the payload are not an array")]
    NotAnArray,
    /// Keyword arguments, or the whole of both, that are not a map.
    #[error("the keyword arguments in the payload, or the whole of it, are not a map")]
    NotAMap,
    /// In the full form.
    #[error("the payload has a member that is neither `args` nor `kwargs`")]
    UnknownMember,
    /// In the full form.
    #[error("the payload has the member `{member}` twice")]
    TwiceTheMember {
        /// `args` or `kwargs`.
        member: &'static str,
    },
}

/// Writes one value of one encoding in another.
///
/// What the target cannot say is an error, never an approximation: see [`Unconvertible`]. Integers
/// stay integers and keep 64 bits, floating point stays floating point. Bytes in JSON are strings of
/// U+0000 and base64, as WAMP defines. Where `from` and `to` are the same, the bytes are returned as
/// they are, unchecked.
///
/// # Errors
///
/// When `bytes` is not exactly one value of `from`, when `to` has no form for it, or past a limit.
///
/// ```
/// use tandem_protocols::payload::{Format, Limits, transcode};
///
/// let json = br#"{"celsius": 21.5}"#;
/// let msgpack = transcode(Format::Json, Format::MsgPack, json, &Limits::DEFAULT)?;
/// assert_eq!(&msgpack[..9], b"\x81\xa7celsius");
/// # Ok::<(), tandem_protocols::payload::Unconvertible>(())
/// ```
pub fn transcode(from: Format, to: Format, bytes: &[u8], limits: &Limits) -> Result<Bytes, Unconvertible> {
    if from == to {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    convert(from, to, bytes, Expect::Any, limits)
}

/// Foreign bytes as one value of `to` that may go into a message: converted, or else checked.
pub(super) fn admit(
    from: Format,
    to: Format,
    bytes: &Bytes,
    expect: Expect,
    limits: &Limits,
) -> Result<Bytes, Unconvertible> {
    if from != to {
        return convert(from, to, bytes, expect, limits);
    }
    read(from, bytes, &mut Expecting::new(&mut Discard, expect), &limits.check())?;
    Ok(match from {
        Format::Json => bytes.slice_ref(bytes.trim_ascii()),
        // Arguments begin with their array or map; tags before it (such as "this is CBOR") are for files.
        Format::Cbor if expect != Expect::Any => bytes.slice_ref(cbor::without_tags(bytes)?),
        Format::MsgPack | Format::Cbor => bytes.clone(),
    })
}

fn convert(
    from: Format,
    to: Format,
    bytes: &[u8],
    expect: Expect,
    limits: &Limits,
) -> Result<Bytes, Unconvertible> {
    let mut writer = Writer::new(to, bytes.len(), limits);
    read(from, bytes, &mut Expecting::new(writer.sink(), expect), limits)?;
    writer.finish()
}

/// Reads exactly one value.
pub(super) fn read(
    format: Format,
    bytes: &[u8],
    sink: &mut dyn Sink,
    limits: &Limits,
) -> Result<(), Unconvertible> {
    match format {
        Format::Json => json::read(bytes, sink, limits),
        Format::MsgPack => read_whole(format, MsgPackReader::new(bytes), sink, limits),
        Format::Cbor => read_whole(format, CborReader::new(bytes), sink, limits),
    }
}

fn read_whole<'a>(
    format: Format,
    mut reader: impl Reader<'a>,
    sink: &mut dyn Sink,
    limits: &Limits,
) -> Result<(), Unconvertible> {
    reader.value(sink, limits)?;
    if reader.rest().is_empty() { Ok(()) } else { Err(Unconvertible::Malformed { format }) }
}

/// A writer of any encoding.
pub(super) enum Writer {
    Json(JsonWriter),
    MsgPack(MsgPackWriter),
    Cbor(CborWriter),
}

impl Writer {
    /// For an input of `input_bytes`.
    pub(super) fn new(format: Format, input_bytes: usize, limits: &Limits) -> Self {
        let out = Buffer::new(input_bytes, limits);
        match format {
            Format::Json => Writer::Json(JsonWriter::new(out)),
            Format::MsgPack => Writer::MsgPack(MsgPackWriter::new(out)),
            Format::Cbor => Writer::Cbor(CborWriter::new(out)),
        }
    }

    pub(super) fn sink(&mut self) -> &mut dyn Sink {
        match self {
            Writer::Json(writer) => writer,
            Writer::MsgPack(writer) => writer,
            Writer::Cbor(writer) => writer,
        }
    }

    pub(super) fn finish(self) -> Result<Bytes, Unconvertible> {
        let bytes = match self {
            Writer::Json(writer) => writer.finish(),
            Writer::MsgPack(writer) => writer.finish()?,
            Writer::Cbor(writer) => writer.finish()?,
        };
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{Cbor, Json, MsgPack};

    fn convert(from: Format, to: Format, bytes: &[u8]) -> Result<Bytes, Unconvertible> {
        transcode(from, to, bytes, &Limits::DEFAULT)
    }

    /// What the same value is in the three encodings, read and written either way.
    #[test]
    fn values_have_one_form_in_each_encoding() {
        let same: &[(&[u8], &[u8], &[u8])] = &[
            (b"null", b"\xc0", b"\xf6"),
            (b"true", b"\xc3", b"\xf5"),
            (b"false", b"\xc2", b"\xf4"),
            (b"23", b"\x17", b"\x17"),
            (b"128", b"\xcc\x80", b"\x18\x80"),
            (b"-33", b"\xd0\xdf", b"\x38\x20"),
            (b"9007199254740993", b"\xcf\0\x20\0\0\0\0\0\x01", b"\x1b\0\x20\0\0\0\0\0\x01"),
            (
                b"18446744073709551615",
                &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255],
                &[0x1b, 255, 255, 255, 255, 255, 255, 255, 255],
            ),
            (
                b"-9223372036854775808",
                b"\xd3\x80\0\0\0\0\0\0\0",
                &[0x3b, 0x7f, 255, 255, 255, 255, 255, 255, 255],
            ),
            (b"1.0", b"\xcb\x3f\xf0\0\0\0\0\0\0", b"\xfb\x3f\xf0\0\0\0\0\0\0"),
            (b"-0.0", b"\xcb\x80\0\0\0\0\0\0\0", b"\xfb\x80\0\0\0\0\0\0\0"),
            (b"\"\"", b"\xa0", b"\x60"),
            ("\"\u{fc}\"".as_bytes(), b"\xa2\xc3\xbc", b"\x62\xc3\xbc"),
            (br#""\u0000AQI=""#, b"\xc4\x02\x01\x02", b"\x42\x01\x02"),
            (br#""\u0000""#, b"\xc4\x00", b"\x40"),
            (
                br#""\u0000EOP/kFMHXFJvX8BtT+N82w==""#,
                b"\xc4\x10\x10\xe3\xff\x90\x53\x07\x5c\x52\x6f\x5f\xc0\x6d\x4f\xe3\x7c\xdb",
                b"\x50\x10\xe3\xff\x90\x53\x07\x5c\x52\x6f\x5f\xc0\x6d\x4f\xe3\x7c\xdb",
            ),
            (b"[]", b"\x90", b"\x80"),
            (b"{}", b"\x80", b"\xa0"),
            (
                br#"[1,[2,{"a":[]}],3]"#,
                b"\x93\x01\x92\x02\x81\xa1a\x90\x03",
                b"\x83\x01\x82\x02\xa1\x61a\x80\x03",
            ),
            // Keys are outside the rule of U+0000.
            (br#"{"\u0000k":1}"#, b"\x81\xa2\0k\x01", b"\xa1\x62\0k\x01"),
        ];
        for (json, msgpack, cbor) in same {
            let forms = [(Json, json), (MsgPack, msgpack), (Cbor, cbor)];
            for (from, input) in forms {
                for (to, expected) in forms {
                    assert_eq!(
                        convert(from, to, input).as_deref(),
                        Ok(*expected),
                        "{from} to {to}: {input:02x?}"
                    );
                }
            }
        }
    }

    #[test]
    fn other_forms_of_a_value_are_read() {
        let cases: &[(Format, &[u8], Format, &[u8])] = &[
            (Json, b" [ 1 , 2 ] \n", MsgPack, b"\x92\x01\x02"),
            (Json, b"18446744073709551616", Cbor, b"\xfb\x43\xf0\0\0\0\0\0\0"),
            (MsgPack, b"\xd3\0\0\0\0\0\0\0\x05", Json, b"5"),
            (MsgPack, b"\xca\x3f\xc0\0\0", Json, b"1.5"),
            (MsgPack, b"\xda\0\x01a", Json, b"\"a\""),
            (MsgPack, b"\xdc\0\x01\xc3", Cbor, b"\x81\xf5"),
            (MsgPack, b"\xd4\0\0", Json, b"null"),
            (MsgPack, b"\x81\x01\x02", Cbor, b"\xa1\x01\x02"),
            (MsgPack, b"\x81\x91\x01\x02", Cbor, b"\xa1\x81\x01\x02"),
            (Cbor, b"\xf7", Json, b"null"),
            (Cbor, b"\xf9\x3c\x00", Json, b"1.0"),
            (Cbor, b"\xf9\x00\x01", Json, b"5.960464477539063e-8"),
            (Cbor, b"\xf9\xfb\xff", Json, b"-65504.0"),
            (Cbor, b"\xfa\x3f\xc0\0\0", Json, b"1.5"),
            (Cbor, b"\x9f\x01\x9f\xff\xff", MsgPack, b"\x92\x01\x90"),
            (Cbor, b"\xbf\x61a\xbf\xff\xff", MsgPack, b"\x81\xa1a\x80"),
            (Cbor, b"\x7f\x61a\x60\x61b\xff", MsgPack, b"\xa2ab"),
            (Cbor, b"\x5f\x41\x01\xff", MsgPack, b"\xc4\x01\x01"),
            (Cbor, b"\xd8\x40\x41\x01", Json, br#""\u0000AQ==""#),
            (Cbor, b"\xd9\xd9\xf7\x81\xc0\x61a", Json, b"[\"a\"]"),
            (Cbor, b"\xc2\x41\xff", Json, b"255"),
            (Cbor, b"\xc2\x49\0\xff\xff\xff\xff\xff\xff\xff\xff", Json, b"18446744073709551615"),
            (Cbor, b"\xc3\x40", Json, b"-1"),
            (Cbor, b"\xc3\x48\x7f\xff\xff\xff\xff\xff\xff\xff", Json, b"-9223372036854775808"),
        ];
        for (from, input, to, expected) in cases {
            assert_eq!(convert(*from, *to, input).as_deref(), Ok(*expected), "{from} to {to}: {input:02x?}");
        }
    }

    #[test]
    fn what_a_target_cannot_say_is_an_error() {
        use Unconvertible as U;
        let cases: &[(Format, &[u8], Format, Unconvertible)] = &[
            (Json, br#""\u0000AQI""#, MsgPack, U::NotBase64),
            (Json, br#""\u0000_-==""#, Cbor, U::NotBase64),
            (MsgPack, b"\xa1\0", Json, U::TextLikeBytes),
            (Cbor, b"\xfb\x7f\xf0\0\0\0\0\0\0", Json, U::NotFinite),
            (MsgPack, b"\xcb\x7f\xf8\0\0\0\0\0\0", Json, U::NotFinite),
            (MsgPack, b"\x81\x01\x02", Json, U::KeyNotText),
            (MsgPack, b"\x81\x90\x02", Json, U::KeyNotText),
            (Cbor, b"\xa1\x41a\x02", Json, U::KeyNotText),
            (MsgPack, b"\xa1\xff", Cbor, U::NotUtf8),
            (Cbor, b"\x61\xff", MsgPack, U::NotUtf8),
            (Cbor, b"\x7f\x61\xc3\x61\xbc\xff", MsgPack, U::NotUtf8),
            (MsgPack, b"\xd6\xff\0\0\0\0", Cbor, U::NoCounterpart { what: "a MessagePack extension" }),
            (Cbor, b"\xe0", Json, U::NoCounterpart { what: "a CBOR simple value" }),
            (Cbor, b"\xf8\xff", Json, U::NoCounterpart { what: "a CBOR simple value" }),
            (Cbor, &[0x3b, 255, 255, 255, 255, 255, 255, 255, 255], MsgPack, U::NumberTooLarge),
            (Cbor, b"\xc2\x49\x01\0\0\0\0\0\0\0\0", Json, U::NumberTooLarge),
        ];
        for (from, input, to, expected) in cases {
            assert_eq!(convert(*from, *to, input), Err(*expected), "{from} to {to}: {input:02x?}");
        }
    }

    #[test]
    fn what_is_not_one_whole_value_is_malformed() {
        let cases: &[(Format, &[&[u8]])] = &[
            (
                Json,
                &[
                    b"",
                    b" ",
                    b"[",
                    b"[1",
                    b"[1,]",
                    b"{\"a\"}",
                    b"{1:2}",
                    b"1 2",
                    b"nul",
                    b"\"\xff\"",
                    br#""\ud800""#,
                    b"\xef\xbb\xbf1",
                    b"NaN",
                    b"1e999",
                ],
            ),
            (
                MsgPack,
                &[
                    b"",
                    b"\xc1",
                    b"\x91",
                    b"\x81\x01",
                    b"\x01\x02",
                    b"\xa2a",
                    b"\xc4\x05a",
                    b"\xdd\xff\xff\xff\xff",
                    b"\xc7\x01",
                    b"\xcb\0",
                ],
            ),
            (
                Cbor,
                &[
                    b"",
                    b"\xff",
                    b"\x81",
                    b"\x9f",
                    b"\x9f\x01",
                    b"\xbf\x61a\xff",
                    b"\x01\x02",
                    b"\x1c",
                    b"\x1f",
                    b"\xdf",
                    b"\xc0",
                    b"\x9f\xc0\xff",
                    b"\x62a",
                    b"\x7f\x41a\xff",
                    b"\x7f\x7f\xff\xff",
                    b"\x5f\x41",
                    b"\xc2\x01",
                    b"\xc2\x80",
                    b"\xf8\x1f",
                    b"\x81\xff",
                    &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255],
                    &[0x5b, 255, 255, 255, 255, 255, 255, 255, 255],
                    &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255],
                ],
            ),
        ];
        for (from, inputs) in cases {
            for input in *inputs {
                for to in [Json, MsgPack, Cbor].into_iter().filter(|to| to != from) {
                    let malformed = Unconvertible::Malformed { format: *from };
                    assert_eq!(convert(*from, to, input), Err(malformed), "{from} to {to}: {input:02x?}");
                }
            }
        }
    }

    #[test]
    fn the_same_encoding_is_returned_as_it_is() {
        assert_eq!(convert(Json, Json, b"not json").as_deref(), Ok(&b"not json"[..]));
    }

    type Converting = (Format, &'static [u8], Format, Result<&'static [u8], Unconvertible>);

    #[test]
    fn a_limit_is_reached_and_not_passed() {
        let limits = Limits { depth_max: 2, elements_max: 3, expansion_max: 1, expansion_free_bytes: 2 };
        let cases: &[Converting] = &[
            (Json, b"[[1]]", MsgPack, Ok(b"\x91\x91\x01")),
            (Json, b"[[[]]]", MsgPack, Err(Unconvertible::TooDeep { max: 2 })),
            (MsgPack, b"\x91\x91\x90", Cbor, Err(Unconvertible::TooDeep { max: 2 })),
            (Cbor, b"\x81\x81\xa0", MsgPack, Err(Unconvertible::TooDeep { max: 2 })),
            (Json, b"[1,2]", MsgPack, Ok(b"\x92\x01\x02")),
            (Json, b"{\"a\":0,\"b\":0}", Cbor, Ok(b"\xa2\x61a\0\x61b\0")),
            (Json, b"[1,2,3]", MsgPack, Err(Unconvertible::TooMany { max: 3 })),
            (MsgPack, b"\x93\x01\x02\x03", Cbor, Err(Unconvertible::TooMany { max: 3 })),
            (MsgPack, b"\x91\xc0", Json, Err(Unconvertible::TooLarge { max: 4 })),
            (Json, b"0.5", Cbor, Err(Unconvertible::TooLarge { max: 5 })),
        ];
        for (from, input, to, expected) in cases {
            let converted = transcode(*from, *to, input, &limits);
            assert_eq!(
                converted.as_deref(),
                expected.as_ref().map(|bytes| *bytes),
                "{from} to {to}: {input:02x?}"
            );
        }
    }

    #[test]
    fn heads_are_as_short_as_can_be() {
        for (elements, msgpack, cbor) in [
            (15, &b"\x9f"[..], &b"\x8f"[..]),
            (16, b"\xdc\0\x10", b"\x90"),
            (23, b"\xdc\0\x17", b"\x97"),
            (24, b"\xdc\0\x18", b"\x98\x18"),
            (256, b"\xdc\x01\0", b"\x99\x01\0"),
            (65_535, b"\xdc\xff\xff", b"\x99\xff\xff"),
            (65_536, b"\xdd\0\x01\0\0", b"\x9a\0\x01\0\0"),
        ] {
            let json = format!("[{}0]", "0,".repeat(elements - 1));
            let mut indefinite = vec![0x9f];
            indefinite.resize(elements + 1, 0);
            indefinite.push(0xff);
            let zeros = vec![0; elements];
            assert_eq!(convert(Json, MsgPack, json.as_bytes()).unwrap(), [msgpack, &zeros].concat());
            assert_eq!(convert(Json, Cbor, json.as_bytes()).unwrap(), [cbor, &zeros].concat());
            assert_eq!(convert(Cbor, MsgPack, &indefinite).unwrap(), [msgpack, &zeros].concat());
        }
    }
}
