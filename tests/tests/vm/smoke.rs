//! The VM itself: its kernel, its cgroup controllers, how it ends.

use std::fs;

use anyhow::{Result, ensure};
use ghostd_tests::vm::{Spec, inside};

#[test]
fn the_vm_has_what_the_host_lacks() -> Result<()> {
    inside(
        "smoke::the_vm_has_what_the_host_lacks",
        Spec::default(),
        || {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
            ensure!(release.starts_with("6.1."), "{release}");
            let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
            for wanted in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"] {
                let has = controllers.split_whitespace().any(|name| name == wanted);
                ensure!(has, "no controller {wanted} in: {controllers}");
            }
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")?;
            fs::create_dir("/sys/fs/cgroup/smoke")?;
            fs::write("/sys/fs/cgroup/smoke/memory.max", "8M")?;
            ensure!(fs::read_to_string("/sys/fs/cgroup/smoke/memory.max")? == "8388608\n");
            Ok(())
        },
    )
}

#[test]
fn what_a_command_says_and_its_exit_code_come_back() -> Result<()> {
    let outcome = Spec::default().run(&["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(
        outcome.code == 7 && outcome.output == "out\nerr\n",
        "{outcome:?}"
    );
    Ok(())
}

#[test]
fn a_vm_that_dies_is_told_with_its_console() -> Result<()> {
    let words = "rdinit=/nothing root=none";
    let outcome = Spec::default().kernel_words(words).run(&["true"]);
    let error = match outcome {
        Ok(outcome) => anyhow::bail!("it lived: {outcome:?}"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(error.contains("without a result"), "{error}");
    ensure!(error.contains("Kernel panic"), "{error}");
    Ok(())
}
