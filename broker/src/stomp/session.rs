//! A session from CONNECT to DISCONNECT: reading frames, letting the peer in, keeping time, and ending.
//!
//! What the frames of a peer that was let in mean is the business of the [`Dialogue`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use tandem_protocols::stomp::codec::{Decoder, Item};
use tandem_protocols::stomp::error::Reason;
use tandem_protocols::stomp::frame::{Command, Frame, Headers, Side, Version};
use tandem_protocols::stomp::state::{self, HeartBeat, HeartBeats};

use crate::core::access::authorizer::{Decision, Question};
use crate::core::access::{Applicant, Credentials, Grant, Peer, Presented, Principal, Refusal};
use crate::core::lease::Lease;
use crate::core::mailbox::Mailbox;
use crate::core::message::Kind;
use crate::core::notice::Origin;
use crate::core::parcel::Parcel;
use crate::core::protocol::{self, Close, Output, Session};
use crate::stomp::dialogue::receipts::Answered;
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;
use crate::stomp::headers;
use crate::stomp::settings::Settings;
use crate::stomp::voice::{Carrier, Voice};

/// What a peer may send between its CONNECT and the answer to it, in bytes.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What may come of a peer while one of its frames is held, in bytes, beside the rest of what came with that. The
/// pump reads nothing more meanwhile.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Frames that are taken of what came before the pump is asked whether there is time for more.
const FRAMES_AT_ONCE: usize = 32;

/// How a login and a passcode prove who somebody is.
const METHOD: &str = "stomp";

/// A conversation with one peer.
pub(super) struct StompSession {
    settings: Arc<Settings>,
    decoder: Decoder,
    voice: Voice,
    stage: Stage,
    held: Option<Box<Held>>,
}

/// What is not read yet of what came.
struct Held {
    /// The frame before it, which is taken again once it is known whether it is allowed.
    asked: Option<(Question, Frame)>,
    rest: (Kind, Bytes),
    later: VecDeque<(Kind, Bytes)>,
    later_bytes: usize,
}

const _: () = assert!(
    size_of::<StompSession>() <= 128 && size_of::<Dialogue>() <= 128,
    "every idle session has both, beside its subscriptions: allocations of exactly that size"
);

/// Where a session is in its life.
enum Stage {
    /// The peer has not been let in.
    Stranger(Box<Stranger>),
    /// It has.
    Open(Box<Dialogue>, Pulse),
    /// Nothing is read any more, and nothing more is said.
    Over,
}

/// A peer that has not been let in.
struct Stranger {
    peer: Peer,
    mailbox: Mailbox,
    /// What the wire's opening handshake said of who it is.
    presented: Option<Presented>,
    application: Option<Application>,
}

/// What a peer asked for in its CONNECT, while it is found out who it is.
struct Application {
    version: Version,
    heart_beat: HeartBeat,
    realm: Arc<str>,
    /// Who it says it is; nothing for somebody anonymous.
    user: Option<Arc<str>>,
    /// What is to be found out at that time: others failed as the same user.
    delayed: Option<(Credentials, Instant)>,
    /// What it sent after that, in order.
    waiting: VecDeque<(Kind, Bytes)>,
    waiting_bytes: usize,
}

/// The heart-beats of both ends.
struct Pulse {
    beats: HeartBeats,
    /// Since when a frame is incomplete, while the pump reads.
    /// Boxed, as most of the time there is none.
    incomplete_since: Option<Box<Instant>>,
    /// The pump did not read lately, so that the peer's silence may be our fault.
    paused: bool,
}

/// What becomes of the rest of the input once a frame was dealt with.
enum Next {
    Read,
    Wait,
    /// This must be known first, and then the frame taken again.
    Ask(Box<Frame>, Box<Question>),
    Stop,
}

impl StompSession {
    /// A session with a peer that has said nothing yet.
    pub(super) fn new(settings: Arc<Settings>, peer: Peer, mailbox: Mailbox) -> StompSession {
        StompSession {
            decoder: Decoder::new(Side::Server, settings.stranger.clone()),
            settings,
            voice: Voice::new(),
            stage: Stage::Stranger(Box::new(Stranger { peer, mailbox, presented: None, application: None })),
            held: None,
        }
    }

