//! What Options and Details say, read out of their dictionaries.
//!
//! Each view is made by `parse`, which judges the keys that it knows and passes over all others. A known key
//! of a wrong type is a [`Violation`] whose message names the key; null counts as absent. The views borrow.

use crate::wamp::dict::{Dict, Value};
use crate::wamp::error::Violation;
use crate::wamp::id::Id;
use crate::wamp::message::Message;

/// What a key of a dictionary can mean.
trait Read<'a>: Sized {
    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation>;

    /// The same of a dictionary that is empty, as most are.
    fn absent(dict: &'a Dict, key: &str) -> Result<Self, Violation>;
}

impl<'a> Read<'a> for bool {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(false)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        Ok(dict.bool(key)?.unwrap_or(false))
    }
}

impl<'a> Read<'a> for Option<bool> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.bool(key)
    }
}

impl<'a> Read<'a> for Option<u64> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.uint(key)
    }
}

impl<'a> Read<'a> for Option<Id> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.id(key)
    }
}

impl<'a> Read<'a> for Option<&'a str> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.str(key)
    }
}

impl<'a> Read<'a> for Option<&'a Value> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        Ok(dict.get(key))
    }
}

impl<'a> Read<'a> for Option<&'a Dict> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.dict(key)
    }
}

impl<'a> Read<'a> for Option<Vec<Id>> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.ids(key)
    }
}

impl<'a> Read<'a> for Option<Vec<&'a str>> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.strs(key)
    }
}

/// Defines an enum that is written as a string.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word that stands for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What a word stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl<'a> Read<'a> for Option<$name> {
            fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
                Ok(None)
            }

            fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
                let expected = concat!("one of" $(, " ", $word)*);
                dict.read(key, expected, |value| value.as_str().and_then($name::from_word))
            }
        }
    };
}

words! {
    /// How a topic or procedure is matched.
    MatchPolicy {
        /// It is the name.
        Exact = "exact",
        /// The name begins with it, character by character.
        Prefix = "prefix",
        /// Its empty components stand for any one component.
        Wildcard = "wildcard",
    }
}

words! {
    /// How a callee is chosen.
    InvokePolicy {
        /// There is but one.
        Single = "single",
        /// One after the other.
        RoundRobin = "roundrobin",
        /// Any.
        Random = "random",
        /// Who registered first.
        First = "first",
        /// Who registered last.
        Last = "last",
    }
}

words! {
    /// How a call is given up.
    CancelMode {
        /// The callee is not told.
        Skip = "skip",
        /// The callee is told, and its answer awaited.
        Kill = "kill",
        /// The callee is told, and its answer dropped.
        KillNoWait = "killnowait",
    }
}

impl<'a> Read<'a> for MatchPolicy {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(Self::Exact)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        Ok(Option::read(dict, key)?.unwrap_or(Self::Exact))
    }
}

impl<'a> Read<'a> for InvokePolicy {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(Self::Single)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        Ok(Option::read(dict, key)?.unwrap_or(Self::Single))
    }
}

/// The routers and clients that a message has passed, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForwardFor<'a>(&'a [Value]);

impl<'a> ForwardFor<'a> {
    /// The sessions it has passed.
    pub fn hops(&self) -> impl ExactSizeIterator<Item = &'a Dict> {
        self.0.iter().map(|hop| hop.as_dict().expect("parsing found only dictionaries"))
    }
}

impl<'a> Read<'a> for Option<ForwardFor<'a>> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        let expected = "a list of sessions with authid and authrole";
        dict.read(key, expected, |value| {
            let hops = value.as_list()?;
            hops.iter().all(is_hop).then_some(ForwardFor(hops))
        })
    }
}

fn is_hop(hop: &Value) -> bool {
    let Some(hop) = hop.as_dict() else { return false };
    matches!(hop.id("session"), Ok(Some(_)))
        && hop.str("authid").is_ok()
        && matches!(hop.str("authrole"), Ok(Some(_)))
}

/// An algorithm of the older transparent payload; those of applications begin with `x_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncAlgo<'a>(&'a str);

