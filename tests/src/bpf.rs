//! The built BPF object, loaded for `BPF_PROG_TEST_RUN`: single frames through
//! the programs, without a daemon.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_common::abi::names;
use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
    util::nr_cpus,
};

use crate::netns::NetNs;

/// Actions of XDP (include/uapi/linux/bpf.h).
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// Bytes by which a program may lengthen a frame: the head of an ICMPv6 error.
const GROWTH_MAX: usize = 64;

/// Path of the built object: `GHOSTD_BPF_OBJECT`, else where xtask puts it.
pub fn object_path() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/ghostd.bpf.o");
    env::var_os("GHOSTD_BPF_OBJECT").map_or_else(|| built.into(), PathBuf::from)
}

/// How many rows the tables of an [`Object`] have room for.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Per family.
    pub routes: u32,
    pub instances: u32,
}

/// What a program made of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub action: u32,
    pub frame: Vec<u8>,
}

/// What a program made of a frame by many runs, each over what the run before
/// it had left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// Of the last run.
    pub last: Outcome,
    /// The kernel's clock, divided by the runs.
    pub each: Duration,
}

/// A loaded object with tables of its own, unpinned: gone when dropped.
pub struct Object {
    ebpf: Ebpf,
}

impl Object {
    /// Loads both XDP programs; the tables are empty.
    pub fn load(room: Room) -> Result<Self> {
        let bytes = read(&object_path(), "cargo xtask build-ebpf")?;
        let mut loader = EbpfLoader::new();
        for name in [names::ROUTES_V4, names::ROUTES_V6] {
            loader.map_max_entries(name, room.routes);
        }
        for name in [names::REVERSE_V4, names::REVERSE_V6, names::COUNTERS] {
            loader.map_max_entries(name, room.routes * 2);
        }
        for name in [names::SWITCHES, names::INSTANCES] {
            loader.map_max_entries(name, room.instances);
        }
        let ebpf = loader.load(&bytes).context("load the BPF object")?;
        Self::with_programs(ebpf, &[names::STEER, names::PORT])
    }

    /// Loads the programs that the daemon's are measured against.
    pub fn load_floor(names: &[&str]) -> Result<Self> {
        let path = object_path().with_file_name("floor.bpf.o");
        let bytes = read(&path, "cargo xtask bench steer")?;
        let ebpf = EbpfLoader::new().load(&bytes).context("load the floor")?;
        Self::with_programs(ebpf, names)
    }

    fn with_programs(mut ebpf: Ebpf, names: &[&str]) -> Result<Self> {
        for &name in names {
            let program = ebpf.program_mut(name).context(name.to_owned())?;
            let program: &mut Xdp = program.try_into()?;
            program
                .load()
                .with_context(|| format!("load program {name}"))?;
        }
        Ok(Self { ebpf })
    }

