//! XDP programs on interfaces, by pinned links.
//!
//! A link that is there gets the new program by one atomic update; nothing is
//! ever detached first. A foreign program is refused and named, unless its
//! replacement is wanted.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    error::SteerError,
    load::unpin,
    netlink::Netlink,
    objects::{self, LINK_TYPE_XDP, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE},
    snapshot::{interface_name, link_path},
    sys,
};
use crate::model::{Ifindex, UplinkMode, XdpMode};

/// How long a foreign link may take to let go of its interface. The kernel
/// frees links from a work queue, within milliseconds.
const RELEASE_MAX: Duration = Duration::from_secs(1);
/// Between two looks at it.
const RELEASE_LOOK: Duration = Duration::from_millis(5);

/// What an interface is to carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) ifindex: Ifindex,
    pub(super) program: BorrowedFd<'a>,
    pub(super) mode: UplinkMode,
    pub(super) replace_foreign: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    pub mode: XdpMode,
    /// `false` if a link was there and got the new program.
    pub fresh: bool,
}

/// Brings one interface to what is wanted.
pub(super) fn ensure(
    root: &Path,
    netlink: &mut Netlink,
    wanted: &Wanted<'_>,
) -> Result<Attached, SteerError> {
    let path = link_path(root, wanted.ifindex);
    if let Some(mode) = update(&path, netlink, wanted)? {
        return Ok(Attached { mode, fresh: false });
    }
    // No link, or one that holds on to an interface that is no more.
    unpin(&path)?;
    make_way(netlink, wanted)?;
    let link = create(wanted)?;
    sys::obj_pin(link.as_fd(), &path).map_err(|e| SteerError::Pin(path, e))?;
    match netlink.attached_xdp(wanted.ifindex)? {
        Some(attached) => Ok(Attached {
            mode: attached.mode,
            fresh: true,
        }),
        None => Err(fail(wanted, "keep an XDP program")(
            io::ErrorKind::NotFound.into(),
        )),
    }
}

/// Takes our program off an interface.
pub(super) fn remove(root: &Path, ifindex: Ifindex) -> Result<(), SteerError> {
    unpin(&link_path(root, ifindex))
}

fn fail(wanted: &Wanted<'_>, what: &'static str) -> impl FnOnce(io::Error) -> SteerError {
    let interface = interface_name(wanted.ifindex);
    move |source| SteerError::Attach {
        what,
        interface,
        source,
    }
}

/// Puts the program behind a pinned link, if there is one on this interface.
fn update(
    path: &Path,
    netlink: &mut Netlink,
    wanted: &Wanted<'_>,
) -> Result<Option<XdpMode>, SteerError> {
    let link = match sys::obj_get(path) {
        Ok(link) => link,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(SteerError::OpenPin(path.to_owned(), e)),
    };
    if !is_on(&link, wanted.ifindex) {
        return Ok(None);
    }
    let (id, _) =
        objects::program_info(wanted.program).map_err(fail(wanted, "describe the program"))?;
    // An update waits for all packets under way, so it is not done for nothing.
    if objects::link_info(link.as_fd())
        .map(|info| info.program_id)
        .ok()
        != Some(id)
    {
        match objects::link_update(link.as_fd(), wanted.program) {
            Ok(()) => {}
            // The interface went away in between.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => return Ok(None),
            Err(e) => return Err(fail(wanted, "replace the XDP program")(e)),
        }
    }
    // An index says nothing about which network namespace it is of: the
    // kernel must show the link's program on the interface that we see.
    let attached = netlink.attached_xdp(wanted.ifindex)?;
    Ok(attached
        .filter(|a| a.program_id == id && is_on(&link, wanted.ifindex))
        .map(|a| a.mode))
}

fn is_on(link: &OwnedFd, ifindex: Ifindex) -> bool {
    objects::link_info(link.as_fd())
        .is_ok_and(|info| info.kind == LINK_TYPE_XDP && info.ifindex == ifindex.get())
}

