//! Level 3: what people expect of any cluster: names, logs, exec, helm.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_tests::cluster::ANSWER;
use openelb_tests::{Cluster, Deadline, eventually, scenario, tools};

use crate::cluster::deploy_web;

/// A DNS question for addresses of one family, as a packet (RFC 1035 §4.1).
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.extend(u8::try_from(label.len()));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, kind, 0, 1]);
    packet
}

/// How many answers a name server has.
fn answers(cluster: &Cluster, server: &str, kind: u8) -> Result<u16> {
    let packet = question("web.default.svc.cluster.local", kind);
    cluster.node("n2")?.host().namespace().enter(|| {
        let socket = UdpSocket::bind(if server.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        })?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect((server, 53))?;
        socket.send(&packet)?;
        let mut answer = [0; 512];
        socket.recv(&mut answer)?;
        let [_, _, _, flags, _, _, high, low, ..] = answer;
        ensure!(
            flags.trailing_zeros() >= 4,
            "the answer is an error: {answer:?}"
        );
        Ok(u16::from_be_bytes([high, low]))
    })
}

/// From a pod: the Service by its short and its long name and its addresses, each other pod, and itself through the Service.
async fn pods_reach_each_other_by_every_name(cluster: &Cluster) -> Result<()> {
    let kubectl = async |what: &str, path: &str| {
        let path = format!("jsonpath={path}");
        let said = cluster.kubectl(&["get", what, "-o", &path]).await?;
        anyhow::Ok(
            said.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    };
    let pods = kubectl("pods", "{.items[*].metadata.name}").await?;
    let of_pods = kubectl("pods", "{.items[*].status.podIPs[*].ip}").await?;
    let of_service = kubectl("service/web", "{.spec.clusterIPs[*]}").await?;
    ensure!(
        pods.len() == 2 && of_pods.len() == 4 && of_service.len() == 2,
        "{pods:?} {of_pods:?} {of_service:?}"
    );
    let mut questions = Vec::new();
    for name in ["web", "web.default", "web.default.svc.cluster.local"] {
        for family in ["4", "6"] {
            questions.push([name, "80", family]);
        }
    }
    questions.extend(of_service.iter().map(|ip| [ip.as_str(), "80", "any"]));
    questions.extend(of_pods.iter().map(|ip| [ip.as_str(), "8080", "any"]));
    for pod in &pods {
        for [name, port, family] in &questions {
            let ask = ["exec", pod, "--", "/program", "ask", name, port, family];
            let mut nodes = std::collections::BTreeSet::new();
            // A Service leads to every pod, the asking one too.
            let wanted = if *port == "80" { 2 } else { 1 };
            eventually(
                &format!("{pod} to reach {name} ({family})"),
                Deadline::SHORT,
                async || {
                    let said = cluster.kubectl(&ask).await?;
                    nodes.extend(said.split_whitespace().next().map(str::to_owned));
                    ensure!(nodes.len() == wanted, "{said}");
                    Ok(())
                },
            )
            .await?;
        }
    }
    Ok(())
}

#[test]
fn names_resolve_and_logs_and_exec_work() {
    scenario(async || {
        let cluster = Cluster::start(2).await?;
        deploy_web(&cluster).await?;
        for server in ["10.96.0.10", "fd00:96::a"] {
            for kind in [1, 28] {
                eventually("an answer of CoreDNS", Deadline::SHORT, async || {
                    let found = answers(&cluster, server, kind)?;
                    ensure!(found == 1, "{found} answers");
                    Ok(())
                })
                .await?;
            }
        }
        pods_reach_each_other_by_every_name(&cluster).await?;
        let logs = cluster.kubectl(&["logs", "deployment/web"]).await?;
        ensure!(logs.contains("listening on 8080"), "{logs}");
        // The image has no shell; its own program tells what it takes.
        let said = cluster
            .kubectl(&["exec", "deployment/web", "--", "/program"])
            .await
            .unwrap_err();
        ensure!(said.to_string().contains("say `serve PORT`"), "{said}");
        Ok(())
    });
}

#[test]
fn helm_installs_a_chart_with_a_hook() {
    scenario(async || {
        let cluster = Cluster::start(1).await?;
        let chart = tempfile::tempdir()?;
        let write = |name: &str, text: &str| -> Result<()> {
            let path = chart.path().join(name);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            Ok(std::fs::write(path, text)?)
        };
        write(
            "Chart.yaml",
            "apiVersion: v2\nname: small\nversion: 1.0.0\n",
        )?;
        write(
            "templates/map.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: small}\ndata: {who: '{{ .Release.Name }}'}\n",
        )?;
        write(
            "templates/hook.yaml",
            &format!(
                "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: before\n  annotations: {{'helm.sh/hook': pre-install}}\nspec:\n  \
                 backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      terminationGracePeriodSeconds: 1\n      \
                 containers:\n      - {{name: hook, image: '{ANSWER}', imagePullPolicy: Never, command: [/program, check]}}\n"
            ),
        )?;
        let path = chart.path().display().to_string();
        let said = cluster
            .helm(&["install", "first", &path, "--wait", "--timeout", "120s"])
            .await?;
        ensure!(said.contains("STATUS: deployed"), "{said}");
        let who = cluster
            .kubectl(&["get", "configmap", "small", "-o", "jsonpath={.data.who}"])
            .await?;
        ensure!(who == "first", "{who}");
        let done = cluster
            .kubectl(&["get", "job", "before", "-o", "jsonpath={.status.succeeded}"])
            .await?;
        ensure!(done == "1", "the hook did not run: {done}");
        Ok(())
    });
}

/// Starts this program again, for the test below, with the other release.
#[tokio::test]
async fn the_oldest_supported_kubernetes_starts_too() -> Result<()> {
    let began = std::time::Instant::now();
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "cluster_services::the_nodes_are_the_release_asked_for",
            "--nocapture",
        ])
        .env("OPENELB_KUBERNETES", "oldest")
        // What is given there is of one release.
        .env_remove("KUBEBUILDER_ASSETS")
        .env_remove("OPENELB_TOOLS")
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}\nin all {:.1} s", began.elapsed().as_secs_f32());
    ensure!(output.status.success(), "{}", output.status);
    let wanted = format!("kubelet v1.{}.", tools::oldest_minor()?);
    ensure!(said.contains(&wanted), "another release started");
    Ok(())
}

#[test]
fn the_nodes_are_the_release_asked_for() {
    scenario(async || {
        let cluster = Cluster::start(1).await?;
        let version = cluster
            .kubectl(&[
                "get",
                "node",
                "n1",
                "-o",
                "jsonpath={.status.nodeInfo.kubeletVersion}",
            ])
            .await?;
        println!("kubelet {version}");
        ensure!(
            version.starts_with(&format!("v1.{}.", tools::oldest_minor()?)) == tools::oldest(),
            "{version}"
        );
        Ok(())
    });
}
