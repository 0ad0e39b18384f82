//! The paths of SockJS, and what it is told.

use std::time::Duration;

use hyper::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use hyper::{Method, Request};

/// What SockJS is told.
#[derive(Clone, Debug)]
pub struct SockJsSettings {
    /// What the paths begin with, without a slash at the end.
    pub path: String,
    /// The token of the language that is spoken.
    pub token: &'static str,
    /// Silence after which a receiver gets a heart-beat.
    pub heart_beat_interval: Duration,
    /// How long a session lives without a receiver.
    pub disconnect_delay: Duration,
    /// What one response of a streaming transport carries before the client has to ask again.
    pub stream_bytes_max: usize,
    /// Whether there are WebSockets among the transports.
    pub websocket: bool,
    /// The page for clients that reach the broker only through a frame of its origin; mostly there is none.
    pub iframe: Option<Iframe>,
}

/// The page that SockJS loads into a hidden frame.
#[derive(Clone, Debug)]
pub struct Iframe {
    /// Where it gets SockJS's client from.
    pub client_url: String,
    /// Whose pages may frame it, in the words of `Content-Security-Policy`.
    pub ancestors: String,
}

/// A session is called by at most so many bytes.
const NAME_BYTES_MAX: usize = 128;

/// What is asked of SockJS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Whether it is there.
    Greeting,
    /// What it can do.
    Info,
    /// The page for a hidden frame.
    Iframe,
    /// A WebSocket without any framing of SockJS's.
    Raw,
    /// A WebSocket. Its session is that of its connection, and its name means nothing.
    Socket,
    /// Something of the session of that name.
    Of(Box<str>, Verb),
    /// Nothing that there is.
    Nothing,
}

/// What is asked of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What there is to receive, once.
    Xhr,
    /// What there is to receive, piece by piece.
    XhrStreaming,
    /// The same, as the events of an EventSource.
    EventSource,
    /// To take messages.
    Send,
}

impl SockJsSettings {
    /// What a path asks for; none if it is not of SockJS.
    pub fn asked(&self, path: &str) -> Option<Asked> {
        let rest = path.strip_prefix(&*self.path)?;
        if matches!(rest, "" | "/") {
            return Some(Asked::Greeting);
        }
        let rest = rest.strip_prefix('/')?;
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        Some(match parts[..] {
            ["info"] => Asked::Info,
            ["websocket"] => Asked::Raw,
            [page] if is_iframe(page) => Asked::Iframe,
            // The first is for whoever balances loads.
            [server, session, verb] if is_name(server) && is_name(session) => {
                let of = |verb| Asked::Of(session.into(), verb);
                match verb {
                    "websocket" => Asked::Socket,
                    "xhr" => of(Verb::Xhr),
                    "xhr_streaming" => of(Verb::XhrStreaming),
                    "eventsource" => of(Verb::EventSource),
                    "xhr_send" => of(Verb::Send),
                    _ => Asked::Nothing,
                }
            }
            _ => Asked::Nothing,
        })
    }

    /// True when a request is the opening handshake of a WebSocket that there is.
    pub fn opens_socket<B>(&self, asked: &Asked, request: &Request<B>) -> bool {
        // At the base, too: clients that have a WebSocket may be given the address that SockJS's have.
        matches!(asked, Asked::Greeting | Asked::Raw | Asked::Socket)
            && self.websocket
            && request.method() == Method::GET
            && has_word(request.headers(), &UPGRADE, "websocket")
            && has_word(request.headers(), &CONNECTION, "upgrade")
    }
}

/// True when a header has that word in a list.
pub fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.len() <= NAME_BYTES_MAX && !part.contains('.')
}

/// Clients put their version into the name.
fn is_iframe(page: &str) -> bool {
    let middle = page.strip_prefix("iframe").and_then(|rest| rest.strip_suffix(".html"));
    middle.is_some_and(|middle| middle.is_empty() || middle.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_the_base_asks_for_something_and_no_other_does() {
        let settings = SockJsSettings {
            path: "/sockjs".into(),
            token: "",
            heart_beat_interval: Duration::ZERO,
            disconnect_delay: Duration::ZERO,
            stream_bytes_max: 0,
            websocket: true,
            iframe: None,
        };
        let of = |name: &str, verb| Some(Asked::Of(name.into(), verb));
        let long = format!("/sockjs/0/{}/xhr", "s".repeat(NAME_BYTES_MAX + 1));
        let table = [
            ("/sockjs", Some(Asked::Greeting)),
            ("/sockjs/", Some(Asked::Greeting)),
            ("/sockjs/info", Some(Asked::Info)),
            ("/sockjs/iframe.html", Some(Asked::Iframe)),
            ("/sockjs/iframe-1.6.1.html", Some(Asked::Iframe)),
            ("/sockjs/iframe-.html", Some(Asked::Iframe)),
            ("/sockjs/iframe", Some(Asked::Nothing)),
            ("/sockjs/iframe.HTML", Some(Asked::Nothing)),
            ("/sockjs/iframe-/.html", Some(Asked::Nothing)),
            ("/sockjs/websocket", Some(Asked::Raw)),
            ("/sockjs/000/abc/websocket", Some(Asked::Socket)),
            ("/sockjs/000/abc/xhr", of("abc", Verb::Xhr)),
            ("/sockjs/a%20b/a%20b/xhr", of("a%20b", Verb::Xhr)),
            ("/sockjs/_/_/xhr_streaming", of("_", Verb::XhrStreaming)),
            ("/sockjs/1/1/eventsource", of("1", Verb::EventSource)),
            ("/sockjs/1/1/xhr_send", of("1", Verb::Send)),
            ("/sockjs/1/1/jsonp", Some(Asked::Nothing)),
            ("/sockjs/1/1/htmlfile", Some(Asked::Nothing)),
            ("/sockjs/1/1/xhr/", Some(Asked::Nothing)),
            ("/sockjs/a./a/xhr", Some(Asked::Nothing)),
            ("/sockjs/a/a./xhr", Some(Asked::Nothing)),
            ("/sockjs//a/xhr", Some(Asked::Nothing)),
            ("/sockjs//", Some(Asked::Nothing)),
            ("/sockjs///", Some(Asked::Nothing)),
            (&long, Some(Asked::Nothing)),
            ("/sockjsinfo", None),
            ("/sockj", None),
            ("/", None),
        ];
        for (path, asked) in table {
            assert_eq!(settings.asked(path), asked, "{path}");
        }
    }
}
