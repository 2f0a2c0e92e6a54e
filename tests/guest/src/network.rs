//! The payload on the network: ARP, neighbours, ping, and an UDP echo.

use agent_common::guest::Boot;
use ghost_guest::line::Line;
use smoltcp::{
    iface::{Config, Interface, SocketSet, SocketStorage},
    socket::udp,
    time::Instant,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

use crate::{
    driver::Driver,
    machine::{die, say, ticks},
};

/// As `inetd` had it (RFC 862).
const ECHO: u16 = 7;
/// Datagrams that wait, in each direction.
const WAITING_MAX: usize = 64;
/// Where the counter's rate is not known; timers are then a little off.
const TICKS_IN_MS: u64 = 2_000_000;

pub(crate) fn serve(boot: &Boot, line: Line<'_>) -> ! {
    match Driver::start(boot) {
        Ok(driver) => run(boot, line, driver),
        Err(why) => {
            say!("{why}");
            die()
        }
    }
}

fn run(boot: &Boot, line: Line<'_>, mut driver: Driver) -> ! {
    let ticks_in_ms = match boot.tsc_khz {
        0 => TICKS_IN_MS,
        khz => u64::from(khz),
    };
    let now = || Instant::from_millis((ticks() / ticks_in_ms).cast_signed());
    let mut config = Config::new(EthernetAddress(driver.mac).into());
    config.random_seed = ticks();
    let mut interface = Interface::new(config, &mut driver, now());
    interface.update_ip_addrs(|own| {
        let v4 = line
            .v4
            .map(|(a, length)| IpCidr::new(IpAddress::Ipv4(a), length));
        let v6 = line
            .v6
            .map(|(a, length)| IpCidr::new(IpAddress::Ipv6(a), length));
        for address in [v4, v6].into_iter().flatten() {
            // There is room for two.
            let _ = own.push(address);
        }
    });
    let mut storage = [SocketStorage::EMPTY; 1];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let (mut in_meta, mut in_bytes) = ([udp::PacketMetadata::EMPTY; WAITING_MAX], [0; 8192]);
    let (mut out_meta, mut out_bytes) = ([udp::PacketMetadata::EMPTY; WAITING_MAX], [0; 8192]);
    let mut echo = udp::Socket::new(
        udp::PacketBuffer::new(&mut in_meta[..], &mut in_bytes[..]),
        udp::PacketBuffer::new(&mut out_meta[..], &mut out_bytes[..]),
    );
    if echo.bind(ECHO).is_err() {
        say!("cannot bind port {ECHO}");
        die();
    }
    let echo = sockets.add(echo);
    say!("serving");
    loop {
        interface.poll(now(), &mut driver, &mut sockets);
        let socket = sockets.get_mut::<udp::Socket<'_>>(echo);
        while socket.can_send() {
            let mut datagram = [0; 1472];
            let Ok((length, from)) = socket.recv_slice(&mut datagram) else {
                break;
            };
            let answer = datagram.get(..length).unwrap_or_default();
            // No room is as good as a lost datagram.
            let _ = socket.send_slice(answer, from.endpoint);
        }
        core::hint::spin_loop();
    }
}
