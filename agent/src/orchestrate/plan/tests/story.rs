//! Single changes an operator makes, and the effects they must have.

use agent_common::abi::{Cause, FenceMode, Position, flags};

use super::{
    super::{Actual, Effect, Facts, plan},
    A, B, LIMITS, facts_for, ifindex, instance, kernel, settle, whole, with_port,
};
use crate::model::{Affinity, InstanceSpec, SlotIndex};

fn kinds(effects: &[Effect]) -> Vec<String> {
    let name = |effect| format!("{effect:?}").split(' ').next().unwrap().to_owned();
    effects.iter().map(name).collect()
}

#[test]
fn a_new_instance_is_built_from_the_switch_to_the_route() {
    let db = with_port(
        instance("db", &[whole(A, "10.0.0.3")]),
        "vnet0",
        FenceMode::Quiet,
    );
    let effects = settle(
        std::slice::from_ref(&db),
        &facts_for(&db),
        &mut Actual::default(),
    );
    let expected = [
        "ClaimSlot",
        "InitSwitch",
        "PutCgroup",
        "PutPort",
        "PutFilter",
        "ResetCounter",
        "PutReverseV4",
        "PutRouteV4",
    ];
    assert_eq!(kinds(&effects), expected);
}

#[test]
fn a_removed_instance_goes_from_the_route_to_the_name() {
    let db = with_port(
        instance("db", &[whole(A, "10.0.0.3")]),
        "vnet0",
        FenceMode::Quiet,
    );
    let facts = facts_for(&db);
    let mut actual = Actual::default();
    settle(&[db], &facts, &mut actual);
    let effects = settle(&[], &facts, &mut actual);
    let expected = [
        "DeleteRouteV4",
        "DeleteReverseV4",
        "DeletePort",
        "DeleteCgroup",
        "ClearSwitch",
        "ReleaseSlot",
        "PutFilter",
    ];
    assert_eq!(kinds(&effects), expected);
    assert!(actual.filter.iter().all(|word| *word == 0));
    actual.filter.clear();
    assert_eq!(actual, Actual::default());
}

#[test]
fn a_changed_ghost_is_one_update_in_place() {
    let mut actual = Actual::default();
    settle(
        &[instance("db", &[whole(A, "10.0.0.3")])],
        &Facts::default(),
        &mut actual,
    );
    let before = actual.clone();
    let effects = settle(
        &[instance("db", &[whole(A, "10.0.0.4")])],
        &Facts::default(),
        &mut actual,
    );
    let expected = [
        "PutFilter",
        "PutReverseV4",
        "PutRouteV4",
        "DeleteReverseV4",
        "PutFilter",
    ];
    assert_eq!(kinds(&effects), expected);
    assert_eq!(actual.slots, before.slots);
    let counter = |k: &Actual| kernel::routes(k).values().next().unwrap().counter;
    assert_eq!(counter(&actual), counter(&before));
}

#[test]
fn two_services_that_swap_ghosts_are_let_go_of_in_between() {
    let mut actual = Actual::default();
    let old = [instance(
        "db",
        &[whole(A, "10.0.0.3"), whole(B, "10.0.0.4")],
    )];
    let new = [instance(
        "db",
        &[whole(A, "10.0.0.4"), whole(B, "10.0.0.3")],
    )];
    settle(&old, &Facts::default(), &mut actual);
    let counters = |k: &Actual| -> Vec<u32> {
        kernel::routes(k)
            .values()
            .map(|route| route.counter)
            .collect()
    };
    let before = counters(&actual);
    let effects = settle(&new, &Facts::default(), &mut actual);
    let expected = [
        "DeleteRouteV4",
        "DeleteRouteV4",
        "DeleteReverseV4",
        "DeleteReverseV4",
        "PutReverseV4",
        "PutReverseV4",
        "PutRouteV4",
        "PutRouteV4",
    ];
    assert_eq!(kinds(&effects), expected);
    assert_eq!(counters(&actual), before);
}

/// Position, term and cause as the kernel left them.
fn throw(actual: &mut Actual, slot: u32) {
    let switch = &mut actual.slots.get_mut(&SlotIndex(slot)).unwrap().switch;
    switch.control.position = Position::Ghost as u8;
    switch.control.term = 9;
    switch.cause = Cause::InstanceReboot as u8;
    switch.moved_ns = 123;
    switch.lease_ns = 456;
}

#[test]
fn flags_change_and_the_switch_stays_where_it_is() {
    let mut actual = Actual::default();
    let mut db = instance("db", &[whole(A, "10.0.0.3")]);
    settle(std::slice::from_ref(&db), &Facts::default(), &mut actual);
    throw(&mut actual, 0);
    let before = actual.slots[&SlotIndex(0)];

    db.armed = false;
    db.affinity = Affinity::None;
    let effects = settle(std::slice::from_ref(&db), &Facts::default(), &mut actual);
    let expected = Effect::SetFlags {
        slot: SlotIndex(0),
        set: 0,
        clear: flags::ARMED | flags::TRACK,
        drain_idle_ns: 0,
    };
    assert_eq!(effects, [expected]);
    let mut after = before;
    after.switch.control.flags = 0;
    after.switch.drain_idle_ns = 0;
    assert_eq!(actual.slots[&SlotIndex(0)], after);
}

