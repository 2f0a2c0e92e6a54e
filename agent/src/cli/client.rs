//! The API's client: one connection a request, everything with a limit.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::JoinSet, time};

use super::error::CliError;
use crate::control::dto::{EventLine, HealthDto, Problem};

/// The daemon gives its own driver ten seconds; then it says so itself.
const TIMEOUT: Duration = Duration::from_secs(15);

/// For orders to microVMs. The daemon gives them ten minutes; then it says so itself.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(630);

/// A daemon that has not said how it is by then hangs.
const HANG: Duration = Duration::from_secs(3);

/// 100,000 routes are about 70 MB.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One event; the longest holds a configuration diagnostic.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

/// An open answer, and the task that drives its connection.
struct Answer {
    body: Incoming,
    _connection: JoinSet<()>,
}

/// An answer that comes bit by bit.
pub(super) struct Stream {
    socket: PathBuf,
    answer: Answer,
}

/// The event stream, line by line.
pub(super) struct Events {
    socket: PathBuf,
    answer: Answer,
    text: Vec<u8>,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, uri: &str) -> Result<T, CliError> {
        self.exchange(Method::GET, uri).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, uri: &str) -> Result<T, CliError> {
        self.exchange(Method::POST, uri).await
    }

    /// As [`Self::post`], for what may take minutes.
    pub(super) async fn post_patiently<T: DeserializeOwned>(
        &self,
        uri: &str,
    ) -> Result<T, CliError> {
        let whole = self.exchange_whole(Method::POST, uri);
        self.within(PATIENT_TIMEOUT, uri, whole).await
    }

    /// An answer as it comes, for as long as it comes.
    pub(super) async fn stream(&self, uri: &str) -> Result<Stream, CliError> {
        Ok(Stream {
            socket: self.socket.clone(),
            answer: self.in_time(uri, self.open(Method::GET, uri)).await?,
        })
    }

    /// Without a deadline once the stream is open: events come when they come.
    pub(super) async fn events(&self, since: u64, follow: bool) -> Result<Events, CliError> {
        let uri = format!("/v1/events?since={since}&follow={follow}");
        Ok(Events {
            socket: self.socket.clone(),
            answer: self.in_time(&uri, self.open(Method::GET, &uri)).await?,
            text: Vec::new(),
        })
    }

    /// Makes sure that no daemon runs. Only where nobody listens is that so: one
    /// that hangs, or does not talk to us, runs.
    pub(super) async fn expect_none(&self) -> Result<(), CliError> {
        match self.get::<HealthDto>("/v1/health").await {
            Err(CliError::Unreachable(_, e))
                if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                Ok(())
            }
            Err(error @ CliError::Unreachable(..)) => Err(error),
            _ => Err(CliError::DaemonRuns),
        }
    }

    /// Makes sure that no daemon answers: one that hangs is when an operator
    /// has to move switches without it. Both sides swap a switch's word whole,
    /// so it does no harm if it wakes up.
    pub(super) async fn expect_no_answer(&self) -> Result<(), CliError> {
        time::timeout(HANG, self.expect_none())
            .await
            .unwrap_or(Ok(()))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
    ) -> Result<T, CliError> {
        self.in_time(uri, self.exchange_whole(method, uri)).await
    }

    async fn exchange_whole<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
    ) -> Result<T, CliError> {
        let answer = self.open(method, uri).await?;
        read(answer, &self.socket, uri).await
    }

    async fn in_time<T>(
        &self,
        uri: &str,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        self.within(TIMEOUT, uri, work).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        uri: &str,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(CliError::TimedOut {
                socket: self.socket.clone(),
                what: uri.to_owned(),
                seconds: limit.as_secs(),
            })
        })
    }

    /// Sends the request; a problem becomes an error.
    async fn open(&self, method: Method, uri: &str) -> Result<Answer, CliError> {
        let broken = |e| CliError::Broken(self.socket.clone(), e);
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|e| CliError::Unreachable(self.socket.clone(), e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut task = JoinSet::new();
        // Its error reaches the sender or the body as well.
        task.spawn(async move { drop(connection.await) });
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        // Names of instances hold nothing that would need escaping.
        *request.uri_mut() = uri.parse().unwrap_or_default();
        let host = hyper::header::HeaderValue::from_static("ghostd");
        request.headers_mut().insert(hyper::header::HOST, host);
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let answer = Answer {
            body: response.into_body(),
            _connection: task,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Problem = read(answer, &self.socket, uri).await?;
        Err(CliError::Refused(problem))
    }
}

async fn read<T: DeserializeOwned>(
    answer: Answer,
    socket: &Path,
    uri: &str,
) -> Result<T, CliError> {
    let body = Limited::new(answer.body, ANSWER_BYTES_MAX).collect().await;
    let bytes = body.map_err(|e| match e.downcast::<hyper::Error>() {
        Ok(e) => CliError::Broken(socket.to_owned(), *e),
        Err(e) => {
            debug_assert!(e.is::<LengthLimitError>());
            CliError::TooLarge(uri.to_owned(), ANSWER_BYTES_MAX)
        }
    })?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|e| CliError::Answer(uri.to_owned(), e))
}

impl Stream {
    /// `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CliError> {
        loop {
            match self.answer.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(CliError::Broken(self.socket.clone(), e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Events {
    /// `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<EventLine>, CliError> {
        const WHAT: &str = "/v1/events";
        loop {
            if let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let line = serde_json::from_slice(&line);
                return line
                    .map(Some)
                    .map_err(|e| CliError::Answer(WHAT.to_owned(), e));
            }
            if self.text.len() > LINE_BYTES_MAX {
                return Err(CliError::TooLarge(WHAT.to_owned(), LINE_BYTES_MAX));
            }
            match self.answer.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(CliError::Broken(self.socket.clone(), e)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.text.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