/// Refuses a foreign program, or takes it off.
fn make_way(netlink: &mut Netlink, wanted: &Wanted<'_>) -> Result<(), SteerError> {
    let Some(foreign) = netlink.attached_xdp(wanted.ifindex)? else {
        return Ok(());
    };
    if !wanted.replace_foreign {
        let name = objects::program_by_id(foreign.program_id)
            .and_then(|fd| objects::program_info(fd.as_fd()))
            .map(|(_, name)| name);
        return Err(SteerError::ForeignXdp {
            interface: interface_name(wanted.ifindex),
            name: name.ok(),
            id: foreign.program_id,
        });
    }
    let flags = match foreign.mode {
        XdpMode::Native => XDP_FLAGS_DRV_MODE,
        XdpMode::Generic => XDP_FLAGS_SKB_MODE,
        XdpMode::Offloaded => 8,
    };
    let began = Instant::now();
    loop {
        let error = match netlink.detach_xdp(wanted.ifindex, flags) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Busy: a link holds it, or did until a moment ago.
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        if !busy || began.elapsed() >= RELEASE_MAX {
            return Err(fail(wanted, "take off the foreign XDP program")(error));
        }
        detach_link(wanted, foreign.program_id)?;
        if netlink.attached_xdp(wanted.ifindex)?.is_none() {
            return Ok(());
        }
        thread::sleep(RELEASE_LOOK);
    }
}

/// Detaches the link that holds `program` on an interface, if there is one.
///
/// A link tells its interface's index, but not of which network namespace.
/// Where two may be meant, neither is touched.
fn detach_link(wanted: &Wanted<'_>, program: u32) -> Result<(), SteerError> {
    let what = "find the link of the foreign XDP program";
    let links = links_of(wanted.ifindex, program).map_err(fail(wanted, what))?;
    match links.as_slice() {
        [] => Ok(()),
        [link] => objects::link_detach(link.as_fd())
            .map_err(fail(wanted, "detach the link of the foreign XDP program")),
        _ => Err(SteerError::ForeignLinks {
            interface: interface_name(wanted.ifindex),
            program,
            ifindex: wanted.ifindex.get(),
        }),
    }
}

/// All XDP links of a program on interfaces with this index.
fn links_of(ifindex: Ifindex, program: u32) -> io::Result<Vec<OwnedFd>> {
    let mut id = 0;
    let mut found = Vec::new();
    while let Some(next) = objects::next_link(id)? {
        id = next;
        // A link may go away while we look.
        let Ok(link) = objects::link_by_id(id) else {
            continue;
        };
        let info = objects::link_info(link.as_fd());
        if is_on(&link, ifindex) && info.is_ok_and(|info| info.program_id == program) {
            found.push(link);
        }
    }
    Ok(found)
}

fn create(wanted: &Wanted<'_>) -> Result<OwnedFd, SteerError> {
    let attach = |flags| objects::link_create_xdp(wanted.program, wanted.ifindex.get(), flags);
    let what = "attach an XDP program";
    match wanted.mode {
        UplinkMode::Native => attach(XDP_FLAGS_DRV_MODE).map_err(fail(wanted, what)),
        UplinkMode::Generic => attach(XDP_FLAGS_SKB_MODE).map_err(fail(wanted, what)),
        UplinkMode::Auto => match attach(XDP_FLAGS_DRV_MODE) {
            Ok(link) => Ok(link),
            Err(e) if is_final(&e) => Err(fail(wanted, what)(e)),
            Err(e) => {
                tracing::info!(
                    interface = interface_name(wanted.ifindex),
                    error = %e,
                    "the driver takes no XDP program; attaching the generic way"
                );
                attach(XDP_FLAGS_SKB_MODE).map_err(fail(wanted, what))
            }
        },
    }
}

/// Errors that the generic mode would run into as well.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EPERM | libc::EACCES | libc::ENODEV | libc::EEXIST | libc::ENOMEM)
    )
}
