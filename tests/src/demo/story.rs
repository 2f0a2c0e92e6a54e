//! The demo's course of events.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Act, Promise, Seen, Timeline,
    clients::{Asked, Client, Kind},
    paint::Paint,
    world::{LIMIT, World},
};
use crate::{
    clock::{now_ns, wait_for},
    host::{EventStream, INSTANCE},
    microvm::{self, Kv},
    topology::Family,
};

/// Answers that count as "it works": a fifth of a second of each client.
const ENOUGH: usize = 100;

/// Told as it happens, judged at the end.
struct Story {
    world: World,
    events: EventStream,
    clients: Vec<Client>,
    timeline: Timeline,
    acts: Vec<Act>,
}

/// Runs the demo and prints it; whether all promises were kept.
pub fn run() -> Result<bool> {
    let paint = Paint::of_stdout();
    ensure!(
        microvm::is_possible("demo"),
        "the demo runs microVMs, and there is no /dev/kvm; `modprobe kvm_intel` or `kvm_amd`"
    );
    println!("{}", paint.head("Reboots that clients do not notice"));
    step("a hypervisor host with ghostd, and a client's machine (namespaces)");
    let mut story = Story::begin()?;
    if let Err(error) = story.play() {
        // What an operator would look at.
        eprintln!("{}", story.world.look());
        return Err(error);
    }
    let Story {
        world,
        clients,
        timeline,
        acts,
        ..
    } = story;
    let records: Vec<(String, Vec<Asked>)> = clients
        .into_iter()
        .map(|client| (client.name.clone(), client.stop()))
        .collect();
    world.end()?;
    Ok(report(paint, &timeline, &acts, &records))
}

fn step(text: &str) {
    println!("- {text}");
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value[name]
        .as_u64()
        .with_context(|| format!("no {name} in {value}"))
}

impl Story {
    fn begin() -> Result<Self> {
        let world = World::new()?;
        let events = EventStream::open(&world.daemon()?.api(), "/v1/events?follow=true")?;
        let mut story = Self {
            world,
            events,
            clients: Vec::new(),
            timeline: Timeline::default(),
            acts: Vec::new(),
        };
        step("ghostctl instance create: the primary, a jailed microVM with a key-value service");
        let done = story.world.order("instance", "create")?;
        let took_ms = number(&done, "took_us")? as f64 / 1000.0;
        story.note(
            "ghostd",
            format!("runs the primary; that took {took_ms:.1} ms"),
        );
        for family in Family::BOTH {
            for kind in [Kind::Kept, Kind::Fresh, Kind::Datagrams] {
                let service = family.service();
                story
                    .clients
                    .push(Client::start(&story.world.client, kind, service)?);
            }
        }
        step("clients ask it over IPv4 and IPv6, some over one connection for ever");
        story.all_answered()?;
        Ok(story)
    }

    fn play(&mut self) -> Result<()> {
        self.hand_over()?;
        self.hand_back()?;
        self.reset()
    }

    /// A reboot is foreseen: prepared, and carried out by an operator.
    fn hand_over(&mut self) -> Result<()> {
        let from_ns = now_ns();
        step("ghostctl ghost prepare: a suspended copy of the running primary");
        self.prepare()?;
        self.all_answered()?;
        step("ghostctl ghost drill: does the ghost work? cut off from every network");
        let done = self.world.order("ghost", "drill")?;
        let verdict = &done["verdict"];
        ensure!(verdict["is_healthy"] == true, "the drill: {verdict}");
        self.note(
            "ghostd",
            "drilled the ghost: it answers; it is suspended again",
        );
        step("ghostctl ghost activate: the primary's host is to be rebooted");
        let done = self.world.order("ghost", "activate")?;
        self.note(
            "ghostd",
            format!("ghost runs in place of the primary; {}", figures(&done)),
        );
        self.all_answered()?;
        self.close("handed over", from_ns, Promise::Nothing);
        Ok(())
    }

    fn hand_back(&mut self) -> Result<()> {
        let from_ns = now_ns();
        step("ghostctl ghost suspend: what changed goes back, the primary goes on");
        let done = self.world.order("ghost", "suspend")?;
        self.note("ghostd", format!("primary runs again; {}", figures(&done)));
        self.all_answered()?;
        self.close("handed back", from_ns, Promise::Nothing);
        Ok(())
    }

