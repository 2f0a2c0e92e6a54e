//! `ghostctl switch`.

use std::path::Path;

use super::{
    args::{One, Switch, Whose},
    client::Client,
    error::{CliError, Exit},
    offline, render,
    run::Screen,
};
use crate::{
    control::dto::SwitchesDto,
    model::InstanceName,
    orchestrate::command::{Command, Subject},
};

pub(super) async fn run(
    command: &Switch,
    client: &Client,
    pins: &Path,
    screen: &Screen,
) -> Result<Exit, CliError> {
    let order = match command {
        Switch::Show { instance, host } => {
            return show(instance.as_ref(), *host, client, pins, screen).await;
        }
        Switch::Throw(whose) => Order::whose("throw", whose, Command::Throw),
        Switch::Restore(whose) => Order::whose("restore", whose, Command::Restore),
        Switch::Drain(one) => Order::one("drain", one, Command::Drain),
        Switch::Arm(one) => Order::one("arm", one, Command::Arm),
        Switch::Disarm(one) => Order::one("disarm", one, Command::Disarm),
    };
    let Order {
        verb,
        instance,
        command,
        offline,
    } = order;
    let outcome = if offline {
        client.expect_no_answer().await?;
        offline::carry_out(&command, pins)?
    } else {
        let uri = match instance {
            Some(name) => format!("/v1/switches/{name}/{verb}"),
            None => format!("/v1/host-switch/{verb}"),
        };
        client.post(&uri).await?
    };
    let subject = instance.map_or("the host switch", InstanceName::as_str);
    screen.show(&outcome, |outcome, _| {
        render::outcome(verb, subject, *outcome)
    })?;
    Ok(Exit::Good)
}

/// One move, in the words of the API and of the pins.
struct Order<'a> {
    verb: &'static str,
    /// `None` is the host.
    instance: Option<&'a InstanceName>,
    command: Command,
    offline: bool,
}

impl<'a> Order<'a> {
    /// The command line makes sure that it is the host or an instance.
    fn whose(verb: &'static str, whose: &'a Whose, command: fn(Subject) -> Command) -> Self {
        let instance = whose.subject.instance.as_ref();
        let subject = instance.map_or(Subject::Host, |name| Subject::Instance(name.clone()));
        Self {
            verb,
            instance,
            command: command(subject),
            offline: whose.way.offline,
        }
    }

    fn one(verb: &'static str, one: &'a One, command: fn(InstanceName) -> Command) -> Self {
        Self {
            verb,
            instance: Some(&one.instance),
            command: command(one.instance.clone()),
            offline: one.way.offline,
        }
    }
}

async fn show(
    instance: Option<&InstanceName>,
    host: bool,
    client: &Client,
    pins: &Path,
    screen: &Screen,
) -> Result<Exit, CliError> {
    let (mut shown, exit) = match client.get::<SwitchesDto>("/v1/switches").await {
        Ok(switches) => (switches, Exit::Good),
        Err(error) => (offline::switches(error, pins)?, Exit::Unreachable),
    };
    if host {
        screen.show(&shown.host, render::host_switch)?;
        return Ok(exit);
    }
    if let Some(name) = instance {
        shown.switches.retain(|s| s.instance == name.as_str());
        if shown.switches.is_empty() {
            return Err(CliError::UnknownInstance(name.to_string()));
        }
    }
    screen.show(&shown, render::switches)?;
    Ok(exit)
}
