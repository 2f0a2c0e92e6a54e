use kvm_bindings::{
    CpuId, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::{
    error::StateError,
    features,
    fit::{self, Here},
    header::{self, BODY_BYTES_MAX, HEADER_BYTES},
    wire::{Saved, VcpuState},
};
use crate::vmm::{
    bus::{Bus, BusState},
    serial::{Log, Port},
};

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    }
}

/// A processor with a few features, and addresses of 46 and 48 bits.
fn leaves() -> Vec<kvm_cpuid_entry2> {
    vec![
        leaf(0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        leaf(1, 0, [0x00a0_0f11, 3 << 24, 0b1010, 0b0110]),
        leaf(7, 0, [0, 1 << 5, 0, 0]),
        leaf(0x8000_0008, 0, [0x0030_302e, 0, 0, 0]),
    ]
}

fn vcpu(rip: u64) -> VcpuState {
    VcpuState {
        cpuid: leaves(),
        run: kvm_mp_state::default(),
        registers: kvm_regs {
            rip,
            ..kvm_regs::default()
        },
        system: kvm_sregs::default(),
        extended: kvm_xsave::default(),
        extended_control: kvm_xcrs::default(),
        debug: kvm_debugregs::default(),
        lapic: None,
        msrs: vec![kvm_msr_entry {
            index: 0x10,
            data: 7,
            ..kvm_msr_entry::default()
        }],
        events: kvm_vcpu_events::default(),
    }
}

/// Of a serial port alone.
fn bus() -> BusState {
    let log = memfd_create(c"log", MFdFlags::empty()).unwrap();
    Bus::new(Port::new(Log::start(log.into()).unwrap(), None), Vec::new()).save()
}

fn saved() -> Saved {
    Saved {
        memory_bytes: 16 << 20,
        tsc_khz: 2_000_000,
        clock: Some(kvm_clock_data::default()),
        chips: None,
        vcpus: vec![vcpu(0x10_0000), vcpu(0x20_0000)],
        bus: bus(),
    }
}

fn here() -> Here {
    Here {
        vcpus: 2,
        memory_bytes: 16 << 20,
        has_irqchip: false,
        shown: Vec::new(),
        features: CpuId::from_entries(&leaves()).unwrap(),
        tsc_khz: 2_000_000,
        can_scale_tsc: false,
    }
}

fn refused(saved: &Saved, here: &Here) -> String {
    fit::check(saved, here).unwrap_err().to_string()
}

/// The error of bytes that are no state.
fn damaged(bytes: &[u8]) -> String {
    Saved::decode(bytes).err().unwrap().to_string()
}

/// With a header that fits what was done to it.
fn sealed_again(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn what_was_saved_is_read_again() {
    let bytes = saved().encode().unwrap();
    let again = Saved::decode(&bytes).unwrap();
    assert_eq!(again.vcpus[1].registers.rip, 0x20_0000);
    assert_eq!(again.vcpus[0].msrs[0].data, 7);
    assert_eq!(again.encode().unwrap(), bytes);
    fit::check(&again, &here()).unwrap();
}

#[test]
fn another_version_is_named_before_anything_else_is_looked_at() {
    let mut bytes = saved().encode().unwrap();
    bytes[8] = 7;
    bytes.truncate(HEADER_BYTES);
    let expected = "saved state has version 7, this ghost-vmm knows 1";
    assert_eq!(damaged(&bytes), expected);
    assert_eq!(damaged(&sealed_again(bytes)), expected);
}

#[test]
fn what_is_not_whole_is_refused_with_what_is_missing() {
    let bytes = saved().encode().unwrap();
    let body = bytes.len() - HEADER_BYTES;
    assert_eq!(
        damaged(&bytes[..31]),
        "the saved state is cut off: 31 bytes are there, 32 are needed"
    );
    assert_eq!(
        damaged(&bytes[..bytes.len() - 1]),
        format!(
            "the saved state is cut off: {} bytes are there, {body} are needed",
            body - 1
        )
    );
    let mut longer = bytes.clone();
    longer.push(0);
    let more = body + 1;
    assert_eq!(
        damaged(&longer),
        format!("the saved state has {more} bytes, its header says {body}")
    );
    assert_eq!(
        damaged(&[b'x'; 64]),
        "this is no saved state: it does not begin as one"
    );
    let mut huge = bytes.clone();
    huge[16..24].copy_from_slice(&(BODY_BYTES_MAX + 1).to_le_bytes());
    assert_eq!(
        damaged(&sealed_again(huge)),
        "a saved state of 4194305 bytes is too large, 4194304 is the most"
    );
    // A body of ours with more behind it, in an honest frame.
    let mut body = bytes[HEADER_BYTES..].to_vec();
    body.extend([1, 2, 3]);
    assert_eq!(
        damaged(&header::frame(&body)),
        "the saved state has 3 bytes that nothing accounts for"
    );
}

#[test]
fn each_flipped_bit_is_found() {
    let bytes = saved().encode().unwrap();
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(Saved::decode(&bad).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_state_of_another_machine_is_refused_with_both_numbers() {
    let other = |change: &dyn Fn(&mut Saved)| {
        let mut saved = saved();
        change(&mut saved);
        refused(&saved, &here())
    };
    assert_eq!(
        other(&|s| s.vcpus.truncate(1)),
        "the saved state is of 1 vCPUs, this microVM has 2"
    );
    assert_eq!(
        other(&|s| s.memory_bytes = 4096),
        "the saved state is of 4096 bytes of memory, this microVM has 16777216"
    );
    assert_eq!(
        other(&|s| s.vcpus[1].lapic = Some(kvm_bindings::kvm_lapic_state::default())),
        "the saved state has an interrupt controller, this microVM has not"
    );
    assert_eq!(
        other(&|s| s.vcpus[1].cpuid = vec![leaves()[0]; 257]),
        "vCPU 1 of the saved state has 257 CPUID leaves, more than KVM takes"
    );
}

#[test]
fn a_counter_may_differ_by_as_much_as_kvm_lets_pass() {
    let with = |tsc_khz| Saved { tsc_khz, ..saved() };
    fit::check(&with(2_000_500), &here()).unwrap();
    fit::check(&with(1_999_500), &here()).unwrap();
    assert_eq!(
        refused(&with(2_000_502), &here()),
        "the saved guest's time stamp counter runs at 2000502 kHz, this host's at 2000000 kHz, and KVM cannot scale it"
    );
    assert!(refused(&with(0), &here()).contains("runs at 0 kHz"));
    assert!(refused(&with(1_000_000), &here()).contains("runs at 1000000 kHz"));
    let scaling = Here {
        can_scale_tsc: true,
        ..here()
    };
    fit::check(&with(1_000_000), &scaling).unwrap();
    let unknown = Here {
        tsc_khz: 0,
        ..here()
    };
    fit::check(&with(0), &unknown).unwrap();
}

#[test]
fn a_feature_that_the_host_lacks_is_named() {
    let mut guest = leaves();
    guest[2].ebx |= 1 << 16;
    assert_eq!(
        features::check(&guest, &leaves()).unwrap_err().to_string(),
        "this host lacks a CPU feature that the saved guest may use: leaf 0x7.0, EBX bit 16"
    );
    // More than the guest was shown does no harm.
    features::check(&leaves(), &guest).unwrap();
    // Neither does the vCPU's number.
    let mut guest = leaves();
    guest[1].ebx = 5 << 24;
    features::check(&guest, &leaves()).unwrap();
    let mut guest = leaves();
    guest.push(leaf(0xd, 1, [1, 0, 0, 0]));
    assert_eq!(
        features::check(&guest, &leaves()).unwrap_err().to_string(),
        "this host lacks a CPU feature that the saved guest may use: leaf 0xd.1, EAX bit 0"
    );
}

#[test]
fn another_kind_of_processor_is_refused() {
    let mut guest = leaves();
    guest[0] = leaf(0, 0, [0x10, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
    assert_eq!(
        features::check(&guest, &leaves()).unwrap_err().to_string(),
        "the saved guest uses a processor of GenuineIntel, this host's is of AuthenticAMD"
    );
    let mut guest = leaves();
    guest[3].eax += 2;
    assert_eq!(
        features::check(&guest, &leaves()).unwrap_err().to_string(),
        "the saved guest has 48 bits of physical addresses, this host 46"
    );
}

#[test]
fn a_vcpu_that_has_run_keeps_what_it_was_shown() {
    let shown = || CpuId::from_entries(&leaves()).unwrap();
    let run = Here {
        shown: vec![shown(), shown()],
        ..here()
    };
    fit::check(&saved(), &run).unwrap();
    let mut other = saved();
    other.vcpus[1].cpuid[1].ecx &= !2;
    fit::check(&other, &here()).unwrap();
    assert_eq!(
        refused(&other, &run),
        "vCPU 1 has run already with other CPU features than the saved ones"
    );
}

proptest! {
    /// Bodies whose sums are right, so that all of the decoder is reached.
    #[test]
    fn no_body_makes_the_decoder_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let bytes = saved().encode().unwrap();
        let mut body = bytes[HEADER_BYTES..].to_vec();
        for (at, value) in edits {
            let at = at.index(body.len());
            body[at] = value;
        }
        if is_cut {
            body.truncate(cut.index(body.len()));
        }
        match Saved::decode(&header::frame(&body)) {
            // What it takes it can write, and judge.
            Ok(saved) => {
                saved.encode().unwrap();
                let _ = fit::check(&saved, &here());
            }
            Err(error) => prop_assert!(matches!(
                error,
                StateError::Malformed(_) | StateError::Leftover(_)
            )),
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Saved::decode(&bytes).is_err());
        prop_assert!(Saved::decode(&header::frame(&bytes)).is_err());
    }
}