    /// A reboot that nobody foresaw.
    fn reset(&mut self) -> Result<()> {
        let from_ns = now_ns();
        self.prepare()?;
        step("the primary's guest resets itself, without a word to anybody");
        let (service, client) = (Family::V4.service(), self.world.client.clone());
        let called_ns = client.run(|| -> Result<u64> {
            let mut kv = Kv::connect(&format!("{service}:7000"))?;
            let called_ns = now_ns();
            kv.send(b"RESET\n")?;
            Ok(called_ns)
        })??;
        self.timeline.add(called_ns, "guest", "is told to reset");
        let (event, heard_ns) = self.heard("reboot")?;
        let seen = &event["what"]["seen"];
        ensure!(seen["trigger"] == "guest_reset", "another event: {event}");
        let (entered_ns, took_ns) = (number(seen, "entered_ns")?, number(seen, "throw_took_ns")?);
        let thrown_ns = entered_ns + took_ns;
        let what = format!(
            "sees the guest's {}",
            seen["command_name"].as_str().unwrap_or("reset")
        );
        self.timeline.add(entered_ns, "kernel", what);
        let took_us = took_ns as f64 / 1000.0;
        let what = format!("has thrown the switch, {took_us:.1} us after it saw that");
        self.timeline.add(thrown_ns, "kernel", what);
        self.timeline
            .add(heard_ns, "ghostd", "has told its listeners");
        self.wait_active()?;
        self.all_answered()?;
        let promise = Promise::NothingBegunAfter { ns: thrown_ns };
        self.close("guest reset", from_ns, promise);
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        let done = self.world.order("ghost", "prepare")?;
        let epoch = &done["instance"]["ghost"]["epoch"];
        let what = format!("ghost holds epoch {epoch}, suspended; {}", figures(&done));
        self.note("ghostd", what);
        Ok(())
    }

    fn wait_active(&mut self) -> Result<()> {
        let path = format!("/v1/instances/{INSTANCE}");
        let api = self.world.daemon()?.api();
        wait_for("the ghost to be active", LIMIT, || {
            let shown = api.get(&path).ok()?;
            (shown["ghost"]["state"] == "active").then_some(())
        })?;
        self.note("ghostd", "ghost is seen to be active");
        Ok(())
    }

    fn all_answered(&self) -> Result<()> {
        self.clients
            .iter()
            .try_for_each(|client| client.wait_answers(ENOUGH, LIMIT))
    }

    fn note(&mut self, who: &'static str, what: impl Into<String>) {
        self.timeline.add(now_ns(), who, what);
    }

    fn close(&mut self, name: &'static str, from_ns: u64, promise: Promise) {
        self.acts.push(Act {
            name,
            from_ns,
            to_ns: now_ns(),
            promise,
        });
    }

    /// Reads events up to the first of a kind; gives it and when it was heard.
    fn heard(&mut self, kind: &str) -> Result<(Value, u64)> {
        wait_for(kind, LIMIT, || match self.events.wait() {
            Ok(event) if event["what"]["kind"] == kind => Some(Ok((event, now_ns()))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })?
    }
}

/// What an order says of its pauses.
fn figures(done: &Value) -> String {
    let parts = [
        ("pause_us", "stood still for", 1000.0, "ms"),
        ("activate_us", "let in after", 1.0, "us"),
        ("pages_paused", "meanwhile copied", 1.0, "pages"),
    ];
    let shown: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, words, scale, unit)| {
            let value = done[name].as_f64()? / scale;
            let digits = usize::from(unit == "ms");
            Some(format!("{words} {value:.digits$} {unit}"))
        })
        .collect();
    shown.join(", ")
}

fn report(
    paint: Paint,
    timeline: &Timeline,
    acts: &[Act],
    records: &[(String, Vec<Asked>)],
) -> bool {
    let start_ns = acts.first().map_or(0, |act| act.from_ns);
    println!("\n{}", paint.head("Timeline"));
    print!("{}", timeline.relative_to(start_ns));
    let mut faults = Vec::new();
    for act in acts {
        let title = format!("{}: {}", act.name, act.promise);
        println!("\n{}", paint.head(&title));
        let [a, b, c, d] = ["asked", "failed", "excused", "silence"];
        println!("  {:<44}{a:>8}{b:>8}{c:>9}{d:>13}", "");
        for (name, record) in records {
            let seen = Seen::of(record, act);
            let silence = Duration::from_nanos(seen.silence_ns).as_secs_f64() * 1e3;
            let Seen {
                sent,
                excused,
                failed,
                ..
            } = seen;
            println!("  {name:<44}{sent:>8}{failed:>8}{excused:>9}{silence:>10.1} ms");
            faults.extend(
                seen.fault()
                    .map(|fault| format!("{}, {name}: {fault}", act.name)),
            );
        }
    }
    println!(
        "\n  silence: the longest time between two answers; excused: begun before the throw\n"
    );
    for fault in &faults {
        println!("{} {fault}", paint.bad("broken:"));
    }
    if faults.is_empty() {
        let text = "kept: handed over and back without a failed request or a broken connection; \
                    after the reset, nothing begun after the throw failed";
        println!("{}", paint.good(text));
    }
    faults.is_empty()
}
