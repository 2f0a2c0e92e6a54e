//! Completions and man pages.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{args::Args, error::CliError};

pub(super) fn completions(shell: Shell, out: &mut impl Write) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "ghostctl", &mut text);
    let written = out.write_all(&text);
    written.map_err(|e| CliError::Write("completions".to_owned(), e))
}

/// To a folder one page for each command; to standard output the first.
pub(super) fn man(folder: Option<&Path>, out: &mut impl Write) -> Result<(), CliError> {
    let command = Args::command();
    let Some(folder) = folder else {
        let page = clap_mangen::Man::new(command).render(out);
        return page.map_err(|e| CliError::Write("the man page".to_owned(), e));
    };
    let written = write_pages(command, folder);
    written.map_err(|e| CliError::Write(folder.display().to_string(), e))
}

fn write_pages(command: clap::Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
