//! Letting a peer in: HELLO, perhaps CHALLENGE and AUTHENTICATE, and WELCOME.
//!
//! The client's authentication methods are tried in its order, and the first that can be used is. One that
//! nobody here could use is passed over, and so is one that is known but cannot be used (anonymous where
//! everybody must have a name, ticket without `authid`, cryptosign without a key, tls without a certificate of a
//! user); if no other is left,
//! authentication is required. Whether the user can use a method is not asked: it would tell who is one.
//!
//! A user that the configuration does not have may be known to an application: the authenticator is asked for what
//! it keeps of the user, and CHALLENGE is made of that.
//!
//! Where the wire's opening handshake said who the peer is, `anonymous` means that: it is judged like the answer to a
//! CHALLENGE that was not needed. A ticket that is a token says by itself whose it is.
//!
//! A ticket is checked by the authenticator, which may take its time; other proofs are judged here. Before either,
//! the throttle is asked: when too many failed before, there is no challenge, or no judgement, or a late one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_protocols::wamp::auth::{AuthError, BindingKind, ChannelBinding, ticket};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{
    AUTHENTICATION_REQUIRED, INVALID_URI, NO_MATCHING_AUTH_METHOD, NO_SUCH_REALM, Violation,
};
use tandem_protocols::wamp::message::{Authenticate, Challenge, Hello, Incoming, Message, Welcome};
use tandem_protocols::wamp::options::{Feature, HelloDetails, Role, Roles};
use tandem_protocols::wamp::uri::{Rule, is_uri};

use crate::core::access::{
    Applicant, Credentials, Grant, Peer, Presented, Principal, Record, Refusal, SessionId,
};
use crate::core::lease::Lease;
use crate::core::mailbox::Mailbox;
use crate::core::notice::Origin;
use crate::core::protocol::Output;
use crate::core::realm::{Member, Realm};
use crate::wamp::credentials::Pending;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::fault;
use crate::wamp::records::{self, Unusable};
use crate::wamp::settings::WampSettings;
use crate::wamp::voice::{Voice, id};

/// How long a peer may take to answer a CHALLENGE.
pub(super) const CHALLENGE_TIME_MAX: Duration = Duration::from_secs(10);

/// The method by which a peer is who its certificate says, as autobahn calls it.
const TLS: &str = "tls";

/// A peer that has not been let in.
#[derive(Debug)]
pub(super) struct Opening {
    peer: Peer,
    mailbox: Mailbox,
    /// What the wire's opening handshake said of who it is.
    presented: Option<Presented>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was said.
    Hello,
    /// An application is asked what it keeps of the user, who said these details in HELLO.
    LookingUp(Application, Dict),
    /// CHALLENGE was said, and is to be answered until then.
    Challenged(Application, Test, Instant),
    /// CHALLENGE was answered, and the answer is judged at that time: others failed as the same user.
    Delayed(Application, Test, Authenticate, Instant),
    /// The answer is being checked.
    Checking(Application),
}

/// What a peer asked for in its HELLO.
#[derive(Debug)]
struct Application {
    realm: Arc<str>,
    /// The session that it is to be.
    session: SessionId,
    roles: Roles,
    /// Who it says it is, and how it proves that.
    user: Arc<str>,
    method: &'static str,
    /// What it said for the method: an object of JSON.
    extra: Option<Arc<str>>,
}

impl Application {
    fn applicant(&self) -> Applicant {
        Applicant {
            realm: self.realm.clone(),
            user: self.user.clone(),
            method: self.method,
            session: Some(self.session),
            extra: self.extra.clone(),
        }
    }

    /// The same with what the wire's opening handshake said, as the answer to a CHALLENGE; `None` where HELLO says
    /// that it is somebody else.
    fn told(self, Presented { user, secret }: Presented) -> Option<(Application, Authenticate)> {
        let user = match user {
            Some(user) if !self.user.is_empty() && *user != *self.user => return None,
            Some(user) => user,
            None => self.user.clone(),
        };
        let answer = Authenticate { signature: secret.to_string(), extra: Dict::new() };
        Some((Application { user, ..self }, answer))
    }
}