    // ---- reading -------------------------------------------------------------------------------------

    fn read(&mut self, kind: Kind, mut input: Bytes, now: Instant) {
        if let Some(held) = &mut self.held {
            held.later_bytes += input.len() + size_of::<(Kind, Bytes)>();
            held.later.push_back((kind, input));
            if held.later_bytes > HELD_BYTES_MAX {
                let detail = "too much was sent before it was known whether it is allowed";
                self.give_up(Fault::new(Reason::FrameTooLarge, detail), None);
            }
            return;
        }
        let buffer_bytes = input.len();
        let mut frames = 0;
        while !matches!(self.stage, Stage::Over) {
            if frames == FRAMES_AT_ONCE && !input.is_empty() && matches!(self.stage, Stage::Open(..)) {
                return self.keep(None, (kind, input));
            }
            frames += 1;
            if self.take_usual(&mut input, buffer_bytes, now) {
                continue;
            }
            let mut frame = match self.decoder.decode_with(&mut input, self.voice.spare()) {
                Ok(Some(Item::Frame(frame))) => frame,
                Ok(Some(Item::HeartBeats(_))) => continue,
                Ok(None) => return,
                Err(violation) => return self.give_up(violation.into(), None),
            };
            headers::detach(&mut frame.body, buffer_bytes);
            if let Stage::Open(_, pulse) = &mut self.stage {
                pulse.incomplete_since = None;
            }
            match self.take(frame, now) {
                Next::Read => {}
                Next::Wait => return self.put_off(kind, input),
                Next::Ask(frame, question) => return self.hold(*question, *frame, (kind, input)),
                Next::Stop => return,
            }
        }
    }

    /// Reads what was kept, for as long as there is time.
    fn read_again(&mut self, mut kept: VecDeque<(Kind, Bytes)>, mut kept_bytes: usize, now: Instant) {
        while let Some((kind, input)) = kept.pop_front() {
            kept_bytes = kept_bytes.saturating_sub(input.len());
            self.read(kind, input, now);
            if let Some(held) = &mut self.held {
                (held.later, held.later_bytes) = (kept, kept_bytes);
                return;
            }
        }
    }

    /// Takes a frame off the input that is one more of what the peer sends again and again. If somebody must be asked about
    /// it nothing is done, and it is for those that take all frames.
    fn take_usual(&mut self, input: &mut Bytes, buffer_bytes: usize, now: Instant) -> bool {
        let (Stage::Open(dialogue, pulse), Some(usual)) = (&mut self.stage, self.voice.usual()) else {
            return false;
        };
        let Some(place) = usual.head.body(&self.decoder, input) else { return false };
        if dialogue.member.may_ask(now) {
            return false;
        }
        let end = place.end;
        let body = headers::cut_out(input, place, buffer_bytes);
        if let Err(refusal) = dialogue.send_usual(usual, body) {
            let mut fault = Fault::from(refusal);
            if fault.take_question().is_some() {
                return false;
            }
            self.give_up(fault, None);
            return true;
        }
        input.advance(end + 1);
        pulse.incomplete_since = None;
        true
    }

    /// Keeps input until it is known whether the peer is let in.
    fn put_off(&mut self, kind: Kind, input: Bytes) {
        let Stage::Stranger(stranger) = &mut self.stage else { return };
        let Some(application) = &mut stranger.application else { return };
        if input.is_empty() {
            return;
        }
        application.waiting_bytes += input.len();
        if application.waiting_bytes > WAITING_BYTES_MAX {
            let detail = "too much was sent before the answer to CONNECT";
            return self.give_up(Fault::new(Reason::FrameTooLarge, detail), None);
        }
        application.waiting.push_back((kind, input));
    }

