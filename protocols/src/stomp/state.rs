//! What both ends of a connection have to know: the version, the heart-beats, and how deliveries are named.
//!
//! This is not a session: it knows of no destination, no subscription and no transaction.

use std::time::{Duration, Instant};

use crate::stomp::error::{Reason, Violation};
use crate::stomp::frame::{Frame, Headers, Version};

/// All versions as the `version` header of an ERROR lists them, and `accept-version` of a CONNECT.
pub const SUPPORTED_VERSIONS: &str = "1.0,1.1,1.2";

/// Chooses the version of a connection that a CONNECT or STOMP frame opens.
///
/// In 1.0 values may be padded; as the frame was read before its version was known, they are trimmed here.
/// A violation with [`Reason::VersionMismatch`] is answered with a `version` header of
/// [`SUPPORTED_VERSIONS`].
pub fn accept(connect: &mut Frame) -> Result<Version, Violation> {
    let version = negotiate(connect.headers.get("accept-version"))?;
    if version == Version::V10 {
        connect.headers.trim_values();
    }
    Ok(version)
}

/// The best version of an `accept-version` header, whatever its order; 1.0 if there is no such header.
pub fn negotiate(accept_version: Option<&str>) -> Result<Version, Violation> {
    let Some(list) = accept_version else { return Ok(Version::V10) };
    let common = list.split(',').filter_map(|name| Version::from_name(name.trim())).max();
    common.ok_or_else(|| {
        let detail = format!("supported versions are {SUPPORTED_VERSIONS}");
        Violation::new(Reason::VersionMismatch, detail)
    })
}

/// The version that a server chose in the `version` header of CONNECTED; 1.0 if there is no such header.
pub fn chosen(version: Option<&str>) -> Result<Version, Violation> {
    let Some(name) = version else { return Ok(Version::V10) };
    Version::from_name(name.trim()).ok_or_else(|| Violation::invalid_header("version", name))
}

// ------------------------------------------------------------------------------------------ heart-beats

/// A `heart-beat` header: what one end can do and what it wants, in milliseconds; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartBeat {
    /// The longest silence that the sender of the header promises.
    pub sends_ms: u32,
    /// The longest silence that it would like of the other end.
    pub wants_ms: u32,
}

impl HeartBeat {
    /// Reads `<sends>,<wants>`; no header is `0,0`.
    pub fn parse(header: Option<&str>) -> Result<Self, Violation> {
        let Some(header) = header else { return Ok(Self::default()) };
        let invalid = || Violation::invalid_header("heart-beat", header);
        let (sends, wants) = header.split_once(',').ok_or_else(invalid)?;
        let number = |text: &str| {
            let text = text.trim();
            // `parse` alone would take a sign.
            let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
            text.parse().ok().filter(|_| is_number).ok_or_else(invalid)
        };
        Ok(Self { sends_ms: number(sends)?, wants_ms: number(wants)? })
    }

    /// What holds on a connection between this end and its `peer`. There are no heart-beats in 1.0.
    pub fn agree(self, peer: Self, version: Version) -> Intervals {
        let both = |sends: u32, wants: u32| match (sends, wants) {
            (0, _) | (_, 0) => 0,
            _ if version == Version::V10 => 0,
            _ => sends.max(wants),
        };
        Intervals {
            send_ms: both(self.sends_ms, peer.wants_ms),
            receive_ms: both(peer.sends_ms, self.wants_ms),
        }
    }
}

impl std::fmt::Display for HeartBeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{}", self.sends_ms, self.wants_ms)
    }
}

/// The longest silences agreed on, in milliseconds; 0 is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// Of this end.
    pub send_ms: u32,
    /// Of the peer.
    pub receive_ms: u32,
}

/// How much more than the agreed silence a peer is allowed: the factor, and the slack on top.
const TOLERANCE: u32 = 2;
const SLACK: Duration = Duration::from_secs(1);

/// The part of the agreed silence after which we speak. Peers tolerate no more than half as much again.
const EARLY_PERCENT: u64 = 70;

