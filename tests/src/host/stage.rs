//! The standard world with ghostd on it: where most stories play.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Config, Daemon, INSTANCE, World, ghostctl, http::Request};
use crate::{clock::wait_for, traffic::Client};

/// Longest wait for anything; what stories wait for takes milliseconds.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Fields end in this order.
#[derive(Debug)]
pub struct Stage {
    daemon: Option<Daemon>,
    pub world: World,
    pub config: Config,
}

impl Stage {
    pub fn new() -> Result<Self> {
        Self::with(|_| ())
    }

    /// `change` makes of the standard configuration what the story is about.
    pub fn with(change: impl FnOnce(&mut Config)) -> Result<Self> {
        let world = World::new()?;
        let mut config = Config::standard(Some(&world.primary_cgroup()));
        change(&mut config);
        let daemon = Daemon::start(world.host(), &config.text())?;
        Ok(Self {
            daemon: Some(daemon),
            world,
            config,
        })
    }

    pub fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("ghostd is down")
    }

    /// Takes ghostd, to end it one way or another.
    pub fn take_daemon(&mut self) -> Result<Daemon> {
        self.daemon.take().context("ghostd is down")
    }

    /// Starts ghostd with the configuration as it is now.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(self.world.host(), &self.config.text())?);
        Ok(())
    }

    /// As [`Self::start_daemon`], from another binary.
    pub fn start_daemon_as(&mut self, binary: &Path) -> Result<()> {
        let daemon = Daemon::start_as(binary, self.world.host(), &self.config.text())?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// `ghostctl switch ...` for the standard instance.
    pub fn switch(&self, action: &str) -> Result<()> {
        self.ghostctl(&["switch", action, INSTANCE])
    }

    /// `ghostctl` that has to succeed.
    pub fn ghostctl(&self, arguments: &[&str]) -> Result<()> {
        let output = ghostctl(self.world.host(), arguments)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "ghostctl {arguments:?}: {complaint}"
        );
        Ok(())
    }

    /// The standard instance's switch, as the API shows it.
    pub fn shown(&self) -> Result<Value> {
        self.daemon()?
            .api()
            .get(&format!("/v1/switches/{INSTANCE}"))
    }

    /// Where the switch really points: `primary`, `ghost` or `draining`.
    pub fn position(&self) -> Result<String> {
        let shown = self.shown()?;
        let position = shown["position"].as_str();
        Ok(position.context("no position is shown")?.to_owned())
    }

    pub fn wait_position(&self, position: &str) -> Result<()> {
        let what = format!("the switch to be at {position}");
        wait_for(&what, LIMIT, || {
            self.position()
                .is_ok_and(|now| now == position)
                .then_some(())
        })?;
        Ok(())
    }

    /// All events that are kept, oldest first.
    pub fn events(&self) -> Result<Vec<Value>> {
        let response = self.daemon()?.api().call(&Request::get("/v1/events"))?;
        ensure!(response.status == 200, "events: {}", response.text());
        response
            .text()
            .lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }

    /// Waits for an event of a kind; gives what it says.
    pub fn wait_event(&self, kind: &str) -> Result<Value> {
        let found = wait_for(&format!("the event {kind}"), LIMIT, || {
            let events = self.events().ok()?;
            let event = events.iter().rfind(|e| e["what"]["kind"] == kind)?;
            Some(event["what"].clone())
        });
        found.with_context(|| format!("{:?}", self.events()))
    }

    /// Waits until each client is answered by `side` only, ten times over.
    pub fn wait_answers(&self, clients: &[Client], side: crate::machine::Side) -> Result<()> {
        for client in clients {
            client.wait_answers(side, 10, LIMIT)?;
        }
        Ok(())
    }
}
