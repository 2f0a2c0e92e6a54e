//! Taps of copies, set up in a network namespace of their own and read back
//! by `ip`, which knows nothing of ghostd.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, UdpSocket},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    time::Duration,
};

use ghostd::{
    ghost::link::{GhostLink, LinkError, PrimaryLink, host_mac},
    model::{MacAddress, Network},
};
use serde_json::Value;
use support::{eventually, isolated, name, run};

const GUEST_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);
const FRAMES: u16 = 200;

/// A tap as `ghost-vmm` makes it: gone when it is dropped.
struct Tap(File);

impl Tap {
    fn new(name: &str) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .unwrap();
        // SAFETY: zeros are a valid `ifreq`: numbers, bytes and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = byte.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the request takes an `ifreq`, which lives through the call.
        let made =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        Self(file)
    }

    /// Frames that wait in the queue.
    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = self.0.read(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks() -> [Network; 2] {
    [("10.88.0.1", 24), ("2001:db8:88::1", 64)].map(|(text, prefix)| Network {
        addr: addr(text),
        prefix,
    })
}

fn json(command: &str) -> Value {
    serde_json::from_str(&run(command)).unwrap()
}

/// All that `ip` tells of an interface, but for its link-local address: the
/// kernel sees to that in its own time.
fn everything(interface: &str) -> String {
    let told = [
        "-o addr show dev",
        "-4 route show dev",
        "-6 route show dev",
        "neigh show dev",
        "-6 neigh show proxy dev",
    ]
    .map(|what| run(&format!("ip {what} {interface}")))
    .concat();
    let lines = told.lines().filter(|line| !line.contains("fe80:"));
    lines.collect::<Vec<_>>().join("\n")
}

fn primary<'a>(
    interface: &'a str,
    host_addresses: &'a [Network],
    services: &'a [IpAddr],
) -> PrimaryLink<'a> {
    PrimaryLink {
        interface,
        mac: host_mac(&name("shop")),
        host_addresses,
        services,
    }
}

fn ghost<'a>(
    interface: &'a str,
    vias: &'a [IpAddr],
    host_addresses: &'a [Network],
) -> GhostLink<'a> {
    GhostLink {
        interface,
        mac: host_mac(&name("shop")),
        guest_mac: GUEST_MAC,
        vias,
        host_addresses,
    }
}

fn shows(interface: &str, mac: MacAddress, addresses: &[(&str, u64)]) {
    let link = &json(&format!("ip -j addr show dev {interface}"))[0];
    assert_eq!(link["address"], mac.to_string());
    let flags = link["flags"].as_array().unwrap();
    assert!(flags.contains(&Value::from("UP")), "{link}");
    let found: Vec<_> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["scope"] == "global")
        .inspect(|a| assert!(a["tentative"].is_null(), "{a}"))
        .map(|a| {
            (
                a["local"].as_str().unwrap(),
                a["prefixlen"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, addresses);
    for key in ["accept_ra", "accept_dad", "router_solicitations"] {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/{key}");
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), "0", "{path}");
    }
}

#[test]
fn a_primarys_tap_has_the_hosts_addresses_and_the_way_to_the_guest() {
    isolated("a_primarys_tap_has_the_hosts_addresses", || {
        let _tap = Tap::new("gd-p");
        // Switched on before, with an address that the kernel chose.
        run("ip link set gd-p up");
        let networks = networks();
        let services = ["10.88.0.7", "10.99.0.7", "2001:db8:88::7", "2001:db8:99::7"].map(addr);
        let link = primary("gd-p", &networks, &services);
        link.prepare().unwrap();
        let addresses = [("10.88.0.1", 24), ("2001:db8:88::1", 64)];
        shows("gd-p", link.mac, &addresses);
        for service in services {
            let route = &json(&format!("ip -j route get {service}"))[0];
            assert_eq!(route["dev"], "gd-p", "{route}");
            assert!(route["gateway"].is_null(), "{route}");
        }
        let routes = run("ip -4 route show dev gd-p") + &run("ip -6 route show dev gd-p");
        assert!(!routes.contains("10.88.0.7"), "it is covered: {routes}");
        assert!(routes.contains("10.99.0.7 "), "{routes}");
        assert!(routes.contains("2001:db8:99::7 "), "{routes}");

        let before = everything("gd-p");
        link.prepare().unwrap();
        assert_eq!(everything("gd-p"), before);
    });
}

#[test]
fn a_ghosts_tap_is_the_way_to_its_via_addresses_alone() {
    isolated("a_ghosts_tap_is_the_way_to_its_via_addresses_alone", || {
        let tap = Tap::new("gd-g");
        let vias = ["10.77.9.2", "2001:db8:77:9::2"].map(addr);
        let networks = networks();
        let link = ghost("gd-g", &vias, &networks);
        link.prepare().unwrap();
        // The gateway's, and no network behind it.
        shows("gd-g", link.mac, &[("10.88.0.1", 32)]);
        let rp_filter = fs::read_to_string("/proc/sys/net/ipv4/conf/gd-g/rp_filter").unwrap();
        assert_eq!(rp_filter.trim(), "2");
        for via in vias {
            let route = &json(&format!("ip -j route get {via}"))[0];
            assert_eq!(route["dev"], "gd-g", "{route}");
            let neighbour = &json(&format!("ip -j neigh show {via} dev gd-g"))[0];
            assert_eq!(neighbour["lladdr"], GUEST_MAC.to_string());
            assert_eq!(neighbour["state"][0], "PERMANENT", "{neighbour}");
        }
        let routes = json("ip -j -4 route show dev gd-g");
        assert_eq!(routes[0]["dst"], "10.77.9.2", "{routes}");
        assert_eq!(routes[0]["scope"], "link", "{routes}");
        assert_eq!(routes.as_array().unwrap().len(), 1, "{routes}");

        let before = everything("gd-g");
        link.prepare().unwrap();
        assert_eq!(everything("gd-g"), before);

        drop(tap);
        let gone = eventually(Duration::from_secs(5), || {
            (!run("ip route show table all").contains("gd-g")).then_some(())
        });
        assert!(gone.is_some(), "{}", run("ip route show table all"));
    });
}

