//! Draws `docs/images/dashboard.svg`: all our processes live for three minutes, with pools that fill up, a router that goes
//! away and comes back, and objects that are refused; then the dashboard's queries are drawn.
//!
//! `cargo run -p openelb-tests --bin draw-dashboard`, as root, after `cargo build --workspace --bins`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Parser;
use openelb_tests::ipam::{Asks, service};
use openelb_tests::monitoring::{Drawn, Monitored, Panel, Series, draw, panels};
use openelb_tests::product::repository;
use openelb_tests::world_of_program;
use serde_json::Value;

#[derive(Parser)]
struct Args {
    /// Where to.
    #[arg(long)]
    file: Option<PathBuf>,
    /// How many steps of life, of two seconds each.
    #[arg(long, default_value_t = 90)]
    steps: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    world_of_program(async || {
        let mut stage = Monitored::start().await?;
        let from = SystemTime::now();
        live(&mut stage, args.steps).await?;
        let until = SystemTime::now();
        let mut drawn = Vec::new();
        for panel in panels()? {
            drawn.push(filled(&stage, panel, (from, until)).await?);
        }
        let picture = draw(&drawn, until.duration_since(from)?.as_secs_f64());
        let usual = repository().join("docs/images/dashboard.svg");
        let file = args.file.unwrap_or(usual);
        std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(&file, picture)?;
        println!("drew {}", file.display());
        Ok(())
    })
}

/// What users and machines do in the time of a picture.
async fn live(stage: &mut Monitored, steps: u32) -> Result<()> {
    stage.bed.eip("lan", "192.0.2.0/27,2001:db8::/112").await?;
    stage.bed.eip("small", "198.51.100.0/29").await?;
    let mut clock = tokio::time::interval(Duration::from_secs(2));
    for step in 0..steps {
        clock.tick().await;
        let pool = if step % 3 == 0 { "small" } else { "lan" };
        let name = format!("web-{step}");
        stage.bed.create(&service(&name).eip(pool)).await?;
        if let Some(old) = step.checked_sub(35) {
            stage.bed.delete(&format!("web-{old}")).await?;
        }
        let address = if step % 4 == 0 {
            "10.0.0.9-10.0.0.1"
        } else {
            "10.0.0.0/24"
        };
        stage.review(address).await?;
        if step == steps / 3 {
            stage.router.kill().await;
        } else if step == steps / 2 {
            stage.router.restart().await?;
        }
    }
    Ok(())
}

/// A panel with what its queries found.
async fn filled(stage: &Monitored, panel: Panel, span: (SystemTime, SystemTime)) -> Result<Drawn> {
    let start = span.0.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    let mut series = Vec::new();
    for target in &panel.targets {
        for found in stage.query_range(&target.expr, span).await? {
            let labels = found.get("metric").unwrap_or(&Value::Null);
            let values = found.get("values").and_then(Value::as_array);
            let points = values.context("no values")?.iter().filter_map(|pair| {
                let second = pair.get(0)?.as_f64()? - start;
                let value: f64 = pair.get(1)?.as_str()?.parse().ok()?;
                value.is_finite().then_some((second, value))
            });
            series.push(Series {
                name: target.name(labels),
                points: points.collect(),
            });
        }
    }
    Ok(Drawn {
        heading: panel.is_heading(),
        unit: panel.unit().to_owned(),
        title: panel.title,
        series,
    })
}
