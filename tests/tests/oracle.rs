//! The oracle itself: the kernel agrees with the kernel, and a NAT that is
//! wrong is found out.

use std::collections::BTreeMap;

use ghostd_tests::{
    host::nft,
    oracle::{Case, Generator, Leaf, Rig, Twins, Verdict, run_cases, run_seed},
    topology::{GHOST_PORT, GHOST_V4, GHOST_V6, SERVICE_V4, SERVICE_V6, Topology},
};

fn kernel_nat(mtu: u32) -> anyhow::Result<Rig> {
    let rig = Rig::over(Topology::with_mtu(mtu)?)?;
    nft::steer_to_ghost(&rig.net.host)?;
    nft::be_liberal(&rig.net.host)?;
    Ok(rig)
}

#[test]
fn the_kernel_agrees_with_itself() -> anyhow::Result<()> {
    for mtu in [1500, 3000] {
        let mut twins = Twins::new(kernel_nat(mtu)?, kernel_nat(mtu)?);
        let mut generator = Generator::new(run_seed()).with_packets_up_to(mtu);
        println!("mtu {mtu}, seed {}", generator.seed());
        for _ in 0..run_cases(2_000) {
            let case = generator.case();
            let verdict = twins.play(&case)?;
            assert_eq!(verdict, Verdict::Same, "{case}");
        }
        println!("{}", twins.tally);
        assert!(twins.tally.frames_out > twins.tally.frames_in / 2);
    }
    Ok(())
}

/// A ruleset that is wrong in one way only.
fn wrong(extra: &str) -> anyhow::Result<Rig> {
    let rig = kernel_nat(1500)?;
    nft::load(&rig.net.host, extra)?;
    Ok(rig)
}

#[test]
fn small_mistakes_are_found_out() -> anyhow::Result<()> {
    let mangle = |family: &str, rule: &str| {
        format!(
            "table {family} wrong {{\n chain post {{\n type filter hook postrouting priority 300\n {rule}\n }}\n }}\n"
        )
    };
    let mistakes = [
        (
            "does not count the TTL down",
            mangle("ip", "ip saddr 203.0.113.0/24 ip ttl set 64"),
        ),
        (
            "forgets a service field",
            mangle("ip6", &format!("oifname {GHOST_PORT} ip6 dscp set 1")),
        ),
        (
            "drops what has options",
            mangle("ip", "ip length > 20 ip hdrlength > 5 drop"),
        ),
        (
            "sends a copy",
            "table ip wrong {\n chain pre {\n type filter hook prerouting priority 0\n ip saddr 203.0.113.0/24 dup to 10.77.1.2 device \"p0\"\n }\n }\n".to_string(),
        ),
        (
            "does not translate",
            format!(
                "flush table ip steer\ntable ip steer {{\n chain pre {{\n ip daddr {SERVICE_V4} udp dport 1-64000 dnat to {GHOST_V4}\n }}\n }}\n"
            ),
        ),
        (
            "translates half",
            format!(
                "flush table ip6 steer\ntable ip6 steer {{\n chain pre {{\n ip6 daddr {SERVICE_V6} meta l4proto tcp dnat to {GHOST_V6}\n }}\n }}\n"
            ),
        ),
    ];
    for (mistake, ruleset) in mistakes {
        let mut twins = Twins::new(kernel_nat(1500)?, wrong(&ruleset)?);
        let mut generator = Generator::new(2);
        let found = (0..2_000).try_fold(false, |found, _| -> anyhow::Result<bool> {
            Ok(found || matches!(twins.play(&generator.case())?, Verdict::Differs(_)))
        })?;
        assert!(found, "nobody noticed a NAT that {mistake}");
    }
    Ok(())
}

#[test]
fn every_past_failure_is_still_readable() -> anyhow::Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "hex") {
            let case: Case = std::fs::read_to_string(&path)?.parse()?;
            assert!(!case.name.is_empty(), "{}", path.display());
        }
    }
    Ok(())
}

#[test]
fn tagged_frames_get_through_as_plain_ones_do() -> anyhow::Result<()> {
    let mut rig = kernel_nat(1500)?;
    let mut generator = Generator::new(3);
    for lane in ["Plain", "Tagged", "Double"] {
        let (mut sent, mut came) = (0, 0);
        for case in std::iter::repeat_with(|| generator.case()).take(2_000) {
            if case.name.ends_with(lane) && case.name.contains(": udp ") {
                for step in &case.steps {
                    sent += 1;
                    came += rig.run(step)?.len();
                }
            }
        }
        assert!(sent > 10, "{lane}");
        assert_eq!(came, sent, "{lane}");
    }
    Ok(())
}

#[test]
fn the_reference_translates_every_kind_of_case() -> anyhow::Result<()> {
    let mut rig = kernel_nat(1500)?;
    let mut generator = Generator::new(4);
    let mut seen: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for case in std::iter::repeat_with(|| generator.case()).take(2_000) {
        let kind = case.name.split(": ").nth(1).unwrap_or_default();
        let kind = kind.rsplit_once(' ').map_or(kind, |(kind, _lane)| kind);
        let count = seen.entry(kind.to_owned()).or_default();
        for step in &case.steps {
            let outs = rig.run(step)?;
            count[0] += 1;
            count[1] += usize::from(!outs.is_empty());
            count[2] += outs.iter().filter(|out| out.at == Leaf::Primary).count();
        }
    }
    assert!(seen.len() >= 26, "{seen:?}");
    for (kind, [steps, fruitful, at_primary]) in seen {
        if kind.starts_with("hostile") {
            assert!(fruitful * 2 > steps, "{kind}: {fruitful} of {steps} steps");
        } else {
            assert!(
                fruitful * 4 > steps * 3,
                "{kind}: {fruitful} of {steps} steps"
            );
            assert_eq!(at_primary > 0, kind.starts_with("not ours"), "{kind}");
        }
    }
    Ok(())
}
