//! A raw HTTP/1.1 client: what `curl` would send, and nothing hidden.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
};

use anyhow::{Context, Result, bail, ensure};

/// No answer here is larger.
const BODY_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    body: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            body: None,
        }
    }

    /// A POST; `body` is JSON.
    pub fn post(path: &str, body: Option<&str>) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            body: body.map(str::to_owned),
        }
    }

    /// Sends the request and reads the whole answer; the connection ends.
    pub fn send(&self, mut stream: impl Read + Write) -> Result<Response> {
        self.write(&mut stream, "close")?;
        let mut reader = BufReader::new(stream);
        let mut response = read_head(&mut reader)?;
        response.body = read_body(&mut reader, &response)?;
        Ok(response)
    }

    /// Sends the request and reads the head; the body is the caller's to stream.
    pub fn open<S: Read + Write>(&self, mut stream: S) -> Result<(Response, BufReader<S>)> {
        self.write(&mut stream, "close")?;
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader)?;
        Ok((head, reader))
    }

    /// Sends the request over a connection that stays open, and reads the answer.
    pub fn exchange<S: Read + Write>(&self, connection: &mut BufReader<S>) -> Result<Response> {
        self.write(connection.get_mut(), "keep-alive")?;
        let mut response = read_head(connection)?;
        response.body = read_body(connection, &response)?;
        Ok(response)
    }

    fn write(&self, stream: &mut impl Write, afterwards: &str) -> Result<()> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: gdt\r\n", self.method, self.path);
        write!(text, "connection: {afterwards}\r\n")?;
        let body = self.body.as_deref().unwrap_or_default();
        if self.body.is_some() {
            text.push_str("content-type: application/json\r\n");
        }
        if self.method != "GET" {
            write!(text, "content-length: {}\r\n", body.len())?;
        }
        write!(text, "\r\n{body}")?;
        stream
            .write_all(text.as_bytes())
            .context("send the request")
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line).context("read the answer")?;
    ensure!(line.ends_with('\n'), "the connection ended early");
    Ok(line.trim_end().to_owned())
}

fn read_head(reader: &mut impl BufRead) -> Result<Response> {
    let line = read_line(reader)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("not an HTTP status line: {line}"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("a header without colon")?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(Response {
        status,
        headers,
        body: Vec::new(),
    })
}

fn read_body(reader: &mut impl BufRead, head: &Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.is_chunked() {
        while let Some(chunk) = read_chunk(reader)? {
            body.extend_from_slice(&chunk);
            ensure!(body.len() <= BODY_BYTES_MAX, "the answer is too long");
        }
    } else if let Some(length) = head.header("content-length") {
        let length: usize = length.parse().context("content-length")?;
        ensure!(length <= BODY_BYTES_MAX, "the answer is too long");
        body.resize(length, 0);
        reader.read_exact(&mut body).context("read the body")?;
    } else if head.status != 204 {
        bail!("an answer without a length");
    }
    Ok(body)
}

/// One chunk of a chunked body; `None` at its end.
pub fn read_chunk(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let size = read_line(reader)?;
    let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
        .with_context(|| format!("chunk size `{size}`"))?;
    ensure!(size <= BODY_BYTES_MAX, "a chunk is too long");
    let mut chunk = vec![0; size];
    reader.read_exact(&mut chunk).context("read a chunk")?;
    ensure!(read_line(reader)?.is_empty(), "a chunk without an end");
    Ok((size > 0).then_some(chunk))
}
