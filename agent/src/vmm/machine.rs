//! A microVM: KVM's objects, put together in the order KVM wants.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::Instant,
};

use agent_common::guest::CPUS_MAX;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_clock_data};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use nix::sys::eventfd::EventFd;

use super::{
    boot::CommandLine,
    bus::{Bus, Strays},
    cpuid,
    devices::{Devices, RunningDevices},
    error::VmmError,
    eventfd,
    layout::Ram,
    linux, load,
    memory::Memory,
    open::Source,
    serial::{Log, Port},
    state::{Facts, Here},
    system::{Kind, System, Told},
    transfer,
    vcpu::{Ended, Shared, Start, Thread},
    virtio::{Disk, Mac, Tap},
};

/// A microVM's parts, all checked. What they are made of is opened apart.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) ram: Ram,
    pub(super) vcpus: u8,
    pub(super) command_line: CommandLine,
    pub(super) kind: Kind,
    pub(super) mac: Option<Mac>,
    pub(super) start: Start,
}

/// What is opened before a microVM is built of it.
pub(super) struct Parts {
    pub(super) kvm: Kvm,
    pub(super) image: Source,
    pub(super) initrd: Option<Source>,
    pub(super) memory_copy: Option<Source>,
    pub(super) serial: Source,
    pub(super) tap: Option<Tap>,
    pub(super) disk: Option<Disk>,
}

/// Where KVM keeps what Intel's real mode needs: below 4 GiB, away from RAM and devices.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A microVM that has not run yet.
pub(super) struct Machine {
    vcpus: Vec<(VcpuFd, Facts)>,
    here: Here,
    vm: VmFd,
    bus: Bus,
    devices: Devices,
    /// Written to by devices that have used a buffer, for a guest that polls.
    news: EventFd,
    /// Tells a guest that takes interrupts of another generation id.
    renewed: Option<EventFd>,
    memory: Memory,
    ram: Ram,
}

