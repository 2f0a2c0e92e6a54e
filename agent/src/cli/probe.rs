//! Reads facts for `doctor`: small files under a root, and the interfaces.

use std::{fs, io, path::Path};

use agent_common::abi::names::PROGRAMS;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use tokio::task::JoinSet;

use super::facts::{Facts, Families, ForeignXdp, InterfaceFacts};

/// The kernel's part, from `/proc` and `/sys` under `root`.
pub(super) fn of_kernel(root: &Path) -> Facts {
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let mounts = text("proc/self/mountinfo");
    let mounted = |kind: &str| mounts.as_deref().map(|m| has_mount(m, kind));
    let number = |path: &str| text(path)?.trim().parse().ok();
    Facts {
        capabilities: text("proc/self/status").and_then(|s| effective_capabilities(&s)),
        bpffs: mounted("bpf"),
        tracefs: mounted("tracefs"),
        kernel_release: text("proc/sys/kernel/osrelease").map(|r| r.trim().to_owned()),
        btf: root.join("sys/kernel/btf/vmlinux").exists(),
        jit: number("proc/sys/net/core/bpf_jit_enable"),
        lsm: text("sys/kernel/security/lsm"),
        ..Facts::default()
    }
}

/// proc_pid_mountinfo(5): the type follows a lone `-`.
fn has_mount(mountinfo: &str, kind: &str) -> bool {
    let mut lines = mountinfo.lines().filter_map(|l| l.split_once(" - "));
    lines.any(|(_, rest)| rest.split(' ').next() == Some(kind))
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let mut lines = status.lines().filter_map(|l| l.strip_prefix("CapEff:"));
    u64::from_str_radix(lines.next()?.trim(), 16).ok()
}

pub(super) fn of_interface(root: &Path, name: &str, families: Families) -> InterfaceFacts {
    let value = |family: &str, whose: &str, key: &str| -> Option<u8> {
        let path = format!("proc/sys/net/{family}/conf/{whose}/{key}");
        fs::read_to_string(root.join(path))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let on = |family, whose| Some(value(family, whose, "forwarding")? != 0);
    let rp_filter = value("ipv4", name, "rp_filter").max(value("ipv4", "all", "rp_filter"));
    InterfaceFacts {
        name: name.to_owned(),
        v4_forwarding: on("ipv4", name).filter(|_| families.v4),
        v6_forwarding: on("ipv6", name)
            .zip(on("ipv6", "all"))
            .map(|(own, all)| own && all)
            .filter(|_| families.v6),
        rp_filter: rp_filter.filter(|_| families.v4),
        bridge_port: root.join(format!("sys/class/net/{name}/brport")).exists(),
    }
}

/// Interfaces of this network namespace with an XDP program of others.
pub(super) async fn foreign_xdp() -> io::Result<Vec<ForeignXdp>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let links: Result<Vec<LinkMessage>, _> = handle.link().get().execute().try_collect().await;
    let links = links.map_err(io::Error::other)?;
    let mut found = Vec::new();
    for link in &links {
        if let (Some(interface), Some(program_id)) = (name_of(link), program_of(link)) {
            let program = program_name(program_id);
            if program.as_deref().is_none_or(|p| !PROGRAMS.contains(&p)) {
                found.push(ForeignXdp {
                    interface,
                    program_id,
                    program,
                });
            }
        }
    }
    Ok(found)
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn program_of(link: &LinkMessage) -> Option<u32> {
    let xdp = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    xdp.iter().find_map(|x| match x {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        _ => None,
    })
}

/// `None` without the rights to ask, or when it is gone by now.
fn program_name(id: u32) -> Option<String> {
    let mut programs = aya::programs::loaded_programs().filter_map(Result::ok);
    let info = programs.find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_a_captured_tree() {
        let root = std::env::temp_dir().join(format!("ghostd-facts-{}", std::process::id()));
        let files = [
            (
                "proc/self/mountinfo",
                "36 25 0:32 / /sys/fs/bpf rw - bpf bpf rw,mode=700\n",
            ),
            ("proc/self/status", "Name:\tx\nCapEff:\t000001c000001000\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "1\n"),
            ("proc/sys/net/ipv4/conf/eth0.7/rp_filter", "0\n"),
            ("proc/sys/net/ipv4/conf/eth0.7/forwarding", "1\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "0\n"),
            ("proc/sys/net/ipv6/conf/eth0.7/forwarding", "1\n"),
            ("sys/kernel/btf/vmlinux", ""),
            ("sys/class/net/eth0.7/brport/state", "3\n"),
        ];
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kernel = of_kernel(&root);
        let both = Families { v4: true, v6: true };
        let eth = of_interface(&root, "eth0.7", both);
        let gone = of_interface(
            &root,
            "gone",
            Families {
                v4: false,
                v6: true,
            },
        );
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(kernel.capabilities, Some(0x1c0_0000_1000));
        assert_eq!((kernel.bpffs, kernel.tracefs), (Some(true), Some(false)));
        assert_eq!(kernel.kernel_release.as_deref(), Some("6.1.0-18-amd64"));
        assert!(kernel.btf);
        assert_eq!((kernel.jit, kernel.lsm), (Some(1), None));
        let expected = InterfaceFacts {
            name: "eth0.7".to_owned(),
            v4_forwarding: Some(true),
            v6_forwarding: Some(false),
            rp_filter: Some(1),
            bridge_port: true,
        };
        assert_eq!(eth, expected);
        assert_eq!(
            (gone.v4_forwarding, gone.v6_forwarding, gone.rp_filter),
            (None, None, None)
        );
        assert!(!gone.bridge_port);
    }
}
