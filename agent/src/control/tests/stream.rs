//! The event stream.

use std::time::SystemTime;

use agent_common::abi;

use super::*;
use crate::{
    control::dto::{EventLine, WhatDto},
    orchestrate::event::{EVENTS_KEPT, EVENTS_LIVE, EventKind},
};

fn lines(body: &str) -> Vec<EventLine> {
    body.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// Reads lines one by one.
struct Follower {
    body: Incoming,
    text: String,
}

impl Follower {
    async fn new(server: &Server, since: u64) -> Self {
        let uri = format!("/v1/events?follow=true&since={since}");
        let request = Request::get(uri).header("host", "ghostd");
        let response = open(&server.socket(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body();
        let text = String::new();
        Self { body, text }
    }

    async fn next(&mut self) -> Option<EventLine> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = serde_json::from_str(line).unwrap();
                self.text = rest.to_owned();
                return Some(line);
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame());
            let frame = frame.await.expect("no line in time")?.unwrap();
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }

    async fn sequence(&mut self) -> u64 {
        match self.next().await.unwrap() {
            EventLine::Event { sequence, .. } => sequence,
            EventLine::Lost { events } => panic!("{events} lost"),
        }
    }
}

#[tokio::test]
async fn kept_events_are_given_and_the_stream_ends() {
    let mut server = Server::with_driver();
    let seen = sample::reboot(abi::EventKind::InstanceReboot);
    let instance = Some("web".to_owned());
    server.events.push(SystemTime::now(), EventKind::Stopping);
    server
        .events
        .push(SystemTime::now(), EventKind::Reboot { instance, seen });
    let reply = send(&server.socket(), "GET", "/v1/events?since=1", "").await;
    let lines = lines(&reply.body);
    let [EventLine::Event { sequence, what, .. }] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(*sequence, 2);
    let WhatDto::Reboot { instance, seen } = what else {
        panic!("{what:?}");
    };
    assert_eq!(instance.as_deref(), Some("web"));
    assert_eq!(seen.command_name.as_deref(), Some("RESTART"));
    assert_eq!(seen.throw_took_ns, Some(1_420));
}

#[tokio::test]
async fn a_follower_gets_the_past_then_the_present() {
    let mut server = Server::with_driver();
    server.events.push(SystemTime::now(), EventKind::Stopping);
    server.events.push(SystemTime::now(), EventKind::Stopping);
    let mut follower = Follower::new(&server, 1).await;
    assert_eq!(follower.sequence().await, 2);
    server.events.push(SystemTime::now(), EventKind::Stopping);
    assert_eq!(follower.sequence().await, 3);
    // What was said before the end is still heard.
    server.events.push(SystemTime::now(), EventKind::Stopping);
    server.stop().await.unwrap();
    assert_eq!(follower.sequence().await, 4);
    assert_eq!(follower.next().await, None);
}

#[tokio::test]
async fn whoever_asks_for_more_than_is_kept_is_told_so() {
    let mut server = Server::with_driver();
    for _ in 0..EVENTS_KEPT + 5 {
        server.events.push(SystemTime::now(), EventKind::Stopping);
    }
    let reply = send(&server.socket(), "GET", "/v1/events", "").await;
    let lines = lines(&reply.body);
    assert_eq!(lines[0], EventLine::Lost { events: 5 });
    assert_eq!(lines.len(), 1 + EVENTS_KEPT);
}

#[tokio::test]
async fn a_slow_reader_gets_a_lost_line_and_then_the_newest() {
    let mut server = Server::with_driver();
    let mut follower = Follower::new(&server, 0).await;
    // Far more than all buffers on the way hold: most must be lost.
    let what = "x".repeat(10_000);
    let total = 20 * EVENTS_LIVE as u64;
    for _ in 0..total {
        let what = what.clone();
        server
            .events
            .push(SystemTime::now(), EventKind::Degraded { what });
        tokio::task::yield_now().await;
    }
    let (mut heard, mut lost, mut last) = (0, 0, 0);
    while heard + lost < total {
        match follower.next().await.unwrap() {
            EventLine::Lost { events } => lost += events,
            EventLine::Event { sequence, .. } => {
                heard += 1;
                last = sequence;
            }
        }
    }
    assert_eq!((heard + lost, last), (total, total));
    assert!(
        lost > 0 && heard >= EVENTS_LIVE as u64,
        "{heard} heard, {lost} lost"
    );
}
