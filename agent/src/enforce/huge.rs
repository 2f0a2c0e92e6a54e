//! The host's pool of huge pages.

use std::path::{Path, PathBuf};

use super::{
    EnforceError,
    capacity::read,
    journal::{Change, Journal, write},
};

/// Pages asked for at once: 128 MiB, which the kernel finds or compacts
/// within some tens of milliseconds.
const STEP_PAGES: u64 = 64;

/// What came of a request for huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Pages that were got for ghosts.
    pub pages: u64,
    /// Pages that were asked for and that the kernel did not find.
    pub missing: u64,
}

fn pool(root: &Path) -> PathBuf {
    root.join("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
}

/// Raises the host's pool by `pages`, in steps, as far as there is memory that
/// can be made contiguous. Fewer than asked for is no error.
pub fn reserve_huge_pages(
    root: &Path,
    pages: u64,
    journal: &mut Journal,
) -> Result<Pool, EnforceError> {
    let path = pool(root);
    let mut got = 0;
    if pages > 0 {
        // Without it the kernel gives up early. Where it is not to be had
        // there are only fewer pages.
        let _ = write(&root.join("proc/sys/vm/compact_memory"), "1");
    }
    while got < pages {
        let was = number(&path)?;
        let wanted = was.saturating_add(STEP_PAGES.min(pages - got));
        let change = Change::Raised {
            path: path.clone(),
            was,
            wanted,
        };
        journal.record(change)?;
        write(&path, &wanted.to_string())?;
        let now = number(&path)?;
        got += now.saturating_sub(was);
        if now < wanted {
            break;
        }
    }
    Ok(Pool {
        pages: got,
        missing: pages.saturating_sub(got),
    })
}

pub(super) fn number(path: &Path) -> Result<u64, EnforceError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| EnforceError::Parse {
        path: path.to_owned(),
        what: format!("`{}` is not a number", text.trim().escape_debug()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::tree::Tree;

    #[test]
    fn pages_are_added_to_those_of_others_and_given_back() {
        let name = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
        let tree = Tree::of(&[(name, "7\n"), ("proc/sys/vm/compact_memory", "")]);
        let (mut journal, _) = Journal::open(&tree.path.join("journal")).unwrap();
        let got = reserve_huge_pages(&tree.path, 150, &mut journal).unwrap();
        let all = Pool {
            pages: 150,
            missing: 0,
        };
        assert_eq!(got, all);
        assert_eq!(number(&tree.path.join(name)).unwrap(), 157);
        assert!(journal.undo().is_empty());
        assert_eq!(number(&tree.path.join(name)).unwrap(), 7);
    }
}