    /// Keeps a frame until it is known whether what it asks for is allowed.
    fn hold(&mut self, question: Question, frame: Frame, rest: (Kind, Bytes)) {
        let Stage::Open(dialogue, _) = &self.stage else { return };
        self.voice.push(Output::Authorize(dialogue.member.inquire(&question)));
        self.keep(Some((question, frame)), rest);
    }

    fn keep(&mut self, asked: Option<(Question, Frame)>, rest: (Kind, Bytes)) {
        self.held = Some(Box::new(Held { asked, rest, later: VecDeque::new(), later_bytes: 0 }));
    }

    /// Takes the frame that was held, and what came after it.
    fn take_again(&mut self, answer: Result<Decision, Refusal>, now: Instant) {
        let Stage::Open(dialogue, _) = &mut self.stage else { return };
        let Some(held) = self.held.take_if(|held| held.asked.is_some()) else { return };
        let Held { asked: Some((question, frame)), rest, mut later, later_bytes } = *held else { return };
        if !dialogue.member.note_answer(question, answer, now) {
            return self.give_up(Refusal::AuthorizationFailed.into(), None);
        }
        match self.take(frame, now) {
            Next::Read => {}
            Next::Wait | Next::Stop => return,
            Next::Ask(frame, question) => {
                self.hold(*question, *frame, rest);
                if let Some(held) = &mut self.held {
                    (held.later_bytes, held.later) = (later_bytes, later);
                }
                return;
            }
        }
        later.push_front(rest);
        self.read_again(later, later_bytes, now);
        self.watch_completeness(now);
    }

    fn take(&mut self, mut frame: Frame, now: Instant) -> Next {
        let result = match &mut self.stage {
            Stage::Stranger(_) => return self.connect(frame, now),
            Stage::Over => return Next::Stop,
            Stage::Open(..) if frame.command == Command::Disconnect => {
                self.disconnect(&frame);
                return Next::Stop;
            }
            Stage::Open(dialogue, _) => {
                // A body is kept only where the frame may have to be taken again.
                let body = dialogue.member.may_ask(now).then(|| frame.body.clone());
                let mut result = dialogue.take(&mut frame, &mut self.voice, &self.settings, now);
                if let Some(question) = result.as_mut().err().and_then(Fault::take_question) {
                    if let Some(body) = body {
                        frame.body = body;
                        return Next::Ask(Box::new(frame), question);
                    }
                    // The rules changed in this moment.
                    result = Err(Refusal::AuthorizationFailed.into());
                }
                dialogue.member.forget_answers();
                result
            }
        };
        match (result, frame.headers.get("receipt")) {
            (Ok(Receipt::Due), Some(receipt)) => self.voice.receipt(receipt),
            (Ok(Receipt::Due | Receipt::Settled), _) => {}
            (Err(fault), receipt) => {
                self.give_up(fault, receipt);
                return Next::Stop;
            }
        }
        self.voice.recycle(frame.headers);
        Next::Read
    }

    // ---- letting in ----------------------------------------------------------------------------------

    fn connect(&mut self, frame: Frame, now: Instant) -> Next {
        match self.apply(frame, now) {
            Err(fault) => {
                self.give_up(fault, None);
                Next::Stop
            }
            Ok(Some(principal)) => {
                self.let_in(Ok(principal.into()), now);
                if matches!(self.stage, Stage::Over) { Next::Stop } else { Next::Read }
            }
            Ok(None) => Next::Wait,
        }
    }

