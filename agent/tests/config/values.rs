//! What a configuration means.

use std::{path::Path, time::Duration};

use agent_common::abi::{FenceMode, Side};
use ghostd::{
    config::{Colour, Config, Group, parse},
    model::{
        Affinity, L4, Limits, Portion, Priority, Protocol, Reserve, Stake, Target, UplinkMode,
    },
};

fn read(text: &str) -> Config {
    parse("test.toml", text).unwrap_or_else(|errors| panic!("{}", errors.render(Colour::Never)))
}

const SMALLEST: &str = r#"
[steering]
uplinks = ["eth0"]
"#;

#[test]
fn defaults_are_what_the_example_says() {
    let (default, example) = (read(SMALLEST), read(super::EXAMPLE));
    assert_eq!(example.warnings, []);
    assert_eq!(example.host.name.as_deref(), Some("hv1"));
    assert_eq!(default.host.name, None);
    assert_eq!(default.steering, example.steering);
    assert_eq!(default.limits, example.limits);
    assert_eq!(default.limits, Limits::default());
    assert_eq!(default.api, example.api);
    assert_eq!(default.allocation.reserve, example.allocation.reserve);
    assert_eq!(default.allocation.reserve, Reserve::default());
    assert_eq!(example.allocation.owners[0].priority, Priority::ORDINARY);
    assert_eq!(example.allocation.owners[0].share_percent, 100);
    assert_eq!(default.steering.mode, UplinkMode::Auto);
    assert_eq!(default.steering.pins, Path::new("/sys/fs/bpf/ghostd"));
    assert_eq!(default.api.socket, Path::new("/run/ghostd/ghostd.sock"));
    assert_eq!(
        default.api.operators,
        [Group::Name("ghostd-ops".to_owned())]
    );
    assert!(default.instances.is_empty());

    let short = format!(
        "{SMALLEST}[[instance]]\nname = \"db1\"\n\
         [[instance.route]]\nservice = \"198.51.100.10\"\nghost = \"10.0.0.3\"\n\
         [[instance.port]]\ninterface = \"vnet0\"\nside = \"primary\"\n"
    );
    let (short, long) = (&read(&short).instances[0], &example.instances[0]);
    assert_eq!((short.armed, short.affinity), (long.armed, long.affinity));
    assert_eq!(short.stake, long.stake);
    assert_eq!(short.stake, Stake::default());
    assert_eq!(short.routes[0], long.routes[0]);
    assert_eq!(short.ports[0], long.ports[0]);
}

#[test]
fn the_example_means_what_it_says() {
    let config = read(super::EXAMPLE);
    let [db, _] = config.instances.as_slice() else {
        panic!("{:?}", config.instances);
    };
    assert_eq!(db.name.as_str(), "db1");
    assert_eq!(db.owner.as_deref(), Some("acme"));
    assert_eq!(
        db.cgroup.as_deref(),
        Some(Path::new("/sys/fs/cgroup/machine.slice/db1"))
    );
    assert!(db.armed);
    let affinity = Affinity::Connections {
        idle: Duration::from_secs(60),
        drain_max: Duration::from_secs(3600),
    };
    assert_eq!(db.affinity, affinity);
    assert_eq!(db.routes[0].service.to_string(), "198.51.100.10");
    assert_eq!(db.routes[1].service.to_string(), "tcp://[2001:db8::10]:443");
    let l4 = L4 {
        protocol: Protocol::Tcp,
        port: 443,
    };
    assert_eq!(db.routes[1].service.l4, Some(l4));
    let ghost = Target::Translate {
        addr: "2001:db8:0:1::3".parse().unwrap(),
        port: Some(8443),
    };
    assert_eq!(db.routes[1].ghost, ghost);
    assert_eq!(db.routes[1].primary, Target::Native);
    assert_eq!(
        (db.ports[1].side, db.ports[1].fence),
        (Side::Ghost, FenceMode::Quiet)
    );
}

