//! A world leaves nothing behind, also when the test program is killed.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use openelb_tests::{Cluster, Deadline, Folder, Network, Program, eventually, scenario};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Set for the program that is to be killed, to the level of its world.
const VICTIM: &str = "OPENELB_TEST_VICTIM";

/// The body of the program that is killed below; on its own, an empty world.
#[test]
fn a_world_that_waits() {
    scenario(async || match std::env::var(VICTIM).as_deref() {
        Ok("network") => wait_with(Network::start(2).await?.folder()).await,
        Ok("cluster") => wait_with(Cluster::start(1).await?.network().folder()).await,
        _ => Ok(()),
    });
}

async fn wait_with(folder: &Folder) -> Result<()> {
    // An argument by which the process is known from outside.
    let sleeper = Program::new("sleeper", "sh")
        .args([
            "-c",
            "sleep 1000; true",
            &folder.path().display().to_string(),
        ])
        .start(folder.path())?;
    println!("folder {}", folder.path().display());
    sleeper.ended(Deadline::LONG).await?;
    Ok(())
}

async fn killed_it_leaves_nothing(level: &str) -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_left::a_world_that_waits", "--nocapture"])
        .env(VICTIM, level)
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
    let world = Path::new(&folder)
        .parent()
        .context("the folder has no parent")?;
    eventually("the world's processes", Deadline::SHORT, async || {
        ensure!(!processes(world)?.is_empty(), "not seen from outside");
        Ok(())
    })
    .await?;
    ensure!(
        groups(world)?.is_empty() == (level == "network"),
        "{:?}",
        groups(world)?
    );

    victim.kill().await?;
    eventually(
        "the end of all that was in the world",
        Deadline::SHORT,
        async || {
            let processes = processes(world)?;
            ensure!(processes.is_empty(), "{processes:?}");
            let groups = groups(world)?;
            ensure!(groups.is_empty(), "{groups:?}");
            ensure!(!world.exists(), "the folder {}", world.display());
            let mounts = std::fs::read_to_string("/proc/mounts")?;
            ensure!(!mounts.contains(&world.display().to_string()), "{mounts}");
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_a_network() -> Result<()> {
    killed_it_leaves_nothing("network").await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_a_cluster() -> Result<()> {
    killed_it_leaves_nothing("cluster").await
}

/// The processes of this machine that have a path below the world's folder as an argument, but for the janitor.
fn processes(world: &Path) -> Result<Vec<String>> {
    let below = format!("{}/", world.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&below) {
            found.push(command);
        }
    }
    Ok(found)
}

/// The control groups named after a world.
fn groups(world: &Path) -> Result<Vec<String>> {
    let name = world
        .file_name()
        .context("no name")?
        .to_string_lossy()
        .into_owned();
    let mut found = Vec::new();
    let mut folders = vec!["/sys/fs/cgroup".into()];
    folders.extend(
        std::fs::read_dir("/sys/fs/cgroup")?
            .flatten()
            .map(|entry| entry.path()),
    );
    for folder in folders
        .iter()
        .filter(|folder: &&std::path::PathBuf| folder.is_dir())
    {
        for entry in std::fs::read_dir(folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    Ok(found)
}