impl<'a> EncAlgo<'a> {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> Read<'a> for Option<EncAlgo<'a>> {
    fn absent(_dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(None)
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        dict.read(key, "one of cryptobox mqtt xbr, or x_ and more", |value| {
            let name = value.as_str()?;
            (matches!(name, "cryptobox" | "mqtt" | "xbr") || name.starts_with("x_")).then_some(EncAlgo(name))
        })
    }
}

/// The keys by which a payload is marked as readable by its receiver only, `ppt_*` and the older `enc_*`.
///
/// `enc_key` is a string, but some write bytes; it is passed on as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passthru<'a> {
    dict: &'a Dict,
    /// `ppt_scheme`.
    pub scheme: Option<&'a str>,
    /// `enc_algo`.
    pub enc_algo: Option<EncAlgo<'a>>,
}

impl Passthru<'_> {
    const KEYS: [&'static str; 7] =
        ["ppt_scheme", "ppt_serializer", "ppt_cipher", "ppt_keyid", "enc_algo", "enc_serializer", "enc_key"];

    /// Whether the payload is an ordinary one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scheme.is_none() && self.enc_algo.is_none()
    }

    /// Puts the keys into what is sent on.
    pub fn copy_to(&self, details: &mut Dict) {
        if self.is_empty() {
            return;
        }
        for key in Self::KEYS {
            if let Some(value) = self.dict.get(key) {
                details.insert(key, value.clone());
            }
        }
    }
}

impl<'a> Read<'a> for Passthru<'a> {
    fn absent(dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        Ok(Self { dict, scheme: None, enc_algo: None })
    }

    fn read(dict: &'a Dict, _key: &str) -> Result<Self, Violation> {
        for key in ["ppt_serializer", "ppt_cipher", "ppt_keyid", "enc_serializer"] {
            dict.str(key)?;
        }
        Ok(Self { dict, scheme: dict.str("ppt_scheme")?, enc_algo: Read::read(dict, "enc_algo")? })
    }
}

