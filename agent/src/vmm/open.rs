//! Everything that a microVM needs from outside, opened.
//!
//! Owns: the only code of the VMM that follows paths, but for the jail. After
//! it nothing is opened by name any more. Refuses: to look into what it
//! opened, beyond whether it is of the right kind: the bytes of an image are
//! read later, in the jail.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, RawFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

use super::{
    control::Control,
    descriptor::Inherited,
    error::VmmError,
    link,
    made::{Made, Until},
    memory,
    place::Place,
    serial,
    virtio::{Access, Disk, DiskError, Mac, Tap},
};

/// What is to be opened.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) kvm: Place,
    pub(super) image: Place,
    pub(super) initrd: Option<Place>,
    pub(super) memory_copy: Option<Place>,
    pub(super) serial: Place,
    pub(super) control: Option<Place>,
    pub(super) tap: Option<TapWanted>,
    pub(super) disk: Option<(Place, Access)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TapWanted {
    /// It is there, made and fenced by whoever owns the guest.
    There(String),
    /// It is made, and goes with the process.
    New { name: String, host_mac: Option<Mac> },
    /// A tap's queue, or a socket that takes its place.
    Inherited(RawFd),
}

/// What was opened, and by which name it is told of.
pub(super) struct Opened {
    pub(super) kvm: Kvm,
    pub(super) image: Source,
    pub(super) initrd: Option<Source>,
    /// Memory of another guest, opened to be read only.
    pub(super) memory_copy: Option<Source>,
    pub(super) serial: Source,
    pub(super) tap: Option<Tap>,
    pub(super) disk: Option<Disk>,
    pub(super) control: Option<Control>,
    pub(super) made: Made,
}

/// An open file, and the name it has in messages.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Place,
    pub(super) file: File,
}

impl Wanted {
    /// What of it was inherited; closes whatever else was. Call it before
    /// anything is opened.
    pub(super) fn inherited(&self) -> Result<Inherited, VmmError> {
        let places = [&self.kvm, &self.image, &self.serial];
        let disk = self.disk.as_ref().map(|(place, _)| place);
        let places = places.into_iter().chain(&self.initrd);
        let places = places.chain(&self.control).chain(disk);
        let places = places.chain(&self.memory_copy);
        let number = |place: &Place| match place {
            Place::Inherited(fd) => Some(*fd),
            Place::Path(_) => None,
        };
        let tap = match &self.tap {
            Some(TapWanted::Inherited(fd)) => Some(*fd),
            _ => None,
        };
        let wanted = places.filter_map(number).chain(tap).collect();
        Inherited::keep(wanted).map_err(VmmError::Descriptor)
    }

    pub(super) fn open(self, mut inherited: Inherited) -> Result<Opened, VmmError> {
        let mut made = Made::default();
        let kvm = open_kvm(&self.kvm, &mut inherited)?;
        let image = open_image(self.image, &mut inherited)?;
        let initrd = match self.initrd {
            Some(place) => Some(open_image(place, &mut inherited)?),
            None => None,
        };
        let memory_copy = match self.memory_copy {
            Some(place) => Some(open_memory(place, &mut inherited)?),
            None => None,
        };
        let tap = match self.tap {
            Some(wanted) => Some(open_tap(&wanted, &mut inherited)?),
            None => None,
        };
        let disk = match self.disk {
            Some((place, access)) => Some(open_disk(place, access, &mut inherited)?),
            None => None,
        };
        // These two make files, so they come last.
        let serial = open_serial(self.serial, &mut inherited, &mut made)?;
        let control = match self.control {
            Some(place) => Some(open_control(&place, &mut inherited, &mut made)?),
            None => None,
        };
        Ok(Opened {
            kvm,
            image,
            initrd,
            memory_copy,
            serial,
            tap,
            disk,
            control,
            made,
        })
    }
}

