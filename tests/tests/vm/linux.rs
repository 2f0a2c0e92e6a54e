//! Linux as the guest of a microVM: Debian's kernel under KVM, in a VM whose
//! processor is emulated and has SVM.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ghostd_tests::{
    clock::wait_for,
    microvm::{Ended, MicroVm, Spec},
    vm::{self, Kernel, inside, is_vm},
};
use serde_json::json;

const INIT: &str = include_str!("guest.sh");
const KERNEL: &str = "/linux/vmlinuz";
const INITRD: &str = "/linux/initrd";
const DISK: &str = "/tmp/disk";
const GUEST: [u8; 4] = [10, 79, 0, 2];

/// A boot on a processor that is emulated by one that is shared with others.
const BOOT_LIMIT: Duration = Duration::from_secs(100);

/// What the VM is given: KVM, a tap, and a guest to be.
fn host() -> Result<vm::Spec> {
    if is_vm() {
        return Ok(vm::Spec::default());
    }
    let kernel = Kernel::find()?;
    let initrd = vm::initrd(&kernel, &["virtio_mmio", "virtio_net", "virtio_blk"], INIT)?;
    vm::Spec::default()
        .memory_mib(1536)
        .modules(&["kvm-amd", "tun"])
        .file(&kernel.image, KERNEL)
        .content(INITRD, initrd)
        .built("GHOST_VMM_BIN", "ghost-vmm")?
        .tools(&["ip"])
}

fn ip(words: &str) -> Result<()> {
    let status = Command::new("ip").args(words.split(' ')).status()?;
    ensure!(status.success(), "ip {words}");
    Ok(())
}

/// A guest that serves.
fn serving() -> Result<MicroVm> {
    ip("tuntap add dev guest0 mode tap vnet_hdr")?;
    ip("addr add 10.79.0.1/24 dev guest0")?;
    ip("link set guest0 up")?;
    fs::File::create(DISK)?.set_len(1 << 20)?;
    let spec = Spec {
        image: KERNEL.into(),
        memory_mib: 256,
        vcpus: 1,
        command_line: "console=ttyS0 panic=-1".to_owned(),
        more: [
            "--at-end",
            "exit",
            "--initrd",
            INITRD,
            "--disk",
            DISK,
            "--tap",
            "guest0",
            "--mac",
            "02:00:00:00:00:79",
        ]
        .map(str::to_owned)
        .to_vec(),
        has_control: true,
        cgroup: None,
        wrapper: Vec::new(),
    };
    let mut vm = MicroVm::start(&spec)?;
    ensure!(vm.event()?["event"] == "started");
    wait_for("the guest to serve", BOOT_LIMIT, || {
        vm.console().contains("guest: serving").then_some(())
    })
    .with_context(|| vm.console())?;
    Ok(vm)
}

fn connect() -> Result<TcpStream> {
    let address = SocketAddr::from((GUEST, 80));
    let stream = TcpStream::connect_timeout(&address, BOOT_LIMIT)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(BOOT_LIMIT))?;
    Ok(stream)
}

fn get(path: &str) -> Result<String> {
    let mut stream = connect()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Tells the guest how to end, and waits for that.
fn end(vm: MicroVm, how: &str) -> Result<Ended> {
    let mut stream = connect()?;
    write!(stream, "GET /cgi-bin/{how} HTTP/1.0\r\n\r\n")?;
    vm.ended()
}

#[test]
fn a_linux_guest_serves_writes_its_disk_and_resets() -> Result<()> {
    inside(
        "linux::a_linux_guest_serves_writes_its_disk_and_resets",
        host()?,
        || {
            ensure!(Path::new("/dev/kvm").exists(), "there is no KVM in the VM");
            let vm = serving()?;
            let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
            let answer = get("/release")?;
            ensure!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            ensure!(answer.ends_with(&format!("\r\n\r\n{release}")), "{answer}");
            let mut written = [0; 21];
            fs::File::open(DISK)?.read_exact_at(&mut written, 8 * 512)?;
            ensure!(&written == b"written by the guest\n", "{written:?}");
            let client = vm.connect()?;
            ensure!(client.ask("pause")?.json["answer"] == "paused");
            let generation = "00112233445566778899aabbccddeeff";
            let command = json!({"command":"activate","generation":generation});
            let answer = client.ask_with(&command, None)?.json;
            ensure!(answer["answer"] == "activated", "{answer}");
            wait_for("fresh random numbers", BOOT_LIMIT, || {
                let news = "crng reseeded due to virtual machine fork";
                vm.console().contains(news).then_some(())
            })
            .with_context(|| vm.console())?;
            let ended = end(vm, "reset")?;
            let last = ended.events.last().context("an event")?;
            ensure!(last["reason"] == "reset", "{last}");
            ensure!(
                last["port"] == json!(0x64) && last["value"] == json!(0xfe),
                "{last}"
            );
            ensure!(ended.status.code() == Some(0), "{:?}", ended.status);
            Ok(())
        },
    )
}
