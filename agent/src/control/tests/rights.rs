//! Rights by real peer credentials, and the socket file.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net},
};

use super::*;
use crate::control::{access::Group, dto::Problem, server::GUESTS_MAX};

const NOBODY: u32 = 65_534;

/// Gives the calling thread, and no other, the identity of a plain user.
///
/// The wrappers of the C library change all threads; the system calls do not.
fn become_plain(uid: u32, groups: &[u32]) {
    // SAFETY: these take integers and one pointer to `groups`, which outlives
    // the call; they change nothing but the credentials of this thread.
    #[allow(unsafe_code)]
    let answers = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
            libc::syscall(libc::SYS_setresgid, uid, uid, uid),
            libc::syscall(libc::SYS_setresuid, uid, uid, uid),
        ]
    };
    assert_eq!(answers, [0; 3], "this test needs root");
}

/// Sends a request as another user, from a thread of its own.
async fn send_as(uid: u32, groups: &[u32], socket: &Path, method: &str, uri: &str) -> Reply {
    // Only the mode of the file may stand in the way, and it is asserted elsewhere.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (groups, socket) = (groups.to_vec(), socket.to_owned());
    let request = format!("{method} {uri} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n");
    let thread = std::thread::spawn(move || {
        become_plain(uid, &groups);
        let mut stream = net::UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = tokio::task::spawn_blocking(|| thread.join().unwrap());
    parse(&answer.await.unwrap())
}

pub(super) fn parse(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let content_type = lines.find_map(|l| l.strip_prefix("content-type: "));
    Reply {
        status: status.parse().unwrap(),
        content_type: content_type.unwrap().to_owned(),
        body: body.to_owned(),
    }
}

pub(super) async fn as_nobody(socket: &Path, method: &str, uri: &str) -> Reply {
    send_as(NOBODY, &[], socket, method, uri).await
}

fn shared() -> Access {
    let group = |name: &str, gid| Group {
        name: name.to_owned(),
        gid,
    };
    Access {
        daemon_uid: 0,
        operators: vec![group("ops", 60_001)],
        readers: vec![group("look", 60_002)],
    }
}

#[tokio::test]
async fn a_stranger_is_refused_and_told_which_group_is_needed() {
    let server = Server::start(shared(), driver());
    let reply = as_nobody(&server.socket(), "GET", "/v1/status").await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let problem: Problem = serde_json::from_str(&reply.body).unwrap();
    assert!(problem.detail.contains("uid 65534"), "{}", problem.detail);
    let groups = "`ops` (gid 60001) or `look` (gid 60002)";
    assert!(problem.detail.ends_with(groups), "{}", problem.detail);
}

#[tokio::test]
async fn groups_give_rights_also_when_they_are_supplementary() {
    let server = Server::start(shared(), driver());
    let socket = server.socket();
    let cases: [(u32, &[u32], u16, u16); 5] = [
        (NOBODY, &[], 403, 403),
        (NOBODY, &[4, 60_002], 200, 403),
        (NOBODY, &[60_001, 4], 200, 200),
        // The primary group alone: its number is the user's here.
        (60_002, &[], 200, 403),
        (60_001, &[], 200, 200),
    ];
    for (uid, groups, get, post) in cases {
        let look = send_as(uid, groups, &socket, "GET", "/v1/switches").await;
        let change = send_as(uid, groups, &socket, "POST", "/v1/switches/web/throw").await;
        let seen = (look.status.as_u16(), change.status.as_u16());
        assert_eq!(seen, (get, post), "uid {uid}, groups {groups:?}");
    }
}

#[tokio::test]
async fn many_supplementary_groups_are_all_seen() {
    let server = Server::start(shared(), driver());
    let mut groups: Vec<u32> = (70_000..70_300).collect();
    groups.push(60_001);
    let reply = send_as(NOBODY, &groups, &server.socket(), "GET", "/v1/health").await;
    assert_eq!(reply.status, StatusCode::OK);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_socket_is_open_to_others_only_where_groups_are_configured() {
    let folder = Folder::new();
    let private = bind(&folder.socket(), &Access::private(0)).unwrap();
    assert_eq!(mode(&folder.socket()), 0o600);
    assert_eq!(mode(folder.socket().parent().unwrap()), 0o755);
    drop(private);
    let _shared = bind(&folder.socket(), &shared()).unwrap();
    assert_eq!(mode(&folder.socket()), 0o666);
}

#[tokio::test]
async fn a_live_socket_is_not_taken_and_a_stale_one_is() {
    let folder = Folder::new();
    let access = Access::private(0);
    let first = bind(&folder.socket(), &access).unwrap();
    let second = bind(&folder.socket(), &access).unwrap_err();
    assert!(matches!(second, ControlError::AnotherDaemon(_)));
    assert!(second.to_string().starts_with("another ghostd runs"));
    UnixStream::connect(folder.socket()).await.unwrap();
    drop(first);
    assert!(folder.socket().exists(), "a dead daemon leaves its socket");
    bind(&folder.socket(), &access).unwrap();
}

#[tokio::test]
async fn a_daemon_that_hangs_is_still_another_daemon() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.socket().parent().unwrap()).unwrap();
    let _hung = net::UnixListener::bind(folder.socket()).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        let connect = UnixStream::connect(folder.socket());
        match tokio::time::timeout(DEADLINE, connect).await.unwrap() {
            Ok(stream) => waiting.push(stream),
            Err(e) => break e,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    let error = bind(&folder.socket(), &Access::private(0)).unwrap_err();
    assert!(matches!(error, ControlError::AnotherDaemon(_)));
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.socket().parent().unwrap()).unwrap();
    std::fs::write(folder.socket(), "precious").unwrap();
    let error = bind(&folder.socket(), &Access::private(0)).unwrap_err();
    assert!(matches!(error, ControlError::NotASocket(_)));
    assert_eq!(std::fs::read(folder.socket()).unwrap(), b"precious");
}

/// Followers of a reader, held open.
async fn readers_follow(socket: &Path, count: usize) -> Vec<net::UnixStream> {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let socket = socket.to_owned();
    let thread = std::thread::spawn(move || {
        become_plain(NOBODY, &[60_002]);
        let one = |_| {
            let mut stream = net::UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let head = b"GET /v1/events?follow=true HTTP/1.1\r\nhost: g\r\n\r\n";
            // The server may have closed already; the read tells.
            let _ = stream.write_all(head);
            let mut first = [0; 12];
            let _ = stream.read_exact(&mut first);
            (stream, first)
        };
        let all = (0..count).map(one);
        let served = all.filter(|(_, first)| first == b"HTTP/1.1 200");
        served.map(|(stream, _)| stream).collect()
    });
    let joined = tokio::task::spawn_blocking(|| thread.join().unwrap());
    joined.await.unwrap()
}

#[tokio::test]
async fn readers_cannot_take_the_places_of_operators() {
    let server = Server::start(shared(), driver());
    let socket = server.socket();
    let held = readers_follow(&socket, GUESTS_MAX + 5).await;
    assert_eq!(held.len(), GUESTS_MAX);
    let operator = send(&socket, "GET", "/v1/health", "").await;
    assert_eq!(operator.status, StatusCode::OK);
}
