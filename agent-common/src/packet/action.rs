//! What becomes of a frame.

/// What becomes of a frame, in one word; see [`super::NextHop`] for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    pub kind: ActionKind,
    /// [`ActionKind::Send`]: the interface. [`ActionKind::TooBig`]: the path MTU.
    pub value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ActionKind {
    /// Up the stack: untouched, or translated whole.
    Pass = 1,
    Drop = 2,
    /// Out of an interface; MAC addresses are set.
    Send = 3,
    /// Answer that it does not fit; the frame is untouched.
    TooBig = 4,
    /// An ICMP error: call [`super::steer_error`]; the frame is untouched.
    Error = 5,
}

impl Action {
    pub const PASS: Self = Self { kind: ActionKind::Pass, value: 0 };
    pub const DROP: Self = Self { kind: ActionKind::Drop, value: 0 };
    pub const ERROR: Self = Self { kind: ActionKind::Error, value: 0 };

    #[inline(always)]
    pub const fn send(egress: u32) -> Self {
        Self { kind: ActionKind::Send, value: egress }
    }

    #[inline(always)]
    pub const fn too_big(mtu: u32) -> Self {
        Self { kind: ActionKind::TooBig, value: mtu }
    }
}
