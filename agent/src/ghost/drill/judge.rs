//! What an answer is worth.

use crate::model::{Health, Protocol};

/// Of an answer, this much is told.
const TOLD_BYTES_MAX: usize = 64;

/// What has been seen of an answer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is what was expected.
    Good,
    /// It may become what was expected.
    Open,
    /// It cannot any more.
    Bad,
}

/// `answer`: all that came so far, which is more than nothing for UDP.
/// `is_whole`: no more will come.
pub(super) fn judge(question: &Health, answer: &[u8], is_whole: bool) -> Judged {
    let expected = &question.expect;
    let is_met = match expected.is_empty() {
        false => answer.starts_with(expected),
        // Where nothing is said, the connection is the answer.
        true if question.protocol == Protocol::Tcp && question.send.is_empty() => true,
        true => !answer.is_empty(),
    };
    match is_met {
        true => Judged::Good,
        false if !is_whole && expected.starts_with(answer) => Judged::Open,
        false => Judged::Bad,
    }
}

/// The first line of some bytes, in quotes, safe to print.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let told = line.get(..TOLD_BYTES_MAX).unwrap_or(line);
    let more = if told.len() < line.len() { "..." } else { "" };
    format!("\"{}\"{more}", told.escape_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Judged, judge, quoted};
    use crate::model::{Health, Protocol};

    fn question(protocol: Protocol, send: &str, expect: &str) -> Health {
        Health {
            addr: [10, 0, 0, 2].into(),
            port: 7,
            protocol,
            send: send.into(),
            expect: expect.into(),
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn an_answer_begins_with_what_is_expected() {
        let asked = question(Protocol::Tcp, "PING\n", "PONG");
        for (answer, is_whole, judged) in [
            ("", false, Judged::Open),
            ("PO", false, Judged::Open),
            ("PO", true, Judged::Bad),
            ("", true, Judged::Bad),
            ("PONG", false, Judged::Good),
            ("PONG and more", true, Judged::Good),
            ("PUNG", false, Judged::Bad),
            ("E", false, Judged::Bad),
        ] {
            let found = judge(&asked, answer.as_bytes(), is_whole);
            assert_eq!(found, judged, "{answer:?} {is_whole}");
        }
    }

    #[test]
    fn where_nothing_is_expected_any_answer_will_do() {
        let silent = question(Protocol::Tcp, "", "");
        assert_eq!(judge(&silent, b"", false), Judged::Good);
        for asked in [
            question(Protocol::Tcp, "hello", ""),
            question(Protocol::Udp, "hello", ""),
        ] {
            assert_eq!(judge(&asked, b"", false), Judged::Open);
            assert_eq!(judge(&asked, b"", true), Judged::Bad);
            assert_eq!(judge(&asked, b"x", false), Judged::Good);
        }
    }

    #[test]
    fn answers_are_told_in_one_short_printable_line() {
        assert_eq!(quoted(b"PONG\r\nmore"), "\"PONG\"");
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quoted(b"\x1b[2J\xff\""), "\"\\x1b[2J\\xff\\\"\"");
        let long = quoted(&[b'x'; 65]);
        assert_eq!(long, format!("\"{}\"...", "x".repeat(64)));
    }
}
