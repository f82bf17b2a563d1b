//! How soon after a watch event the UPDATE is at the router: the real `operator speaker` behind a real API server, which
//! serves the same event to a watch of ours. One EndpointSlice loses its endpoint and gets it back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use openelb_api::v1alpha2::{BgpConf, BgpPeer};
use openelb_tests::figure::Figure;
use openelb_tests::ipam::{Bed, addresses, service};
use openelb_tests::{Namespace, Process, Program, binary};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::PORT;
use super::collector::{collect, message};

const NODE: &str = "worker";
/// Parallel writers.
const PARALLEL: usize = 32;
/// How often the endpoint goes and comes back.
const ROUNDS: usize = 100;
/// The one that is measured.
const MEASURED: &str = "web-0";
/// How long it takes until all Services have addresses, and until all routes are told.
const PATIENCE: Duration = Duration::from_mins(5);

/// The figures with so many Services.
pub(crate) async fn figures(services: usize) -> Result<Vec<Figure>> {
    let measured = measure(services)
        .await
        .with_context(|| format!("reaction with {services} Services"))?;
    let name = |what: &str| match services {
        1 => what.to_owned(),
        10_000 => format!("{what}, 10,000 Services"),
        _ => format!("{what}, {services} Services"),
    };
    let written = Figure::of("", "ms", measured.events)?;
    let update = name("watch event to UPDATE ms");
    Ok(vec![
        Figure::of(&update, "ms", measured.updates)?.beside("write to watch event", &written),
        Figure::of(&name("speaker rss MB"), "MB", [measured.rss])?,
    ])
}

struct Measured {
    /// From the watch event to the UPDATE, in milliseconds; 0 where the UPDATE was first.
    updates: Vec<f64>,
    /// From the write to the watch event.
    events: Vec<f64>,
    /// Resident memory of the speaker.
    rss: f64,
}

async fn measure(services: usize) -> Result<Measured> {
    let bed = Bed::start().await?;
    objects(&bed, services).await?;
    let router = Namespace::named("router")
        .enter(|| Ok(std::net::TcpListener::bind(("10.0.0.1", PORT))?))?;
    router.set_nonblocking(true)?;
    let router = TcpListener::from_std(router)?;
    let speaker = speaker(&bed)?;
    let count = u32::try_from(services)?;
    let (stream, _) = tokio::time::timeout(PATIENCE, collect(&router, count)).await??;
    let mut updates = follow_updates(stream);
    let mut events = follow_events(&bed).await?;

    let slices = Api::<EndpointSlice>::namespaced(bed.client(), "default");
    let mut measured = Measured {
        updates: Vec::new(),
        events: Vec::new(),
        rss: 0.0,
    };
    for round in 0..2 * ROUNDS {
        let change = Patch::Merge(json!({"endpoints": endpoints(round % 2 == 1)}));
        let written = Instant::now();
        slices
            .patch(MEASURED, &PatchParams::default(), &change)
            .await?;
        let event = next(&mut events).await?;
        let update = next(&mut updates).await?;
        measured.events.push(milliseconds(written, event));
        measured.updates.push(milliseconds(event, update));
    }
    measured.rss = resident(&speaker)?;
    Ok(measured)
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

async fn next(times: &mut mpsc::UnboundedReceiver<Instant>) -> Result<Instant> {
    let time = tokio::time::timeout(PATIENCE, times.recv()).await;
    time.context("nothing came")?.context("it ended")
}

/// One node, one peer, and Services that have addresses and an endpoint each.
async fn objects(bed: &Bed, services: usize) -> Result<()> {
    let params = PostParams::default();
    let node: Node = serde_json::from_value(json!({"metadata": {"name": NODE}}))?;
    let nodes = Api::<Node>::all(bed.client());
    nodes.create(&params, &node).await?;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.11"}],
        "conditions": [{"type": "Ready", "status": "True"}]
    }});
    nodes
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    bed.eip("pool", "100.64.0.0/16").await?;
    let conf = serde_json::from_value(json!({"as": 65001}))?;
    Api::all(bed.client())
        .create(&params, &BgpConf::new("default", conf))
        .await?;
    let peer = serde_json::from_value(json!({
        "conf": {"neighborAddress": "10.0.0.1", "peerAs": 65000},
        "transport": {"remotePort": PORT},
        "timers": {"config": {"connectRetry": "1"}}
    }))?;
    Api::all(bed.client())
        .create(&params, &BgpPeer::new("router", peer))
        .await?;
    let controller = bed.controller_with("bench", &["--log", "warn"])?;
    stream::iter(0..services)
        .map(|number| with_endpoint(bed, format!("web-{number}")))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let began = Instant::now();
    loop {
        let all = bed.services("default").list(&ListParams::default()).await?;
        let waiting = all
            .iter()
            .filter(|service| service.metadata.annotations.is_some())
            .filter(|service| addresses(service).is_empty())
            .count();
        if waiting == 0 {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "{waiting} have no address");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What it writes about announcements is not what is measured.
    controller.stop().await?;
    Ok(())
}

async fn with_endpoint(bed: &Bed, name: String) -> Result<()> {
    bed.create(&service(&name)).await?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints(true), "ports": [{"port": 80}]
    }))?;
    Api::namespaced(bed.client(), "default")
        .create(&PostParams::default(), &slice)
        .await?;
    Ok(())
}

fn endpoints(ready: bool) -> Value {
    json!([{"addresses": ["10.244.0.1"], "nodeName": NODE, "conditions": {"ready": ready}}])
}

fn speaker(bed: &Bed) -> Result<Process> {
    Program::new("speaker", binary("openelb-operator")?)
        .args(["speaker", "--node-name", NODE, "--metrics-addr", "0"])
        .args(["--log", "warn"])
        .arg("--kubeconfig")
        .arg(bed.control.kubeconfig())
        .start(bed.control.folder().path())
}

/// When each UPDATE came.
fn follow_updates(mut stream: TcpStream) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, times) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Whoever waits is told by the end of the channel.
        while let Ok((kind, _)) = message(&mut stream).await {
            if kind == 2 && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    times
}

/// When each event of the EndpointSlice came to a watch of ours, which runs by the time this returns.
async fn follow_events(bed: &Bed) -> Result<mpsc::UnboundedReceiver<Instant>> {
    let (sender, times) = mpsc::unbounded_channel();
    let slices = Api::<EndpointSlice>::namespaced(bed.client(), "default");
    let one = watcher::Config::default().fields(&format!("metadata.name={MEASURED}"));
    let mut stream = Box::pin(watcher::watcher(slices, one).default_backoff());
    while let Some(event) = stream.next().await {
        if matches!(event?, Event::InitDone) {
            break;
        }
    }
    tokio::spawn(async move {
        while let Some(event) = stream.next().await {
            if matches!(event, Ok(Event::Apply(_))) && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    Ok(times)
}

/// Resident memory in MB.
fn resident(process: &Process) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kib: f64 = kib.context("no VmRSS")?.trim().parse()?;
    Ok(kib / 1024.0)
}
