//! The key-value service on its connections.
//!
//! Owns: the sockets' buffers and the lines that come in on each. A connection
//! that ends, however it ends, makes room for the next. An answer is handed to
//! its socket here, and leaves with the next frames; whoever calls writes down
//! what was mutated before that.

use core::fmt::Write as _;

use ghost_guest::{
    request::{Line, REPLY_BYTES_MAX, Reply, Request, Text, Wrong},
    store::{Record, Room, Store},
};
use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Duration,
};

use crate::{disk::Disk, machine::reset, wall::Wall, writing::Writing};

/// At the same time; one more is refused.
pub(crate) const CONNECTIONS: usize = 32;
const BUFFER_BYTES: usize = 4096;

/// Unanswered for that long, a client is gone.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Quiet for that long, a client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What connections need besides their sockets. All zeros is a fresh one.
#[repr(C)]
pub(crate) struct Buffers {
    sockets: [[[u8; BUFFER_BYTES]; 2]; CONNECTIONS],
    lines: [Line; CONNECTIONS],
}

pub(crate) struct Service {
    port: u16,
    connections: [Option<SocketHandle>; CONNECTIONS],
    lines: &'static mut [Line; CONNECTIONS],
    store: Store<'static>,
    disk: Option<Disk>,
}

impl Service {
    pub(crate) fn new(
        port: u16,
        buffers: &'static mut Buffers,
        sockets: &mut SocketSet<'static>,
        store: Store<'static>,
        disk: Option<Disk>,
    ) -> Self {
        let mut connections = [None; CONNECTIONS];
        for (place, [receive, send]) in connections.iter_mut().zip(&mut buffers.sockets) {
            let (receive, send) = (&mut receive[..], &mut send[..]);
            let mut socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
            socket.set_timeout(Some(TIMEOUT));
            socket.set_keep_alive(Some(KEEP_ALIVE));
            // Answers are small and somebody waits for each.
            socket.set_nagle_enabled(false);
            // Before anybody is told that we serve. Fails for port 0 only.
            let _ = socket.listen(port);
            *place = Some(sockets.add(socket));
        }
        Self {
            port,
            connections,
            lines: &mut buffers.lines,
            store,
            disk,
        }
    }

    /// Answers all lines that are complete. Whether there were any.
    pub(crate) fn serve(
        &mut self,
        sockets: &mut SocketSet<'static>,
        writing: &mut Writing,
        wall: &Wall,
    ) -> bool {
        let mut has_served = false;
        let Self {
            port,
            connections,
            lines,
            store,
            disk,
        } = self;
        for (handle, line) in connections.iter().flatten().zip(lines.iter_mut()) {
            let socket = sockets.get_mut::<Socket<'_>>(*handle);
            has_served |= serve_one(socket, line, *port, |request| {
                answer(request, store, disk, writing, wall)
            });
        }
        if let Some(disk) = disk {
            disk.commit();
        }
        has_served
    }
}

/// Lines of one connection, as far as there is room for their answers.
fn serve_one(
    socket: &mut Socket<'_>,
    line: &mut Line,
    port: u16,
    mut answer: impl FnMut(&Result<Request<'_>, Wrong<'_>>) -> Text<REPLY_BYTES_MAX>,
) -> bool {
    let mut has_served = false;
    while socket.can_recv() && socket.send_capacity() - socket.send_queue() >= REPLY_BYTES_MAX {
        // It can.
        let Ok(is_complete) = socket.recv(|bytes| line.feed(bytes)) else {
            break;
        };
        if is_complete {
            let reply = answer(&line.request());
            line.clear();
            // There is room.
            let _ = socket.send_slice(reply.bytes());
            has_served = true;
        }
    }
    match socket.state() {
        // The client has said all it had to say, and has all its answers.
        State::CloseWait if !socket.can_recv() => socket.close(),
        State::Closed => {
            line.clear();
            // Fails for port 0 only, which is no service.
            let _ = socket.listen(port);
        }
        _ => {}
    }
    has_served
}

fn answer(
    request: &Result<Request<'_>, Wrong<'_>>,
    store: &mut Store<'_>,
    disk: &mut Option<Disk>,
    writing: &mut Writing,
    wall: &Wall,
) -> Text<REPLY_BYTES_MAX> {
    let mut text = Text::new();
    let room = disk.as_ref().map_or(Room::Enough, Disk::room);
    let mut write_down = |record: Option<Record>| {
        if let (Some(disk), Some(record)) = (disk.as_mut(), record) {
            disk.append(&record);
        }
    };
    let reply = match *request {
        Err(wrong) => Reply::Wrong(wrong),
        Ok(Request::Ping) => Reply::Pong,
        Ok(Request::Put(key, value)) => {
            let (reply, record) = store.put(key, value, room);
            write_down(record);
            reply
        }
        Ok(Request::Incr(key)) => {
            let (reply, record) = store.increment(key, room);
            write_down(record);
            reply
        }
        Ok(Request::Get(key)) => store.get(key),
        Ok(Request::Sum) => store.sum(),
        Ok(Request::Write(order)) => writing.start(order),
        Ok(Request::Stop(cpu)) => writing.stop(cpu),
        Ok(Request::Stat(cpu)) => writing.stat(cpu),
        Ok(Request::Generation) => wall.generation(),
        Ok(Request::Time) => wall.time(),
        Ok(Request::Reset) => reset(),
    };
    // Each answer fits.
    let _ = writeln!(text, "{reply}");
    text
}
