//! `ghostctl instance` and `ghostctl ghost`.

use super::{
    args::{Ghost, Instance},
    client::Client,
    error::{CliError, Exit},
    render,
    run::{Screen, say_bytes},
};
use crate::{
    control::dto::{VmDoneDto, VmDto, VmsDto},
    model::InstanceName,
};

pub(super) async fn instance(
    command: &Instance,
    client: &Client,
    screen: &Screen,
) -> Result<Exit, CliError> {
    let (verb, name) = match command {
        Instance::List => {
            let all: VmsDto = client.get("/v1/instances").await?;
            screen.show(&all, render::vms)?;
            return Ok(Exit::Good);
        }
        Instance::Show { instance } => {
            let one: VmDto = client.get(&format!("/v1/instances/{instance}")).await?;
            screen.show(&one, render::vm)?;
            return Ok(Exit::Good);
        }
        Instance::Console {
            instance,
            ghost,
            follow,
        } => return console(client, instance, *ghost, *follow).await,
        Instance::Create { instance } => ("create", instance),
        Instance::Pause { instance } => ("pause", instance),
        Instance::Resume { instance } => ("resume", instance),
        Instance::Reset { instance } => ("reset", instance),
        Instance::Destroy { instance } => ("destroy", instance),
    };
    let uri = format!("/v1/instances/{name}/{verb}");
    order(client, screen, &uri, verb, name).await
}

pub(super) async fn ghost(
    command: &Ghost,
    client: &Client,
    screen: &Screen,
) -> Result<Exit, CliError> {
    let (verb, name) = match command {
        Ghost::Prepare { instance } => ("prepare", instance),
        Ghost::Activate { instance } => ("activate", instance),
        Ghost::Suspend { instance } => ("suspend", instance),
        Ghost::Destroy { instance } => ("destroy", instance),
        Ghost::Drill { instance } => ("drill", instance),
    };
    let uri = format!("/v1/instances/{name}/ghost/{verb}");
    order(client, screen, &uri, verb, name).await
}

async fn order(
    client: &Client,
    screen: &Screen,
    uri: &str,
    verb: &str,
    name: &InstanceName,
) -> Result<Exit, CliError> {
    let done: VmDoneDto = client.post_patiently(uri).await?;
    screen.show(&done, |done, look| {
        render::vm_done(verb, name.as_str(), done, look)
    })?;
    let is_healthy = done.verdict.is_none_or(|verdict| verdict.is_healthy);
    Ok(if is_healthy {
        Exit::Good
    } else {
        Exit::Degraded
    })
}

async fn console(
    client: &Client,
    name: &InstanceName,
    ghost: bool,
    follow: bool,
) -> Result<Exit, CliError> {
    let copy = if ghost { "ghost" } else { "primary" };
    let uri = format!("/v1/instances/{name}/console?copy={copy}&follow={follow}");
    let mut output = client.stream(&uri).await?;
    while let Some(bytes) = output.next().await? {
        say_bytes(&bytes)?;
    }
    Ok(Exit::Good)
}
