//! Output of a guest's console, from the log that its VMM keeps.

use std::{convert::Infallible, io, io::SeekFrom, path::Path, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::watch,
    time,
};

use super::server::stopped;

const CHUNK_BYTES: usize = 64 * 1024;

/// Between two looks for more. A person reads no faster.
const LOOK: Duration = Duration::from_millis(100);

struct Reader {
    log: File,
    read: u64,
    /// `None`: what there is, and no more.
    stopping: Option<watch::Receiver<bool>>,
}

/// The log, and what is added to it as long as the server runs and the reader
/// stays. An error says that there is none.
pub(super) async fn respond(
    log: &Path,
    stopping: Option<watch::Receiver<bool>>,
) -> io::Result<Response> {
    let reader = Reader {
        log: File::open(log).await?,
        read: 0,
        stopping,
    };
    let chunks = stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((Ok::<_, Infallible>(chunk), reader))
    });
    // Guests write what they like.
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, Body::from_stream(chunks)).into_response())
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            // A log that cannot be read any more has ended.
            let read = self.log.read(&mut chunk).await.ok()?;
            if read > 0 {
                self.read += read as u64;
                chunk.truncate(read);
                return Some(chunk.into());
            }
            let stopping = self.stopping.as_mut()?;
            tokio::select! {
                // Cancel safe: a pause is only a pause.
                () = time::sleep(LOOK) => {}
                // Cancel safe: it only looks.
                () = stopped(stopping) => return None,
            }
            let metadata = self.log.metadata().await.ok()?;
            if std::os::unix::fs::MetadataExt::nlink(&metadata) == 0 {
                // The copy is gone.
                return None;
            }
            if metadata.len() < self.read {
                // Its older half went; what follows is shown from there.
                self.read = metadata.len();
                self.log.seek(SeekFrom::Start(self.read)).await.ok()?;
            }
        }
    }
}
