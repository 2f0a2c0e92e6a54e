//! The demo's course of events.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Arrivals, Judgement, Timeline, describe, paint::Paint};
use crate::{
    clock::{now_ns, wait_for},
    host::{Config, Daemon, EventStream, INSTANCE, World, ghostctl},
    machine::{How, Side, Who},
    netns::NetNs,
    topology::{Family, LEAF},
    traffic::{self, Client, Exchange},
    wire::{Frame, Tap, payload_of},
};

/// Longest wait for any one thing; all of them take milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Answers that count as "it works": a tenth of a second or so of each client.
const ENOUGH: usize = 50;

/// Everything that was seen.
#[derive(Default)]
struct Seen {
    timeline: Timeline,
    records: Vec<(String, Vec<Exchange>)>,
    called_ns: u64,
    thrown_ns: u64,
    returned_ns: u64,
}

/// Runs the demo and prints it; fails if the promise was broken.
pub fn run() -> Result<ExitCode> {
    let paint = Paint::of_stdout();
    println!("{}", paint.head("A reboot that clients do not notice"));
    step("a host, a primary and a ghost, each a machine of its own (namespaces)");
    let mut world = World::new()?;
    let mut config = Config::standard(Some(&world.primary_cgroup()));
    config.drain_idle_s = Some(1);
    config.drain_max_s = Some(8);
    let daemon = Daemon::start(world.host(), &config.text())?;
    let mut events = EventStream::open(&daemon.api(), "/v1/events?follow=true")?;
    step("ghostd steers; clients ask over IPv4 and IPv6");
    let primary_tap = Tap::start(&world.net.primary, LEAF)?;
    let ghost_tap = Tap::start(&world.net.ghost, LEAF)?;

    let mut seen = Seen::default();
    let clients = start_clients(&world.net.client)?;
    all_answered(&clients, Side::Primary)?;

    throw(&mut world, &mut events, &mut seen)?;
    all_answered(&clients, Side::Ghost)?;
    give_back(&mut world, &mut seen, clients)?;
    drained(&mut events, &mut seen)?;

    let at_primary = primary_tap.stop()?;
    let at_ghost = ghost_tap.stop()?;
    let stopped = daemon.terminate()?;
    ensure!(
        stopped.status.success(),
        "ghostd ended badly:\n{}",
        stopped.said
    );
    Ok(report(paint, seen, &at_primary, &at_ghost))
}

fn step(text: &str) {
    println!("- {text}");
}

fn start_clients(ns: &NetNs) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for family in Family::BOTH {
        let service = family.service();
        clients.push(traffic::udp(ns, service, 2_000)?);
        clients.push(traffic::ping(ns, service, 500)?);
        clients.push(traffic::long_lived(ns, service, 500)?);
        clients.push(traffic::short_lived(ns, service, 500)?);
        clients.push(traffic::http(ns, service, 200)?);
    }
    Ok(clients)
}

fn all_answered(clients: &[Client], side: Side) -> Result<()> {
    for client in clients {
        client.wait_answers(side, ENOUGH, LIMIT)?;
    }
    Ok(())
}

/// The primary reboots; the kernel throws its switch.
fn throw(world: &mut World, events: &mut EventStream, seen: &mut Seen) -> Result<()> {
    step("the primary's init calls reboot(2)");
    let (called_ns, ending) = world.reboot_primary(How::Restart, Who::Init)?;
    let ended_ns = now_ns();
    let (event, heard_ns) = wait_event(events, "reboot")?;
    let reboot = &event["what"]["seen"];
    let number = |name: &str| {
        reboot[name]
            .as_u64()
            .with_context(|| format!("no {name} in the event {event}"))
    };
    let (entered_ns, took_ns) = (number("entered_ns")?, number("throw_took_ns")?);
    ensure!(
        event["what"]["instance"] == INSTANCE,
        "another instance: {event}"
    );
    seen.called_ns = called_ns;
    seen.thrown_ns = entered_ns + took_ns;
    let timeline = &mut seen.timeline;
    timeline.add(called_ns, "init", "is about to call reboot(2)");
    timeline.add(
        entered_ns,
        "kernel",
        format!("sees the call: pid {}, {}", reboot["pid"], reboot["comm"]),
    );
    let took_us = took_ns as f64 / 1000.0;
    timeline.add(
        seen.thrown_ns,
        "kernel",
        format!("has thrown the switch, {took_us:.1} us after it saw the call"),
    );
    timeline.add(heard_ns, "ghostd", "has told its listeners");
    let signal = ending.signal.unwrap_or_default();
    timeline.add(ended_ns, "primary", format!("is gone (signal {signal})"));
    Ok(())
}

