//! Requests of HTTP, one after the other over a connection that is kept.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, ORIGIN};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::address::Place;
use crate::dialer::{Dialer, HTTP};
use crate::doorway::ByteStream;
use crate::error::Error;
use crate::longpoll::ANSWER_TIME_MAX;

/// Of a refusal so much is kept.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// How requests are made.
#[derive(Clone, Debug)]
pub(crate) struct HttpOptions(pub(crate) Arc<Asking>);

/// What all requests of a session have in common.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) dialer: Dialer,
    pub(crate) place: Place,
    /// The value of `Host`, if it is not the place's.
    pub(crate) host: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    /// The longest answer.
    pub(crate) body_bytes_max: usize,
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer, where it is not what was hoped for.
    pub(crate) fn refusal(self) -> Error {
        let Answer { status, headers, mut body } = self;
        body.truncate(REFUSAL_BYTES_MAX);
        Error::Refused { status, headers, body }
    }
}

type Moving = Connection<TokioIo<Box<dyn ByteStream>>, Full<Bytes>>;

/// A connection on which nothing is under way.
pub(crate) struct Http {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes, until it ends.
    connection: Option<Pin<Box<Moving>>>,
}

impl Http {
    /// Posts something to a path below the place's, over this connection or a new one. Gives the connection back where
    /// it can be used again.
    pub(crate) async fn ask(
        kept: Option<Http>,
        options: HttpOptions,
        path: String,
        content_type: &'static str,
        body: Bytes,
    ) -> (Option<Http>, Result<Answer, Error>) {
        let asked = async {
            if let Some(http) = kept {
                let request = options.0.request(&path, content_type, body.clone())?;
                match http.exchange(request, options.0.body_bytes_max).await {
                    // The server has closed it meanwhile, and the request was not sent.
                    Err(Error::LongPoll(error)) if error.is_canceled() || error.is_closed() => {}
                    done => return done,
                }
            }
            let http = Http::connect(&options.0).await?;
            let request = options.0.request(&path, content_type, body)?;
            http.exchange(request, options.0.body_bytes_max).await
        };
        match timeout(ANSWER_TIME_MAX, asked).await {
            Ok(Ok((http, answer))) => (http, Ok(answer)),
            Ok(Err(error)) => (None, Err(error)),
            Err(_) => (None, Err(Error::Silent)),
        }
    }

    async fn connect(asking: &Asking) -> Result<Http, Error> {
        let stream = asking.dialer.dial(&asking.place, Some(HTTP)).await?.stream;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Http { sender, connection: Some(Box::pin(connection)) })
    }

    async fn exchange(
        self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<(Option<Http>, Answer), Error> {
        let Http { mut sender, mut connection } = self;
        let answer = {
            let mut answering = pin!(async {
                sender.ready().await?;
                Answer::read(sender.send_request(request).await?, bytes_max).await
            });
            poll_fn(|cx| {
                if let Some(moving) = &mut connection
                    && moving.as_mut().poll(cx).is_ready()
                {
                    // How it ended is told to whoever waits for the answer.
                    connection = None;
                }
                answering.as_mut().poll(cx)
            })
            .await?
        };
        let http = connection.is_some().then_some(Http { sender, connection });
        Ok((http, answer))
    }
}

impl Asking {
    fn request(&self, path: &str, content_type: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let (base, query) = match self.place.path.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (&*self.place.path, String::new()),
        };
        let uri = format!("{}{path}{query}", base.trim_end_matches('/'));
        let host = self.host.clone().unwrap_or_else(|| self.place.authority());
        let mut request = Request::post(uri).header(HOST, host).header(CONTENT_TYPE, content_type);
        if let Some(origin) = &self.origin {
            request = request.header(ORIGIN, origin);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body));
        request.map_err(|_| Error::Unsupported("a header or path that HTTP cannot carry"))
    }
}

impl Answer {
    async fn read(response: Response<hyper::body::Incoming>, bytes_max: usize) -> Result<Answer, Error> {
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, bytes_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                return Err(match error.downcast::<hyper::Error>() {
                    Ok(error) => Error::LongPoll(*error),
                    Err(error) if error.is::<LengthLimitError>() => {
                        Error::Unsupported("a message that is longer than is taken")
                    }
                    Err(_) => Error::Unsupported("a body that cannot be read"),
                });
            }
        };
        let text =
            |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        Ok(Answer { status: parts.status.as_u16(), headers, body })
    }
}