/// What is to be answered.
#[derive(Debug)]
enum Test {
    Ticket,
    Proof(Box<Pending>),
}

impl Test {
    fn method(&self) -> &'static str {
        match self {
            Test::Ticket => ticket::METHOD,
            Test::Proof(pending) => pending.method(),
        }
    }
}

/// What becomes of a peer.
pub(super) enum Step {
    /// It is its turn, or that of the authenticator.
    Wait,
    /// It is let in.
    Enter(Box<Dialogue>),
    /// It is not: ABORT with this URI and sentence.
    Refuse(&'static str, String),
}

/// How a peer is to authenticate.
enum Way {
    /// It is known already who it is.
    Known(Principal),
    Challenge(Challenge, Test),
    /// By what the wire's opening handshake said.
    Presented,
    /// By a method for which an application keeps what it is challenged by.
    LookUp(&'static str),
}

impl Opening {
    pub(super) fn new(peer: Peer, mailbox: Mailbox) -> Opening {
        Opening { peer, mailbox, presented: None, stage: Stage::Hello }
    }

    /// The wire's opening handshake said this of who the peer is.
    pub(super) fn introduce(&mut self, presented: Presented) {
        self.presented = Some(presented);
    }

    /// What the connection can be bound by.
    fn bindings(&self) -> Option<ChannelBinding<'_>> {
        let exporter = self.peer.exporter();
        exporter.map(|data| ChannelBinding { kind: BindingKind::TlsExporter, data })
    }

