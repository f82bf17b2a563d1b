//! A world leaves nothing behind, also when the test program is killed.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use openelb_tests::{Deadline, Network, Program, eventually, scenario};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Set for the program that is to be killed.
const VICTIM: &str = "OPENELB_TEST_VICTIM";

/// The body of the program that is killed below; on its own, an empty world.
#[test]
fn a_world_that_waits() {
    scenario(async || {
        if std::env::var_os(VICTIM).is_none() {
            return Ok(());
        }
        let network = Network::start(2).await?;
        let node = network.node("n1")?;
        let sleeper = node
            .namespace()
            .program(Program::new("sleeper", "sleep").arg("86400.125"))
            .start(network.folder().path())?;
        println!("folder {}", network.folder().path().display());
        sleeper.ended(Deadline::LONG).await?;
        Ok(())
    });
}

#[tokio::test]
async fn a_killed_test_program_leaves_no_process_and_no_folder() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_left::a_world_that_waits", "--nocapture"])
        .env(VICTIM, "yes")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut output = BufReader::new(victim.stdout.take().context("no output")?).lines();
    let folder = loop {
        let line = output
            .next_line()
            .await?
            .context("the world did not say where its folder is")?;
        if let Some((_, path)) = line.split_once("folder ") {
            break path.to_owned();
        }
    };
    let folder = Path::new(&folder);
    ensure!(folder.exists(), "{} is not there", folder.display());
    eventually("the world's process", Deadline::SHORT, async || {
        ensure!(sleepers()? > 0, "not seen from outside");
        Ok(())
    })
    .await?;

    victim.kill().await?;
    let world = folder.parent().context("the folder has no parent")?;
    eventually(
        "the end of all that was in the world",
        Deadline::SHORT,
        async || {
            let sleepers = sleepers()?;
            ensure!(sleepers == 0, "{sleepers} processes");
            ensure!(!world.exists(), "the folder {}", world.display());
            Ok(())
        },
    )
    .await
}

/// How many processes of the world above there are on this machine, by their unusual argument.
fn sleepers() -> Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        found += usize::from(command.starts_with("sleep") && command.contains("86400.125"));
    }
    Ok(found)
}