#[test]
fn a_flag_the_configuration_does_not_know_stays() {
    let mut actual = Actual::default();
    let db = [instance("db", &[whole(A, "10.0.0.3")])];
    settle(&db, &Facts::default(), &mut actual);
    let slot = actual.slots.get_mut(&SlotIndex(0)).unwrap();
    slot.switch.control.flags |= flags::LAPSE;
    assert_eq!(
        plan(&db, &LIMITS, &Facts::default(), &actual),
        Ok(Vec::new())
    );
}

#[test]
fn arming_and_disarming_do_not_obey_an_old_throw_of_the_host() {
    let mut actual = Actual::default();
    let mut db = instance("db", &[whole(A, "10.0.0.3")]);
    db.armed = false;
    settle(std::slice::from_ref(&db), &Facts::default(), &mut actual);
    let position = |k: &Actual| kernel::instance(k, 0).unwrap().1;

    actual.host_generation = 1;
    db.armed = true;
    settle(std::slice::from_ref(&db), &Facts::default(), &mut actual);
    assert_eq!(
        position(&actual),
        Position::Primary,
        "armed after the throw"
    );

    actual.host_generation = 2;
    assert_eq!(position(&actual), Position::Ghost, "armed before the throw");
    db.armed = false;
    settle(std::slice::from_ref(&db), &Facts::default(), &mut actual);
    assert_eq!(
        position(&actual),
        Position::Ghost,
        "disarming is no restore"
    );
}

#[test]
fn an_old_throw_of_the_host_does_not_move_a_new_instance() {
    let mut actual = Actual {
        host_generation: 0x1_0003,
        ..Actual::default()
    };
    settle(
        &[instance("db", &[whole(A, "10.0.0.3")])],
        &Facts::default(),
        &mut actual,
    );
    assert_eq!(
        kernel::instance(&actual, 0),
        Some(("db".to_owned(), Position::Primary))
    );
}

#[test]
fn a_renamed_instance_takes_over_while_packets_flow() {
    let mut actual = Actual::default();
    settle(
        &[instance("old", &[whole(A, "10.0.0.3")])],
        &Facts::default(),
        &mut actual,
    );
    let effects = settle(
        &[instance("new", &[whole(A, "10.0.0.3")])],
        &Facts::default(),
        &mut actual,
    );
    let expected = [
        "ClaimSlot",
        "InitSwitch",
        "PutReverseV4",
        "PutRouteV4",
        "ClearSwitch",
        "ReleaseSlot",
    ];
    assert_eq!(kinds(&effects), expected);
}

#[test]
fn with_every_slot_taken_a_renamed_instance_gets_the_one_that_is_released() {
    let mut actual = Actual::default();
    let addr = |n: usize| (format!("198.51.100.{}", n + 1), format!("10.0.0.{}", n + 1));
    let mut desired: Vec<InstanceSpec> = (0..LIMITS.instances as usize)
        .map(|n| instance(&format!("vm{n}"), &[whole(&addr(n).0, &addr(n).1)]))
        .collect();
    settle(&desired, &Facts::default(), &mut actual);
    desired[3].name = "renamed".parse().unwrap();
    settle(&desired, &Facts::default(), &mut actual);
    assert_eq!(kernel::instance(&actual, 3).unwrap().0, "renamed");
    assert_eq!(actual.slots.len(), desired.len());
}

#[test]
fn a_port_keeps_its_lease_and_loses_its_entry_with_its_interface() {
    let db = with_port(
        instance("db", &[whole(A, "10.0.0.3")]),
        "vnet0",
        FenceMode::Quiet,
    );
    let facts = facts_for(&db);
    let mut actual = Actual::default();
    settle(std::slice::from_ref(&db), &facts, &mut actual);
    let port = actual.ports.get_mut(&ifindex(7)).unwrap();
    (port.lease_ns, port.fenced_packets, port.term) = (1, 2, 3);
    let held = *port;

    let mut silent = db.clone();
    silent.ports[0].fence = FenceMode::Silent;
    settle(std::slice::from_ref(&silent), &facts, &mut actual);
    let port = actual.ports[&ifindex(7)];
    assert_eq!((port.lease_ns, port.fenced_packets, port.term), (1, 2, 3));
    assert_ne!(port.fence, held.fence);

    let effects = settle(&[silent], &Facts::default(), &mut actual);
    assert_eq!(kinds(&effects), ["DeletePort", "DeleteCgroup"]);
}

#[test]
fn a_claim_that_was_cut_short_is_finished_in_the_same_slot() {
    let db = [instance("db", &[whole(A, "10.0.0.3")])];
    let effects = plan(&db, &LIMITS, &Facts::default(), &Actual::default()).unwrap();
    for cut in 0..effects.len() {
        let mut actual = Actual::default();
        effects[..cut]
            .iter()
            .for_each(|e| kernel::apply(&mut actual, e));
        settle(&db, &Facts::default(), &mut actual);
        assert_eq!(actual.slots.len(), 1, "after {cut} effects");
        assert_eq!(kernel::instance(&actual, 0).unwrap().0, "db");
    }
}