#[allow(unsafe_code)]
fn open_kvm(place: &Place, inherited: &mut Inherited) -> Result<Kvm, VmmError> {
    let failed = |source| VmmError::OpenKvm {
        path: place.clone(),
        source,
    };
    let kvm = match place {
        Place::Inherited(fd) => {
            let fd = inherited.take(*fd).map_err(failed)?;
            // SAFETY: it is open, and ours to give away.
            unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
        }
        Place::Path(path) => {
            let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| failed(e.into()))?;
            Kvm::new_with_path(name).map_err(|e| failed(io::Error::from_raw_os_error(e.errno())))?
        }
    };
    match kvm.get_api_version() {
        version if version == KVM_API_VERSION.cast_signed() => Ok(kvm),
        version => Err(VmmError::NotKvm(place.clone(), version)),
    }
}

fn open_image(name: Place, inherited: &mut Inherited) -> Result<Source, VmmError> {
    let file = match &name {
        Place::Inherited(fd) => inherited.take(*fd).map(File::from),
        Place::Path(path) => File::open(path),
    };
    match file {
        Ok(file) => Ok(Source { name, file }),
        Err(error) => Err(VmmError::ReadImage(name, error)),
    }
}

/// It must not become shorter below a guest. What we keep cannot write to
/// it, even if we were given more.
fn open_memory(name: Place, inherited: &mut Inherited) -> Result<Source, VmmError> {
    let opened = match &name {
        Place::Inherited(fd) => inherited.take(*fd).map(File::from),
        Place::Path(path) => open_to_read(path),
    };
    let opened = match opened {
        Ok(file) if memory::is_sealed(&file) => open_to_read(&PathBuf::from(format!(
            "/proc/self/fd/{}",
            file.as_raw_fd()
        ))),
        Ok(_) => return Err(VmmError::NotMemory(name)),
        Err(error) => Err(error),
    };
    match opened {
        Ok(file) => Ok(Source { name, file }),
        Err(error) => Err(VmmError::OpenMemory(name, error)),
    }
}

/// Without waiting for anybody to open the other end of it.
fn open_to_read(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn open_tap(wanted: &TapWanted, inherited: &mut Inherited) -> Result<Tap, VmmError> {
    match wanted {
        TapWanted::There(name) => Tap::open(name).map_err(|e| VmmError::Tap(name.clone(), e)),
        TapWanted::New { name, host_mac } => {
            let failed = |e: io::Error| match e.kind() {
                io::ErrorKind::AlreadyExists => VmmError::TapTaken(name.clone()),
                _ => VmmError::NewTap(name.clone(), e),
            };
            let made = link::make(name, host_mac.map(Mac::bytes)).map_err(failed)?;
            Tap::over(made).map_err(failed)
        }
        TapWanted::Inherited(fd) => {
            let failed = |e| VmmError::NotTap(Place::Inherited(*fd), e);
            Tap::over(inherited.take(*fd).map_err(failed)?).map_err(failed)
        }
    }
}

fn open_disk(path: Place, access: Access, inherited: &mut Inherited) -> Result<Disk, VmmError> {
    let disk = match &path {
        Place::Path(path) => Disk::open(path, access),
        Place::Inherited(fd) => inherited
            .take(*fd)
            .map_err(DiskError::Open)
            .and_then(|fd| Disk::over(fd.into(), access)),
    };
    disk.map_err(|source| VmmError::Disk { path, source })
}

/// Opens the log without emptying it, because nothing may come of the guest.
fn open_serial(
    name: Place,
    inherited: &mut Inherited,
    made: &mut Made,
) -> Result<Source, VmmError> {
    let file = match &name {
        Place::Inherited(fd) => inherited.take(*fd).map(File::from).and_then(serial::check),
        Place::Path(path) => make_or_open(path, made),
    };
    match file {
        Ok(file) => Ok(Source { name, file }),
        Err(error) => Err(VmmError::SerialLog(name, error)),
    }
}

fn make_or_open(path: &Path, made: &mut Made) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Only its owner reads it: it may hold what the guest's owner types.
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            made.add(path.to_owned(), Until::Running);
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

fn open_control(
    place: &Place,
    inherited: &mut Inherited,
    made: &mut Made,
) -> Result<Control, VmmError> {
    match place {
        Place::Path(path) => Control::listen(path, made),
        Place::Inherited(fd) => {
            let failed = |e| VmmError::NotControl(place.clone(), e);
            Control::over(inherited.take(*fd).map_err(failed)?).map_err(failed)
        }
    }
}