#[test]
fn frames_to_a_ghost_wait_in_order_while_it_sleeps() {
    isolated("frames_to_a_ghost_wait_in_order_while_it_sleeps", || {
        let mut taps = [Tap::new("gd-p"), Tap::new("gd-g")];
        let vias = ["10.77.9.2", "2001:db8:77:9::2"].map(addr);
        let networks = networks();
        primary("gd-p", &networks, &[]).prepare().unwrap();
        ghost("gd-g", &vias, &networks).prepare().unwrap();
        for (via, any) in vias.into_iter().zip(["0.0.0.0:0", "[::]:0"]) {
            taps[1].drain();
            let socket = UdpSocket::bind(any).unwrap();
            for number in 0..FRAMES {
                socket.send_to(&number.to_be_bytes(), (via, 7)).unwrap();
            }
            let frames = taps[1].drain();
            // Beside them there may be what the kernel tells routers.
            let ours = frames.iter().filter(|f| f.starts_with(&GUEST_MAC.0));
            let numbers: Vec<_> = ours
                .inspect(|f| assert_eq!(f[6..12], host_mac(&name("shop")).0))
                .map(|f| u16::from_be_bytes(f[f.len() - 2..].try_into().unwrap()))
                .collect();
            assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>(), "{via}");
        }
    });
}

/// A guest's question who has `target` (RFC 4861), to an Ethernet and an IPv6
/// address.
fn solicitation(to_mac: [u8; 6], to: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let from: Ipv6Addr = "2001:db8:88::7".parse().unwrap();
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(GUEST_MAC.0);
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &[0, 0, 0, 32, 0, 0, 0, 58],
        &message,
    ]
    .concat();
    let words = pseudo
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [&to_mac[..], &GUEST_MAC.0, &[0x86, 0xdd]].concat();
    let ip = [
        &[0x60, 0, 0, 0, 0, 32, 58, 255][..],
        &from.octets(),
        &to.octets(),
    ]
    .concat();
    [ethernet, ip, message].concat()
}

/// Else a guest that is switched over loses its gateway when its memory of it
/// gets old, half a minute later.
#[test]
fn a_ghost_that_asks_for_its_ipv6_gateway_is_answered() {
    isolated("a_ghost_that_asks_for_its_ipv6_gateway_is_answered", || {
        run("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.forwarding=1");
        let (_primary, mut tap) = (Tap::new("gd-p"), Tap::new("gd-g"));
        let networks = networks();
        primary("gd-p", &networks, &[]).prepare().unwrap();
        let link = ghost("gd-g", &[], &networks);
        link.prepare().unwrap();
        let gateway = "2001:db8:88::1".parse().unwrap();
        let group = "ff02::1:ff00:1".parse().unwrap();
        for question in [
            solicitation(link.mac.0, gateway, gateway),
            solicitation([0x33, 0x33, 0xff, 0, 0, 1], group, gateway),
        ] {
            tap.drain();
            tap.0.write_all(&question).unwrap();
            let answer = eventually(Duration::from_secs(5), || {
                // An advertisement, to the guest.
                let is_answer = |f: &Vec<u8>| f.starts_with(&GUEST_MAC.0) && f[54] == 136;
                tap.drain().into_iter().find(is_answer)
            });
            let answer = answer.expect("an answer");
            // It is a router, solicited; this is its address, and its MAC.
            assert_eq!(answer[58] & 0xc0, 0xc0, "{answer:02x?}");
            assert_eq!(
                answer[62..78],
                "2001:db8:88::1".parse::<Ipv6Addr>().unwrap().octets()
            );
            assert_eq!(answer[6..12], link.mac.0, "{answer:02x?}");
        }
    });
}

#[test]
fn what_cannot_be_set_up_is_said() {
    isolated("what_cannot_be_set_up_is_said", || {
        let networks = networks();
        let error = primary("gd-none", &networks, &[]).prepare().unwrap_err();
        assert!(matches!(error, LinkError::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains("gd-none"), "{error}");

        // A way that an operator made is left, and named.
        let _taps = [Tap::new("gd-a"), Tap::new("gd-b")];
        let vias = ["10.77.9.2", "2001:db8:77:9::2"].map(addr);
        run("ip link set gd-a up");
        for via in vias {
            run(&format!("ip route add {via} dev gd-a"));
            let error = ghost("gd-b", &[via], &[])
                .prepare()
                .unwrap_err()
                .to_string();
            assert!(error.contains("by gd-b, and is by gd-a"), "{error}");
            let route = &json(&format!("ip -j route get {via}"))[0];
            assert_eq!(route["dev"], "gd-a", "{route}");
        }

        let wrong = [Network {
            addr: addr("10.88.0.1"),
            prefix: 33,
        }];
        let error = primary("gd-b", &wrong, &[]).prepare().unwrap_err();
        let said = "cannot add the address 10.88.0.1/33 on the interface gd-b";
        assert_eq!(error.to_string(), said);
    });
}
