//! The serial port, and the log file that its output goes to.
//!
//! The log is bounded: when it is full, its older half goes. A log that
//! cannot be written costs output, never the guest; what is lost is counted.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::eventfd::EventFd,
};
use serde::{Deserialize, Serialize};
use vm_superio::{Serial, Trigger};

use super::virtio::StateError;

/// At least half of it is the latest output.
pub(super) const LOG_BYTES_MAX: u64 = 1 << 20;

/// Stands where older output was.
const CUT: &[u8] = b"[earlier output is gone]\n";

/// Bytes of a file that only grows until it is full.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    bytes: u64,
    bytes_max: u64,
    lost_bytes: u64,
}

/// A file that somebody else has opened, if it can be a log.
pub(super) fn check(file: File) -> io::Result<File> {
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
    if !file.metadata()?.is_file() || flags & OFlag::O_ACCMODE != OFlag::O_RDWR {
        return Err(Errno::EINVAL.into());
    }
    Ok(file)
}

impl Log {
    /// Empties the file.
    pub(super) fn start(file: File) -> io::Result<Self> {
        // A device has no length, and nothing to empty.
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        Ok(Self::over(file, LOG_BYTES_MAX))
    }

    fn over(file: File, bytes_max: u64) -> Self {
        Self {
            file,
            bytes: 0,
            bytes_max,
            lost_bytes: 0,
        }
    }

    /// The same file, to be written by one of the two only.
    fn again(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            ..*self
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.bytes + length > self.bytes_max {
            self.drop_older_half()?;
        }
        self.file.write_all_at(bytes, self.bytes)?;
        self.bytes += length;
        Ok(())
    }

    fn drop_older_half(&mut self) -> io::Result<()> {
        let kept = (self.bytes_max / 2).min(self.bytes);
        let mut tail = vec![0; usize::try_from(kept).unwrap_or_default()];
        self.file.read_exact_at(&mut tail, self.bytes - kept)?;
        // From the beginning of a line, if there is one.
        let start = tail
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let tail = tail.get(start..).unwrap_or_default();
        let mut content = CUT.to_vec();
        content.extend_from_slice(tail);
        self.file.write_all_at(&content, 0)?;
        self.file.set_len(content.len() as u64)?;
        self.bytes = content.len() as u64;
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.append(bytes).is_err() {
            self.lost_bytes += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The registers of the serial port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SerialState {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    pub(super) input: Vec<u8>,
}

/// The line to the guest's interrupt controller, if it has one.
#[derive(Debug, Clone)]
struct Line(Option<Arc<EventFd>>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        if let Some(event) = &self.0 {
            // Fails only if it was told 2^64 times and nobody listened.
            let _ = event.write(1);
        }
        Ok(())
    }
}

/// A 16550 whose output is logged.
pub(super) struct Port(Serial<Line, vm_superio::serial::NoEvents, Log>);

impl Port {
    pub(super) fn new(log: Log, line: Option<EventFd>) -> Self {
        Self(Serial::new(Line(line.map(Arc::new)), log))
    }

    pub(super) fn save(&self) -> SerialState {
        let vm_superio::SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        } = self.0.state();
        SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            input: in_buffer,
        }
    }

    /// All of it, or nothing. Output goes to the same log as before.
    pub(super) fn restore(&mut self, state: &SerialState) -> Result<(), StateError> {
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            input,
        } = state.clone();
        let log = self.0.writer().again().map_err(StateError::SerialLog)?;
        let bytes = input.len();
        let state = vm_superio::SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: input,
        };
        let events = vm_superio::serial::NoEvents;
        let line = self.0.interrupt_evt().clone();
        self.0 = Serial::from_state(&state, line, events, log)
            .map_err(|_| StateError::SerialInput(bytes))?;
        Ok(())
    }

    pub(super) fn write(&mut self, register: u8, value: u8) {
        // Neither the log nor the interrupt can fail, and nobody sends input,
        // so what is left is a guest in loop-back mode with a full buffer.
        let _ = self.0.write(register, value);
    }

    pub(super) fn read(&mut self, register: u8) -> u8 {
        self.0.read(register)
    }

    pub(super) fn lost_bytes(&self) -> u64 {
        self.0.writer().lost_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::unix::fs::FileExt as _};

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::{CUT, Log};

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_full_log_keeps_the_latest_lines_whole() {
        let file = File::from(memfd_create(c"log", MFdFlags::empty()).unwrap());
        let mut log = Log::over(file.try_clone().unwrap(), 1000);
        for line in 0..500 {
            for byte in format!("line {line}\n").bytes() {
                log.write_all(&[byte]).unwrap();
                assert!(file.metadata().unwrap().len() <= 1000);
            }
        }
        let content = content(&file);
        assert!(content.starts_with(CUT));
        let text = String::from_utf8(content).unwrap();
        assert!(text.ends_with("line 498\nline 499\n"));
        assert!(text.lines().skip(1).all(|line| line.starts_with("line ")));
        assert!(text.len() > 400, "half of it stays");
        assert_eq!(log.lost_bytes, 0);
    }

    #[test]
    fn a_log_that_cannot_be_written_counts_what_is_lost() {
        let full = File::options()
            .read(true)
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut log = Log::over(full, 1000);
        log.write_all(b"gone").unwrap();
        assert_eq!(log.lost_bytes, 4);
    }
}