/// Defines a set of bits with a name for each.
macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $word:literal $(| $alias:literal)?,)*) => {
        /// A feature that a role can announce.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its key.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            fn from_key(key: &str) -> Option<Self> {
                match key {
                    $($word $(| $alias)? => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

features! {
    /// Progressive call results.
    ProgressiveCallResults = "progressive_call_results",
    /// Progressive call invocations.
    ProgressiveCallInvocations = "progressive_call_invocations",
    /// Call timeout.
    CallTimeout = "call_timeout",
    /// Call canceling; the specification also has the other spelling.
    CallCanceling = "call_canceling" | "call_cancelling",
    /// Caller identification.
    CallerIdentification = "caller_identification",
    /// Call trust levels.
    CallTrustlevels = "call_trustlevels",
    /// Call rerouting.
    CallReroute = "call_reroute",
    /// Registration meta API.
    RegistrationMetaApi = "registration_meta_api",
    /// Pattern-based registration.
    PatternBasedRegistration = "pattern_based_registration",
    /// Shared registration.
    SharedRegistration = "shared_registration",
    /// Sharded registration.
    ShardedRegistration = "sharded_registration",
    /// Registration revocation.
    RegistrationRevocation = "registration_revocation",
    /// Interface reflection of procedures.
    ProcedureReflection = "procedure_reflection",
    /// Subscriber black- and whitelisting.
    SubscriberBlackwhiteListing = "subscriber_blackwhite_listing",
    /// Publisher exclusion.
    PublisherExclusion = "publisher_exclusion",
    /// Publisher identification.
    PublisherIdentification = "publisher_identification",
    /// Publication trust levels.
    PublicationTrustlevels = "publication_trustlevels",
    /// Subscription meta API.
    SubscriptionMetaApi = "subscription_meta_api",
    /// Pattern-based subscription.
    PatternBasedSubscription = "pattern_based_subscription",
    /// Sharded subscription.
    ShardedSubscription = "sharded_subscription",
    /// Subscription revocation.
    SubscriptionRevocation = "subscription_revocation",
    /// Event history.
    EventHistory = "event_history",
    /// Event retention.
    EventRetention = "event_retention",
    /// Acknowledged events.
    AcknowledgeEventReceived = "acknowledge_event_received",
    /// Interface reflection of topics.
    TopicReflection = "topic_reflection",
    /// Session meta API.
    SessionMetaApi = "session_meta_api",
    /// Testaments.
    TestamentMetaApi = "testament_meta_api",
    /// Payload passthru.
    PayloadPassthruMode = "payload_passthru_mode",
    /// The older transparent payload.
    PayloadTransparency = "payload_transparency",
    /// The older end-to-end encryption.
    PayloadEncryptionCryptobox = "payload_encryption_cryptobox",
}

words! {
    /// A part that a peer plays.
    Role {
        /// Publishes.
        Publisher = "publisher",
        /// Subscribes.
        Subscriber = "subscriber",
        /// Calls.
        Caller = "caller",
        /// Is called.
        Callee = "callee",
        /// Routes events.
        Broker = "broker",
        /// Routes calls.
        Dealer = "dealer",
    }
}

/// The roles of a peer and what each can do: 28 bytes, however much the peer wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    present: u8,
    features: [u32; 6],
}

impl Roles {
    /// Whether the peer plays the role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.present & (1 << role as u8) != 0
    }

    /// Whether the peer announces the feature for the role.
    #[must_use]
    pub fn announces(&self, role: Role, feature: Feature) -> bool {
        self.features[role as usize] & (1 << feature as u32) != 0
    }

    /// The same, with a role added that has these features.
    #[must_use]
    pub fn with(mut self, role: Role, features: &[Feature]) -> Self {
        self.present |= 1 << role as u8;
        for feature in features {
            self.features[role as usize] |= 1 << *feature as u32;
        }
        self
    }

    /// As HELLO and WELCOME carry it, every role with its dictionary of features.
    #[must_use]
    pub fn to_dict(&self) -> Dict {
        let mut roles = Dict::new();
        for role in Self::ALL.into_iter().filter(|role| self.has(*role)) {
            let announced = Feature::ALL.iter().filter(|feature| self.announces(role, **feature));
            let features = announced.fold(Dict::new(), |dict, feature| dict.with(feature.as_str(), true));
            roles.insert(role.as_str(), Dict::new().with("features", features));
        }
        roles
    }

    const ALL: [Role; 6] =
        [Role::Publisher, Role::Subscriber, Role::Caller, Role::Callee, Role::Broker, Role::Dealer];

    fn add(&mut self, role: Role, details: &Dict) -> Result<(), Violation> {
        self.present |= 1 << role as u8;
        let Some(features) = details.dict("features")? else { return Ok(()) };
        for (key, _) in features.iter() {
            if let Some(feature) = Feature::from_key(key)
                && features.bool(key)? == Some(true)
            {
                self.features[role as usize] |= 1 << feature as u32;
            }
        }
        Ok(())
    }
}

impl<'a> Read<'a> for Roles {
    fn absent(_dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        Err(Violation::new(format!("{key} has no role")))
    }

    fn read(dict: &'a Dict, key: &str) -> Result<Self, Violation> {
        let mut roles = Self::default();
        if let Some(announced) = dict.dict(key)? {
            for role in Self::ALL {
                if let Some(details) = announced.dict(role.as_str())? {
                    roles.add(role, details).map_err(|violation| violation.within(role.as_str()))?;
                }
            }
        }
        if roles.present == 0 {
            return Err(Violation::new(format!("{key} has no role")));
        }
        Ok(roles)
    }
}

/// Defines a view of a dictionary.
macro_rules! views {
    ($(
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? of $place:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Reads the dictionary.
            ///
            /// # Errors
            ///
            /// A [`Violation`] that names the key whose value has a wrong type.
            pub fn parse(dict: & $($life)? Dict) -> Result<Self, Violation> {
                let read = || {
                    if dict.is_empty() {
                        return Ok(Self { $($field: Read::absent(dict, $key)?,)* });
                    }
                    Ok(Self { $($field: Read::read(dict, $key)?,)* })
                };
                read().map_err(|violation: Violation| violation.within($place))
            }
        }
    )*};
}

