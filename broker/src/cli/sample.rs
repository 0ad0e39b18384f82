//! What `tandem top` knows of a broker at one moment, and what has changed since another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tandem_client::Address;
use tandem_client::address::Place;
use tandem_client::wamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::cli::connection::Settings;
use crate::cli::failure::Failure;

/// How long the broker's page may take.
const PAGE_TIME: Duration = Duration::from_secs(2);

/// The longest page that is read.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Subscriptions and registrations that are looked at one by one: of the oldest.
const LOOKED_AT_MAX: usize = 50;

/// Counters whose rates are told, and what they are called.
pub(super) const RATES: [(&str, &str); 7] = [
    ("messages_in", "tandem_messages_in_total"),
    ("messages_out", "tandem_messages_out_total"),
    ("publications", "tandem_publications_total"),
    ("events", "tandem_events_total"),
    ("calls", "tandem_calls_total"),
    ("enqueued", "tandem_queue_messages_total"),
    ("dropped", "tandem_events_dropped_total"),
];

/// A topic that is subscribed to, or a procedure that is offered.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) uri: String,
    pub(super) policy: String,
    /// Subscribers, or callees.
    pub(super) members: u64,
}

/// Some of them, those with the most members first, and how many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    pub(super) count: u64,
    pub(super) some: Vec<Offer>,
}

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    at: Instant,
    /// The broker's own page, where it shows it.
    pub(super) metrics: Option<BTreeMap<String, i64>>,
    pub(super) sessions: Option<u64>,
    pub(super) topics: Option<Offers>,
    pub(super) procedures: Option<Offers>,
    pub(super) queues: Option<Vec<Map<String, Value>>>,
    pub(super) waiting: Option<Vec<Map<String, Value>>>,
}

/// What a procedure of the meta API says; `None` where there is none, or not for us.
async fn ask(client: &wamp::Client, procedure: &str, args: &[Value]) -> Result<Option<Value>, Failure> {
    match client.call::<Option<Value>>(procedure).args(args).await {
        Ok(answer) => Ok(answer),
        Err(wamp::Error::Application(_) | wamp::Error::Decode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Reading {
    pub(super) async fn take(
        settings: &Settings,
        client: &wamp::Client,
        rows: u64,
    ) -> Result<Reading, Failure> {
        let metrics = timeout(PAGE_TIME, page(&settings.address)).await.ok().flatten();
        let sessions = ask(client, "wamp.session.count", &[]).await?.and_then(|count| count.as_u64());
        let topics = offers(client, "wamp.subscription", "count_subscribers").await?;
        let procedures = offers(client, "wamp.registration", "count_callees").await?;
        let queues = rows_of(ask(client, "tandem.queue.list", &[rows.into()]).await?);
        let waiting = rows_of(ask(client, "tandem.session.list_waiting", &[rows.into()]).await?);
        Ok(Reading { at: Instant::now(), metrics, sessions, topics, procedures, queues, waiting })
    }
}

fn rows_of(answer: Option<Value>) -> Option<Vec<Map<String, Value>>> {
    let Value::Array(rows) = answer? else { return None };
    Some(
        rows.into_iter()
            .filter_map(|row| if let Value::Object(row) = row { Some(row) } else { None })
            .collect(),
    )
}

/// The subscriptions or the registrations of the realm.
async fn offers(client: &wamp::Client, noun: &str, count: &str) -> Result<Option<Offers>, Failure> {
    let Some(Value::Object(lists)) = ask(client, &format!("{noun}.list"), &[]).await? else {
        return Ok(None);
    };
    let ids: Vec<&Value> = lists.values().filter_map(Value::as_array).flatten().collect();
    let mut some = Vec::new();
    for id in ids.iter().take(LOOKED_AT_MAX) {
        let details = ask(client, &format!("{noun}.get"), &[(*id).clone()]).await?;
        let members = ask(client, &format!("{noun}.{count}"), &[(*id).clone()]).await?;
        // It may be gone since.
        let Some(details) = details else { continue };
        let text = |key: &str| details[key].as_str().unwrap_or_default().to_owned();
        let members = members.and_then(|members| members.as_u64()).unwrap_or_default();
        some.push(Offer { uri: text("uri"), policy: text("match"), members });
    }
    some.sort_by(|one, other| other.members.cmp(&one.members).then_with(|| one.uri.cmp(&other.uri)));
    Ok(Some(Offers { count: ids.len() as u64, some }))
}

/// The broker's counters, where it is asked in the clear and shows them.
async fn page(address: &Address) -> Option<BTreeMap<String, i64>> {
    let text = match address {
        Address::Unix(path) => fetch(UnixStream::connect(path).await.ok()?, "localhost").await?,
        Address::WebSocket(place) | Address::Tcp(place) | Address::LongPoll(place) => {
            let Place { tls: false, host, port, .. } = place else { return None };
            fetch(TcpStream::connect((host.as_str(), *port)).await.ok()?, &place.authority()).await?
        }
    };
    let number = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    let counters: BTreeMap<_, _> =
        text.lines().filter(|line| line.starts_with("tandem_")).filter_map(number).collect();
    // Another broker may have a page of that name as well.
    (!counters.is_empty()).then_some(counters)
}

async fn fetch(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, host: &str) -> Option<String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = hyper::Request::get("/metrics").header("host", host).header("connection", "close");
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let answer = async {
        let response = sender.send_request(request).await.ok()?;
        if response.status() != hyper::StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await.ok()?;
        String::from_utf8(body.to_bytes().to_vec()).ok()
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What it brought before is still to be read.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(_) => None,
        },
    }
}

/// A look, and what has changed since the one before.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) url: String,
    pub(super) reading: Reading,
    /// Per second, by the names of [`RATES`].
    pub(super) rates: BTreeMap<&'static str, f64>,
}

