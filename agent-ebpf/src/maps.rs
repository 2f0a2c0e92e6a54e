//! Every map. Names repeat `agent_common::abi::names`: attributes take literals
//! only, and a test compares the built object with that module. Sizes are
//! defaults; the loader sets them from the configuration.

use agent_common::abi::{
    EGRESS_SLOTS, Event, FILTER_WORDS, Flow, FlowKey, FragKey, Fragment, HOP_SLOTS, Hop,
    HostSwitch, IcmpBudget, InstanceRecord, Meta, Port, RECENT_SLOTS, Recent, ReverseV4, ReverseV6,
    RouteCounters, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6, Switch, TaskOffsets,
};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map(name = "gd_meta")]
pub(crate) static META: Array<Meta, 1> = Array::new();
#[btf_map(name = "gd_routes_v4")]
pub(crate) static ROUTES_V4: HashMap<RouteKeyV4, RouteV4, 4096, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "gd_routes_v6")]
pub(crate) static ROUTES_V6: HashMap<RouteKeyV6, RouteV6, 4096, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "gd_reverse_v4")]
pub(crate) static REVERSE_V4: HashMap<RouteKeyV4, ReverseV4, 8192, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "gd_reverse_v6")]
pub(crate) static REVERSE_V6: HashMap<RouteKeyV6, ReverseV6, 8192, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "gd_filter")]
pub(crate) static FILTER: Array<u64, { FILTER_WORDS as usize }> = Array::new();
#[btf_map(name = "gd_switches")]
pub(crate) static SWITCHES: Array<Switch, 1024, MMAPABLE> = Array::new();
#[btf_map(name = "gd_host_switch")]
pub(crate) static HOST_SWITCH: Array<HostSwitch, 1, MMAPABLE> = Array::new();
#[btf_map(name = "gd_instances")]
pub(crate) static INSTANCES: Array<InstanceRecord, 1024> = Array::new();
#[btf_map(name = "gd_counters")]
pub(crate) static COUNTERS: PerCpuArray<RouteCounters, 8192> = PerCpuArray::new();
#[btf_map(name = "gd_flows")]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow, 65536> = LruHashMap::new();
#[btf_map(name = "gd_fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragKey, Fragment, 8192> = LruHashMap::new();
#[btf_map(name = "gd_ports")]
pub(crate) static PORTS: HashMap<u32, Port, 4096, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "gd_egress")]
pub(crate) static EGRESS: Array<u32, { EGRESS_SLOTS as usize }> = Array::new();
#[btf_map(name = "gd_cgroups")]
pub(crate) static CGROUPS: HashMap<u64, u32, 4096, NO_PREALLOC> = HashMap::new();
/// 256 KiB: three thousand events, far more than there are reboots between two
/// reads of the daemon.
#[btf_map(name = "gd_events")]
pub(crate) static EVENTS: RingBuf<Event, { 256 * 1024 }> = RingBuf::new();
#[btf_map(name = "gd_icmp_budget")]
pub(crate) static ICMP_BUDGET: PerCpuArray<IcmpBudget, 1> = PerCpuArray::new();
#[btf_map(name = "gd_hops")]
pub(crate) static HOPS: PerCpuArray<Hop, { HOP_SLOTS as usize }> = PerCpuArray::new();
/// Tasks whose reboot call threw a switch and has not come back, by thread.
/// A call that succeeds never does; 64 is more than call at once.
#[btf_map(name = "gd_callers")]
pub(crate) static CALLERS: LruHashMap<u64, Event, 64> = LruHashMap::new();

/// Flows that were looked up a moment ago.
#[btf_map(name = "gd_recent")]
pub(crate) static RECENT: PerCpuArray<Recent, { RECENT_SLOTS as usize }> = PerCpuArray::new();
/// Working memory of one packet: what the stack has no room for.
#[btf_map(name = "gd_scratch")]
pub(crate) static SCRATCH: PerCpuArray<[u64; 64], 2> = PerCpuArray::new();

#[unsafe(no_mangle)]
pub(crate) static HOST_PIDNS_DEV: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HOST_PIDNS_INO: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HOST_PIDNS_LEVEL: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static TASK_OFFSETS: Global<TaskOffsets> = Global::new(TaskOffsets::ZERO);