views! {
    /// What a client says of itself.
    HelloDetails<'a> of "HELLO.Details" {
        /// What it plays; at least one.
        roles: Roles = "roles",
        /// How it can authenticate, what it likes best first.
        authmethods: Option<Vec<&'a str>> = "authmethods",
        /// Who it says it is.
        authid: Option<&'a str> = "authid",
        /// The role it asks for.
        authrole: Option<&'a str> = "authrole",
        /// What its authentication methods need.
        authextra: Option<&'a Dict> = "authextra",
        /// Its software.
        agent: Option<&'a str> = "agent",
    }
    /// What the router says of itself and of the client.
    WelcomeDetails<'a> of "WELCOME.Details" {
        /// What the router plays.
        roles: Roles = "roles",
        /// The realm.
        realm: Option<&'a str> = "realm",
        /// Who the client is.
        authid: Option<&'a str> = "authid",
        /// What it may do.
        authrole: Option<&'a str> = "authrole",
        /// How it authenticated.
        authmethod: Option<&'a str> = "authmethod",
        /// Who vouched for it.
        authprovider: Option<&'a str> = "authprovider",
        /// What its authentication method returned.
        authextra: Option<&'a Dict> = "authextra",
        /// The router's software.
        agent: Option<&'a str> = "agent",
    }
    /// Why a session ends.
    GoodbyeDetails<'a> of "Details" {
        /// For humans.
        message: Option<&'a str> = "message",
    }
    /// Options of PUBLISH.
    PublishOptions<'a> of "PUBLISH.Options" {
        /// Whether PUBLISHED or ERROR is wanted.
        acknowledge: bool = "acknowledge",
        /// Whether the publisher itself gets no event; true where absent.
        exclude_me: Option<bool> = "exclude_me",
        /// Whether subscribers are told who published.
        disclose_me: Option<bool> = "disclose_me",
        /// Sessions that get no event.
        exclude: Option<Vec<Id>> = "exclude",
        /// Identities that get no event.
        exclude_authid: Option<Vec<&'a str>> = "exclude_authid",
        /// Roles that get no event.
        exclude_authrole: Option<Vec<&'a str>> = "exclude_authrole",
        /// The only sessions that get an event; none if present and empty.
        eligible: Option<Vec<Id>> = "eligible",
        /// The only identities that get an event.
        eligible_authid: Option<Vec<&'a str>> = "eligible_authid",
        /// The only roles that get an event.
        eligible_authrole: Option<Vec<&'a str>> = "eligible_authrole",
        /// Whether the event is kept for those who subscribe later.
        retain: bool = "retain",
        /// Whose shard the event is in, where subscriptions are sharded: the resource key.
        rkey: Option<&'a str> = "rkey",
        /// Passed on.
        transaction_hash: Option<&'a str> = "transaction_hash",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Options of SUBSCRIBE.
    SubscribeOptions<'a> of "SUBSCRIBE.Options" {
        /// How the topic is matched.
        match_policy: MatchPolicy = "match",
        /// Whether the event that is retained is wanted.
        get_retained: bool = "get_retained",
        /// Which node subscribes, where the subscription is to be sharded: the node key.
        nkey: Option<&'a str> = "nkey",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
    }
    /// Details of EVENT.
    EventDetails<'a> of "EVENT.Details" {
        /// Who published.
        publisher: Option<Id> = "publisher",
        /// Who published.
        publisher_authid: Option<&'a str> = "publisher_authid",
        /// What who published may do.
        publisher_authrole: Option<&'a str> = "publisher_authrole",
        /// The topic, where the subscription is to a pattern.
        topic: Option<&'a str> = "topic",
        /// How far the publisher is trusted.
        trustlevel: Option<u64> = "trustlevel",
        /// Whether the event was published before the subscription.
        retained: bool = "retained",
        /// Whether EVENT_RECEIVED is wanted.
        x_acknowledged_delivery: bool = "x_acknowledged_delivery",
        /// As published.
        transaction_hash: Option<&'a str> = "transaction_hash",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Options of CALL.
    CallOptions<'a> of "CALL.Options" {
        /// After how many milliseconds the router gives up; 0 is never.
        timeout_ms: Option<u64> = "timeout",
        /// Whether partial results are wanted.
        receive_progress: bool = "receive_progress",
        /// Whether more arguments will follow.
        progress: bool = "progress",
        /// Whether the callee is told who calls.
        disclose_me: Option<bool> = "disclose_me",
        /// `all` or `partition`, of sharded registrations.
        runmode: Option<&'a str> = "runmode",
        /// Which shard: any value.
        rkey: Option<&'a Value> = "rkey",
        /// Passed on.
        transaction_hash: Option<&'a str> = "transaction_hash",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Options of CANCEL and INTERRUPT.
    CancelOptions<'a> of "Options" {
        /// How; killnowait where absent.
        mode: Option<CancelMode> = "mode",
        /// An error URI.
        reason: Option<&'a str> = "reason",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
    }
    /// Details of RESULT.
    ResultDetails<'a> of "RESULT.Details" {
        /// Whether more will follow.
        progress: bool = "progress",
        /// Who answered.
        callee: Option<Id> = "callee",
        /// Who answered.
        callee_authid: Option<&'a str> = "callee_authid",
        /// What who answered may do.
        callee_authrole: Option<&'a str> = "callee_authrole",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Options of REGISTER.
    RegisterOptions<'a> of "REGISTER.Options" {
        /// How the procedure is matched.
        match_policy: MatchPolicy = "match",
        /// How a callee is chosen.
        invoke: InvokePolicy = "invoke",
        /// How many invocations the callee takes at once; 0 or absent is any number.
        concurrency: Option<u64> = "concurrency",
        /// Whether others lose their registration.
        force_reregister: bool = "force_reregister",
        /// Whether the callee itself is told of timeouts.
        forward_timeout: bool = "forward_timeout",
        /// Whether the callee wants to know who calls.
        disclose_caller: Option<bool> = "disclose_caller",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
    }
    /// Details of INVOCATION.
    InvocationDetails<'a> of "INVOCATION.Details" {
        /// Who calls.
        caller: Option<Id> = "caller",
        /// Who calls.
        caller_authid: Option<&'a str> = "caller_authid",
        /// What who calls may do.
        caller_authrole: Option<&'a str> = "caller_authrole",
        /// The procedure, where the registration is of a pattern.
        procedure: Option<&'a str> = "procedure",
        /// How far the caller is trusted.
        trustlevel: Option<u64> = "trustlevel",
        /// After how many milliseconds the callee is to give up.
        timeout_ms: Option<u64> = "timeout",
        /// Whether partial results are wanted.
        receive_progress: bool = "receive_progress",
        /// Whether more arguments will follow.
        progress: bool = "progress",
        /// As called.
        transaction_hash: Option<&'a str> = "transaction_hash",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Options of YIELD.
    YieldOptions<'a> of "YIELD.Options" {
        /// Whether more will follow.
        progress: bool = "progress",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Details of ERROR.
    ErrorDetails<'a> of "ERROR.Details" {
        /// Who answered.
        callee: Option<Id> = "callee",
        /// Who answered.
        callee_authid: Option<&'a str> = "callee_authid",
        /// What who answered may do.
        callee_authrole: Option<&'a str> = "callee_authrole",
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
        /// How the payload is hidden.
        passthru: Passthru<'a> = "",
    }
    /// Options of UNSUBSCRIBE and UNREGISTER.
    WithdrawOptions<'a> of "Options" {
        /// Where it came through.
        forward_for: Option<ForwardFor<'a>> = "forward_for",
    }
    /// What the router took away, in UNSUBSCRIBED and UNREGISTERED.
    RevocationDetails<'a> of "Details" {
        /// The subscription.
        subscription: Option<Id> = "subscription",
        /// The registration.
        registration: Option<Id> = "registration",
        /// A URI.
        reason: Option<&'a str> = "reason",
    }
}

