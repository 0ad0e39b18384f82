//! Asking somebody else whether something is allowed.
//!
//! Routing never waits. What a rule does not decide ends as [`Refusal::Undecided`](super::Refusal): the session
//! holds the message, the pump awaits the answer, and the session takes the message again with the answer at hand.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::access::{Action, Principal, Refusal, SessionId};
use crate::core::name::{Name, Pattern};

/// Answers that a session keeps. Of more than that, those that are kept for the shortest time go.
pub const ANSWERS_MAX: usize = 256;

/// Questions about one message. None needs more than two, unless the rules change meanwhile.
pub const QUESTIONS_MAX: usize = 8;

/// Whether somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The realm.
    pub realm: Arc<str>,
    /// The session.
    pub session: SessionId,
    /// Who that is.
    pub principal: Arc<Principal>,
    /// What it wants to do.
    pub action: Action,
    /// With which name, or with which names.
    pub pattern: Pattern,
    /// The procedure that the rule says to ask.
    pub authorizer: Name,
    /// How long the rule lets the answer be kept.
    pub keep: Option<Duration>,
    /// Of which rules that is one.
    pub(super) generation: u64,
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allow: bool,
    /// Whether receivers or the callee are told who it is; `None`: that is left to whoever asks.
    pub disclose: Option<bool>,
    /// Whether the answer may be kept; `None`: as the rule says.
    pub cache: Option<bool>,
}

/// What [`Authorizer::authorize`] returns.
pub type Authorizing = Pin<Box<dyn Future<Output = Result<Decision, Refusal>> + Send>>;

/// Decides what rules leave open.
pub trait Authorizer: Send + Sync {
    /// Decides. May take its time, though not long: meanwhile the peer is not read.
    fn authorize(&self, question: Question) -> Authorizing;
}

/// An answer that is being waited for.
pub struct Inquiry(pub Authorizing);

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inquiry").finish_non_exhaustive()
    }
}

/// What a session has been told.
#[derive(Debug, Default)]
pub struct Answers {
    /// For the message that is being taken.
    at_hand: Vec<(Question, Result<Decision, Refusal>)>,
    kept: Vec<Kept>,
    now: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    action: Action,
    pattern: Pattern,
    generation: u64,
    decision: Decision,
    until: Instant,
}

impl Answers {
    /// It is this late.
    pub fn note_time(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// What was answered to a question like this, if that still holds.
    pub fn find(&self, question: &Question) -> Option<Result<Decision, Refusal>> {
        let Question { action, pattern, generation, .. } = question;
        let at_hand =
            self.at_hand.iter().find(|(asked, _)| asked.action == *action && asked.pattern == *pattern);
        if let Some((_, answer)) = at_hand {
            return Some(answer.clone());
        }
        let is_like = |kept: &&Kept| {
            kept.action == *action && kept.generation == *generation && kept.pattern == *pattern
        };
        let holds = |kept: &&Kept| self.now.is_some_and(|now| now < kept.until);
        self.kept.iter().filter(holds).find(is_like).map(|kept| Ok(kept.decision))
    }

    /// Takes an answer for the message that is to be taken again. False when there were too many questions about it.
    pub fn put(&mut self, question: Question, answer: Result<Decision, Refusal>, now: Instant) -> bool {
        if let (Ok(decision), Some(keep)) = (&answer, question.keep)
            && decision.cache != Some(false)
        {
            self.keep(&question, *decision, now, keep);
        }
        self.at_hand.push((question, answer));
        self.at_hand.len() <= QUESTIONS_MAX
    }

    fn keep(&mut self, question: &Question, decision: Decision, now: Instant, keep: Duration) {
        self.kept.retain(|kept| kept.until > now && kept.generation == question.generation);
        if self.kept.len() >= ANSWERS_MAX {
            let first = self.kept.iter().enumerate().min_by_key(|(_, kept)| kept.until);
            if let Some((place, _)) = first {
                self.kept.swap_remove(place);
            }
        }
        let Question { action, pattern, generation, .. } = question;
        let (action, pattern, generation) = (*action, pattern.clone(), *generation);
        self.kept.push(Kept { action, pattern, generation, decision, until: now + keep });
    }

    /// The message was taken.
    pub fn clear(&mut self) {
        self.at_hand.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{exact, name, principal};

    fn question(topic: &str) -> Question {
        Question {
            realm: "realm1".into(),
            session: SessionId(1),
            principal: Arc::new(principal("joe", "user")),
            action: Action::Publish,
            pattern: exact(topic),
            authorizer: name("com.authorize"),
            keep: Some(Duration::from_secs(60)),
            generation: 1,
        }
    }

    const YES: Decision = Decision { allow: true, disclose: None, cache: None };

    #[test]
    fn an_answer_is_kept_for_its_time_and_for_its_rules() {
        let start = Instant::now();
        let mut answers = Answers::default();
        assert!(answers.put(question("t"), Ok(YES), start));
        answers.clear();
        assert_eq!(answers.find(&question("t")), None, "it is not known how late it is");
        answers.note_time(start + Duration::from_secs(59));
        assert_eq!(answers.find(&question("t")), Some(Ok(YES)));
        assert_eq!(answers.find(&question("u")), None);
        assert_eq!(answers.find(&Question { action: Action::Send, ..question("t") }), None);
        assert_eq!(answers.find(&Question { generation: 2, ..question("t") }), None);
        answers.note_time(start + Duration::from_secs(60));
        assert_eq!(answers.find(&question("t")), None);
    }

    #[test]
    fn only_decisions_that_may_be_kept_outlive_their_message() {
        let now = Instant::now();
        let unkept = [
            (Question { keep: None, ..question("t") }, Ok(YES)),
            (question("t"), Ok(Decision { cache: Some(false), ..YES })),
            (question("t"), Err(Refusal::AuthorizationFailed)),
        ];
        for (question, answer) in unkept {
            let mut answers = Answers::default();
            answers.note_time(now);
            assert!(answers.put(question.clone(), answer.clone(), now));
            assert_eq!(answers.find(&question), Some(answer));
            answers.clear();
            assert_eq!(answers.find(&question), None);
        }
    }

    #[test]
    fn a_session_keeps_no_more_answers_than_it_may_and_a_message_raises_few_questions() {
        let now = Instant::now();
        let mut answers = Answers::default();
        answers.note_time(now);
        for number in 0..=ANSWERS_MAX as u64 {
            let later = now + Duration::from_secs(number);
            answers.put(
                Question { keep: Some(Duration::from_secs(600)), ..question(&format!("t{number}")) },
                Ok(YES),
                later,
            );
            answers.clear();
        }
        assert_eq!(answers.kept.len(), ANSWERS_MAX);
        assert_eq!(answers.find(&question("t0")), None);
        assert_eq!(answers.find(&question("t1")), Some(Ok(YES)));
        let mut put = |number: usize| answers.put(question(&format!("u{number}")), Ok(YES), now);
        assert!((0..QUESTIONS_MAX).all(&mut put));
        assert!(!put(QUESTIONS_MAX));
    }
}
