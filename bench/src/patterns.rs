//! Patterns that nothing matches, many of them, so that publishing beside them can be measured.

use tandem_client::{Error as ClientError, Wire};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Message, Subscribe};

use crate::error::Error;
use crate::language::Language;
use crate::options::{Common, PatternKind};
use crate::peer::join;

/// So many subscriptions of one session; Tandem's limit is 1000 by default.
const PER_SESSION: u32 = 1000;

/// Subscriptions to patterns of this kind, held by sessions of WAMP for as long as this is kept. They look like
/// the topics of the run, and match none.
///
/// # Errors
///
/// Where a session cannot be had, or a subscription is refused.
pub async fn register(common: &Common, kind: PatternKind, count: u32) -> Result<Vec<Wire>, Error> {
    let unique: u32 = rand::random();
    let mut sessions = Vec::new();
    let mut first = 0;
    while first < count {
        let last = count.min(first + PER_SESSION);
        let subscribed = subscribe(common, kind, unique, first..last).await;
        sessions.push(subscribed?);
        first = last;
    }
    Ok(sessions)
}

async fn subscribe(
    common: &Common,
    kind: PatternKind,
    unique: u32,
    numbers: std::ops::Range<u32>,
) -> Result<Wire, Error> {
    let mut client = join(common, Language::WampMsgpack).await?;
    let failed =
        |error: ClientError| Error::connect(&format!("SUBSCRIBE to a pattern at {}", common.url), error);
    let count = numbers.len();
    for number in numbers {
        let (topic, options) = match kind {
            PatternKind::Exact => (format!("bench.t{unique:08x}.n{number}"), Dict::new()),
            PatternKind::Prefix => {
                (format!("bench.t{unique:08x}.p{number}"), Dict::new().with("match", "prefix"))
            }
            PatternKind::Wildcard => {
                (format!("bench..w{unique:08x}{number}"), Dict::new().with("match", "wildcard"))
            }
        };
        let request = client.take_request();
        client.link().feed(Subscribe { request, options, topic }).map_err(failed)?;
    }
    client.flush().await.map_err(failed)?;
    for _ in 0..count {
        match client.receive().await.map_err(failed)? {
            Message::Subscribed(_) => {}
            Message::Error(error) => return Err(failed(ClientError::Reply(Box::new(error)))),
            other => return Err(failed(ClientError::UnexpectedMessage(Box::new(other)))),
        }
    }
    Ok(client.into_link().into_transport())
}
