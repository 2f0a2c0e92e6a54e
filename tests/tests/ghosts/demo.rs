//! The demo as a test: work moves while clients of both families ask.

use anyhow::{Result, ensure};
use ghostd_tests::{demo, microvm};

#[test]
fn no_request_fails_when_work_moves_and_none_begun_after_a_reset() -> Result<()> {
    if !microvm::is_possible("no_request_fails_when_work_moves_and_none_begun_after_a_reset") {
        return Ok(());
    }
    ensure!(demo::run()?, "a promise was broken; see the tables");
    Ok(())
}
