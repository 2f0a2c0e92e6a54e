//! An empty root that cannot be written to.

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, chroot, pivot_root},
};

use super::{Refusal, cannot};

/// A folder that is there wherever we run; it is covered in our view only.
const FOLDER: &str = "/proc";

const NOTHING: Option<&str> = None;

/// Only in mount namespaces of our own.
pub(super) fn empty(has_namespaces: bool) -> Result<(), Refusal> {
    if !has_namespaces {
        return Err(cannot("change mounts that others see")(Errno::EPERM));
    }
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("size=4k,nr_inodes=1,mode=555");
    mount(Some("none"), FOLDER, Some("tmpfs"), flags, options)
        .map_err(cannot("mount an empty file system"))?;
    chdir(FOLDER).map_err(cannot("enter the empty file system"))?;
    match pivot_root(".", ".") {
        Ok(()) => {
            // The old root lies on top of the new one now.
            umount2(".", MntFlags::MNT_DETACH).map_err(cannot("let the old root go"))?;
        }
        // The initial file system cannot be put aside, only covered. What is
        // below is out of reach for whoever may not change its root.
        Err(Errno::EINVAL) => {
            mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING)
                .map_err(cannot("cover the old root"))?;
            chroot(".").map_err(cannot("enter the new root"))?;
        }
        Err(error) => return Err(cannot("change the root")(error)),
    }
    chdir("/").map_err(cannot("enter the new root"))
}
