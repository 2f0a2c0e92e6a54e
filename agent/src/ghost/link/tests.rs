use super::*;

fn network(text: &str) -> Network {
    let (addr, prefix) = text.split_once('/').unwrap();
    Network {
        addr: addr.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    }
}

#[test]
fn a_network_covers_what_has_its_leading_bits() {
    for (net, addr, is_covered) in [
        ("10.88.0.1/24", "10.88.0.255", true),
        ("10.88.0.1/24", "10.88.1.0", false),
        ("10.88.0.1/32", "10.88.0.1", true),
        ("10.88.0.1/32", "10.88.0.0", false),
        ("0.0.0.0/0", "255.255.255.255", true),
        ("2001:db8::1/64", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::1/64", "2001:db8:0:1::1", false),
        ("2001:db8::1/128", "2001:db8::1", true),
        ("::/0", "2001:db8::1", true),
        ("::/0", "10.0.0.1", false),
    ] {
        let addr = addr.parse().unwrap();
        assert_eq!(covers(&network(net), addr), is_covered, "{net} {addr}");
    }
}

#[test]
fn macs_are_of_one_station_ours_to_give_and_differ() {
    let names = (0..1000).map(|n| format!("shop-{n}").parse().unwrap());
    let mut macs: Vec<_> = names.map(|name| host_mac(&name).0).collect();
    assert!(macs.iter().all(|mac| mac[0] & 3 == 2), "{macs:?}");
    macs.sort_unstable();
    macs.dedup();
    assert_eq!(macs.len(), 1000);
}

/// Guests remember it: another version of ghostd must not change it.
#[test]
fn the_mac_of_an_instance_stays() {
    let mac = host_mac(&"shop-7".parse().unwrap());
    assert_eq!(mac.to_string(), "1e:b6:a8:10:fc:2e");
}
