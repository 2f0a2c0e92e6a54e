//! An Ethernet address, as one writes it.

use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmm) struct Mac(pub(super) [u8; 6]);

impl Mac {
    pub(in crate::vmm) fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "six bytes in hexadecimal, as in 02:00:00:00:00:01";
        let byte = |part: &str| {
            let is_plain = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            is_plain
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = <[u8; 6]>::try_from(bytes.unwrap_or_default()).map_err(|_| FORM)?;
        if bytes[0] & 1 != 0 {
            return Err("a group address; the first byte must be even");
        }
        Ok(Self(bytes))
    }
}