/// When to speak, and when to give the peer up.
///
/// Every octet counts as life, of either end. Silence is measured from the last octet, not on a fixed beat,
/// so that it never lasts longer than agreed.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tandem_protocols::stomp::state::{HeartBeats, Intervals};
///
/// let start = Instant::now();
/// let mut beats = HeartBeats::new(Intervals { send_ms: 10_000, receive_ms: 10_000 }, start);
/// assert_eq!(beats.send_at(), Some(start + Duration::from_secs(7)));
/// assert_eq!(beats.dead_at(), Some(start + Duration::from_secs(21)));
/// beats.sent(start + Duration::from_secs(7));
/// assert_eq!(beats.deadline(), Some(start + Duration::from_secs(14)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeartBeats {
    intervals: Intervals,
    sent: Instant,
    /// None while we do not listen.
    received: Option<Instant>,
}

const _: () = assert!(size_of::<HeartBeats>() <= 40, "every idle session has some");

impl HeartBeats {
    /// Both ends are alive `now`.
    pub const fn new(intervals: Intervals, now: Instant) -> Self {
        Self { intervals, sent: now, received: Some(now) }
    }

    /// When to send an end of line, if nothing else is sent before.
    pub fn send_at(&self) -> Option<Instant> {
        let silence = u64::from(self.intervals.send_ms) * EARLY_PERCENT / 100;
        (silence > 0).then(|| self.sent + Duration::from_millis(silence))
    }

    /// When the peer is dead, if nothing comes from it before. Never while we do not listen.
    pub fn dead_at(&self) -> Option<Instant> {
        let silence = Duration::from_millis(self.intervals.receive_ms.into()) * TOLERANCE + SLACK;
        self.received.filter(|_| self.intervals.receive_ms > 0).map(|received| received + silence)
    }

    /// The earlier of the two: when to look again.
    pub fn deadline(&self) -> Option<Instant> {
        [self.send_at(), self.dead_at()].into_iter().flatten().min()
    }

    /// Something was sent.
    pub fn sent(&mut self, now: Instant) {
        self.sent = self.sent.max(now);
    }

    /// Something was received.
    pub fn received(&mut self, now: Instant) {
        self.received = self.received.map(|received| received.max(now));
    }

    /// Our own back-pressure keeps us from listening; the peer's silence is not its fault.
    pub const fn pause_reading(&mut self) {
        self.received = None;
    }

    /// We listen again, and the peer has all its time from `now`.
    pub fn resume_reading(&mut self, now: Instant) {
        self.received = self.received.max(Some(now));
    }

    /// Whether it is time to send an end of line.
    pub fn must_send(&self, now: Instant) -> bool {
        self.send_at().is_some_and(|at| at <= now)
    }

    /// Whether the peer is to be given up.
    pub fn is_peer_dead(&self, now: Instant) -> bool {
        self.dead_at().is_some_and(|at| at <= now)
    }
}

// -------------------------------------------------------------------------------------- acknowledgement

/// How a subscriber acknowledges: the `ack` header of SUBSCRIBE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// Not at all.
    #[default]
    Auto,
    /// This message and all before it on the same subscription.
    Client,
    /// Each message by itself.
    ClientIndividual,
}

impl AckMode {
    /// Reads the header; none is `auto`. `client-individual` is taken in 1.0 too.
    pub fn parse(header: Option<&str>) -> Result<Self, Violation> {
        match header {
            None | Some("auto") => Ok(Self::Auto),
            Some("client") => Ok(Self::Client),
            Some("client-individual") => Ok(Self::ClientIndividual),
            Some(other) => Err(Violation::invalid_header("ack", other)),
        }
    }