impl Machine {
    /// What can be refused is refused before anything is made.
    pub(super) fn build(plan: &Plan, parts: Parts) -> Result<Self, VmmError> {
        let Parts {
            kvm,
            image: source,
            initrd,
            memory_copy,
            serial,
            tap,
            disk,
        } = parts;
        let file = load::image(&source, plan.ram)?;
        let system = System::parse(plan.kind, &file, plan.ram).map_err(|e| VmmError::Image {
            path: source.name,
            source: e,
        })?;
        let memory = load::memory(memory_copy, &system, plan.ram)?;
        let initrd = initrd.map(|initrd| load::initrd(initrd, &system, plan.ram, &memory));
        let initrd = initrd.transpose()?;
        let vm = kvm
            .create_vm()
            .map_err(|e| VmmError::kvm("make a virtual machine", e))?;
        vm.set_tss_address(TSS_ADDRESS)
            .map_err(|e| VmmError::kvm("place the task segment", e))?;
        attach(&memory, &vm)?;
        if system.has_interrupts() {
            linux::make_chips(&vm)?;
        }
        let features = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| VmmError::kvm("say which CPU features it supports", e))?;
        let features = system.features(features);
        let vcpus = (0..plan.vcpus)
            .map(|cpu| make_vcpu(&vm, &features, &system, cpu))
            .collect::<Result<Vec<_>, _>>()?;
        let has_chips = system.has_interrupts();
        let (here, vcpus) = transfer::survey(&kvm, &vm, vcpus, features, plan.ram, has_chips)?;
        let news = eventfd::new().map_err(|e| VmmError::system("make an eventfd", e))?;
        let line = |number| match has_chips {
            true => linux::line(&vm, number),
            // Wakes a guest that waits at a port.
            false => eventfd::twin(&news).map_err(|e| VmmError::system("share an eventfd", e)),
        };
        let devices = make_devices(tap.zip(plan.mac), disk, &memory, line)?;
        ring_doorbells(&vm, &devices)?;
        let own_line = |number| has_chips.then(|| line(number)).transpose();
        let renewed = own_line(linux::NEWS_LINE)?;
        let serial_line = own_line(linux::SERIAL_LINE)?;
        let told = Told {
            ram: plan.ram,
            cpus: plan.vcpus,
            line: &plan.command_line,
            initrd,
            tsc_khz: here.tsc_khz,
            devices: &devices.views(),
        };
        load::pages(&memory, &system, &told)?;
        // Last, because it empties the log of an earlier guest.
        let log = Log::start(serial.file).map_err(|e| VmmError::SerialLog(serial.name, e))?;
        Ok(Self {
            vcpus,
            here,
            vm,
            bus: Bus::new(Port::new(log, serial_line), devices.slots()),
            devices,
            news,
            renewed,
            memory,
            ram: plan.ram,
        })
    }

    /// Gives its vCPUs threads, and lets them run unless they are to be paused.
    pub(super) fn start(self, start: Start) -> Result<Running, VmmError> {
        let Self {
            vcpus,
            here,
            vm,
            bus,
            devices,
            news,
            renewed,
            memory,
            ram,
        } = self;
        super::kick::install()
            .map_err(|e| VmmError::system("install the handler that stops vCPUs", e))?;
        let wake = eventfd::new().map_err(|e| VmmError::system("make an eventfd", e))?;
        // Each vCPU ends once, so none ever waits for room.
        let (ends, ended) = sync_channel(CPUS_MAX);
        let shared = Shared {
            bus: Arc::new(Mutex::new(bus)),
            memory: Arc::new(memory),
            ends,
            wake: Arc::new(wake),
            news: Arc::new(news),
        };
        let mut running = Running {
            threads: Vec::new(),
            devices: devices.start()?,
            ended,
            shown: vcpus.iter().map(|(_, facts)| facts.cpuid.clone()).collect(),
            tsc_khz: here.tsc_khz,
            here,
            clock: None,
            renewed,
            ram,
            shared,
            vm,
        };
        match start {
            Start::Running => running.has_run(),
            Start::Paused => running.devices.pause(),
        }
        for (vcpu, facts) in vcpus {
            let thread = Thread::start(vcpu, facts, running.shared.clone(), start)
                .map_err(|e| VmmError::system("start the thread of a vCPU", e))?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

/// A microVM whose vCPUs have threads, or had them.
pub(super) struct Running {
    pub(super) threads: Vec<Thread>,
    devices: RunningDevices,
    ended: Receiver<Ended>,
    /// What each vCPU shows to the guest.
    pub(super) shown: Vec<CpuId>,
    pub(super) here: Here,
    /// The guest's idea of its time stamp counter.
    pub(super) tsc_khz: u32,
    /// What KVM's clock is to go on from.
    pub(super) clock: Option<kvm_clock_data>,
    /// Tells a guest that takes interrupts of another generation id.
    pub(super) renewed: Option<EventFd>,
    ram: Ram,
    shared: Shared,
    pub(super) vm: VmFd,
}

impl Running {
    /// Readable when a vCPU has ended.
    pub(super) fn wake(&self) -> &EventFd {
        &self.shared.wake
    }

    /// The first end since last asked, if any.
    pub(super) fn first_end(&self) -> Option<Ended> {
        // Only says that there is something to look for.
        let _ = self.shared.wake.read();
        self.ended.try_recv().ok()
    }

    /// All vCPUs out of the guest, and no device writes to its memory.
    pub(super) fn pause(&mut self) -> Result<(), VmmError> {
        let pausing: Vec<_> = self.threads.iter().map(Thread::pause).collect();
        for vcpu in pausing {
            // One that has ended says so elsewhere.
            vcpu.wait().map_err(VmmError::Stuck)?;
        }
        self.devices.pause();
        Ok(())
    }

    /// Frames that wait for a paused guest. Each is taken once.
    pub(super) fn take_frames(&self) -> Vec<Vec<u8>> {
        self.devices.take_frames()
    }

    /// `false` if the guest has no network.
    pub(super) fn give_frames(&self, frames: Vec<Vec<u8>>) -> bool {
        self.devices.give_frames(frames)
    }

    /// Lets all vCPUs go on. Says when the last one did.
    pub(super) fn resume(&mut self) -> Result<Instant, VmmError> {
        self.devices.resume();
        self.has_run();
        let entering: Vec<_> = self.threads.iter().map(Thread::resume).collect();
        let mut last = Instant::now();
        for vcpu in entering {
            // One that has ended says so elsewhere.
            let entered = vcpu.wait().map_err(VmmError::Stuck)?;
            last = entered.map_or(last, |entered| last.max(entered));
        }
        Ok(last)
    }

    /// From here on, KVM does not let features change.
    fn has_run(&mut self) {
        self.here.shown.clone_from(&self.shown);
    }

    /// Ends all vCPUs and devices. Guest memory stays.
    pub(super) fn stop(&mut self) -> Result<(), VmmError> {
        let stopped: Vec<_> = self.threads.drain(..).map(Thread::stop).collect();
        // After the vCPUs, because nothing wakes them any more then.
        self.devices.stop()?;
        stopped
            .into_iter()
            .collect::<Result<(), u8>>()
            .map_err(VmmError::ThreadDied)
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    pub(super) fn ram(&self) -> Ram {
        self.ram
    }

    pub(super) fn vcpus(&self) -> u8 {
        u8::try_from(self.shown.len()).unwrap_or(u8::MAX)
    }

    pub(super) fn devices(&self) -> &RunningDevices {
        &self.devices
    }

    /// Accesses that no device answered, and bytes that the serial log lost.
    pub(super) fn counts(&self) -> (Strays, u64) {
        let bus = self.bus();
        (bus.strays(), bus.serial_lost_bytes())
    }

    /// Not for long: vCPUs wait for it.
    pub(super) fn bus(&self) -> MutexGuard<'_, Bus> {
        let bus = self.shared.bus.lock();
        bus.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    /// No vCPU outlives what it runs on.
    fn drop(&mut self) {
        // A thread that died is gone all the same.
        let _ = self.stop();
    }
}

fn make_devices(
    net: Option<(Tap, Mac)>,
    disk: Option<Disk>,
    memory: &Memory,
    line: impl Fn(u32) -> Result<EventFd, VmmError>,
) -> Result<Devices, VmmError> {
    let mut devices = Devices::default();
    let mut numbers = linux::DEVICE_LINE..;
    let mut next = || numbers.next().map(&line).transpose();
    if let Some((tap, mac)) = net {
        devices.add_net(tap, mac, memory, next()?)?;
    }
    if let Some(disk) = disk {
        devices.add_block(disk, memory, next()?)?;
    }
    Ok(devices)
}

/// What a driver says to a device goes past its vCPU's thread.
fn ring_doorbells(vm: &VmFd, devices: &Devices) -> Result<(), VmmError> {
    for slot in devices.slots() {
        let (address, event) = slot.doorbell();
        let event = eventfd::for_kvm(event).map_err(|e| VmmError::system("share an eventfd", e))?;
        vm.register_ioevent(&event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|e| VmmError::kvm("listen for a device's driver", e))?;
    }
    Ok(())
}

#[allow(unsafe_code)]
pub(super) fn attach(memory: &Memory, vm: &VmFd) -> Result<(), VmmError> {
    // SAFETY: a thread holds the memory as long as its vCPU is there; before
    // there are threads, a `Machine` holds both and gives up the vCPUs first.
    unsafe { memory.attach(vm) }
}

pub(super) fn make_vcpu(
    vm: &VmFd,
    features: &CpuId,
    system: &System<'_>,
    cpu: u8,
) -> Result<VcpuFd, VmmError> {
    let vcpu = vm
        .create_vcpu(u64::from(cpu))
        .map_err(|e| VmmError::kvm("make a vCPU", e))?;
    vcpu.set_cpuid2(&cpuid::of(features, cpu))
        .map_err(|e| VmmError::kvm("set a vCPU's features", e))?;
    let fresh = vcpu
        .get_sregs()
        .map_err(|e| VmmError::kvm("read a vCPU's system registers", e))?;
    if let Some((sregs, regs)) = system.registers(cpu, fresh) {
        vcpu.set_sregs(&sregs)
            .map_err(|e| VmmError::kvm("set a vCPU's system registers", e))?;
        vcpu.set_regs(&regs)
            .map_err(|e| VmmError::kvm("set a vCPU's registers", e))?;
    }
    Ok(vcpu)
}