    /// Reads a CONNECT. `None`: it must be found out who the peer is. A receipt is not given for it.
    fn apply(&mut self, mut frame: Frame, now: Instant) -> Result<Option<Principal>, Fault> {
        let Stage::Stranger(stranger) = &mut self.stage else { return Ok(None) };
        if !matches!(frame.command, Command::Connect | Command::Stomp) {
            let detail = format!("{} cannot be the first frame", frame.command);
            return Err(Fault::new(Reason::BadCommand, detail));
        }
        let version = state::accept(&mut frame)?;
        let headers = &frame.headers;
        let heart_beat = match version {
            Version::V10 => HeartBeat::default(),
            Version::V11 | Version::V12 => HeartBeat::parse(headers.get("heart-beat"))?,
        };
        let realms = &self.settings.realms;
        let realm: Arc<str> = match headers.get("host").filter(|host| realms.admits(host)) {
            Some(host) => host.into(),
            None => realms.default_realm().name().clone(),
        };
        let credentials = credentials(headers, stranger.presented.take(), &realm)?;
        let application = stranger.application.insert(Application {
            version,
            heart_beat,
            realm,
            user: credentials.as_ref().map(|credentials| credentials.applicant.user.clone()),
            delayed: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        });
        match credentials {
            Some(credentials) => {
                match self.settings.throttle.admit(&stranger.peer, &credentials.applicant.user, now)? {
                    Duration::ZERO => self.voice.push(Output::Authenticate(Box::new(credentials))),
                    late => application.delayed = Some((credentials, now + late)),
                }
                Ok(None)
            }
            None => {
                let (authenticator, peer) = (&self.settings.authenticator, &stranger.peer);
                let principal = authenticator.recognize(peer, None);
                let principal = principal.or_else(|| authenticator.anonymous(peer));
                principal.map(Some).ok_or_else(|| Refusal::AuthenticationRequired.into())
            }
        }
    }

    /// What is not yet to be found out.
    fn delayed(&mut self) -> Option<&mut Option<(Credentials, Instant)>> {
        match &mut self.stage {
            Stage::Stranger(stranger) => {
                stranger.application.as_mut().map(|application| &mut application.delayed)
            }
            Stage::Open(..) | Stage::Over => None,
        }
    }

    /// Lets the peer in, if it is who it says and the realm has room; then reads on.
    fn let_in(&mut self, result: Result<Grant, Refusal>, now: Instant) {
        let Stage::Stranger(stranger) = &mut self.stage else { return };
        let Some(application) = stranger.application.take() else { return };
        let Application { version, heart_beat, realm, user, waiting, waiting_bytes, .. } = application;
        match (&user, &result) {
            (Some(user), Ok(_)) => self.settings.throttle.succeeded(&stranger.peer, user),
            (Some(user), Err(Refusal::WrongSecret)) => {
                self.settings.throttle.failed(&stranger.peer, user, METHOD, now);
            }
            (Some(_), Err(_)) | (None, _) => {}
        }
        let lifetime = result.as_ref().ok().and_then(|grant| grant.lifetime);
        let (authenticator, throttle) = (&self.settings.authenticator, &self.settings.throttle);
        let lease = Lease::new(lifetime, &stranger.peer, authenticator, throttle, now);
        let origin = Origin { peer: stranger.peer.clone(), dialect: self.voice.dialect_in(version) };
        let joined = result.and_then(|grant| {
            let (realms, realm) = (&self.settings.realms, grant.realm.unwrap_or(realm));
            realms.join(&realm, realms.propose_id(), &grant.principal, &origin, &stranger.mailbox)
        });
        let member = match joined {
            Ok(member) => member,
            Err(refusal) => return self.give_up(refusal.into(), None),
        };
        self.decoder.set_version(version);
        self.decoder.set_limits(self.settings.established.clone());
        self.voice.version = version;
        let mut connected = Frame::new(Command::Connected)
            .with("version", version.as_str())
            .with("session", &member.id().0.to_string())
            .with("server", &self.settings.server)
            .with("user-name", &member.principal().id);
        if version > Version::V10 {
            connected = connected.with("heart-beat", &self.settings.heart_beat.to_string());
        }
        self.voice.say(&connected);
        let beats = HeartBeats::new(self.settings.heart_beat.agree(heart_beat, version), now);
        let mut dialogue = Box::new(Dialogue::new(member));
        dialogue.hold(lease);
        self.stage = Stage::Open(dialogue, Pulse { beats, incomplete_since: None, paused: false });
        self.read_again(waiting, waiting_bytes, now);
    }

    // ---- ending --------------------------------------------------------------------------------------

