//! Starting other programs, and one line of progress for each step.

use std::{
    ffi::OsStr,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

/// Lines of a failed program's output that are shown.
const TAIL_LINES: usize = 40;

/// A step that was there already.
pub(crate) fn ok(what: &str) {
    eprintln!("   ok   {what}");
}

/// A step that is carried out now; says how long it took, or that it failed.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("  ...   {what}");
    let start = Instant::now();
    let result = work();
    let mark = if result.is_ok() { " done" } else { " FAIL" };
    eprintln!(" {mark}   {what} ({:.1} s)", start.elapsed().as_secs_f64());
    result
}

/// Runs a program that may speak to the terminal.
pub(crate) fn loud(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program that is heard only if it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
    let tail = lines
        .get(lines.len().saturating_sub(TAIL_LINES)..)
        .unwrap_or_default();
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{}", tail.join("\n"));
    bail!("`{}` failed: {}", line(command), output.status);
}

/// Whether a program is there and answers this argument.
pub(crate) fn answers(program: impl AsRef<OsStr>, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it, without its environment.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = std::iter::once(program.file_name().unwrap_or(program.as_os_str()));
    let words = words.chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Becomes another program. Comes back only with an error.
pub(crate) fn replace(mut command: Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", line(&command)))
}
