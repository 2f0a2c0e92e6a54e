//! A kernel of plain tables, and packets built the slow way.
#![allow(dead_code)]

pub(crate) mod build;
pub(crate) mod tables;

use agent_common::packet::{
    Action, ActionKind, Errand, Header, Link, SliceFrame, Work, steer, steer_error,
};
use build::{Ends, Slow, TCP, UDP};
use tables::{Places, Tables};

/// Runs one frame as the BPF programs do.
pub(crate) fn run<A: Places + Header>(tables: &Tables<A>, frame: &mut [u8]) -> Action {
    let mut frame = SliceFrame(frame);
    let Some(link) = Link::parse(&frame) else {
        return Action::PASS;
    };
    if link.ethertype_raw != A::ETHERTYPE_RAW {
        return Action::PASS;
    }
    let action = steer(tables, &mut frame, link, &mut Work::BLANK.clone());
    if action.kind == ActionKind::Error {
        let mut errand = Errand::BLANK;
        return steer_error(tables, &mut frame, link, &mut errand);
    }
    action
}

pub(crate) fn request<A: Places>(src_port: u16, dst_port: u16) -> Ends<A> {
    Ends {
        src: A::CLIENT,
        dst: A::SERVICE,
        src_port,
        dst_port,
    }
}

/// A protocol of the family, by number in 0..3.
pub(crate) fn protocol<A: Slow>(which: u8) -> u8 {
    [TCP, UDP, A::ICMP][usize::from(which)]
}
