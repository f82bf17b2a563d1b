//! What the speaker does before kube-proxy passes an address on. The cluster tier shows it with a real kube-proxy; here it
//! says what a test wants to hear.

use std::net::{IpAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use openelb_tests::bgp::{Daemon, Software};
use openelb_tests::{Deadline, Host, eventually, scenario};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bgp::{ADDRESS, NODES, behind, objects, peer_spec, router};
use super::stage::Stage;

const NEW: &str = "203.0.113.2";

/// kube-proxy's metrics on a node; it is gone when dropped.
struct KubeProxy {
    started: f64,
    metrics: watch::Sender<String>,
    serving: JoinHandle<Result<()>>,
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl KubeProxy {
    /// Starts it; it has not synced yet.
    fn start(node: &Host) -> Result<Self> {
        let listener = node
            .namespace()
            .enter(|| Ok(TcpListener::bind("127.0.0.1:10249")?))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (metrics, told) = watch::channel(String::new());
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await?;
                let mut request = [0; 1024];
                if stream.read(&mut request).await? == 0 {
                    continue;
                }
                let body = told.borrow().clone();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await?;
            }
        });
        let proxy = Self {
            started: now()?,
            metrics,
            serving,
        };
        proxy.tell(0, 0.0, 0.0);
        Ok(proxy)
    }

    /// After so many syncs of 10 ms, the last of which ended then, and was asked for then.
    fn tell(&self, syncs: u32, synced: f64, queued: f64) {
        let took = f64::from(syncs) * 0.01;
        let started = self.started;
        let family = r#"{ip_family="IPv4"}"#;
        let prefix = "kubeproxy_sync_proxy_rules";
        self.metrics.send_replace(format!(
            "process_start_time_seconds {started}\n\
             {prefix}_duration_seconds_count{family} {syncs}\n\
             {prefix}_duration_seconds_sum{family} {took}\n\
             {prefix}_last_timestamp_seconds{family} {synced}\n\
             {prefix}_last_queued_timestamp_seconds{family} {queued}\n"
        ));
    }
}

/// Seconds since 1970.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

#[test]
fn what_kube_proxy_does_not_pass_on_yet_is_not_announced() {
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let daemon = router(&stage, Software::Frr, |peer| peer).await?;
        objects(&stage, &json!({"as": NODES}), &peer_spec(&stage)).await?;
        let node = stage.network.node("n1")?.clone();
        let kube_proxy = KubeProxy::start(&node)?;
        stage.speak("n1", &["--kube-proxy=127.0.0.1:10249"]).await?;
        the_node_has_just_booted(&stage, &daemon, &kube_proxy).await?;
        an_address_is_new(&stage, &daemon, &kube_proxy).await?;
        kube_proxy_dies(stage, &daemon, kube_proxy).await
    });
}

/// Nothing at all before its first sync; and then not before the kubelet had time to tell of lost pods.
async fn the_node_has_just_booted(
    stage: &Stage,
    daemon: &Daemon,
    kube_proxy: &KubeProxy,
) -> Result<()> {
    let speaker = stage.speaker("n1")?;
    let says = async |what: &str| {
        eventually("the reason in the log", Deadline::LONG, async || {
            stage.check()?;
            ensure!(speaker.log().contains(what), "{}", speaker.log());
            anyhow::Ok(())
        })
        .await
    };
    says("kube-proxy has not applied its rules yet").await?;
    eventually("the picture to be complete", Deadline::LONG, async || {
        let ready = ask(stage, "readyz").await?;
        ensure!(
            ready.contains("kube-proxy of this node") && !ready.contains("picture"),
            "{ready}"
        );
        anyhow::Ok(())
    })
    .await?;
    ensure!(routes(daemon, ADDRESS).await? == 0);
    kube_proxy.tell(1, now()?, 0.0);
    says("this node has just booted").await?;
    behind(stage, daemon, &["n1"]).await?;
    says("the wait for kube-proxy is over").await?;
    stage.ready("n1").await
}

async fn an_address_is_new(stage: &Stage, daemon: &Daemon, kube_proxy: &KubeProxy) -> Result<()> {
    // It is restarted: what it knew stays in force, and it says nothing of what is new.
    kube_proxy.tell(0, 0.0, 0.0);
    stage.service("other", "Cluster", NEW).await?;
    stage.endpoints("other", &["n1"]).await?;
    eventually("the address to wait", Deadline::LONG, async || {
        let metrics = ask(stage, "metrics").await?;
        let waits = "openelb_speaker_waiting_for_kube_proxy 1";
        ensure!(metrics.lines().any(|line| line == waits), "{metrics}");
        anyhow::Ok(())
    })
    .await?;
    ensure!(routes(daemon, NEW).await? == 0, "it is announced");
    ensure!(routes(daemon, ADDRESS).await? == 1, "it was withdrawn");
    kube_proxy.tell(1, now()?, 0.0);
    become_known(daemon, NEW, true).await?;
    let log = stage.speaker("n1")?.log();
    ensure!(log.contains("kube-proxy knows the addresses"), "{log}");
    ensure!(!log.contains("announced all the same"), "{log}");
    Ok(())
}

/// Its rules stay, and so does what is announced; also by a speaker that begins then.
async fn kube_proxy_dies(mut stage: Stage, daemon: &Daemon, kube_proxy: KubeProxy) -> Result<()> {
    drop(kube_proxy);
    stage.endpoints("other", &[]).await?;
    become_known(daemon, NEW, false).await?;
    ensure!(routes(daemon, ADDRESS).await? == 1);
    stage.speaker("n1")?.kill().await;
    become_known(daemon, ADDRESS, false).await?;
    stage.speak("n1", &[]).await?;
    behind(&stage, daemon, &["n1"]).await.map(drop)
}

/// How many routes the router has to an address.
async fn routes(daemon: &Daemon, address: &str) -> Result<usize> {
    let address: IpAddr = address.parse()?;
    Ok(daemon.routes(IpNet::from(address)).await?.len())
}

/// Waits until the router has a route to an address, or none.
async fn become_known(daemon: &Daemon, address: &str, known: bool) -> Result<()> {
    let what = format!("the router's view of {address}");
    eventually(&what, Deadline::LONG, async || {
        let seen = routes(daemon, address).await?;
        ensure!((seen == 1) == known, "{seen} routes");
        anyhow::Ok(())
    })
    .await
}

/// What the speaker serves.
async fn ask(stage: &Stage, what: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:50053/{what}");
    let node = stage.network.node("n1")?;
    node.namespace().run(&["curl", "-sS", &url]).await
}