    fn disconnect(&mut self, frame: &Frame) {
        let receipt = frame.headers.get("receipt");
        if let Stage::Open(dialogue, _) = &mut self.stage
            && dialogue.leave(receipt)
        {
            return;
        }
        if let Some(receipt) = receipt {
            self.voice.receipt(receipt);
        }
        self.end(Close::new(protocol::Reason::Done, ""));
    }

    /// Says what went wrong, and ends.
    fn give_up(&mut self, fault: Fault, receipt: Option<&str>) {
        self.voice.say(&fault.to_frame(receipt));
        self.end(fault.into_close());
    }

    /// Leaves the realm; nothing is read or said any more.
    fn end(&mut self, close: Close) {
        self.voice.close(close);
        self.stage = Stage::Over;
        self.held = None;
    }

    /// A frame that is incomplete now has its time from when it began, or from when reading went on.
    fn watch_completeness(&mut self, now: Instant) {
        if let Stage::Open(_, pulse) = &mut self.stage {
            let since = pulse.incomplete_since.take();
            let inside = self.decoder.is_inside_frame();
            pulse.incomplete_since = inside.then(|| since.unwrap_or_else(|| Box::new(now)));
        }
    }

    /// What was said counts as a heart-beat.
    fn note_spoken(&mut self, now: Instant) {
        if self.voice.take_spoke()
            && let Stage::Open(_, pulse) = &mut self.stage
        {
            pulse.beats.sent(now);
        }
    }
}

/// What a peer says to prove who it is, if it says anything: in its CONNECT or, where that has no passcode, in the
/// wire's opening handshake. A token may stand alone in the passcode.
fn credentials(
    headers: &Headers,
    presented: Option<Presented>,
    realm: &Arc<str>,
) -> Result<Option<Credentials>, Refusal> {
    let login = headers.get("login").unwrap_or_default();
    let passcode = headers.get("passcode").unwrap_or_default();
    let (user, secret) = match presented.filter(|_| passcode.is_empty()) {
        // They cannot be both.
        Some(Presented { user: Some(user), .. }) if !login.is_empty() && *user != *login => {
            return Err(Refusal::WrongSecret);
        }
        Some(Presented { user, secret }) => (user.unwrap_or_else(|| login.into()), secret),
        None if login.is_empty() && passcode.is_empty() => return Ok(None),
        None => (login.into(), passcode.into()),
    };
    let applicant = Applicant { realm: realm.clone(), user, method: METHOD, session: None, extra: None };
    Ok(Some(Credentials { applicant, secret }))
}

impl Session for StompSession {
    fn introduce(&mut self, presented: Presented) {
        if let Stage::Stranger(stranger) = &mut self.stage {
            stranger.presented = Some(presented);
        }
    }

    fn receive(&mut self, kind: Kind, bytes: Bytes, now: Instant) {
        match &mut self.stage {
            Stage::Stranger(stranger) if stranger.application.is_some() => self.put_off(kind, bytes),
            Stage::Stranger(_) => {
                self.voice.carrier = Carrier::of(kind);
                self.read(kind, bytes, now);
            }
            Stage::Open(dialogue, pulse) => {
                pulse.paused = false;
                pulse.beats.resume_reading(now);
                // Nothing may come after DISCONNECT.
                if !dialogue.is_leaving() {
                    self.read(kind, bytes, now);
                }
            }
            Stage::Over => {}
        }
        self.note_spoken(now);
        self.watch_completeness(now);
    }

    fn proceed(&mut self, now: Instant) -> bool {
        let Some(held) = self.held.take_if(|held| held.asked.is_none()) else { return false };
        let Held { rest, mut later, later_bytes, .. } = *held;
        let Stage::Open(dialogue, pulse) = &mut self.stage else { return false };
        // Nothing may come after DISCONNECT.
        if dialogue.is_leaving() {
            return false;
        }
        pulse.paused = false;
        pulse.beats.resume_reading(now);
        later.push_front(rest);
        self.read_again(later, later_bytes, now);
        self.note_spoken(now);
        self.watch_completeness(now);
        true
    }

