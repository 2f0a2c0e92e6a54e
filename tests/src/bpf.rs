//! The built BPF object, loaded for `BPF_PROG_TEST_RUN`: every verdict and
//! every give-up on single frames, without an interface or a daemon.

use std::{env, fs, path::PathBuf};

use agent_common::abi::{
    Control, Filter, HostSwitch, Port, ReverseV4, ReverseV6, RouteCounters, RouteKeyV4, RouteKeyV6,
    RouteV4, RouteV6, Switch, names,
};
use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};

/// Actions of XDP (include/uapi/linux/bpf.h).
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// Path of the built object: `GHOSTD_BPF_OBJECT`, else where xtask puts it.
pub fn object_path() -> PathBuf {
    env::var_os("GHOSTD_BPF_OBJECT").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/bpf/ghostd.bpf.o"
            ))
        },
        PathBuf::from,
    )
}

/// What a program made of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub action: u32,
    pub frame: Vec<u8>,
}

/// A loaded object with tables of its own, unpinned: gone when dropped.
pub struct Object {
    ebpf: Ebpf,
}

impl Object {
    /// Loads with room for `routes` routes per family and `instances` switches.
    pub fn load(routes: u32, instances: u32) -> Result<Self> {
        let path = object_path();
        let bytes = fs::read(&path).with_context(|| {
            format!(
                "read {}: build it with `cargo xtask build-ebpf`",
                path.display()
            )
        })?;
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(aya::VerifierLogLevel::DEBUG);
        for name in [names::ROUTES_V4, names::ROUTES_V6] {
            loader.map_max_entries(name, routes);
        }
        for name in [names::REVERSE_V4, names::REVERSE_V6, names::COUNTERS] {
            loader.map_max_entries(name, routes * 2);
        }
        for name in [names::SWITCHES, names::INSTANCES] {
            loader.map_max_entries(name, instances);
        }
        let mut ebpf = loader.load(&bytes).context("load the BPF object")?;
        for name in [names::STEER, names::PORT] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program
                .load()
                .with_context(|| format!("load program {name}"))?;
        }
        Ok(Self { ebpf })
    }

    /// Runs `program` once over `frame`, as if it came in by interface `ingress`.
    pub fn run(&self, program: &str, frame: &[u8], ingress: u32) -> Result<Outcome> {
        let program: &Xdp = self.ebpf.program(program).context("program")?.try_into()?;
        let mut out = vec![0; frame.len() + 256];
        let ctx = xdp_md(frame.len(), ingress);
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&ctx),
            ..TestRunOptions::new()
        })?;
        ensure!(
            result.data_size_out as usize <= out.len(),
            "frame grew beyond expectation"
        );
        out.truncate(result.data_size_out as usize);
        Ok(Outcome {
            action: result.return_value,
            frame: out,
        })
    }

    fn map<T: TryFrom<&'static mut aya::maps::Map>>(&mut self, _name: &str) -> Option<T> {
        None
    }

    pub fn put_switch(&mut self, slot: u32, switch: Switch) -> Result<()> {
        let mut map: Array<&mut MapData, Switch> = self
            .ebpf
            .map_mut(names::SWITCHES)
            .context(names::SWITCHES)?
            .try_into()?;
        Ok(map.set(slot, switch, 0)?)
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h) as input of a test run.
fn xdp_md(frame_bytes: usize, ingress: u32) -> [u8; 24] {
    let mut ctx = [0; 24];
    ctx[4..8].copy_from_slice(&(frame_bytes as u32).to_ne_bytes());
    ctx[12..16].copy_from_slice(&ingress.to_ne_bytes());
    ctx
}
