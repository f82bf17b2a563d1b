//! The ports of a replica as the API server, the kubelet and Prometheus see them.

use anyhow::{Context, Result, ensure};
use openelb_tests::webhook::get;
use openelb_tests::{Deadline, eventually, story};
use serde_json::{Value, json};

use super::stage::Stage;

/// OpenELB's path, and what it is for there.
const OPENELB: &str = "/validate-network-kubesphere-io-v1alpha2-eip";
/// The path by which OpenELB 0.5 mutated, its name notwithstanding.
const OPENELB_MUTATE: &str = "/validate-network-kubesphere-io-v1alpha2-svc";

fn request(kind: &str, object: Value) -> Value {
    let (group, version) = if kind == "Service" {
        ("", "v1")
    } else {
        ("network.kubesphere.io", "v1alpha2")
    };
    json!({
        "uid": "u", "operation": "CREATE", "userInfo": { "username": "me" },
        "kind": { "group": group, "version": version, "kind": kind }, "object": object,
    })
}

fn eip(address: Value) -> Value {
    request(
        "Eip",
        json!({ "metadata": { "name": "new" }, "spec": { "address": address } }),
    )
}

/// The number of a sample in a page of metrics.
fn sample(page: &str, name: &str) -> Option<f64> {
    page.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn every_path_answers_and_metrics_tell_what_was_answered() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        let replica = &stage.replicas[0];
        let trust = stage.secret("ca.crt").await?;
        let mut client = replica.client(&trust).await?;

        // Each kind has its paths, and whatever comes by any of them is answered.
        for (kind, resource) in [
            ("Eip", "network-kubesphere-io-v1alpha2-eip"),
            ("EipAddress", "network-kubesphere-io-v1alpha2-eipaddress"),
            ("BgpConf", "network-kubesphere-io-v1alpha2-bgpconf"),
            ("BgpPeer", "network-kubesphere-io-v1alpha2-bgppeer"),
            ("Service", "-v1-service"),
        ] {
            for verb in ["mutate", "validate"] {
                let wrong = request(kind, json!({ "metadata": {}, "spec": 5 }));
                let answer = client.ask(&format!("/{verb}-{resource}"), &wrong).await?;
                assert_eq!(answer["uid"], "u");
                assert_eq!(
                    answer["allowed"],
                    verb == "mutate",
                    "{verb} {kind}: {answer}"
                );
            }
        }
        let answer = client.ask(OPENELB_MUTATE, &eip(json!("10.0.0.1"))).await?;
        assert_eq!(answer["patchType"], "JSONPatch", "{answer}");

        // What the API server would never let through reaches the rules in words.
        for (question, said) in [
            (eip(json!(5)), "spec.address: invalid type: integer `5`"),
            (eip(json!(["10.0.0.1"])), "spec.address: invalid type"),
            (request("Eip", json!("lan")), "invalid type: string"),
            (request("Eip", Value::Null), "the review has no object"),
        ] {
            let answer = client.ask(OPENELB, &question).await?;
            let message = answer["status"]["message"].as_str().unwrap_or_default();
            assert!(
                answer["allowed"] == false && message.contains(said),
                "wanted: {said}\nsaid: {answer}"
            );
        }
        let mut future = eip(json!("10.0.0.1"));
        future["kind"]["version"] = json!("v9");
        let answer = client.ask(OPENELB, &future).await?;
        assert_eq!(
            answer["status"]["message"],
            "Eip (network.kubesphere.io/v9) is not a version that openelb-webhook knows; use v1alpha2"
        );
        let pod = client.ask(OPENELB, &request("Pod", json!({}))).await?;
        assert_eq!(pod["allowed"], true);
        assert!(
            pod["warnings"][0]
                .as_str()
                .context("no warning")?
                .contains("has no rules for Pod")
        );
        for (body, status) in [("", 400), ("[]", 400), ("{\"request\":{}}", 400)] {
            assert_eq!(client.post(OPENELB, body).await?.0, status, "{body:?}");
        }
        let large = vec![b' '; (4 << 20) + 1];
        assert_eq!(client.post(OPENELB, large).await?.0, 413);
        assert_eq!(client.post("/metrics", "").await?.0, 404);
        assert_eq!(client.post("/elsewhere", "").await?.0, 404);

        // Known numbers of known answers, and how they show.
        let page = async || get(replica.metrics, "/metrics").await;
        let count = |page: &str, phase: &str, outcome: &str| {
            let labels = format!("{{phase=\"{phase}\",kind=\"Eip\",outcome=\"{outcome}\"}}");
            sample(page, &format!("openelb_webhook_reviews_total{labels}")).unwrap_or_default()
        };
        let timed = "openelb_webhook_review_duration_seconds_count";
        let before = page().await?;
        assert!(before.starts_with("HTTP/1.1 200"), "{before}");
        for _ in 0..3 {
            client.ask(OPENELB, &eip(json!("10.0.0.1"))).await?;
            client.ask(OPENELB, &eip(json!("xxxx"))).await?;
            client.ask(OPENELB_MUTATE, &eip(json!("10.0.0.1"))).await?;
        }
        let after = page().await?;
        for (phase, outcome) in [
            ("validate", "allowed"),
            ("validate", "denied"),
            ("mutate", "patched"),
        ] {
            let more = count(&after, phase, outcome) - count(&before, phase, outcome);
            assert!((more - 3.0).abs() < 0.1, "{phase} {outcome}: {more}");
        }
        let timed_in = |page: &str| -> f64 {
            let series = page.lines().filter(|line| line.starts_with(timed));
            series
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        let more = timed_in(&after) - timed_in(&before);
        assert!((more - 9.0).abs() < 0.1, "{more} reviews were timed");
        let expiry =
            sample(&after, "openelb_webhook_certificate_expiry_seconds").context("no expiry")?;
        let days = (expiry - epoch_seconds()?) / 86_400.0;
        assert!((29.0..30.1).contains(&days), "expires in {days} days");
        assert!(
            sample(
                &after,
                "openelb_webhook_refusals_total{reason=\"too_large\"}"
            ) >= Some(1.0)
        );

        // Health is on a port of its own too, and on the HTTPS port for who asks there.
        let answer = get(replica.health, "/healthz").await?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(client.get("/healthz").await?, 200);
        assert_eq!(client.get("/readyz").await?, 404);
        let answer = get(replica.health, "/metrics").await?;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        Ok(())
    });
}

