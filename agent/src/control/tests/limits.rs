//! Peers that are slow, silent or many, and the end of the server.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::control::server::{CONNECTIONS_MAX, GUESTS_MAX};

/// Announces five bytes of body and sends one.
pub(super) async fn with_stuck_body(socket: &Path, method: &str, uri: &str) -> Reply {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!("{method} {uri} HTTP/1.1\r\nhost: g\r\ncontent-length: 5\r\n\r\nx");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = ends(&mut stream).await;
    rights::parse(std::str::from_utf8(&answer).unwrap())
}

async fn ends(stream: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let read = tokio::time::timeout(DEADLINE, read).await;
    // A reset is an end as well.
    let _ = read.expect("the connection stayed open");
    rest
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_cut_off() {
    let server = Server::with_driver();
    let mut silent = UnixStream::connect(server.socket()).await.unwrap();
    ends(&mut silent).await;
    let mut halfway = UnixStream::connect(server.socket()).await.unwrap();
    halfway
        .write_all(b"GET /v1/status HTTP/1.1\r\nhost:")
        .await
        .unwrap();
    ends(&mut halfway).await;
    assert_eq!(
        send(&server.socket(), "GET", "/v1/health", "").await.status,
        200
    );
}

#[tokio::test]
async fn nonsense_is_answered_and_does_no_harm() {
    let server = Server::with_driver();
    let mut long = b"GET /".to_vec();
    long.resize(100_000, b'a');
    for bytes in [b"\0\xff\x16\x03\x01\r\n\r\n".as_slice(), &long] {
        let mut stream = UnixStream::connect(server.socket()).await.unwrap();
        let _ = stream.write_all(bytes).await;
        ends(&mut stream).await;
    }
    assert_eq!(
        send(&server.socket(), "GET", "/v1/health", "").await.status,
        200
    );
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let server = Server::with_driver();
    let mut followers = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let request = Request::get("/v1/events?follow=true").header("host", "g");
        let request = request.body(Body::empty()).unwrap();
        followers.push(open(&server.socket(), request).await);
    }
    let socket = server.socket();
    let mut late = tokio::spawn(async move { send(&socket, "GET", "/v1/health", "").await });
    // Served only when a place is free: it cannot finish while all are taken.
    let early = tokio::time::timeout(LIMITS.head, &mut late).await;
    assert!(early.is_err(), "served beyond the limit");
    drop(followers.pop());
    let reply = tokio::time::timeout(DEADLINE, late).await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::OK);
}

#[test]
fn guests_leave_room_for_operators() {
    const { assert!(GUESTS_MAX < CONNECTIONS_MAX) };
}

#[tokio::test]
async fn shutdown_ends_followers_and_removes_the_socket() {
    let server = Server::with_driver();
    let socket = server.socket();
    let request = Request::get("/v1/events?follow=true").header("host", "g");
    let follower = open(&socket, request.body(Body::empty()).unwrap()).await;
    let mut idle = UnixStream::connect(&socket).await.unwrap();
    let folder = Folder(server.folder.0.clone());
    server.stop().await.unwrap();
    let body = tokio::time::timeout(DEADLINE, follower.into_body().collect());
    assert!(body.await.unwrap().unwrap().to_bytes().is_empty());
    ends(&mut idle).await;
    assert!(!socket.exists());
    drop(folder);
}
