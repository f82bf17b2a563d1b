//! The form of logs: each line says who wrote it, and of what object it speaks.

use anyhow::{Context, Result, ensure};
use openelb_tests::ipam::{Asks, Bed, service};
use openelb_tests::webhook::{free, get};
use openelb_tests::{Deadline, Process, Program, binary, eventually, story};
use serde_json::Value;

/// Starts a process as the chart does, on a node and in a pod.
fn start(bed: &Bed, program: &str, name: &str, args: &[&str]) -> Result<Process> {
    Program::new(name, binary(program)?)
        .args(args)
        .arg("--kubeconfig")
        .arg(bed.control.kubeconfig())
        .env("NODE_NAME", "worker")
        .env("POD_NAME", name)
        .start(bed.control.folder().path())
}

#[test]
fn every_line_says_who_wrote_it_as_json_and_as_text() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let json = "--log-format=json";
        let controller = ["controller", "--metrics-addr=0", json, "--log=debug"];
        let controller = start(&bed, "openelb-operator", "controller-a", &controller)?;
        let health = free()?;
        let https = format!("--webhook-port={}", free()?.port());
        let health_addr = format!("--health-addr={health}");
        let serve = [
            "serve",
            "--bind-address=127.0.0.1",
            "--metrics-addr=0",
            &https,
            &health_addr,
            json,
        ];
        let webhook = start(&bed, "openelb-webhook", "webhook-a", &serve)?;
        let speaker = ["speaker", "--metrics-addr=0", "--node-name=worker"];
        let speaker = start(&bed, "openelb-operator", "speaker-a", &speaker)?;
        bed.eip("lan", "192.0.2.1").await?;
        bed.create(&service("web").eip("lan")).await?;
        bed.shows("web", &["192.0.2.1"]).await?;
        eventually("a ready webhook", Deadline::SHORT, async || {
            let answer = get(health, "/readyz").await?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            anyhow::Ok(())
        })
        .await?;
        eventually("a line of the speaker", Deadline::SHORT, async || {
            let log = speaker.log();
            ensure!(log.contains("started"), "{log}");
            anyhow::Ok(())
        })
        .await?;

        for (process, name, pod) in [
            (&controller, "controller", "controller-a"),
            (&webhook, "webhook", "webhook-a"),
        ] {
            for line in complete(&process.log()) {
                let read: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
                ensure!(
                    read["process"] == name && read["node"] == "worker" && read["pod"] == pod,
                    "{line}"
                );
            }
        }
        let log = controller.log();
        let span = r#""service":"default/web""#;
        let of_web = complete(&log)
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["spans"].to_string().contains(span));
        ensure!(
            of_web.count() > 0,
            "no line is in the span of the Service\n{log}"
        );
        for line in complete(&speaker.log()) {
            let end = " process=speaker node=worker pod=speaker-a";
            ensure!(line.ends_with(end), "{line}");
        }
        Ok(())
    });
}

/// The lines that were written to their end.
fn complete(log: &str) -> impl Iterator<Item = &str> {
    let end = log.rfind('\n').map_or(0, |end| end + 1);
    log.get(..end).unwrap_or_default().lines()
}