    /// Until when the peer must have answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Challenged(.., deadline) | Stage::Delayed(.., deadline) => Some(*deadline),
            Stage::Hello | Stage::LookingUp(..) | Stage::Checking(_) => None,
        }
    }

    /// The peer sent this.
    pub(super) fn take(
        &mut self,
        message: Incoming<'_>,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Step, Violation> {
        match (std::mem::replace(&mut self.stage, Stage::Hello), message) {
            (Stage::Hello, Message::Hello(hello)) => self.greet(hello, settings, voice, now),
            (Stage::Challenged(application, test, _), Message::Authenticate(answer)) => {
                self.answered(application, test, answer, settings, voice, now)
            }
            (Stage::Hello, message) => {
                Err(Violation::new(format!("{} before the session is established", message.name())))
            }
            (Stage::Challenged(..), message) => {
                Err(Violation::new(format!("{} where AUTHENTICATE is due", message.name())))
            }
            (Stage::LookingUp(..), message) => {
                Err(Violation::new(format!("{} where CHALLENGE is to be waited for", message.name())))
            }
            (Stage::Delayed(..) | Stage::Checking(_), message) => {
                Err(Violation::new(format!("{} where WELCOME is to be waited for", message.name())))
            }
        }
    }

    fn greet(
        &mut self,
        hello: Hello,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Step, Violation> {
        let details = HelloDetails::parse(&hello.details)?;
        if !is_uri(&hello.realm, Rule::Loose) {
            return Ok(Step::Refuse(INVALID_URI, "the realm is not a URI".to_owned()));
        }
        if !settings.realms.admits(&hello.realm) {
            return Ok(Step::Refuse(NO_SUCH_REALM, "there is no such realm".to_owned()));
        }
        let realm = Arc::from(hello.realm.as_str());
        let session = settings.realms.propose_id();
        let way = self.choose_way(&details, session, settings)?;
        let method = match &way {
            Ok(Way::Challenge(_, test)) => test.method(),
            Ok(Way::LookUp(method)) => method,
            Ok(Way::Presented) => ticket::METHOD,
            Ok(Way::Known(_)) | Err(_) => "anonymous",
        };
        let presented = self.presented.take();
        let user: Arc<str> = details.authid.unwrap_or_default().into();
        let extra = details.authextra.map(records::to_json);
        let roles = details.roles;
        let application = Application { realm, session, roles, user, method, extra };
        match way {
            Ok(Way::Known(principal)) => {
                Ok(self.enter(application, principal.into(), Dict::new(), settings, voice, now))
            }
            Ok(Way::Challenge(..) | Way::LookUp(_) | Way::Presented)
                if let Err(refusal) = settings.throttle.ask(&self.peer, &application.user, now) =>
            {
                Ok(refuse(&refusal))
            }
            Ok(Way::Presented) => match presented.and_then(|presented| application.told(presented)) {
                Some((application, answer)) => {
                    self.answered(application, Test::Ticket, answer, settings, voice, now)
                }
                None => Ok(refuse(&Refusal::WrongSecret)),
            },
            Ok(Way::LookUp(_)) => {
                voice.push(Output::LookUp(Box::new(application.applicant())));
                self.stage = Stage::LookingUp(application, hello.details);
                Ok(Step::Wait)
            }
            Ok(Way::Challenge(challenge, test)) => {
                self.stage = Stage::Challenged(application, test, now + CHALLENGE_TIME_MAX);
                voice.say(challenge);
                Ok(Step::Wait)
            }
            Err((uri, sentence)) => Ok(Step::Refuse(uri, sentence)),
        }
    }

    fn choose_way(
        &self,
        details: &HelloDetails<'_>,
        session: SessionId,
        settings: &WampSettings,
    ) -> Result<Result<Way, (&'static str, String)>, Violation> {
        let methods = details.authmethods.as_deref().unwrap_or_default();
        let methods = if methods.is_empty() { &["anonymous"] } else { methods };
        let bindings = self.bindings();
        let mut known = false;
        for method in methods {
            let way = match *method {
                "anonymous" if self.presented.is_some() => Some(Way::Presented),
                "anonymous" => settings.authenticator.anonymous(&self.peer).map(Way::Known),
                TLS => settings.authenticator.recognize(&self.peer, details.authid).map(Way::Known),
                // Who would send a secret in the clear is not asked for it.
                ticket::METHOD if !settings.authenticator.takes_secrets(&self.peer) => continue,
                ticket::METHOD => {
                    let is_named = details.authid.is_some_and(|id| !id.is_empty());
                    let challenge = Challenge { auth_method: ticket::METHOD.to_owned(), extra: Dict::new() };
                    (is_named || settings.authenticator.takes_tokens())
                        .then_some(Way::Challenge(challenge, Test::Ticket))
                }
                method => match challenge(method, details, session, bindings.as_slice(), settings) {
                    None => continue,
                    Some(Ok(way)) => Some(way),
                    Some(Err(AuthError::Required(_))) => None,
                    Some(Err(AuthError::Violation(violation))) => return Err(violation),
                    Some(Err(error)) => return Ok(Err((error.uri(), error.to_string()))),
                },
            };
            known = true;
            if let Some(way) = way {
                return Ok(Ok(way));
            }
        }
        let (uri, sentence) = if methods.iter().all(|method| *method == "anonymous") {
            let sentence = "nobody is let in anonymously: say who you are, by another authentication method";
            (AUTHENTICATION_REQUIRED, sentence)
        } else if known {
            (AUTHENTICATION_REQUIRED, "an authid or a certificate, and what its method needs, are required")
        } else {
            (NO_MATCHING_AUTH_METHOD, "none of the authentication methods is available")
        };
        Ok(Err((uri, sentence.to_owned())))
    }

    fn answered(
        &mut self,
        application: Application,
        test: Test,
        answer: Authenticate,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Step, Violation> {
        match settings.throttle.admit(&self.peer, &application.user, now) {
            Ok(Duration::ZERO) => self.judge(application, test, answer, settings, voice, now),
            Ok(late) => {
                self.stage = Stage::Delayed(application, test, answer, now + late);
                Ok(Step::Wait)
            }
            Err(refusal) => Ok(refuse(&refusal)),
        }
    }

    /// A deadline came: what is to be done then. `None` when the peer was to answer and did not.
    pub(super) fn tick(
        &mut self,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Option<Step>, Violation> {
        match std::mem::replace(&mut self.stage, Stage::Hello) {
            Stage::Delayed(application, test, answer, _) => {
                self.judge(application, test, answer, settings, voice, now).map(Some)
            }
            Stage::Hello | Stage::LookingUp(..) | Stage::Challenged(..) | Stage::Checking(_) => Ok(None),
        }
    }

    fn judge(
        &mut self,
        application: Application,
        test: Test,
        answer: Authenticate,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Step, Violation> {
        match test {
            Test::Ticket => {
                let applicant = application.applicant();
                let credentials = Credentials { applicant, secret: answer.signature.into() };
                voice.push(Output::Authenticate(Box::new(credentials)));
                self.stage = Stage::Checking(application);
                Ok(Step::Wait)
            }
            Test::Proof(pending) => match pending.verify(&answer) {
                Ok((grant, authextra)) => {
                    self.note(&application, true, settings, now);
                    Ok(self.enter(application, grant, authextra, settings, voice, now))
                }
                Err(AuthError::Violation(violation)) => Err(violation),
                // In the words of any other secret that is wrong.
                Err(AuthError::Denied) => {
                    Ok(self.turn_away(&application, &Refusal::WrongSecret, settings, now))
                }
                Err(error) => Ok(Step::Refuse(error.uri(), error.to_string())),
            },
        }
    }

    /// It was found out who the peer is.
    pub(super) fn authenticated(
        &mut self,
        result: Result<Grant, Refusal>,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Step {
        let Stage::Checking(application) = std::mem::replace(&mut self.stage, Stage::Hello) else {
            return refuse(&Refusal::AuthenticationFailed);
        };
        match result {
            Ok(grant) => {
                self.note(&application, true, settings, now);
                self.enter(application, grant, Dict::new(), settings, voice, now)
            }
            Err(refusal) => self.turn_away(&application, &refusal, settings, now),
        }
    }

    /// It was found out what an application keeps of the user.
    pub(super) fn looked_up(
        &mut self,
        result: Result<Record, Refusal>,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Step, Violation> {
        let Stage::LookingUp(application, details) = std::mem::replace(&mut self.stage, Stage::Hello) else {
            return Ok(refuse(&Refusal::AuthenticationFailed));
        };
        let record = match result {
            Ok(record) => record,
            Err(refusal) => return Ok(self.turn_away(&application, &refusal, settings, now)),
        };
        let details = HelloDetails::parse(&details)?;
        let (method, session) = (application.method, application.session);
        let bindings = self.bindings();
        match records::challenge(
            record,
            method,
            &details,
            session,
            bindings.as_slice(),
            &settings.credentials,
        ) {
            Ok((challenge, pending)) => {
                let test = Test::Proof(Box::new(pending));
                self.stage = Stage::Challenged(application, test, now + CHALLENGE_TIME_MAX);
                voice.say(challenge);
                Ok(Step::Wait)
            }
            Err(Unusable::Client(AuthError::Violation(violation))) => Err(violation),
            Err(Unusable::Client(error)) => Ok(Step::Refuse(error.uri(), error.to_string())),
            Err(Unusable::Record(why)) => {
                tracing::warn!(method, %why, "the authenticator's answer is of no use");
                Ok(refuse(&Refusal::AuthenticationFailed))
            }
        }
    }

    /// Refuses an attempt, which counts for the throttle if it was a guess.
    fn turn_away(
        &self,
        application: &Application,
        refusal: &Refusal,
        settings: &WampSettings,
        now: Instant,
    ) -> Step {
        if *refusal == Refusal::WrongSecret {
            self.note(application, false, settings, now);
        }
        refuse(refusal)
    }

    /// Tells the throttle how an attempt ended.
    fn note(&self, application: &Application, is_right: bool, settings: &WampSettings, now: Instant) {
        let Application { user, method, .. } = application;
        match is_right {
            true => settings.throttle.succeeded(&self.peer, user),
            false => settings.throttle.failed(&self.peer, user, method, now),
        }
    }

    fn enter(
        &self,
        application: Application,
        grant: Grant,
        authextra: Dict,
        settings: &WampSettings,
        voice: &mut Voice,
        now: Instant,
    ) -> Step {
        let Application { realm, session, roles, .. } = application;
        let Grant { principal, realm: named, extra, lifetime } = grant;
        let realm = named.unwrap_or(realm);
        let authextra = authextra
            .iter()
            .fold(extra.as_deref().map(records::from_json).unwrap_or_default(), |extra, (key, value)| {
                extra.with(key, value.clone())
            });
        let origin = Origin { peer: self.peer.clone(), dialect: voice.dialect() };
        match settings.realms.join(&realm, session, &principal, &origin, &self.mailbox) {
            Ok(member) => {
                let mut details = welcome_details(&member, settings);
                if !authextra.is_empty() {
                    details.insert("authextra", authextra);
                }
                voice.say(Welcome { session: id(member.id().0), details });
                let (authenticator, throttle) = (&settings.authenticator, &settings.throttle);
                let lease = Lease::new(lifetime, &self.peer, authenticator, throttle, now);
                Step::Enter(Box::new(Dialogue::new(member, roles, settings.strictness).holding(lease)))
            }
            Err(refusal) => refuse(&refusal),
        }
    }
}

/// How a client proves who it is without sending a secret, by a method. `None` when the method is not available here.
fn challenge(
    method: &str,
    details: &HelloDetails<'_>,
    session: SessionId,
    bindings: &[ChannelBinding<'_>],
    settings: &WampSettings,
) -> Option<Result<Way, AuthError>> {
    if let Some(method) = records::method(method)
        && settings.authenticator.looks_up(method)
        && !settings.credentials.knows(method, details)
    {
        return Some(records::check(method, details).map(|()| Way::LookUp(method)));
    }
    let challenged = settings.credentials.challenge(method, details, session, bindings)?;
    Some(challenged.map(|(challenge, pending)| Way::Challenge(challenge, Test::Proof(Box::new(pending)))))
}

fn refuse(refusal: &Refusal) -> Step {
    Step::Refuse(fault::uri(refusal), refusal.to_string())
}

fn welcome_details(member: &Member, settings: &WampSettings) -> Dict {
    let Principal { id, role, method, provider, .. } = member.principal();
    Dict::new()
        .with("realm", &**member.realm().name())
        .with("authid", &**id)
        .with("authrole", &**role)
        .with("authmethod", *method)
        .with("authprovider", provider.as_str())
        .with("agent", settings.agent)
        .with("roles", router_roles(member.realm()).to_dict())
}

/// What the router can do, and nothing more: clients rely on it.
fn router_roles(realm: &Realm) -> Roles {
    let if_there = |is_there: bool, features: &'static [Feature]| if is_there { features } else { &[] };
    let has_meta = realm.is_observed();
    Roles::default()
        .with(Role::Broker, if_there(realm.topics().history().is_some(), &[Feature::EventHistory]))
        .with(Role::Broker, if_there(has_meta, &[Feature::SessionMetaApi, Feature::SubscriptionMetaApi]))
        .with(Role::Dealer, if_there(has_meta, &[Feature::SessionMetaApi, Feature::RegistrationMetaApi]))
        .with(
            Role::Broker,
            &[
                Feature::SubscriberBlackwhiteListing,
                Feature::PublisherExclusion,
                Feature::PublisherIdentification,
                Feature::PublicationTrustlevels,
                Feature::PatternBasedSubscription,
                Feature::ShardedSubscription,
                Feature::EventRetention,
                Feature::PayloadPassthruMode,
            ],
        )
        .with(
            Role::Dealer,
            &[
                Feature::PatternBasedRegistration,
                Feature::ProgressiveCallResults,
                Feature::ProgressiveCallInvocations,
                Feature::CallCanceling,
                Feature::CallTimeout,
                Feature::SharedRegistration,
                Feature::ShardedRegistration,
                Feature::CallerIdentification,
                Feature::CallTrustlevels,
                Feature::RegistrationRevocation,
                Feature::CallReroute,
                Feature::TestamentMetaApi,
                Feature::PayloadPassthruMode,
            ],
        )
}