    /// As in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

/// The delivery that an ACK or a NACK is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKey<'a> {
    /// 1.2: what the MESSAGE had in its `ack` header.
    Ack(&'a str),
    /// 1.0 and 1.1: what it had in its `message-id` header.
    Message {
        /// The message.
        message_id: &'a str,
        /// The subscription; always there in 1.1.
        subscription: Option<&'a str>,
    },
}

impl<'a> AckKey<'a> {
    /// Reads the key out of an ACK or a NACK. In 1.2 a `message-id` does not do.
    pub fn read(version: Version, headers: &'a Headers) -> Result<Self, Violation> {
        let subscription = match version {
            Version::V12 => return headers.require("id").map(Self::Ack),
            Version::V11 => Some(headers.require("subscription")?),
            Version::V10 => headers.get("subscription"),
        };
        Ok(Self::Message { message_id: headers.require("message-id")?, subscription })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stomp::frame::Command;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn c2_the_best_common_version_is_chosen_in_any_order() {
        let table = [
            (None, Some(Version::V10)),
            (Some("1.0"), Some(Version::V10)),
            (Some("1.2,1.1,1.0"), Some(Version::V12)),
            (Some("1.0,1.1,1.2"), Some(Version::V12)),
            (Some("1.1, 1.0"), Some(Version::V11)),
            (Some("9.9,1.1,2.0"), Some(Version::V11)),
            (Some("1.3"), None),
            (Some("1.20"), None),
            (Some(""), None),
        ];
        for (header, expected) in table {
            assert_eq!(negotiate(header).ok(), expected, "{header:?}");
        }
        let violation = negotiate(Some("2.0")).unwrap_err();
        assert_eq!(violation.message(), "Version mismatch");
        assert!(violation.detail.contains(SUPPORTED_VERSIONS));
    }

    #[test]
    fn padding_of_connect_is_dropped_in_1_0_only() {
        let mut old = Frame::new(Command::Connect).with("login", " guest");
        assert_eq!(accept(&mut old), Ok(Version::V10));
        assert_eq!(old.headers.get("login"), Some("guest"));
        let mut new = Frame::new(Command::Stomp).with("accept-version", "1.1").with("login", " guest");
        assert_eq!(accept(&mut new), Ok(Version::V11));
        assert_eq!(new.headers.get("login"), Some(" guest"));
    }

    #[test]
    fn a_client_takes_only_a_version_that_exists() {
        assert_eq!(chosen(None), Ok(Version::V10));
        assert_eq!(chosen(Some("1.2")), Ok(Version::V12));
        assert_eq!(chosen(Some("1.3")).unwrap_err().message(), "Invalid header");
    }

    #[test]
    fn h1_a_heart_beat_header_is_two_numbers() {
        let parse = |header| HeartBeat::parse(header).map(|beat| (beat.sends_ms, beat.wants_ms));
        assert_eq!(parse(None), Ok((0, 0)));
        assert_eq!(parse(Some("500,700")), Ok((500, 700)));
        assert_eq!(parse(Some("500, 700")), Ok((500, 700)));
        for bad in ["", ",", "1", "1,", ",1", "a,b", "-1,1", "+1,1", "1,2,3", "1.5,1", "4294967296,1"] {
            assert_eq!(parse(Some(bad)).unwrap_err().message(), "Invalid header", "{bad}");
        }
        assert_eq!(HeartBeat { sends_ms: 1, wants_ms: 2 }.to_string(), "1,2");
    }

    #[test]
    fn h1_the_longer_interval_holds_and_zero_is_never() {
        // What we send and want, what the peer does, and what holds.
        let table = [
            ((10, 20), (30, 40), (40, 30)),
            ((50, 60), (30, 40), (50, 60)),
            ((0, 20), (30, 40), (0, 30)),
            ((10, 0), (30, 40), (40, 0)),
            ((10, 20), (0, 40), (40, 0)),
            ((10, 20), (30, 0), (0, 30)),
            ((0, 0), (0, 0), (0, 0)),
        ];
        for (ours, theirs, (send_ms, receive_ms)) in table {
            let ours = HeartBeat { sends_ms: ours.0, wants_ms: ours.1 };
            let theirs = HeartBeat { sends_ms: theirs.0, wants_ms: theirs.1 };
            assert_eq!(ours.agree(theirs, Version::V11), Intervals { send_ms, receive_ms });
            let mirrored = Intervals { send_ms: receive_ms, receive_ms: send_ms };
            assert_eq!(theirs.agree(ours, Version::V12), mirrored);
            assert_eq!(ours.agree(theirs, Version::V10), Intervals::default(), "H2: none in 1.0");
        }
    }

    #[test]
    fn h3_a_silent_peer_is_dead_after_twice_the_interval_and_a_second() {
        let start = Instant::now();
        let mut beats = HeartBeats::new(Intervals { send_ms: 0, receive_ms: 5000 }, start);
        assert!(!beats.is_peer_dead(start + SECOND * 11 - Duration::from_nanos(1)));
        assert!(beats.is_peer_dead(start + SECOND * 11));
        beats.received(start + SECOND * 10);
        assert_eq!(beats.deadline(), Some(start + SECOND * 21));
        assert!(!beats.must_send(start + SECOND * 1000));
    }

    #[test]
    fn h5_a_message_moves_the_next_beat_but_never_beyond_the_interval() {
        let start = Instant::now();
        let mut beats = HeartBeats::new(Intervals { send_ms: 1000, receive_ms: 0 }, start);
        let late = start + Duration::from_millis(699);
        assert!(!beats.must_send(late));
        beats.sent(late);
        assert_eq!(beats.send_at(), Some(late + Duration::from_millis(700)));
        assert!(beats.must_send(late + SECOND));
        // A clock reading from before changes nothing.
        beats.sent(start);
        assert_eq!(beats.send_at(), Some(late + Duration::from_millis(700)));
    }

    #[test]
    fn h6_our_own_back_pressure_kills_no_peer() {
        let start = Instant::now();
        let mut beats = HeartBeats::new(Intervals { send_ms: 0, receive_ms: 1000 }, start);
        beats.pause_reading();
        assert!(!beats.is_peer_dead(start + SECOND * 60));
        beats.resume_reading(start + SECOND * 60);
        assert_eq!(beats.dead_at(), Some(start + SECOND * 63));
    }

    #[test]
    fn no_heart_beats_no_deadline() {
        assert_eq!(HeartBeats::new(Intervals::default(), Instant::now()).deadline(), None);
        // The longest possible interval overflows nothing.
        let most = Intervals { send_ms: u32::MAX, receive_ms: u32::MAX };
        assert!(HeartBeats::new(most, Instant::now()).deadline().is_some());
    }

    #[test]
    fn s3_an_unknown_ack_mode_is_an_error() {
        assert_eq!(AckMode::parse(None), Ok(AckMode::Auto));
        for mode in [AckMode::Auto, AckMode::Client, AckMode::ClientIndividual] {
            assert_eq!(AckMode::parse(Some(mode.as_str())), Ok(mode));
        }
        for bad in ["", "Client", "individual", "client "] {
            assert_eq!(AckMode::parse(Some(bad)).unwrap_err().message(), "Invalid header");
        }
    }

    #[test]
    fn s5_an_ack_names_its_message_as_its_version_says() {
        let read = |version, headers: &[(&str, &str)]| {
            let headers: Headers = headers.iter().copied().collect();
            AckKey::read(version, &headers)
                .map(|key| format!("{key:?}"))
                .map_err(|violation| violation.message())
        };
        let is = |key: AckKey<'_>| Ok(format!("{key:?}"));
        let (id, message, subscription) = (("id", "a"), ("message-id", "m"), ("subscription", "s"));
        let plain = AckKey::Message { message_id: "m", subscription: None };
        let with_subscription = AckKey::Message { message_id: "m", subscription: Some("s") };
        assert_eq!(read(Version::V10, &[message]), is(plain));
        assert_eq!(read(Version::V10, &[message, subscription]), is(with_subscription));
        assert_eq!(read(Version::V11, &[message, subscription]), is(with_subscription));
        assert_eq!(read(Version::V12, &[id, message, subscription]), is(AckKey::Ack("a")));
        for (version, headers) in [
            (Version::V10, &[id][..]),
            (Version::V11, &[message]),
            (Version::V11, &[id, subscription]),
            (Version::V12, &[message, subscription]),
        ] {
            assert_eq!(read(version, headers), Err("Missing header"));
        }
    }
}