    fn conclude(&mut self) {
        if let Stage::Open(dialogue, _) = &mut self.stage {
            dialogue.member.publish_gathered();
        }
    }

    fn deliver(&mut self, parcel: Parcel, now: Instant) {
        match (parcel, &mut self.stage) {
            (_, Stage::Over) => {}
            (Parcel::Authenticated(result), _) => self.let_in(*result, now),
            (Parcel::Authorized(answer), _) => self.take_again(*answer, now),
            (Parcel::Farewell(farewell), _) => self.give_up(farewell.into(), None),
            (_, Stage::Stranger(_)) => {}
            (Parcel::Stored { ticket, outcome }, Stage::Open(dialogue, _)) => {
                match dialogue.answered(ticket, outcome, &mut self.voice) {
                    Answered::Said => {}
                    Answered::Leave => self.end(Close::new(protocol::Reason::Done, "")),
                    Answered::Failed(fault, receipt) => self.give_up(fault, receipt.as_deref()),
                }
            }
            // What it does not get goes back to where it came from.
            (_, Stage::Open(dialogue, _)) if dialogue.is_leaving() => {}
            (parcel, Stage::Open(dialogue, _)) => {
                if let Err(fault) = dialogue.deliver(parcel, &mut self.voice) {
                    self.give_up(fault, None);
                }
            }
        }
        self.note_spoken(now);
    }

    fn tick(&mut self, now: Instant) {
        if let Some((credentials, _)) =
            self.delayed().and_then(|delayed| delayed.take_if(|(_, at)| now >= *at))
        {
            self.voice.push(Output::Authenticate(Box::new(credentials)));
        }
        let Stage::Open(dialogue, pulse) = &mut self.stage else { return };
        if dialogue.lease_until().is_some_and(|until| now >= until) {
            return self.give_up(Refusal::TokenExpired.into(), None);
        }
        if pulse.incomplete_since.as_ref().is_some_and(|since| now >= **since + self.settings.frame_time_max)
        {
            return self.give_up(Fault::too_slow(), None);
        }
        if pulse.beats.is_peer_dead(now) {
            if !pulse.paused {
                return self.end(Close::new(protocol::Reason::Silent, "no heart-beat came in time"));
            }
            // It may have spoken while it was not listened to: it gets all its time again.
            pulse.paused = false;
            pulse.beats.received(now);
        }
        dialogue.tick(&mut self.voice, now);
        if pulse.beats.must_send(now) {
            self.voice.beat();
        }
        self.note_spoken(now);
    }

    fn pause(&mut self, now: Instant) {
        if let Stage::Open(_, pulse) = &mut self.stage {
            pulse.paused = true;
            pulse.incomplete_since = None;
            pulse.beats.received(now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Open(dialogue, pulse) => {
                let whole_at =
                    pulse.incomplete_since.as_ref().map(|since| **since + self.settings.frame_time_max);
                let deadlines =
                    [pulse.beats.deadline(), dialogue.deadline(), dialogue.lease_until(), whole_at];
                deadlines.into_iter().flatten().min()
            }
            Stage::Stranger(stranger) => {
                let delayed = stranger.application.as_ref()?.delayed.as_ref();
                delayed.map(|(_, at)| *at)
            }
            Stage::Over => None,
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.voice.poll()
    }

    fn rest(&mut self) {
        self.voice.rest();
    }

    fn fail(&mut self, reason: &str, _now: Instant) {
        if !matches!(self.stage, Stage::Over) {
            self.voice.say(&Fault::wire(reason).to_frame(None));
            self.stage = Stage::Over;
        }
    }

    fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Open(..))
    }

    fn is_congested(&self, waker: &Waker) -> bool {
        match &self.stage {
            Stage::Open(dialogue, _) => dialogue.is_congested(waker),
            Stage::Stranger(_) | Stage::Over => false,
        }
    }

    fn paced_until(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        match &self.stage {
            Stage::Open(dialogue, _) => dialogue.paced_until(waker, now, time_max),
            Stage::Stranger(_) | Stage::Over => None,
        }
    }
}
