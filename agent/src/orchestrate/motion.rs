//! How a command changes a control word. Pure.

use agent_common::abi::{Control, Position, flags};

/// What is asked of one switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    Throw,
    Restore,
    Drain,
    /// The end of draining: nothing if the switch has moved since.
    FinishDrain,
    Arm,
    Disarm,
}

impl Motion {
    /// Where the switch points afterwards; `None` if it does not move.
    pub const fn to(self) -> Option<Position> {
        match self {
            Self::Throw => Some(Position::Ghost),
            Self::Restore | Self::FinishDrain => Some(Position::Primary),
            Self::Drain => Some(Position::Draining),
            Self::Arm | Self::Disarm => None,
        }
    }

    /// The word that is to follow `old`; `None` if the switch is there already.
    ///
    /// Whatever moves a switch answers to the host switch in the same word, so
    /// that an old throw of it does not override the new position.
    pub fn apply(self, old: Control, host_generation: u16) -> Option<Control> {
        let now = old.effective(host_generation)?;
        let moved = |position: Position| Control {
            position: position as u8,
            host_generation_seen: host_generation,
            ..old
        };
        let new = match self {
            Self::Throw => (now != Position::Ghost).then(|| moved(Position::Ghost)),
            Self::Restore => (now != Position::Primary).then(|| moved(Position::Primary)),
            Self::Drain => (now == Position::Ghost).then(|| moved(Position::Draining)),
            Self::FinishDrain => (now == Position::Draining).then(|| moved(Position::Primary)),
            Self::Arm => Some(old.reflagged(flags::ARMED, 0, host_generation)),
            Self::Disarm => Some(old.reflagged(0, flags::ARMED, host_generation)),
        };
        new.filter(|new| *new != old)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn control(position: Position, flags: u8, seen: u16) -> Control {
        Control {
            position: position as u8,
            flags,
            host_generation_seen: seen,
            term: 7,
        }
    }

    fn any_control() -> impl Strategy<Value = Control> {
        (1u8..=3, 0u8..=7, any::<u16>(), any::<u32>()).prop_map(|(position, flags, seen, term)| {
            Control {
                position,
                flags,
                host_generation_seen: seen,
                term,
            }
        })
    }

    #[test]
    fn an_unused_slot_never_moves() {
        let unused = Control::from_word(0);
        for motion in [Motion::Throw, Motion::Restore, Motion::Drain, Motion::Arm] {
            assert_eq!(motion.apply(unused, 3), None);
        }
    }

    #[test]
    fn restore_undoes_the_host_switch() {
        let thrown = control(Position::Primary, flags::ARMED, 4);
        assert_eq!(thrown.effective(5), Some(Position::Ghost));
        let back = Motion::Restore.apply(thrown, 5).unwrap();
        assert_eq!(back.effective(5), Some(Position::Primary));
        assert_eq!(back.effective(6), Some(Position::Ghost));
    }

    #[test]
    fn drain_needs_something_at_the_ghost() {
        let primary = control(Position::Primary, flags::TRACK, 0);
        assert_eq!(Motion::Drain.apply(primary, 0), None);
        let draining = control(Position::Draining, flags::TRACK, 0);
        assert_eq!(Motion::Drain.apply(draining, 0), None);
    }

    #[test]
    fn a_drain_that_was_thrown_again_is_not_finished() {
        let thrown = control(Position::Draining, flags::ARMED | flags::TRACK, 0);
        assert_eq!(Motion::FinishDrain.apply(thrown, 1), None);
        assert_eq!(
            Motion::FinishDrain.apply(control(Position::Ghost, 0, 0), 0),
            None
        );
    }

    proptest! {
        #[test]
        fn a_motion_ends_where_it_says(old in any_control(), generation: u16) {
            for motion in [Motion::Throw, Motion::Restore] {
                let end = motion.apply(old, generation).unwrap_or(old);
                prop_assert_eq!(end.effective(generation), motion.to());
                prop_assert_eq!((end.term, end.flags), (old.term, old.flags));
            }
        }

        #[test]
        fn a_motion_done_twice_is_done_once(old in any_control(), generation: u16) {
            for motion in [Motion::Throw, Motion::Restore, Motion::Drain, Motion::Arm, Motion::Disarm] {
                let once = motion.apply(old, generation).unwrap_or(old);
                prop_assert_eq!(motion.apply(once, generation), None);
            }
        }

        #[test]
        fn arming_does_not_move(old in any_control(), generation: u16) {
            for motion in [Motion::Arm, Motion::Disarm] {
                let end = motion.apply(old, generation).unwrap_or(old);
                prop_assert_eq!(end.effective(generation), old.effective(generation));
            }
        }
    }
}
