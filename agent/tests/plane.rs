//! Programs, links and pins against the real kernel.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{os::fd::AsRawFd as _, time::Duration};

use agent_common::abi::{ABI_VERSION, EGRESS_REFLECT, names};
use ghostd::{
    model::{Limits, UplinkMode, XdpMode},
    steer::{Class, Pins, Plane, Role, SteerError, chain, ifindex},
};

use nix::sched::{CloneFlags, unshare};
use support::{Netns, PinRoot, eventually, isolated, limits, object, run, runtime, start, veth};

/// Id of the link pinned for an interface.
fn link_id(root: &PinRoot, interface: &str) -> u64 {
    let index = ifindex(interface).unwrap().get();
    let pin = root.path().join(format!("{}{index}", names::LINK_PREFIX));
    let text = run(&format!("bpftool -j link show pinned {}", pin.display()));
    let link: serde_json::Value = serde_json::from_str(&text).unwrap();
    link["id"].as_u64().unwrap()
}

#[test]
fn a_second_start_adopts_and_replaces_without_detaching() {
    isolated("a_second_start_adopts", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        veth("up0", "peer0");
        let up0 = ifindex("up0").unwrap();

        let mut first = start(&root);
        assert!(!first.adopted);
        assert!(first.degraded.is_empty(), "{:?}", first.degraded);
        let attached = first
            .plane
            .attach(up0, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        assert!(attached.fresh);
        assert_eq!(attached.mode, XdpMode::Native);
        let before = first.plane.pins().snapshot().unwrap();
        let link_before = link_id(&root, "up0");
        // As `kill -9` does: nothing is undone.
        drop(first);
        let orphaned = Pins::open(root.path()).unwrap().snapshot().unwrap();
        assert_eq!(orphaned, before);

        let mut second = start(&root);
        let attached = second
            .plane
            .attach(up0, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        assert!(second.adopted && !attached.fresh);
        let after = second.plane.pins().snapshot().unwrap();
        assert_eq!(after.uplinks.len(), 1);
        assert_eq!(after.uplinks[0].interface, "up0");
        assert_eq!(after.uplinks[0].program, names::STEER);
        assert_eq!(after.uplinks[0].mode, Some(XdpMode::Native));
        assert_ne!(after.uplinks[0].program_id, before.uplinks[0].program_id);
        assert_eq!(link_id(&root, "up0"), link_before);
    });
}

#[test]
fn maps_of_another_shape_or_version_are_not_adopted() {
    isolated("maps_of_another_shape_or_version", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        drop(start(&root));

        let other = Limits {
            routes: 128,
            ..limits()
        };
        let error = Plane::start(root.path(), &other, &object()).unwrap_err();
        assert_eq!(error.class(), Class::Fatal);
        let text = error.to_string();
        assert!(
            text.contains("entries 64") && text.contains("needs 128"),
            "{text}"
        );
        assert!(text.contains("ghostctl clean"), "{text}");

        let meta = root.path().join(names::META);
        let version = ABI_VERSION + 1;
        run(&format!(
            "bpftool map update pinned {} key 0 0 0 0 value {version} {}",
            meta.display(),
            "0 ".repeat(63)
        ));
        let error = Plane::start(root.path(), &limits(), &object()).unwrap_err();
        assert!(
            matches!(error, SteerError::AbiVersion { found, expected: ABI_VERSION, .. } if found == version),
            "{error}"
        );
        // Cleaning needs no maps that can be read.
        assert!(!Pins::clean(root.path()).unwrap().is_empty());
        assert!(!root.path().exists());
        assert!(matches!(
            Pins::open(root.path()),
            Err(SteerError::NoPins(_))
        ));
    });
}

