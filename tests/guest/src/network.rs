//! The payload on the network: ARP, neighbours, ping, an UDP echo, and the
//! key-value service. One loop does it all, and sleeps when nothing is due.

use core::mem::MaybeUninit;

use agent_common::guest::Boot;
use ghost_guest::{
    line::{Line, Serve},
    pattern::SERVICE_BYTES,
    store::Store,
    table::{SLOTS, Slot},
};
use smoltcp::{
    iface::{
        Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
        SocketStorage,
    },
    socket::udp,
    time::Instant,
    wire::{EthernetAddress, IpAddress, IpCidr, Ipv6Address},
};

use crate::{
    driver::Driver,
    machine::{self, Clock, Zero, die, say},
    service::{self, CONNECTIONS, Service},
    wall::Wall,
    writing::Writing,
};

/// Datagrams that wait, in each direction.
const WAITING_MAX: usize = 64;
const ECHO_BYTES: usize = 8192;
/// Frames that are taken in before anything goes out, so that a flood does not
/// silence us.
const FRAMES_AT_ONCE: usize = 32;
/// Rounds that send, before we look for what came in.
const SENDS_AT_ONCE: usize = 8;
/// No longer asleep than that: what is not known to be due is looked for.
const WAIT_US_MAX: u64 = 1_000_000;

/// All that does not fit on a stack.
#[repr(C)]
struct Area {
    slots: [Slot; SLOTS],
    service: service::Buffers,
    echo: [[u8; ECHO_BYTES]; 2],
    disk: crate::disk::Buffer,
    sockets: MaybeUninit<[SocketStorage<'static>; CONNECTIONS + 1]>,
    datagrams: MaybeUninit<[[udp::PacketMetadata; WAITING_MAX]; 2]>,
}

impl Zero for Area {}

const _: () = assert!(size_of::<Area>() as u64 <= SERVICE_BYTES);

pub(crate) fn serve(boot: &Boot, line: Line<'_>) -> ! {
    match start(boot, line.serve) {
        Ok(server) => server.run(),
        Err(why) => {
            say!("{why}");
            die()
        }
    }
}

struct Server {
    clock: Clock,
    driver: Driver,
    interface: Interface,
    sockets: SocketSet<'static>,
    echo: Option<SocketHandle>,
    service: Option<Service>,
    writing: Writing,
    wall: Wall,
}

fn start(boot: &Boot, line: Serve) -> Result<Server, &'static str> {
    let clock = Clock::new(boot);
    let area: &mut Area = machine::take(boot, boot.low_bytes - SERVICE_BYTES);
    let mut store = Store::new(&mut area.slots);
    let disk = crate::disk::open(boot, &mut area.disk, line.sync, &mut store)?;
    let mut driver = Driver::start(boot, line.mtu)?;
    let interface = interface(&line, &mut driver, clock)?;
    let storage = area
        .sockets
        .write([const { SocketStorage::EMPTY }; CONNECTIONS + 1]);
    let mut sockets = SocketSet::new(&mut storage[..]);
    let meta = [udp::PacketMetadata::EMPTY; WAITING_MAX];
    let [in_meta, out_meta] = area.datagrams.write([meta; 2]);
    let [in_bytes, out_bytes] = &mut area.echo;
    let mut echo = None;
    if line.echo > 0 {
        let mut socket = udp::Socket::new(
            udp::PacketBuffer::new(&mut in_meta[..], &mut in_bytes[..]),
            udp::PacketBuffer::new(&mut out_meta[..], &mut out_bytes[..]),
        );
        socket
            .bind(line.echo)
            .map_err(|_| "cannot bind the port of the echo")?;
        echo = Some(sockets.add(socket));
    }
    let service =
        (line.kv > 0).then(|| Service::new(line.kv, &mut area.service, &mut sockets, store, disk));
    let mut writing = Writing::new(boot, clock);
    writing
        .start_all(&line.writers)
        .map_err(|_| "a writer has no vCPU or too many pages")?;
    Ok(Server {
        clock,
        driver,
        interface,
        sockets,
        echo,
        service,
        writing,
        wall: Wall::new(clock),
    })
}

fn interface(line: &Serve, driver: &mut Driver, clock: Clock) -> Result<Interface, &'static str> {
    let mac = EthernetAddress(driver.mac);
    let mut config = Config::new(mac.into());
    config.random_seed = clock.ticks();
    let mut interface = Interface::new(config, driver, now(clock));
    let mut is_full = false;
    interface.update_ip_addrs(|own| {
        for (address, length) in line.addresses.iter() {
            is_full |= own.push(IpCidr::new(address.into(), length)).is_err();
        }
        // Neighbours may ask from, and for, addresses of their link only.
        let local = IpCidr::new(IpAddress::Ipv6(link_local(driver.mac)), 64);
        is_full |= own.push(local).is_err();
    });
    let routes = interface.routes_mut();
    for gateway in line.gateways.iter() {
        is_full |= match gateway {
            core::net::IpAddr::V4(gateway) => routes.add_default_ipv4_route(gateway).is_err(),
            core::net::IpAddr::V6(gateway) => routes.add_default_ipv6_route(gateway).is_err(),
        };
    }
    match is_full {
        true => Err("there is no room for all addresses and gateways"),
        false => Ok(interface),
    }
}

/// Made from the Ethernet address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Address {
    let word = |high, low| u16::from_be_bytes([high, low]);
    let id = [word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f)];
    Ipv6Address::new(0xfe80, 0, 0, 0, id[0], id[1], id[2], id[3])
}

fn now(clock: Clock) -> Instant {
    Instant::from_micros(clock.us().cast_signed())
}

impl Server {
    fn run(mut self) -> ! {
        say!("serving");
        loop {
            let is_busy = self.round();
            let due = self.writing.turn();
            if is_busy || self.driver.has_frame() {
                continue;
            }
            let timer = self.interface.poll_delay(now(self.clock), &self.sockets);
            let timer = timer.map_or(WAIT_US_MAX, |delay| delay.total_micros());
            let us = timer.min(due.unwrap_or(WAIT_US_MAX)).min(WAIT_US_MAX);
            if us > 0 {
                machine::wait(us);
            }
        }
    }

    /// What came in, what it asks for, what goes out. Whether there was any.
    fn round(&mut self) -> bool {
        let Self {
            driver,
            interface,
            sockets,
            ..
        } = self;
        let time = now(self.clock);
        let mut is_busy = false;
        self.wall.look();
        interface.poll_maintenance(time);
        for _ in 0..FRAMES_AT_ONCE {
            match interface.poll_ingress_single(time, driver, sockets) {
                PollIngressSingleResult::None => break,
                _ => is_busy = true,
            }
        }
        if let Some(echo) = self.echo {
            is_busy |= echo_all(sockets.get_mut(echo));
        }
        if let Some(service) = &mut self.service {
            is_busy |= service.serve(sockets, &mut self.writing, &self.wall);
        }
        for _ in 0..SENDS_AT_ONCE {
            match interface.poll_egress(time, driver, sockets) {
                PollResult::None => break,
                PollResult::SocketStateChanged => is_busy = true,
            }
        }
        is_busy
    }
}

fn echo_all(socket: &mut udp::Socket<'_>) -> bool {
    let mut is_busy = false;
    while socket.can_send() {
        let mut datagram = [0; 1472];
        let Ok((length, from)) = socket.recv_slice(&mut datagram) else {
            break;
        };
        let answer = datagram.get(..length).unwrap_or_default();
        // No room is as good as a lost datagram.
        let _ = socket.send_slice(answer, from);
        is_busy = true;
    }
    is_busy
}
