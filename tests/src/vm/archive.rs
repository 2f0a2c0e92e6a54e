//! A cpio archive in the form that the kernel unpacks at boot.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst.

use anyhow::{Context as _, Result};

const MAGIC: &str = "070701";
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const END: &str = "TRAILER!!!";
const ALIGN: usize = 4;

/// Entries in the order in which they are made; folders before what is in them.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// May be executed by all.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, FILE, content)
    }

    pub(super) fn end(mut self) -> Result<Vec<u8>> {
        self.entry(END, 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let name = path.trim_start_matches('/');
        let size =
            u32::try_from(content.len()).with_context(|| format!("{path} is 4 GiB or more"))?;
        let name_bytes = u32::try_from(name.len() + 1)?;
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device, device of a
        // device node, length of the name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_bytes,
            0,
        ];
        self.bytes.extend(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_begin_on_multiples_of_four() {
        let mut archive = Archive::default();
        archive.folder("/bin").unwrap();
        archive.file("/bin/a", b"12345").unwrap();
        archive.file("/bin/b", b"").unwrap();
        let bytes = archive.end().unwrap();
        let starts: Vec<usize> = bytes
            .windows(6)
            .enumerate()
            .filter(|(_, window)| window == b"070701")
            .map(|(at, _)| at)
            .collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|at| at % 4 == 0));
        let file = &bytes[starts[1]..starts[2]];
        assert_eq!(&file[54..62], b"00000005", "its size");
        assert_eq!(&file[110..116], b"bin/a\0");
        assert_eq!(&file[116..121], b"12345");
        assert!(bytes[starts[3]..].windows(10).any(|w| w == b"TRAILER!!!"));
    }
}
