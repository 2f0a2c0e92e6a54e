//! Each state at rest with each input, as a file that a person can read.

use std::{env, fmt::Write as _, fs, path::Path};

use agent_common::abi::Side;

use super::super::{Effect, Input, Life, Step, step};
use crate::{
    model::{GhostState, GuestEnd, PrimaryState},
    orchestrate::vms::VmOrder,
};

const ORDERS: [VmOrder; 10] = [
    VmOrder::Create,
    VmOrder::Pause,
    VmOrder::Resume,
    VmOrder::Reset,
    VmOrder::Destroy,
    VmOrder::Prepare,
    VmOrder::Activate,
    VmOrder::Suspend,
    VmOrder::DestroyGhost,
    VmOrder::Drill,
];

fn primaries() -> [PrimaryState; 7] {
    [
        PrimaryState::Absent,
        PrimaryState::Running,
        PrimaryState::Paused,
        PrimaryState::Standby,
        PrimaryState::Ended(GuestEnd::Reset),
        PrimaryState::Ended(GuestEnd::Vanished),
        PrimaryState::Failed("why".to_owned()),
    ]
}

fn ghosts() -> [GhostState; 6] {
    [
        GhostState::Absent,
        GhostState::Suspended { epoch: 0 },
        GhostState::Suspended { epoch: 3 },
        GhostState::Active { epoch: 3 },
        GhostState::Destroyed,
        GhostState::Failed("why".to_owned()),
    ]
}

fn inputs() -> Vec<(String, Input)> {
    let orders = ORDERS.map(|order| (format!("{order:?}"), Input::Order(order)));
    let mut all = orders.to_vec();
    for (side, armed) in [
        (Side::Primary, true),
        (Side::Primary, false),
        (Side::Ghost, true),
    ] {
        for end in [GuestEnd::Reset, GuestEnd::PoweredOff, GuestEnd::Vanished] {
            let name = format!("{side:?} {end:?}{}", if armed { ", armed" } else { "" });
            all.push((name, Input::Ended { side, end, armed }));
        }
    }
    all
}

fn state(life: &Life) -> String {
    let epoch = life
        .ghost
        .epoch()
        .map_or(String::new(), |e| format!("({e})"));
    format!("{} / {}{epoch}", life.primary.name(), life.ghost.name())
}

fn steps(steps: &[Step]) -> String {
    let words: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
    words.join(", ")
}

#[test]
fn each_state_with_each_input() {
    let mut table = String::from(
        "# PRIMARY / GHOST: input -> what is done -> how it is then. What is refused or without\n\
         # effect is named by the reason, or `-`. Regenerate with BLESS=1.\n",
    );
    for primary in primaries() {
        for ghost in ghosts() {
            let (primary, ghost) = (primary.clone(), ghost.clone());
            let life = Life {
                primary,
                ghost,
                job: None,
            };
            let _ = writeln!(table, "\n{}", state(&life));
            for (name, input) in inputs() {
                let (next, effect) = step(life.clone(), input);
                let told = match effect {
                    Effect::Nothing => format!("- -> {}", state(&next)),
                    Effect::Refuse(no) => format!("refused: {no:?}"),
                    Effect::Run(run) => {
                        let (end, _) = step(next.clone(), Input::Done);
                        format!("{} -> {}", steps(&run), state(&end))
                    }
                    Effect::Undo(undo) => format!("undo {}", steps(&undo)),
                };
                let _ = writeln!(table, "    {name}: {told}");
            }
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ghost/life/matrix.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(&golden, &table).unwrap();
    }
    let kept = fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        kept == table,
        "{} differs; BLESS=1 rewrites it",
        golden.display()
    );
}