/// The primary comes back; its switch drains, then points at it again.
fn give_back(world: &mut World, seen: &mut Seen, clients: Vec<Client>) -> Result<()> {
    step("the primary comes back, and an operator drains the switch");
    world.start_primary()?;
    seen.timeline.add(now_ns(), "primary", "serves again");
    seen.returned_ns = now_ns();
    switch(world, "drain")?;
    seen.timeline.add(
        now_ns(),
        "operator",
        format!("ghostctl switch drain {INSTANCE}: done"),
    );
    // New connections go to the primary; those of the ghost stay with it.
    for client in &clients {
        let is_new = client.name().starts_with("tcp short") || client.name().starts_with("http");
        let side = if is_new { Side::Primary } else { Side::Ghost };
        client.wait_answers(side, ENOUGH, LIMIT)?;
    }
    seen.timeline.add(
        now_ns(),
        "clients",
        "new connections: primary; old ones: still the ghost",
    );
    for client in clients {
        let name = client.name().to_owned();
        seen.records.push((name, client.stop()));
    }
    seen.timeline
        .add(now_ns(), "clients", "the old connections end");
    let again = start_clients(&world.net.client)?;
    all_answered(&again, Side::Primary)?;
    seen.timeline.add(
        now_ns(),
        "clients",
        "all new ones are answered by the primary",
    );
    for client in again {
        let name = format!("{} (new)", client.name());
        let record = client.stop();
        let wrong = record
            .iter()
            .find(|e| e.failed() || e.answered_by() == Some(Side::Ghost));
        if let Some(exchange) = wrong {
            let what = describe(exchange, seen.called_ns);
            bail!("{name}: {what}, and should have been answered by the primary");
        }
    }
    Ok(())
}

fn drained(events: &mut EventStream, seen: &mut Seen) -> Result<()> {
    let (event, heard_ns) = wait_event(events, "drained")?;
    let what = &event["what"];
    let text = format!(
        "draining is over: {}, {} flows left",
        what["reason"], what["flows_left"]
    );
    seen.timeline.add(heard_ns, "ghostd", text);
    Ok(())
}

fn switch(world: &World, action: &str) -> Result<()> {
    let output = ghostctl(world.host(), &["switch", action, INSTANCE])?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ghostctl switch {action}: {complaint}"
    );
    Ok(())
}

/// Reads events up to the first of a kind; gives it and when it was heard.
fn wait_event(events: &mut EventStream, kind: &str) -> Result<(Value, u64)> {
    wait_for(kind, LIMIT, || match events.wait() {
        Ok(event) if event["what"]["kind"] == kind => Some(Ok((event, now_ns()))),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })?
}

fn report(paint: Paint, mut seen: Seen, at_primary: &[Frame], at_ghost: &[Frame]) -> ExitCode {
    let (thrown_ns, returned_ns) = (seen.thrown_ns, seen.returned_ns);
    let first = at_ghost.iter().find(|frame| payload_of(frame).is_some());
    if let Some(frame) = first {
        seen.timeline
            .add(frame.at_ns, "wire", "first packet at the ghost");
    }
    let sent_after = |frame: &&Frame| payload_of(frame).is_some_and(|(_, sent)| sent > thrown_ns);
    if let Some(frame) = at_ghost.iter().find(sent_after) {
        let what = "first packet at the ghost that was sent after the throw";
        seen.timeline.add(frame.at_ns, "wire", what);
    }
    let mut judgement = Judgement {
        at_primary: Arrivals::count(at_primary, thrown_ns, returned_ns),
        at_ghost: Arrivals::count(at_ghost, thrown_ns, returned_ns),
        ..Judgement::default()
    };
    for (name, record) in &seen.records {
        judgement.add(name, record, thrown_ns);
    }
    println!("\n{}", paint.head("Timeline, from the reboot call"));
    print!("{}", seen.timeline.relative_to(seen.called_ns));
    print_tables(paint, &judgement);
    let faults = judgement.faults();
    for fault in &faults {
        println!("{} {fault}", paint.bad("broken:"));
    }
    if faults.is_empty() {
        let text = "kept: nothing sent after the throw reached the dead instance, \
                    and nothing begun after it failed";
        println!("{}", paint.good(text));
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print_tables(paint: Paint, judgement: &Judgement) {
    println!(
        "\n{}",
        paint.head("Datagrams on the wire, by when they were sent")
    );
    println!(
        "  {:<12}{:>14}{:>20}{:>14}",
        "", "before throw", "primary was dead", "given back"
    );
    for (name, seen) in [
        ("at primary", judgement.at_primary),
        ("at ghost", judgement.at_ghost),
    ] {
        let Arrivals {
            before,
            between,
            after,
        } = seen;
        println!("  {name:<12}{before:>14}{between:>20}{after:>14}");
    }
    println!("\n{}", paint.head("What the clients saw"));
    println!(
        "  {:<32}{:>8}{:>9}{:>8}{:>13}{:>14}{:>13}",
        "", "sent", "primary", "ghost", "failed open", "failed after", "silence"
    );
    for client in &judgement.clients {
        let (name, sum) = (&client.name, &client.summary);
        println!(
            "  {name:<32}{:>8}{:>9}{:>8}{:>13}{:>14}{:>10.1} ms",
            sum.sent,
            sum.by_primary,
            sum.by_ghost,
            sum.failed_opened_before,
            sum.failed_opened_after,
            sum.longest_silence_ns as f64 / 1e6,
        );
    }
    println!(
        "  failed open: begun or under way before the throw (primary and ghost are separate \
         servers here)\n"
    );
}