/// Judges the options or details of a message, whatever it is.
///
/// # Errors
///
/// A [`Violation`] that names the key whose value has a wrong type.
pub fn check(message: &Message) -> Result<(), Violation> {
    match message {
        Message::Hello(message) => HelloDetails::parse(&message.details).map(drop),
        Message::Welcome(message) => WelcomeDetails::parse(&message.details).map(drop),
        Message::Abort(message) => GoodbyeDetails::parse(&message.details).map(drop),
        Message::Goodbye(message) => GoodbyeDetails::parse(&message.details).map(drop),
        Message::Error(message) => ErrorDetails::parse(&message.details).map(drop),
        Message::Publish(message) => PublishOptions::parse(&message.options).map(drop),
        Message::Subscribe(message) => SubscribeOptions::parse(&message.options).map(drop),
        Message::Unsubscribe(message) => check_optional(message.options.as_ref(), WithdrawOptions::parse),
        Message::Unsubscribed(message) => check_optional(message.details.as_ref(), RevocationDetails::parse),
        Message::Event(message) => EventDetails::parse(&message.details).map(drop),
        Message::Call(message) => CallOptions::parse(&message.options).map(drop),
        Message::Cancel(message) => CancelOptions::parse(&message.options).map(drop),
        Message::CallResult(message) => ResultDetails::parse(&message.details).map(drop),
        Message::Register(message) => RegisterOptions::parse(&message.options).map(drop),
        Message::Unregister(message) => check_optional(message.options.as_ref(), WithdrawOptions::parse),
        Message::Unregistered(message) => check_optional(message.details.as_ref(), RevocationDetails::parse),
        Message::Invocation(message) => InvocationDetails::parse(&message.details).map(drop),
        Message::Interrupt(message) => CancelOptions::parse(&message.options).map(drop),
        Message::Yield(message) => YieldOptions::parse(&message.options).map(drop),
        // Their dictionaries belong to the authentication methods, or they have none.
        Message::Challenge(_)
        | Message::Authenticate(_)
        | Message::Published(_)
        | Message::Subscribed(_)
        | Message::Registered(_)
        | Message::EventReceived(_) => Ok(()),
    }
}

