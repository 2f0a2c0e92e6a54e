//! Frames cut at every length: whatever is missing, they pass untouched, and
//! only whole ones are steered.

use std::io;

use agent_common::abi::{FenceMode, IcmpBudget, Port as Row, Reason, Side, names};
use anyhow::Result;
use ghostd_tests::{bpf::XDP_TX, topology::Family};

use crate::{
    lab::{BOTH_PROGRAMS, Got, Lab, Tally::*, arriving, counter, ghost, lab, request},
    packet::{Body, TWO_TAGS, payload},
    place::{Port, at},
    samples::samples,
    toobig::{answer, quote_max},
};
use nix::errno::Errno;

/// The kernel refuses test runs over less.
const LEAST: usize = 14;

/// The ghost's port gets a row, so that its fence is asked, and open.
fn with_ports(lab: &mut Lab) -> Result<()> {
    let row = Row {
        switch: 0,
        side: Side::Ghost as u8,
        fence: FenceMode::Quiet as u8,
        pad: [0; 2],
        lease_ns: u64::MAX,
        fenced_packets: 0,
        term: 5,
        pad1: 0,
    };
    let index = lab.place.index(Port::Wide);
    lab.object.insert(names::PORTS, index, row)
}

#[test]
fn a_frame_cut_anywhere_passes_untouched() -> Result<()> {
    lab(|lab| {
        with_ports(lab)?;
        for sample in samples(lab)? {
            let frame = sample.sent.bytes();
            for bytes in LEAST..frame.len() {
                let cut = &frame[..bytes];
                let what = format!("{bytes} bytes of {}", sample.what);
                lab.expect(&what, sample.ingress, cut, &sample.cut(cut, bytes));
            }
            lab.expect(&sample.what, sample.ingress, &frame, &sample.want);
        }
        Ok(())
    })
}

/// A frame longer than a page of memory comes in several buffers.
#[test]
fn a_jumbo_frame_cut_anywhere_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let sent = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(8900)));
            let frame = sent.bytes();
            let whole = [frame.len() - 1];
            // Around what fits one page, and in steps that meet every phase.
            for bytes in (LEAST..frame.len())
                .step_by(61)
                .chain(3480..3560)
                .chain(whole)
            {
                let cut = &frame[..bytes];
                let mut want = Got::untouched(cut);
                if bytes >= 14 + if family == Family::V4 { 20 } else { 40 } {
                    want = want.counting(counter(family, 0), &[GaveUp(Reason::Malformed)]);
                }
                lab.expect("cut", Port::Uplink, cut, &want);
            }
        }
        Ok(())
    })
}

/// Whether this kernel can lay out a test frame in two parts. Notes it if not.
fn lays_out_parts(lab: &Lab, test: &str) -> Result<bool> {
    let tried = lab.run_linear(names::STEER, Port::Uplink, &[0; 64], 32);
    let Err(error) = tried else { return Ok(true) };
    let errno = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
    };
    if error
        .chain()
        .any(|cause| errno(cause) == Some(Errno::EINVAL as i32))
    {
        ghostd_tests::skip(test, "test runs over frames in parts need kernel 6.18");
        return Ok(false);
    }
    Err(error)
}

fn expect_hidden(
    lab: &Lab,
    what: &str,
    ingress: Port,
    (frame, linear): (&[u8], usize),
    want: &Got,
) -> Result<()> {
    for program in BOTH_PROGRAMS {
        let got = lab.run_linear(program, ingress, frame, linear)?;
        assert!(
            got == *want,
            "{program}, {linear} linear bytes of {what}:\n  want {want}\n  got  {got}"
        );
    }
    Ok(())
}

/// As a driver may lay frames out: the rest is there, but programs see only
/// its beginning.
#[test]
fn headers_that_cannot_be_seen_pass_untouched() -> Result<()> {
    lab(|lab| {
        if !lays_out_parts(lab, "headers_that_cannot_be_seen_pass_untouched")? {
            return Ok(());
        }
        with_ports(lab)?;
        for sample in samples(lab)? {
            let frame = sample.sent.bytes();
            for linear in LEAST..=frame.len() {
                let want = sample.hidden(&frame, linear);
                expect_hidden(lab, &sample.what, sample.ingress, (&frame, linear), &want)?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_answer_quotes_what_can_be_seen() -> Result<()> {
    lab(|lab| {
        if !lays_out_parts(lab, "an_answer_quotes_what_can_be_seen")? {
            return Ok(());
        }
        // As many as are asked for: it is never refilled.
        let budget = IcmpBudget {
            refilled_ns: u64::MAX,
            tokens: u64::MAX,
        };
        lab.object.set_per_cpu(names::ICMP_BUDGET, 0, budget)?;
        for family in Family::BOTH {
            lab.serve(family, 0, at(family, Port::Narrow, 2))?;
            let most = quote_max(family);
            for tags in [&[][..], TWO_TAGS] {
                let sent = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(1400)))
                    .with(|p| p.tags = tags);
                let (frame, l3) = (sent.bytes(), sent.l3());
                let spots = (sent.headers()..l3 + 80).chain(l3 + most - 4..l3 + most + 4);
                for linear in spots {
                    let quote = if linear < l3 + most { 64 } else { most };
                    let answer = answer(&sent, Port::Narrow.mtu(), quote).bytes();
                    for program in BOTH_PROGRAMS {
                        let mut got = lab.run_linear(program, Port::Uplink, &frame, linear)?;
                        let mut want = Got::new(XDP_TX, answer.clone());
                        if linear < l3 + 64 {
                            // Too little to quote: nobody sees what is left of it.
                            want = Got::dropped(&[]);
                            got.frame.clear();
                        }
                        let want = want.counting(counter(family, 0), &[GaveUp(Reason::TooBig)]);
                        assert!(got == want, "{linear}:\n  want {want}\n  got  {got}");
                    }
                }
            }
        }
        Ok(())
    })
}
