//! The data plane against the real kernel.

mod support;

use std::time::Instant;

use agent_common::abi::{ABI_VERSION, Meta, names};
use ghostd::{
    model::{Limits, UplinkMode, XdpMode},
    orchestrate::command::{Answer, Command, Subject},
    steer::{Pins, Plane, Role, Started, SteerError, chain, ifindex},
};

use support::{PinRoot, isolated, limits, object, run, veth};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn start(root: &PinRoot) -> Started {
    Plane::start(root.path(), &limits(), &object()).unwrap_or_else(|e| panic!("{}", chain(&e)))
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
        // As `kill -9` does: nothing is undone.
        drop(first);
        let orphaned = Pins::open(root.path()).unwrap().snapshot().unwrap();
        assert_eq!(orphaned, before);
        let link = format!("{}/gd_link_{}", root.path().display(), up0.get());
        let link_id = |text: String| text.split(':').next().unwrap().to_owned();
        let before_id = link_id(run(&format!("bpftool link show pinned {link}")));

        let began = Instant::now();
        let mut second = start(&root);
        let attached = second
            .plane
            .attach(up0, Role::Uplink, UplinkMode::Auto, false)
            .unwrap();
        println!("start to steering: {:?}", began.elapsed());
        assert!(second.adopted && !attached.fresh);
        let after = second.plane.pins().snapshot().unwrap();
        assert_eq!(after.uplinks.len(), 1);
        assert_eq!(after.uplinks[0].interface, "up0");
        assert_eq!(after.uplinks[0].program, names::STEER);
        assert_eq!(after.uplinks[0].mode, Some(XdpMode::Native));
        assert_ne!(after.uplinks[0].program_id, before.uplinks[0].program_id);
        assert_eq!(
            link_id(run(&format!("bpftool link show pinned {link}"))),
            before_id
        );
    });
}
