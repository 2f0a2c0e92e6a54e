//! The command line: words of the form `key=value`, separated by blanks.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use agent_common::guest::CPUS_MAX;

use crate::write::Order;

/// Own addresses.
pub const ADDRESSES_MAX: usize = 6;
/// One of each family.
pub const GATEWAYS_MAX: usize = 2;
/// What each Ethernet carries.
const MTU_MAX: u16 = 1500;
/// IPv6 wants no less (RFC 8200, section 5).
const MTU_MIN: u16 = 1280;

/// What the payload is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub action: Action,
    /// Printed before anything else.
    pub say: &'a str,
    /// Seed of the pattern.
    pub seed: u64,
    /// Bytes of the pattern.
    pub bytes: u64,
    /// Steps of garbage.
    pub steps: u64,
    pub serve: Serve,
}

/// What it is on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serve {
    /// Own addresses, with the lengths of their prefixes.
    pub addresses: List<(IpAddr, u8), ADDRESSES_MAX>,
    pub gateways: List<IpAddr, GATEWAYS_MAX>,
    /// Bytes of an IP packet.
    pub mtu: u16,
    /// TCP port of the key-value service; 0 is none.
    pub kv: u16,
    /// UDP port of the echo; 0 is none.
    pub echo: u16,
    /// Whether an answer waits until the disk has nothing in its cache.
    pub sync: Sync,
    pub writers: List<Order, CPUS_MAX>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    On,
    Off,
}

impl Serve {
    /// Echo as `inetd` had it (RFC 862).
    pub const NEW: Self = Self {
        addresses: List::NEW,
        gateways: List::NEW,
        mtu: MTU_MAX,
        kv: 7000,
        echo: 7,
        sync: Sync::On,
        writers: List::NEW,
    };
}

/// How the payload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// By the keyboard controller.
    Reset,
    /// By the reset control register.
    ResetControl,
    PowerOff,
    /// An exception that nobody handles.
    TripleFault,
    /// A write through a null pointer.
    Null,
    /// Never; answers on the network.
    Serve,
    /// Writes nonsense to the registers and rings of its devices, then resets.
    Nonsense,
    /// Writes nonsense to all ports, registers and rings, `steps` times, then
    /// resets, unless it has ended itself by chance.
    Garbage,
    /// Never; counts in memory.
    Spin,
    /// Writes to and reads from ports and addresses where nothing is, then resets.
    Strays,
}

/// A word that is none of ours, or one too many of its kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown<'a>(pub &'a str);

impl<'a> Line<'a> {
    pub fn parse(text: &'a str) -> Result<Self, Unknown<'a>> {
        let mut line = Self {
            action: Action::Reset,
            say: "",
            seed: 0,
            bytes: 0,
            steps: 0,
            serve: Serve::NEW,
        };
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(Unknown(word))?;
            line.set(key, value).ok_or(Unknown(word))?;
        }
        Ok(line)
    }

    fn set(&mut self, key: &str, value: &'a str) -> Option<()> {
        match key {
            "do" => self.action = Action::of(value)?,
            "say" => self.say = value,
            "seed" => self.seed = value.parse().ok()?,
            "steps" => self.steps = value.parse().ok()?,
            "bytes" => self.bytes = value.parse().ok()?,
            _ => return self.serve.set(key, value),
        }
        Some(())
    }
}

impl Serve {
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "addr" => return self.addresses.push(prefixed(value)?),
            "v4" => return self.addresses.push(prefixed_v4(value)?),
            "v6" => return self.addresses.push(prefixed_v6(value)?),
            "gw" => return self.add_gateway(value.parse().ok()?),
            "mtu" => {
                let is_one = |mtu: &u16| (MTU_MIN..=MTU_MAX).contains(mtu);
                self.mtu = value.parse().ok().filter(is_one)?;
            }
            "kv" => self.kv = value.parse().ok()?,
            "echo" => self.echo = value.parse().ok()?,
            "sync" => {
                self.sync = match value {
                    "on" => Sync::On,
                    "off" => Sync::Off,
                    _ => return None,
                }
            }
            "write" => return self.add_writer(value),
            _ => return None,
        }
        Some(())
    }

    fn add_gateway(&mut self, gateway: IpAddr) -> Option<()> {
        let is_same = |other: IpAddr| other.is_ipv4() == gateway.is_ipv4();
        if self.gateways.iter().any(is_same) {
            return None;
        }
        self.gateways.push(gateway)
    }

    /// As in `rate:5000,pages:100`. One for each vCPU.
    fn add_writer(&mut self, value: &str) -> Option<()> {
        let mut order = Order::NEW;
        for word in value.split(',') {
            let (key, value) = word.split_once(':')?;
            order.set(key, value)?;
        }
        if self.writers.iter().any(|other| other.cpu == order.cpu) {
            return None;
        }
        self.writers.push(order)
    }
}