#[test]
fn every_value_can_be_changed() {
    let config = read(
        r#"
        [host]
        name = "hv-2.example"
        [steering]
        uplinks = ["bond0", "eth1.100"]
        mode = "generic"
        replace_foreign = true
        pins = "/sys/fs/bpf/other"
        [limits]
        routes = 1_000_000
        instances = 0x10000
        flows = 1
        fragments = 2
        [api]
        socket = "/run/x.sock"
        operators = [27, "wheel"]
        readers = ["adm"]
        [[instance]]
        name = "a"
        armed = false
        affinity = "none"
        route = [{ service = "198.51.100.1", protocol = "udp", port = 53, primary = "10.0.0.2:5353", ghost = "10.0.0.3" }]
        [[instance]]
        name = "b"
        armed = false
        drain_idle_s = 5
        drain_max_s = 0.25
        [[instance.route]]
        service = "198.51.100.1"
        protocol = "tcp"
        port = 53
        ghost = "10.0.0.3"
        "#,
    );
    assert_eq!(config.warnings, []);
    assert_eq!(config.host.name.as_deref(), Some("hv-2.example"));
    assert_eq!(config.steering.uplinks, ["bond0", "eth1.100"]);
    assert_eq!(config.steering.mode, UplinkMode::Generic);
    assert!(config.steering.replace_foreign);
    let limits = Limits {
        routes: 1_000_000,
        instances: 65_536,
        flows: 1,
        fragments: 2,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(
        config.api.operators,
        [Group::Id(27), Group::Name("wheel".to_owned())]
    );
    let [a, b] = config.instances.as_slice() else {
        panic!("{:?}", config.instances);
    };
    assert_eq!(a.affinity, Affinity::None);
    let at = |port| Target::Translate {
        addr: if port == 5353 {
            [10, 0, 0, 2].into()
        } else {
            [10, 0, 0, 3].into()
        },
        port: Some(port),
    };
    assert_eq!((a.routes[0].primary, a.routes[0].ghost), (at(5353), at(53)));
    // TCP and UDP of one port of one ghost are two targets.
    assert_eq!(b.routes[0].ghost, at(53));
    let affinity = Affinity::Connections {
        idle: Duration::from_secs(5),
        drain_max: Duration::from_millis(250),
    };
    assert_eq!(b.affinity, affinity);
}

/// Routes that look alike and are none the less in order.
#[test]
fn neighbours_are_no_overlap() {
    let routes = [
        // A port of an address that has a route as a whole, to the same ghost.
        r#"service = "198.51.100.1"
           ghost = "10.0.0.1""#,
        r#"service = "198.51.100.1"
           protocol = "tcp"
           port = 80
           ghost = "10.0.0.1""#,
        // And another one, to a ghost of its own.
        r#"service = "198.51.100.1"
           protocol = "tcp"
           port = 81
           ghost = "10.0.0.2:80""#,
        // A ghost that is another server on the same address.
        r#"service = "198.51.100.2"
           protocol = "tcp"
           port = 80
           ghost = "198.51.100.2:8080""#,
    ];
    let routes = routes
        .map(|route| format!("[[instance.route]]\n{route}\n"))
        .concat();
    let config = read(&format!(
        "{SMALLEST}[[instance]]\nname = \"a\"\narmed = false\n{routes}"
    ));
    assert_eq!(config.instances[0].routes.len(), 4);
}

/// One fault each in an otherwise good file, and what must be said of it.
#[test]
fn each_fault_has_its_message() {
    let route = |lines: &str| {
        format!(
            "{SMALLEST}[[instance]]\nname = \"a\"\narmed = false\n[[instance.route]]\n{lines}\n"
        )
    };
    let to = |service: &str, ghost: &str| {
        route(&format!("service = \"{service}\"\nghost = \"{ghost}\""))
    };
    let good = "198.51.100.1";
    let cases = [
        (to("0.0.0.0", "10.0.0.1"), "unspecified"),
        (to("0.1.2.3", "10.0.0.1"), "unspecified"),
        (to("255.255.255.255", "10.0.0.1"), "broadcast"),
        (to("224.0.0.1", "10.0.0.1"), "multicast"),
        (to("ff02::1", "2001:db8::1"), "multicast"),
        (to("2001:db8::1", "::1"), "loopback"),
        (to("2001:db8::1", "::"), "unspecified"),
        (to(good, "127.0.0.1"), "loopback"),
        (to(good, "169.254.1.1"), "link-local"),
        (to("2001:db8::1", "fe80::1"), "link-local"),
        (to("2001:db8::1", "fe80::1%eth0"), "scoped"),
        (to("::ffff:198.51.100.1", "2001:db8::1"), "IPv4-mapped"),
        (to(good, "::ffff:10.0.0.1"), "IPv4-mapped"),
        (
            to(good, "2001:db8::1"),
            "IPv4 service cannot be steered to an IPv6",
        ),
        (to("198.51.100.0/24", "10.0.0.1"), "not a network"),
        (to("198.51.100.1:80", "10.0.0.1"), "give the port apart"),
        (to(good, "10.0.0.1:80"), "cannot change the port"),
        (to(good, "native"), "address of its own"),
        (to(good, good), "has the address of the service"),
        (to(good, "somewhere"), "not an address"),
        (to("", "10.0.0.1"), "not an address"),
    ];
    for (text, expected) in cases {
        let shown = parse("x.toml", &text).unwrap_err().render(Colour::Never);
        assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
        assert!(shown.contains("x.toml has 1 error\n"), "{shown}");
    }
}

#[test]
fn a_microvm_needs_an_image_and_nothing_else() {
    let text = format!(
        "{SMALLEST}\n[[instance]]\nname = \"a\"\narmed = false\nvm = {{ image = \"/a.elf\" }}\n"
    );
    let config = read(&text);
    assert_eq!(config.warnings, []);
    let vm = config.instances[0].vm.as_ref().unwrap();
    assert_eq!((vm.memory_mib, vm.vcpus), (128, 1));
    assert_eq!(vm.command_line, "");
    assert_eq!((&vm.disk, &vm.initrd, vm.mac), (&None, &None, None));
    assert_eq!((vm.host_addresses.len(), &vm.health), (0, &None));
}

#[test]
fn the_microvm_of_the_example() {
    let example = read(super::EXAMPLE);
    let vm = example.instances[1].vm.as_ref().unwrap();
    let health = vm.health.as_ref().unwrap();
    assert_eq!(vm.mac.unwrap().to_string(), "02:00:00:00:01:01");
    assert_eq!(vm.host_addresses[1].prefix, 64);
    assert_eq!((health.protocol, health.port), (Protocol::Tcp, 7070));
    assert_eq!(health.send, b"SUM\n");
    assert_eq!(health.limit, Duration::from_secs(1));
    assert_eq!(
        example.ghosts.vmm.as_deref(),
        Some(Path::new("/usr/bin/ghost-vmm"))
    );
}

#[test]
fn parts_of_the_host_have_units() {
    let text = format!(
        "{SMALLEST}[reserve]\nmemory = \"8GiB\"\nhuge_pages = \"10%\"\n\
         cpu = 3\nbandwidth = \"500 Mbit\"\n"
    );
    let expected = Reserve {
        memory: Portion::Absolute(8 << 30),
        huge_pages: Portion::Percent(10),
        cpu: Portion::Absolute(3000),
        bandwidth: Portion::Absolute(62_500_000),
    };
    assert_eq!(read(&text).allocation.reserve, expected);
}