fn epoch_seconds() -> Result<f64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(now.as_secs_f64())
}

/// Ready means: the Eips are known and the certificate is good. A replica that leaves says so before it stops serving.
#[test]
fn readiness_says_what_is_missing_and_ends_before_the_server_does() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &["--drain-delay=1h"]).await?;
        let replica = &stage.replicas[0];

        // Without the API server nothing changes for a replica that knows its Eips ...
        stage.control.api_server().pause();
        let answer = get(replica.health, "/readyz").await?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // ... and one that starts meanwhile is alive, but not ready.
        replica.process.kill().await;
        replica.process.restart().await?;
        eventually("an answer", Deadline::SHORT, async || {
            let answer = get(replica.health, "/readyz").await?;
            ensure!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            let answer = get(replica.health, "/healthz").await?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            anyhow::Ok(())
        })
        .await?;
        stage.control.api_server().resume();
        replica.ready().await?;
        stage.review().await?;

        // Asked to end, it serves on until clients have learnt that it leaves; asked twice, it ends at once.
        replica.process.terminate();
        eventually("unreadiness", Deadline::SHORT, async || {
            let answer = get(replica.health, "/readyz").await?;
            ensure!(
                answer.starts_with("HTTP/1.1 503") && answer.contains("shutting down"),
                "{answer}"
            );
            anyhow::Ok(())
        })
        .await?;
        stage.review().await?;
        let status = replica.process.stop().await?;
        assert!(status.success(), "ended with {status}");
        Ok(())
    });
}