/// An address and the length of its prefix, as in `10.0.0.1/24`.
fn prefixed(text: &str) -> Option<(IpAddr, u8)> {
    prefixed_v4(text).or_else(|| prefixed_v6(text))
}

fn prefixed_v4(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = split::<Ipv4Addr>(text, 32)?;
    Some((address.into(), length))
}

fn prefixed_v6(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = split::<Ipv6Addr>(text, 128)?;
    Some((address.into(), length))
}

fn split<A: FromStr>(text: &str, length_max: u8) -> Option<(A, u8)> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok().filter(|&length| length <= length_max)?;
    Some((address.parse().ok()?, length))
}

impl Action {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "reset" => Self::Reset,
            "reset-control" => Self::ResetControl,
            "power-off" => Self::PowerOff,
            "triple-fault" => Self::TripleFault,
            "null" => Self::Null,
            "serve" => Self::Serve,
            "nonsense" => Self::Nonsense,
            "garbage" => Self::Garbage,
            "spin" => Self::Spin,
            "strays" => Self::Strays,
            _ => return None,
        })
    }
}

/// A few of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<T, const MAX: usize>([Option<T>; MAX]);

impl<T: Copy, const MAX: usize> List<T, MAX> {
    pub const NEW: Self = Self([None; MAX]);

    /// `None` if there is no room.
    pub fn push(&mut self, item: T) -> Option<()> {
        let place = self.0.iter_mut().find(|place| place.is_none())?;
        *place = Some(item);
        Some(())
    }

    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::{Action, Line, Sync, Unknown};

    #[test]
    fn words_are_read_in_any_order() {
        let line = Line::parse(
            " bytes=4096 do=serve  say=hello seed=7 v4=10.0.0.1/24 addr=fd00::2/64 gw=fd00::1 \
             gw=10.0.0.254 kv=0 echo=9 mtu=1400 sync=off write=rate:9,cpu:1 write=pages:4",
        )
        .unwrap();
        assert_eq!(line.action, Action::Serve);
        assert_eq!((line.say, line.seed, line.bytes), ("hello", 7, 4096));
        let serve = line.serve;
        let addresses: Vec<(IpAddr, u8)> = serve.addresses.iter().collect();
        let expected = [("10.0.0.1", 24), ("fd00::2", 64)];
        assert_eq!(
            addresses,
            expected.map(|(a, length)| (a.parse().unwrap(), length))
        );
        assert_eq!(serve.gateways.iter().count(), 2);
        assert_eq!((serve.kv, serve.echo, serve.mtu), (0, 9, 1400));
        assert_eq!(serve.sync, Sync::Off);
        let writers: Vec<_> = serve.writers.iter().collect();
        assert_eq!((writers[0].rate, writers[0].cpu), (9, 1));
        assert_eq!((writers[1].pages, writers[1].cpu), (4, 0));
        assert_eq!(Line::parse("").unwrap().action, Action::Reset);
    }

    #[test]
    fn a_word_that_is_not_ours_is_named() {
        for word in [
            "do=dance",
            "bytes=-1",
            "quiet",
            "x=1",
            "v4=10.0.0.1/33",
            "v6=10.0.0.1/8",
            "addr=fd00::1",
            "mtu=1279",
            "kv=65536",
            "sync=maybe",
            "write=rate=1",
        ] {
            assert_eq!(Line::parse(word), Err(Unknown(word)));
        }
        let two = "gw=10.0.0.1 gw=10.0.0.2";
        assert_eq!(Line::parse(two), Err(Unknown("gw=10.0.0.2")));
        let two = "write=cpu:1 write=cpu:1,rate:2";
        assert_eq!(Line::parse(two), Err(Unknown("write=cpu:1,rate:2")));
        let seven = "addr=10.0.0.1/8 ".repeat(7);
        assert_eq!(Line::parse(&seven), Err(Unknown("addr=10.0.0.1/8")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}|([a-z]{1,5}=[a-z0-9:/.,=]{0,20} ?){0,6}") {
            let _ = Line::parse(&text);
        }
    }
}
