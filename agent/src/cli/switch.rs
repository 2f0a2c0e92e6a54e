//! `ghostctl switch`.

use std::path::Path;

use super::{
    args::{Switch, Whose},
    client::Client,
    error::{CliError, Exit},
    offline, render,
    run::Screen,
};
use crate::{
    control::dto::{OutcomeDto, SwitchesDto},
    model::InstanceName,
};

pub(super) async fn run(
    command: &Switch,
    client: &Client,
    pins: &Path,
    screen: &Screen,
) -> Result<Exit, CliError> {
    let (verb, whose) = match command {
        Switch::Show { instance, host } => {
            return show(instance.as_ref(), *host, client, pins, screen).await;
        }
        Switch::Throw(whose) => ("throw", instance(whose)),
        Switch::Restore(whose) => ("restore", instance(whose)),
        Switch::Drain { instance } => ("drain", Some(instance)),
        Switch::Arm { instance } => ("arm", Some(instance)),
        Switch::Disarm { instance } => ("disarm", Some(instance)),
    };
    let (uri, subject) = match whose {
        Some(name) => (format!("/v1/switches/{name}/{verb}"), name.as_str()),
        None => (format!("/v1/host-switch/{verb}"), "the host switch"),
    };
    let outcome: OutcomeDto = client.post(&uri).await?;
    screen.show(&outcome, |outcome, _| {
        render::outcome(verb, subject, *outcome)
    })?;
    Ok(Exit::Good)
}

/// `None` is the host; the command line makes sure that it is one of the two.
fn instance(whose: &Whose) -> Option<&InstanceName> {
    let Whose { instance, host: _ } = whose;
    instance.as_ref()
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
