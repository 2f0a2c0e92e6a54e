use std::fmt::Write as _;

use proptest::prelude::*;

use super::{
    Key, LINE_BYTES_MAX, Line, REPLY_BYTES_MAX, Reply, Request, Text, VALUE_BYTES_MAX, Value, Wrong,
};
use crate::{
    journal::Journal,
    write::{Order, Pattern},
};

fn parse(line: &str) -> Result<Request<'_>, Wrong<'_>> {
    Request::parse(line.as_bytes())
}

#[test]
fn each_command_is_understood() {
    let key = Key::new("k").unwrap();
    assert_eq!(parse("PING"), Ok(Request::Ping));
    assert_eq!(
        parse("PUT k v\r"),
        Ok(Request::Put(key, Value::new("v").unwrap()))
    );
    assert_eq!(parse(" GET  k "), Ok(Request::Get(key)));
    assert_eq!(parse("INCR k"), Ok(Request::Incr(key)));
    assert_eq!(parse("SUM"), Ok(Request::Sum));
    assert_eq!(parse("GEN"), Ok(Request::Generation));
    assert_eq!(parse("TIME"), Ok(Request::Time));
    assert_eq!(parse("STAT"), Ok(Request::Stat(0)));
    assert_eq!(parse("STOP 2"), Ok(Request::Stop(2)));
    let order = Order {
        rate: 5000,
        pages: 20_000,
        pattern: Pattern::Random,
        seed: 7,
        ..Order::NEW
    };
    let line = "WRITE rate=5000 pages=20000 pattern=random seed=7";
    assert_eq!(parse(line), Ok(Request::Write(order)));
}

#[test]
fn what_is_wrong_is_said() {
    let long = "k".repeat(65);
    for (line, answer) in [
        ("", "ERR no such command: "),
        ("put k v", "ERR no such command: put"),
        ("PUT k", "ERR usage: PUT key value"),
        ("PUT k v w", "ERR usage: PUT key value"),
        ("GET", "ERR usage: GET key"),
        ("PING PONG", "ERR usage: PING"),
        ("GET \u{e9}", "ERR a line is ASCII"),
        ("GET k\u{7f}", "ERR a key has 1 to 64 visible characters"),
        ("WRITE fast", "ERR not understood: fast"),
        ("WRITE cpu=9", "ERR not understood: cpu=9"),
        ("STOP x", "ERR not understood: x"),
        (
            &format!("GET {long}"),
            "ERR a key has 1 to 64 visible characters",
        ),
    ] {
        let wrong = parse(line).unwrap_err();
        assert_eq!(Reply::Wrong(wrong).to_string(), answer, "{line}");
    }
}

#[test]
fn the_longest_answers_fit() {
    let value = "v".repeat(VALUE_BYTES_MAX);
    let most = u64::MAX;
    let order = Order {
        rate: most,
        pages: most,
        first: most,
        seed: most,
        count: most,
        pattern: Pattern::Sequential,
        ..Order::NEW
    };
    let stat = Reply::Stat {
        is_running: true,
        written: most,
        order,
    };
    for reply in [
        Reply::Value(&value),
        Reply::Counted(most, most),
        Reply::Sum(Journal::NEW, usize::MAX),
        Reply::Wrong(Wrong::Word(&value)),
        Reply::Wrong(Wrong::Command(&value)),
        stat,
    ] {
        let shown = format!("{reply}\n");
        assert!(shown.len() <= REPLY_BYTES_MAX, "{shown}");
        let mut text = Text::<REPLY_BYTES_MAX>::new();
        writeln!(text, "{reply}").unwrap();
        assert_eq!(text.bytes(), shown.as_bytes());
    }
}

#[test]
fn a_line_that_is_too_long_is_one_wrong_line() {
    let mut line = Line::NEW;
    let long = "x".repeat(LINE_BYTES_MAX + 1);
    assert_eq!(line.feed(long.as_bytes()), (LINE_BYTES_MAX + 1, false));
    assert_eq!(line.feed(b"yz\nPING\n"), (3, true));
    assert_eq!(line.request(), Err(Wrong::LineTooLong));
    line.clear();
    assert_eq!(line.feed(b"PING\n"), (5, true));
    assert_eq!(line.request(), Ok(Request::Ping));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_in_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(wrong) = Request::parse(&bytes) {
            let shown = Reply::Wrong(wrong).to_string();
            prop_assert!(shown.len() < REPLY_BYTES_MAX);
            prop_assert!(!shown.contains('\n'), "{}", shown);
        }
    }

    /// However TCP cuts them, lines are the same.
    #[test]
    fn lines_do_not_depend_on_where_they_are_cut(
        lines in proptest::collection::vec("[ -~]{0,340}", 1..6), cuts in proptest::collection::vec(1..50_usize, 1..40),
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let whole: Vec<String> = lines.iter().map(|line| {
            let request = if line.len() > LINE_BYTES_MAX { Err(Wrong::LineTooLong) } else { parse(line) };
            format!("{request:?}")
        }).collect();
        let mut seen = Vec::new();
        let (mut line, mut rest, mut cuts) = (Line::NEW, text.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(*cuts.next().unwrap())];
            let (consumed, is_complete) = line.feed(piece);
            rest = &rest[consumed..];
            if is_complete {
                seen.push(format!("{:?}", line.request()));
                line.clear();
            }
        }
        prop_assert_eq!(seen, whole);
    }
}
