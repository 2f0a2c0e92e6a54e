//! `ghostctl clean`: the end of all steering, without a daemon.

use std::{
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    client::Client,
    error::{CliError, Exit},
    offline,
    run::{Screen, say},
};

/// How sure the operator is.
pub(super) struct Wish {
    /// Also while a daemon runs.
    pub(super) force: bool,
    pub(super) ask: bool,
}

#[derive(Serialize)]
struct Cleaned {
    removed: Vec<PathBuf>,
}

pub(super) async fn run(
    wish: &Wish,
    client: &Client,
    pins: &Path,
    screen: &Screen,
) -> Result<Exit, CliError> {
    if !wish.force {
        client.expect_none().await?;
    }
    let found = offline::pins(pins)?;
    if !found.is_empty() && wish.ask && !confirmed(&found)? {
        say("nothing removed\n")?;
        return Ok(Exit::Degraded);
    }
    let removed = offline::clean(pins)?;
    screen.show(&Cleaned { removed }, |cleaned, _| {
        let mut text = String::new();
        for path in &cleaned.removed {
            text.push_str(&format!("removed {}\n", path.display()));
        }
        if cleaned.removed.is_empty() {
            text.push_str("nothing is pinned\n");
        }
        text
    })?;
    Ok(Exit::Good)
}

fn confirmed(found: &[PathBuf]) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::NobodyToAsk);
    }
    for path in found {
        eprintln!("  {}", path.display());
    }
    eprint!("Remove these and end all steering on this host? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| CliError::Write("the question".to_owned(), e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
