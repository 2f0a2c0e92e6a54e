//! Where the running kernel keeps fields: a reader of its own type information.
//!
//! Owns: the walk over BTF (Documentation/bpf/btf.rst), as far as it takes to
//! find a struct's member. The BPF library parses BTF too, but keeps member
//! offsets to itself. Pure: bytes in, offsets out; hostile bytes give an
//! error, never a panic.

use agent_common::abi::TaskOffsets;

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
const TYPE_BYTES: usize = 12;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Anonymous structs and unions within each other are followed this deep.
/// The kernel's own go three deep.
const NESTING_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    #[error("not type information: it begins with {0:#06x}")]
    Magic(u16),
    #[error("type information is cut short at byte {0}")]
    Short(usize),
    #[error("type information has a kind {0} that this ghostd does not know")]
    Kind(u32),
    #[error("this kernel has no struct {structure} with a field {field}")]
    NoField {
        structure: &'static str,
        field: &'static str,
    },
    #[error("field {structure}.{field} is not at a whole byte")]
    BitField {
        structure: &'static str,
        field: &'static str,
    },
}

/// Offsets for the tracepoint programs, from the bytes of /sys/kernel/btf/vmlinux.
pub(super) fn task_offsets(bytes: &[u8]) -> Result<TaskOffsets, BtfError> {
    let btf = Btf::parse(bytes)?;
    let task = btf.structure("task_struct", "thread_pid")?;
    let cred = btf.structure("cred", "cap_effective")?;
    let pid = btf.structure("pid", "numbers")?;
    let upid = btf.structure("upid", "ns")?;
    let pidns = btf.structure("pid_namespace", "user_ns")?;
    let userns = btf.structure("user_namespace", "owner")?;
    Ok(TaskOffsets {
        task_cred: task.offset("cred")?,
        task_thread_pid: task.offset("thread_pid")?,
        cred_cap_effective: cred.offset("cap_effective")?,
        cred_user_ns: cred.offset("user_ns")?,
        cred_euid: cred.offset("euid")?,
        pid_level: pid.offset("level")?,
        pid_numbers: pid.offset("numbers")?,
        upid_bytes: upid.bytes,
        upid_ns: upid.offset("ns")?,
        pidns_user_ns: pidns.offset("user_ns")?,
        userns_parent: userns.offset("parent")?,
        userns_owner: userns.offset("owner")?,
    })
}

struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset into `types` of each type; ids count from 1.
    starts: Vec<u32>,
}

struct Structure<'b, 'a> {
    btf: &'b Btf<'a>,
    name: &'static str,
    start: usize,
    bytes: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let end = at.checked_add(4).ok_or(BtfError::Short(at))?;
    let word = bytes.get(at..end).and_then(|b| b.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or(BtfError::Short(at))
}

/// One `struct btf_type`, without what follows it.
struct Head {
    name: u32,
    kind: u32,
    /// Members, parameters, values ...: whatever the kind counts.
    count: usize,
    /// The kind's flag: offsets of members carry bit-field sizes.
    flag: bool,
    bytes: u32,
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let magic = u32_at(bytes, 0)?.to_ne_bytes();
        let magic = u16::from_ne_bytes([magic[0], magic[1]]);
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header = u32_at(bytes, 4)? as usize;
        let section = |field: usize| -> Result<&'a [u8], BtfError> {
            let start = (u32_at(bytes, field)? as usize).saturating_add(header.max(HEADER_BYTES));
            let end = start.saturating_add(u32_at(bytes, field + 4)? as usize);
            bytes.get(start..end).ok_or(BtfError::Short(end))
        };
        let mut btf = Self {
            types: section(8)?,
            strings: section(16)?,
            starts: Vec::new(),
        };
        let mut at = 0;
        while at < btf.types.len() {
            let head = btf.head(at)?;
            btf.starts
                .push(u32::try_from(at).map_err(|_| BtfError::Short(at))?);
            at = at.saturating_add(TYPE_BYTES + tail_bytes(&head)?);
        }
        Ok(btf)
    }

    fn head(&self, at: usize) -> Result<Head, BtfError> {
        let info = u32_at(self.types, at.saturating_add(4))?;
        Ok(Head {
            name: u32_at(self.types, at)?,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            flag: info >> 31 != 0,
            bytes: u32_at(self.types, at.saturating_add(8))?,
        })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let Some(rest) = self.strings.get(name as usize..) else {
            return false;
        };
        rest.get(..wanted.len()) == Some(wanted.as_bytes()) && rest.get(wanted.len()) == Some(&0)
    }

    /// The first struct of that name with that field: short names are not
    /// always the kernel's only ones.
    fn structure(
        &self,
        name: &'static str,
        field: &'static str,
    ) -> Result<Structure<'_, 'a>, BtfError> {
        for &start in &self.starts {
            let start = start as usize;
            let head = self.head(start)?;
            if head.kind != KIND_STRUCT || !self.is_named(head.name, name) {
                continue;
            }
            if self.member_bits(start, field, 0)?.is_some() {
                return Ok(Structure {
                    btf: self,
                    name,
                    start,
                    bytes: head.bytes,
                });
            }
        }
        Err(BtfError::NoField {
            structure: name,
            field,
        })
    }

    /// Offset in bits of a member, looked for in anonymous members too.
    fn member_bits(
        &self,
        start: usize,
        field: &str,
        depth: usize,
    ) -> Result<Option<u64>, BtfError> {
        let head = self.head(start)?;
        for i in 0..head.count {
            let at = start + TYPE_BYTES + i * TYPE_BYTES;
            let name = u32_at(self.types, at)?;
            let kind = u32_at(self.types, at + 4)?;
            let offset = u32_at(self.types, at + 8)?;
            let bits = u64::from(if head.flag {
                offset & 0xff_ffff
            } else {
                offset
            });
            if name != 0 && self.is_named(name, field) {
                return Ok(Some(bits));
            }
            if name != 0 || depth == NESTING_MAX {
                continue;
            }
            let Some(&inner) = (kind as usize)
                .checked_sub(1)
                .and_then(|i| self.starts.get(i))
            else {
                continue;
            };
            let inner = inner as usize;
            if !matches!(self.head(inner)?.kind, KIND_STRUCT | KIND_UNION) {
                continue;
            }
            if let Some(deeper) = self.member_bits(inner, field, depth + 1)? {
                return Ok(Some(bits + deeper));
            }
        }
        Ok(None)
    }
}