fn check_optional<'a, T>(
    dict: Option<&'a Dict>,
    parse: impl FnOnce(&'a Dict) -> Result<T, Violation>,
) -> Result<(), Violation> {
    dict.map_or(Ok(()), |dict| parse(dict).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_without_entries_says_what_one_without_known_keys_says() {
        let (none, other) = (Dict::new(), Dict::new().with("unknown", true));
        let passthru = PublishOptions::parse(&none).unwrap().passthru;
        assert_eq!(
            PublishOptions::parse(&none),
            PublishOptions::parse(&other).map(|view| PublishOptions { passthru, ..view })
        );
        assert_eq!(
            CallOptions::parse(&none),
            CallOptions::parse(&other).map(|view| CallOptions { passthru, ..view })
        );
        assert_eq!(
            EventDetails::parse(&none),
            EventDetails::parse(&other).map(|view| EventDetails { passthru, ..view })
        );
        assert_eq!(SubscribeOptions::parse(&none), SubscribeOptions::parse(&other));
        assert_eq!(RegisterOptions::parse(&none), RegisterOptions::parse(&other));
        assert_eq!(CancelOptions::parse(&none), CancelOptions::parse(&other));
        assert_eq!(HelloDetails::parse(&none), HelloDetails::parse(&other));
        assert!(HelloDetails::parse(&none).is_err());
    }

    #[test]
    fn absent_keys_have_their_defaults() {
        let empty = Dict::new();
        let publish = PublishOptions::parse(&empty).unwrap();
        assert!(!publish.acknowledge && publish.exclude_me.is_none() && publish.eligible.is_none());
        assert!(publish.passthru.is_empty());
        assert_eq!(SubscribeOptions::parse(&empty).unwrap().match_policy, MatchPolicy::Exact);
        assert_eq!(RegisterOptions::parse(&empty).unwrap().invoke, InvokePolicy::Single);
        assert_eq!(CancelOptions::parse(&empty).unwrap().mode, None);
        let mut nulls = Dict::new();
        for key in ["match", "get_retained", "forward_for", "unknown"] {
            nulls.insert(key, Value::Null);
        }
        assert_eq!(SubscribeOptions::parse(&nulls), SubscribeOptions::parse(&empty));
    }

    #[test]
    fn a_wrong_value_names_place_and_key() {
        let wrong = |key: &str, value: Value| Dict::new().with(key, value);
        let violations = [
            (SubscribeOptions::parse(&wrong("match", "suffix".into())).map(drop), "SUBSCRIBE.Options: match"),
            (RegisterOptions::parse(&wrong("invoke", true.into())).map(drop), "REGISTER.Options: invoke"),
            (CancelOptions::parse(&wrong("mode", "never".into())).map(drop), "Options: mode"),
            (CallOptions::parse(&wrong("timeout", Value::Int(-1))).map(drop), "CALL.Options: timeout"),
            (CallOptions::parse(&wrong("ppt_keyid", Value::Int(1))).map(drop), "CALL.Options: ppt_keyid"),
            (YieldOptions::parse(&wrong("enc_algo", "rot13".into())).map(drop), "YIELD.Options: enc_algo"),
            (HelloDetails::parse(&Dict::new()).map(drop), "HELLO.Details: roles"),
            (HelloDetails::parse(&wrong("roles", Dict::new().into())).map(drop), "HELLO.Details: roles"),
        ];
        for (result, expected) in violations {
            let message = result.unwrap_err().into_message();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn every_hop_is_a_session() {
        let hop = Dict::new().with("session", 5_u64).with("authid", "a").with("authrole", "b");
        let options = Dict::new().with("forward_for", vec![hop.clone()]);
        let options = SubscribeOptions::parse(&options).unwrap();
        assert_eq!(options.forward_for.unwrap().hops().collect::<Vec<_>>(), [&hop]);
        for bad in [Value::Null, Value::Int(1), Dict::new().into(), hop.with("session", "x").into()] {
            let options = Dict::new().with("forward_for", vec![bad]);
            assert!(SubscribeOptions::parse(&options).unwrap_err().message().contains("forward_for"));
        }
    }

    #[test]
    fn roles_are_read_and_written() {
        let roles = Roles::default()
            .with(Role::Callee, &[Feature::CallCanceling, Feature::ProgressiveCallResults])
            .with(Role::Publisher, &[]);
        let details = Dict::new().with("roles", roles.to_dict());
        assert_eq!(HelloDetails::parse(&details).unwrap().roles, roles);
        assert!(roles.announces(Role::Callee, Feature::CallCanceling));
        assert!(!roles.announces(Role::Caller, Feature::CallCanceling));
        assert!(roles.has(Role::Publisher) && !roles.has(Role::Dealer));
        let written = details.dict("roles").unwrap().unwrap().dict("publisher").unwrap().unwrap();
        assert!(written.dict("features").unwrap().unwrap().is_empty());

        let features =
            Dict::new().with("call_cancelling", true).with("future", "x").with("call_timeout", false);
        let callee = Dict::new().with("features", features);
        let details = Dict::new().with("roles", Dict::new().with("callee", callee));
        let roles = HelloDetails::parse(&details).unwrap().roles;
        assert_eq!(roles, Roles::default().with(Role::Callee, &[Feature::CallCanceling]));

        let callee = Dict::new().with("features", Dict::new().with("call_timeout", 1_u64));
        let details = Dict::new().with("roles", Dict::new().with("callee", callee));
        assert!(HelloDetails::parse(&details).unwrap_err().message().contains("call_timeout"));
    }

    #[test]
    fn every_feature_has_a_bit() {
        for feature in Feature::ALL {
            assert!((*feature as u32) < u32::BITS);
            assert_eq!(Feature::from_key(feature.as_str()), Some(*feature));
        }
    }

    #[test]
    fn hidden_payloads_keep_their_marks() {
        let options =
            Dict::new().with("ppt_scheme", "x_mine").with("acknowledge", true).with("ppt_keyid", "k");
        let mut details = Dict::new();
        PublishOptions::parse(&options).unwrap().passthru.copy_to(&mut details);
        assert_eq!(details, Dict::new().with("ppt_scheme", "x_mine").with("ppt_keyid", "k"));
    }
}
