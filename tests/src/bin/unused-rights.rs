//! `unused-rights FILE`: which rights of the chart no story of the cluster tier used, by what they wrote to FILE
//! (`OPENELB_RIGHTS`). Fails when there is one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use openelb_tests::product::{render, rights};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.context("usage: unused-rights FILE")?;
    let unused = rights::unused(&render(&[]).await?, &file)?;
    for right in &unused {
        println!("no story used: {right}");
    }
    Ok(if unused.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