impl Sample {
    pub(super) fn new(settings: &Settings, before: &Reading, mut reading: Reading) -> Sample {
        let elapsed = reading.at.duration_since(before.at).as_secs_f64().max(f64::EPSILON);
        let mut rates = BTreeMap::new();
        if let (Some(before), Some(now)) = (&before.metrics, &reading.metrics) {
            for (name, counter) in RATES {
                // A broker that began anew counts from zero.
                let known = |all: &BTreeMap<String, i64>| all.get(counter).copied().unwrap_or_default();
                rates.insert(name, rounded((known(now) - known(before)).max(0) as f64 / elapsed));
            }
        }
        for queue in reading.queues.iter_mut().flatten() {
            let earlier =
                before.queues.iter().flatten().find(|earlier| earlier.get("queue") == queue.get("queue"));
            let number = |row: Option<&Map<String, Value>>, key: &str| {
                row.and_then(|row| row.get(key)?.as_i64()).unwrap_or_default()
            };
            let has_come = (number(Some(&*queue), "enqueued") - number(earlier, "enqueued")).max(0);
            let is_more = number(Some(&*queue), "messages") - number(earlier, "messages");
            let has_gone = (has_come - is_more).max(0);
            // Of one that was not seen before nothing can be said.
            let rate = |count: i64| if earlier.is_some() { rounded(count as f64 / elapsed) } else { 0.0 };
            queue.insert("in_per_s".to_owned(), rate(has_come).into());
            queue.insert("out_per_s".to_owned(), rate(has_gone).into());
        }
        Sample { url: settings.address.to_string(), reading, rates }
    }

    pub(super) fn into_reading(self) -> Reading {
        self.reading
    }

    /// One of the broker's counters.
    pub(super) fn metric(&self, name: &str) -> Option<i64> {
        self.reading.metrics.as_ref()?.get(name).copied()
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let Reading { metrics, sessions, topics, procedures, queues, waiting, .. } = &self.reading;
        let offers = |offers: &Option<Offers>, noun: &str, members: &str| {
            let rows = |offers: &Offers| {
                let row =
                    |offer: &Offer| json!({noun: offer.uri, "match": offer.policy, members: offer.members});
                offers.some.iter().map(row).collect::<Vec<_>>()
            };
            json!({"count": offers.as_ref().map(|offers| offers.count), "some": offers.as_ref().map(rows)})
        };
        let object = json!({
            "kind": "sample",
            "url": self.url,
            "sessions": sessions,
            "topics": offers(topics, "topic", "subscribers"),
            "procedures": offers(procedures, "procedure", "callees"),
            "queues": queues,
            "waiting": waiting,
            "rates": if metrics.is_some() { json!(self.rates) } else { Value::Null },
            "metrics": metrics,
        });
        object.as_object().cloned().unwrap_or_default()
    }
}

/// To a tenth.
fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
