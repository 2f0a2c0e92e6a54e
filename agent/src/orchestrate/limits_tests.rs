//! The ledger of ghosts, held against small reserves.

use super::*;

fn vm(memory_mib: u64) -> VmSpec {
    VmSpec {
        image: "/srv/web.elf".into(),
        initrd: None,
        command_line: String::new(),
        memory_mib,
        vcpus: 1,
        disk: None,
        mac: None,
        host_addresses: Vec::new(),
        health: None,
    }
}

/// Gives nothing to anybody.
fn plan(memory_mib: u64, cpu_milli: u64) -> Plan {
    Plan {
        grants: Vec::new(),
        refusals: Vec::new(),
        reserve: Amounts {
            memory_bytes: memory_mib * MIB,
            cpu_milli,
            ..Amounts::default()
        },
        used: Amounts::default(),
    }
}

fn granting(name: &InstanceName, cpu_milli: u64) -> Plan {
    let grant = Grant {
        name: name.clone(),
        grade: Grade::Huge,
        risk: Risk::TENTH,
        amounts: Amounts {
            memory_bytes: 72 * MIB,
            huge_pages: 36,
            cpu_milli,
            bandwidth: 1,
        },
        cpu_weight: 5,
        epoch_ms: 100,
    };
    Plan {
        grants: vec![grant],
        ..plan(1000, 1000)
    }
}

fn ledger() -> Inner {
    Inner {
        journal: Err("this test changes nothing".to_owned()),
        held: BTreeMap::new(),
        limited: Vec::new(),
    }
}

fn name(text: &str) -> InstanceName {
    text.parse().unwrap()
}

#[test]
fn ghosts_together_never_hold_more_than_the_reserve() {
    let mut ledger = ledger();
    // 64 MiB and 8 MiB of the VMM's.
    let reserve = plan(2 * 72 + 71, 1000);
    ledger.admit(&name("a"), &vm(64), &reserve).unwrap();
    ledger.admit(&name("b"), &vm(64), &reserve).unwrap();
    let over = ledger.admit(&name("c"), &vm(64), &reserve).unwrap_err();
    assert_eq!(
        over.to_string(),
        "the reserve has 71 MiB left, c needs 72 MiB; ghosts hold 144 MiB of 215 MiB"
    );
    assert_eq!(ledger.held.len(), 2);
    // Its own part is not counted against it.
    ledger.admit(&name("b"), &vm(64 + 71), &reserve).unwrap();
    let over = ledger.admit(&name("b"), &vm(64 + 72), &reserve);
    assert!(matches!(over, Err(OverReserve::Memory { .. })));
    ledger.held.remove(&name("a"));
    ledger.admit(&name("c"), &vm(64), &reserve).unwrap();
}

#[test]
fn the_last_of_the_cpu_is_not_given_twice() {
    let mut ledger = ledger();
    ledger
        .admit(&name("a"), &vm(1), &granting(&name("a"), 900))
        .unwrap();
    assert_eq!(ledger.held[&name("a")].amounts.cpu_milli, 900);
    // The plan has changed and gives `b` what `a` has still.
    ledger
        .admit(&name("b"), &vm(1), &granting(&name("b"), 1000))
        .unwrap();
    assert_eq!(ledger.held[&name("b")].amounts.cpu_milli, 100);
    let over = ledger.admit(&name("c"), &vm(1), &plan(1000, 1000));
    assert!(matches!(over, Err(OverReserve::Cpu { left: 0, .. })));
}

#[test]
fn a_ghost_is_held_to_what_it_takes_and_not_to_a_grade_it_cannot_have() {
    let limits = Limits {
        inner: Arc::new(Mutex::new(ledger())),
    };
    let a = name("a");
    limits.admit(&a, &vm(64), &granting(&a, 900)).unwrap();
    let settings = enforce::of_ghost(&limits.inner().held[&a]);
    let value = |file: &str| {
        let found = settings.iter().find(|setting| setting.file == file);
        found.unwrap().value.clone()
    };
    assert_eq!(value("memory.max"), (72 * MIB).to_string());
    assert_eq!(value("hugetlb.2MB.max"), "0");
    assert_eq!(value("cpu.weight"), "5");

    let id = CopyId {
        instance: a.clone(),
        side: Side::Ghost,
    };
    let lacking = limits.apply(&id, &vm(64), None);
    assert_eq!(lacking.len(), settings.len());
    assert_eq!(
        lacking[0].to_string(),
        "not in force: cpu.weight (the instance has no `cgroup`)"
    );
    let lacking = limits.apply(&id, &vm(64), Some(Path::new("/nowhere")));
    assert_eq!(lacking[0].why, "this test changes nothing");
    limits.gone(&id, None);
    assert!(limits.inner().held.is_empty());
}
