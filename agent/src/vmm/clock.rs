//! Who a guest is and what time it is, told to it before it runs.

use std::time::SystemTime;

use agent_common::guest::{INCARNATION, Incarnation};
use nix::errno::Errno;

use super::{error::VmmError, memory::Memory};

/// 128 bits that no other incarnation of a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation([u8; 16]);

impl Generation {
    /// From 32 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_plain = text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = is_plain.then(|| u128::from_str_radix(text, 16).ok());
        number.flatten().map(|number| Self(number.to_be_bytes()))
    }

    /// For a guest that is nobody's copy.
    #[allow(unsafe_code)]
    pub(super) fn fresh() -> Result<Self, VmmError> {
        let mut bytes = [0; 16];
        // In the jail there is no device to read it from.
        // SAFETY: the call fills no more than the bytes, which are ours. As
        // few as these it gives all at once.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        Errno::result(filled).map_err(|e| VmmError::system("get 16 bytes of chance", e))?;
        Ok(Self(bytes))
    }
}

/// Writes the page that says so, for a guest that does not run.
pub(super) fn tell(memory: &Memory, Generation(generation): Generation) -> Result<(), VmmError> {
    let mut count = [0; 8];
    memory.read(INCARNATION, &mut count)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    let Incarnation {
        count,
        wall_clock_ns,
        generation,
    } = Incarnation {
        // Whatever was there before, even in a copy of another's memory.
        count: u64::from_le_bytes(count).wrapping_add(1),
        // Enough until the year 2554.
        wall_clock_ns: u64::try_from(now).unwrap_or(u64::MAX),
        generation,
    };
    let mut page = Vec::with_capacity(size_of::<Incarnation>());
    page.extend(count.to_le_bytes());
    page.extend(wall_clock_ns.to_le_bytes());
    page.extend(generation);
    memory.write(INCARNATION, &page)
}

#[cfg(test)]
mod tests {
    use super::Generation;

    #[test]
    fn a_generation_has_as_many_digits_as_it_should() {
        let text = "000102030405060708090a0B0C0D0E0F";
        let bytes = std::array::from_fn(|i| i as u8);
        assert_eq!(Generation::parse(text), Some(Generation(bytes)));
        for bad in [
            "",
            "1",
            &text[1..],
            &format!("{text}0"),
            &format!("+{}", &text[1..]),
        ] {
            assert_eq!(Generation::parse(bad), None, "{bad}");
        }
    }
}