#[test]
fn a_foreign_program_is_named_and_kept_unless_told_to_replace_it() {
    isolated("a_foreign_program_is_named", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let (root, other) = (PinRoot::new(), PinRoot::new());
        veth("up0", "peer0");
        let up0 = ifindex("up0").unwrap();
        let mut theirs = start(&other);
        let mut ours = start(&root);
        let foreign = other.path().join(names::PORT);

        // Attached over netlink, as `ip` does it, then by a link.
        run(&format!(
            "ip link set up0 xdpdrv pinned {}",
            foreign.display()
        ));
        for by_link in [false, true] {
            if by_link {
                theirs
                    .plane
                    .attach(up0, Role::Port, UplinkMode::Native, true)
                    .unwrap();
            }
            let id = Pins::open(other.path()).unwrap().snapshot().unwrap();
            let refused = ours
                .plane
                .attach(up0, Role::Uplink, UplinkMode::Auto, false)
                .unwrap_err();
            let SteerError::ForeignXdp {
                interface,
                name,
                id: found,
            } = &refused
            else {
                panic!("{}", chain(&refused));
            };
            assert_eq!(
                (interface.as_str(), name.as_deref()),
                ("up0", Some(names::PORT))
            );
            if by_link {
                assert_eq!(*found, id.uplinks[0].program_id);
            }
            assert!(refused.to_string().contains("replace_foreign"));

            let attached = ours
                .plane
                .attach(up0, Role::Uplink, UplinkMode::Auto, true)
                .unwrap();
            assert!(attached.fresh);
            let snapshot = ours.plane.pins().snapshot().unwrap();
            assert_eq!(snapshot.uplinks[0].program, names::STEER);
            ours.plane.detach(up0).unwrap();
        }
    });
}

/// Indexes of interfaces repeat across network namespaces.
#[test]
fn a_foreign_link_in_another_namespace_is_spared() {
    isolated("a_foreign_link_in_another_namespace", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let (root, other) = (PinRoot::new(), PinRoot::new());
        let far = PinRoot::new();
        veth("up0", "peer0");
        let up0 = ifindex("up0").unwrap();
        let mut theirs = start(&other);
        let mut ours = start(&root);
        theirs
            .plane
            .attach(up0, Role::Port, UplinkMode::Native, false)
            .unwrap();
        let far_root = far.path().to_owned();
        let elsewhere = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            veth("up0", "peer0");
            assert_eq!(ifindex("up0").unwrap(), up0, "the same index");
            let runtime = self::runtime();
            let _guard = runtime.enter();
            let mut far = Plane::start(&far_root, &limits(), &object()).unwrap();
            far.plane
                .attach(up0, Role::Port, UplinkMode::Native, false)
                .unwrap();
            // Keeps the namespace.
            let held = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            (far.plane.pins().snapshot().unwrap().uplinks, held)
        });
        let (before, held) = elsewhere.join().unwrap();
        ours.plane
            .attach(up0, Role::Uplink, UplinkMode::Native, true)
            .unwrap();
        let held = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
        let text = run(&format!("nsenter --net={held} ip -j -d link show dev up0"));
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            links[0]["xdp"]["prog"]["id"], before[0].program_id,
            "{text}"
        );
    });
}

#[test]
fn a_driver_without_xdp_gets_the_generic_kind() {
    isolated("a_driver_without_xdp", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        run("ip link add br0 type bridge");
        let br0 = ifindex("br0").unwrap();
        let mut started = start(&root);
        let native = started
            .plane
            .attach(br0, Role::Uplink, UplinkMode::Native, false);
        assert!(native.is_err());
        let auto = started
            .plane
            .attach(br0, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        assert_eq!(auto.mode, XdpMode::Generic);
    });
}