impl Structure<'_, '_> {
    fn offset(&self, field: &'static str) -> Result<u32, BtfError> {
        let structure = self.name;
        let bits = self.btf.member_bits(self.start, field, 0)?;
        let bits = bits.ok_or(BtfError::NoField { structure, field })?;
        if !bits.is_multiple_of(8) {
            return Err(BtfError::BitField { structure, field });
        }
        u32::try_from(bits / 8).map_err(|_| BtfError::BitField { structure, field })
    }
}

/// Bytes after the head of a type.
fn tail_bytes(head: &Head) -> Result<usize, BtfError> {
    let each = match head.kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => return Ok(4),
        KIND_ARRAY => return Ok(12),
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12,
        KIND_ENUM | KIND_FUNC_PROTO => 8,
        // Pointer, forward, typedef, volatile, const, restrict, function,
        // float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        other => return Err(BtfError::Kind(other)),
    };
    Ok(head.count * each)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vmlinux() -> Vec<u8> {
        std::fs::read("/sys/kernel/btf/vmlinux").unwrap()
    }

    #[test]
    fn offsets_of_the_running_kernel_are_plausible_and_differ() {
        let o = task_offsets(&vmlinux()).unwrap();
        assert_ne!(o.task_cred, o.task_thread_pid);
        assert!(o.task_cred > 0 && o.task_cred < 64 * 1024);
        assert_eq!(o.cred_cap_effective % 8, 0);
        // include/linux/cred.h: `euid` comes before the capabilities.
        assert!(o.cred_euid < o.cred_cap_effective);
        // include/linux/pid.h: `numbers` is the last field, `upid` two words.
        assert!(o.pid_level < o.pid_numbers);
        assert_eq!((o.upid_bytes, o.upid_ns), (16, 8));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(task_offsets(&[]), Err(BtfError::Short(0)));
        assert_eq!(task_offsets(&[0; 64]), Err(BtfError::Magic(0)));
    }

    #[test]
    fn truncated_type_information_is_refused() {
        let all = vmlinux();
        for end in (0..4096).chain((4096..all.len()).step_by(all.len() / 64)) {
            assert!(task_offsets(&all[..end]).is_err(), "{end} bytes");
        }
    }

    /// A struct that has itself as an anonymous member.
    #[test]
    fn endless_nesting_ends() {
        let mut bytes = Vec::new();
        for word in [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            24,
            24,
            16, //
            1,
            KIND_STRUCT << 24 | 1,
            8, // struct task_struct, one member
            0,
            1,
            0, // anonymous, type 1
        ] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(b"\0task_struct\0\0\0\0");
        assert_eq!(
            task_offsets(&bytes),
            Err(BtfError::NoField {
                structure: "task_struct",
                field: "thread_pid"
            })
        );
    }

    proptest! {
        #[test]
        fn mutated_type_information_never_panics(
            tail in prop::collection::vec(any::<u8>(), 0..512),
            lengths in prop::array::uniform4(0u32..600),
        ) {
            let mut bytes = Vec::new();
            let [a, b, c, d] = lengths;
            for word in [u32::from(MAGIC) | 1 << 16, 24, a, b, c, d] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(tail);
            let _ = task_offsets(&bytes);
        }
    }
}