    pub fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.ebpf.program(name);
        Ok(program.context(name.to_owned())?.try_into()?)
    }

    pub fn program_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program.context(name.to_owned())?.try_into()?)
    }

    /// Runs `program` once over `frame`, as if it came in by interface
    /// `ingress` of the caller's network namespace.
    pub fn run(&self, program: &str, frame: &[u8], ingress: u32) -> Result<Outcome> {
        self.run_linear(program, frame, frame.len(), ingress)
    }

    /// As [`Self::run`], with only the first `linear` bytes of the frame where
    /// the program can see them, as some drivers lay frames out. Kernels before
    /// 6.18 refuse a `linear` that is not the whole frame (`EINVAL`).
    pub fn run_linear(
        &self,
        program: &str,
        frame: &[u8],
        linear: usize,
        ingress: u32,
    ) -> Result<Outcome> {
        let mut out = vec![0; frame.len() + GROWTH_MAX];
        let context = xdp_md(linear, ingress);
        let result = self.program(program)?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })?;
        let bytes = result.data_size_out as usize;
        ensure!(bytes <= out.len(), "the frame grew to {bytes} bytes");
        out.truncate(bytes);
        Ok(Outcome {
            action: result.return_value,
            frame: out,
        })
    }

    /// Runs `program` `times` over one frame, which comes back to it as the run
    /// before has left it. Otherwise as [`Self::run`].
    pub fn repeat(
        &self,
        program: &str,
        frame: &[u8],
        ingress: u32,
        times: u32,
    ) -> Result<Repeated> {
        let mut out = vec![0; frame.len() + GROWTH_MAX];
        let context = xdp_md(frame.len(), ingress);
        let result = self.program(program)?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: times,
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok(Repeated {
            last: Outcome {
                action: result.return_value,
                frame: out,
            },
            each: result.duration,
        })
    }

    /// Has `frames` copies of a frame come in by interface `ingress`, and the
    /// kernel carry out what `program` says of each. Gives the time it took.
    ///
    /// The kernel makes `batch` pages or a few more, and uses them again and
    /// again without writing the frame anew: a page that comes back holds what
    /// the program, or the stack, has made of it.
    pub fn live(
        &self,
        program: &str,
        frame: &[u8],
        ingress: u32,
        frames: u32,
        batch: u32,
    ) -> Result<Duration> {
        let context = xdp_md(frame.len(), ingress);
        let program = self.program(program)?;
        let started = Instant::now();
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        })?;
        Ok(started.elapsed())
    }

    /// Attaches a program until the object is dropped.
    pub fn attach(
        &mut self,
        program: &str,
        ns: &NetNs,
        interface: &str,
        mode: XdpMode,
    ) -> Result<()> {
        let what = format!("attach {program} to {interface} in {}", ns.name());
        let program = self.program_mut(program)?;
        ns.run(|| program.attach(interface, mode))?.context(what)?;
        Ok(())
    }

    /// Sets an element of an array.
    pub fn set<V: Pod>(&mut self, map: &str, index: u32, value: V) -> Result<()> {
        let mut map: Array<&mut MapData, V> = self.map_mut(map)?.try_into()?;
        Ok(map.set(index, value, 0)?)
    }

    pub fn get<V: Pod>(&self, map: &str, index: u32) -> Result<V> {
        let map: Array<&MapData, V> = self.map(map)?.try_into()?;
        Ok(map.get(&index, 0)?)
    }

    /// The elements of all possible CPUs.
    pub fn per_cpu<V: Pod>(&self, map: &str, index: u32) -> Result<Vec<V>> {
        let map: PerCpuArray<&MapData, V> = self.map(map)?.try_into()?;
        Ok(map.get(&index, 0)?.to_vec())
    }

    /// Sets an element of a per-CPU array alike on all CPUs.
    pub fn set_per_cpu<V: Pod>(&mut self, map: &str, index: u32, value: V) -> Result<()> {
        let cpus = nr_cpus().map_err(|(path, error)| anyhow::Error::new(error).context(path))?;
        let mut map: PerCpuArray<&mut MapData, V> = self.map_mut(map)?.try_into()?;
        let values = PerCpuValues::try_from(vec![value; cpus])?;
        Ok(map.set(index, values, 0)?)
    }

    /// Inserts or replaces a row of a hash table.
    pub fn insert<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = self.map_mut(map)?.try_into()?;
        Ok(map.insert(key, value, 0)?)
    }

    /// Removes a row of a hash table.
    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: &K) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = self.map_mut(map)?.try_into()?;
        Ok(map.remove(key)?)
    }

    pub fn lookup<K: Pod, V: Pod>(&self, map: &str, key: &K) -> Result<V> {
        let map: HashMap<&MapData, K, V> = self.map(map)?.try_into()?;
        Ok(map.get(key, 0)?)
    }

    /// All rows of a hash table.
    pub fn rows<K: Pod, V: Pod>(&self, map: &str) -> Result<Vec<(K, V)>> {
        let map: HashMap<&MapData, K, V> = self.map(map)?.try_into()?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    /// Names in the object, sorted; of maps without those that hold globals
    /// (`.data`, `.rodata`), which the compiler names.
    pub fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let maps = self.ebpf.maps().map(|(name, _)| name);
        let mut maps: Vec<_> = maps.filter(|name| !name.starts_with('.')).collect();
        let mut programs: Vec<_> = self.ebpf.programs().map(|(name, _)| name).collect();
        maps.sort_unstable();
        programs.sort_unstable();
        (maps, programs)
    }

    /// What the kernel knows of a map.
    pub fn info(&self, map: &str) -> Result<MapInfo> {
        match self.map(map)? {
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::RingBuf(data) => Ok(data.info()?),
            _ => bail!("{map} is of a type that ghostd does not use"),
        }
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).context(name.to_owned())
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).context(name.to_owned())
    }
}

fn read(path: &Path, build: &str) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}: build it with `{build}`", path.display()))
}

/// `struct xdp_md` (include/uapi/linux/bpf.h) as input of a test run.
pub fn xdp_md(frame_bytes: usize, ingress: u32) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&(frame_bytes as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&ingress.to_ne_bytes());
    context
}