#[test]
fn an_interface_that_went_and_came_is_attached_anew() {
    isolated("an_interface_that_went_and_came", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let mut started = start(&root);
        veth("up0", "peer0");
        let old = ifindex("up0").unwrap();
        started
            .plane
            .attach(old, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        run("ip link del up0");
        let gone = started.plane.pins().snapshot().unwrap();
        assert_eq!(gone.uplinks[0].mode, None);
        assert_eq!(gone.uplinks[0].interface, "");
        runtime.block_on(async {
            let news = started.links.wait();
            tokio::time::timeout(Duration::from_secs(5), news)
                .await
                .expect("news of the interface")
                .unwrap();
        });

        // Even with the index that the old one had.
        run(&format!(
            "ip link add up0 index {} type veth peer name peer0",
            old.get()
        ));
        let attached = started
            .plane
            .attach(old, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        assert!(attached.fresh);
        let back = started.plane.pins().snapshot().unwrap();
        assert_eq!(back.uplinks.len(), 1);
        assert_eq!(back.uplinks[0].mode, Some(XdpMode::Native));
    });
}

#[test]
fn an_interface_in_another_namespace_does_not_pass_for_ours() {
    isolated("an_interface_in_another_namespace", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let mut started = start(&root);
        veth("up0", "peer0");
        let index = ifindex("up0").unwrap();
        started
            .plane
            .attach(index, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        // It keeps its program and, being free there, its index.
        let elsewhere = Netns::new();
        run(&format!("ip link set up0 netns {}", elsewhere.name()));
        run(&format!(
            "ip link add up0 index {} type veth peer name peer1",
            index.get()
        ));
        let attached = started
            .plane
            .attach(index, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        assert!(attached.fresh);
        let snapshot = started.plane.pins().snapshot().unwrap();
        assert_eq!(snapshot.uplinks[0].mode, Some(XdpMode::Native));
    });
}

#[test]
fn devices_that_take_redirects_are_told_to_the_programs() {
    isolated("devices_that_take_redirects", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        veth("a0", "b0");
        run("ip link add br0 type bridge");
        let (a0, b0) = (ifindex("a0").unwrap(), ifindex("b0").unwrap());
        let mut started = start(&root);
        if started.abilities.is_none() {
            support::skip("devices_that_take_redirects", "needs kernel 6.3");
            return;
        }
        let told = |index: u32| {
            let pin = root.path().join(names::EGRESS);
            let key = index.to_le_bytes().map(|b| b.to_string()).join(" ");
            let text = run(&format!(
                "bpftool -j map lookup pinned {} key {key}",
                pin.display()
            ));
            let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
            // A veth is also told what goes back by it.
            entry["formatted"]["value"].as_u64() == Some((index | EGRESS_REFLECT).into())
        };
        assert!(started.plane.refresh_egress().unwrap());
        assert!(!told(a0.get()) && !told(ifindex("br0").unwrap().get()));
        // With a program on one end, the other end takes redirects.
        started
            .plane
            .attach(b0, Role::Port, UplinkMode::Native, false)
            .unwrap();
        runtime.block_on(async {
            let news = started.abilities.as_mut().unwrap().wait();
            tokio::time::timeout(Duration::from_secs(5), news)
                .await
                .expect("news of abilities")
                .unwrap();
        });
        started.plane.refresh_egress().unwrap();
        assert!(told(a0.get()) && !told(b0.get()));
    });
}

#[test]
fn a_next_hop_is_resolved_and_kept_resolved() {
    isolated("a_next_hop_is_resolved", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let far = Netns::new();
        run("ip link add near type veth peer name far");
        run(&format!("ip link set far netns {}", far.name()));
        run("ip addr add 10.9.0.1/24 dev near");
        run("ip addr add fd09::1/64 dev near nodad");
        run("ip link set near up");
        far.run("ip addr add 10.9.0.2/24 dev far");
        far.run("ip addr add fd09::2/64 dev far nodad");
        far.run("ip link set far up");
        run("ip route add 10.77.0.0/16 via 10.9.0.2");
        let mut plane = start(&root).plane;
        let targets = [
            "10.77.1.1",
            "10.9.0.2",
            "fd09::2",
            "127.0.0.1",
            "192.0.2.77",
        ];
        let targets = targets.map(|t| t.parse().unwrap());
        let resolved = eventually(Duration::from_secs(5), || {
            let warmed = plane.warm(targets).unwrap();
            // One for the first two, one for IPv6, none for the rest.
            assert_eq!(warmed.hops.len(), 2);
            warmed.cold.is_empty().then_some(())
        });
        assert!(resolved.is_some());
        let managed = |text: &str| text.lines().filter(|l| l.contains("managed")).count();
        let shown = run("ip neigh show dev near");
        assert!(
            shown.contains("10.9.0.2") && shown.contains("fd09::2"),
            "{shown}"
        );
        assert_eq!(managed(&shown), 2, "{shown}");
        plane
            .manage_only(&std::collections::BTreeSet::new())
            .unwrap();
        assert_eq!(managed(&run("ip neigh show dev near")), 0);
    });
}
