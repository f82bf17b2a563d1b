//! `hack bench webhook`: Eip reviews by the real webhook over TLS on loopback, with 1,000 other Eips and 10,000 addresses
//! in use at a real API server.
//!
//! First one review at a time (what a user waits for), then as many as the machine gives (throughput, and how many per
//! second of the server's own processor time), then what the server has in memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use openelb_api::v1alpha2::{AddressHolder, Eip, EipAddress, EipAddressSpec, EipSpec, HolderPort};
use openelb_tests::ControlPlane;
use openelb_tests::figure::{self, Figure};
use openelb_tests::product::NAMESPACE;
use openelb_tests::webhook::{Chart, Client, Replica, install_crds};
use serde_json::{Value, json};

/// Eips that a review is compared with.
const EIPS: u32 = 1000;
/// Addresses in use, of each Eip.
const USED: u32 = 10;
/// Objects made at a time.
const AT_ONCE: usize = 16;
/// Reviews one after the other.
const ALONE: usize = 20_000;
/// How long reviews come as fast as they can.
const STORM: Duration = Duration::from_secs(10);
/// Connections and requests under way on each, then: about what a few API servers have.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 8;
/// Where Eips are validated.
const PATH: &str = "/validate-network-kubesphere-io-v1alpha2-eip?timeout=5s";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut file: Option<PathBuf> = None;
    while let Some(argument) = arguments.next() {
        ensure!(
            argument == "--json",
            "unknown argument {argument}; known is --json FILE"
        );
        file = Some(arguments.next().context("--json needs a file")?.into());
    }
    let control = ControlPlane::start().await?;
    let server = Server::start(&control).await?;
    let figures = measure(&server).await?;
    figure::write(file.as_deref(), &figures)
}

async fn measure(server: &Server) -> Result<Vec<Figure>> {
    let mut sender = server.connect().await?;
    let mut alone = Vec::with_capacity(ALONE);
    for number in 0..ALONE {
        let began = Instant::now();
        review(&mut sender, number).await?;
        alone.push(began.elapsed().as_secs_f64() * 1000.0);
    }

    let (began, cpu) = (Instant::now(), server.processor_seconds()?);
    let mut workers = Vec::new();
    for connection in 0..CONNECTIONS {
        let sender = server.connect().await?;
        for stream in 0..STREAMS {
            let mut sender = sender.clone();
            workers.push(tokio::spawn(async move {
                let mut ends = Vec::new();
                while began.elapsed() < STORM {
                    let asked = Instant::now();
                    review(&mut sender, ends.len() + connection + stream).await?;
                    ends.push((began.elapsed(), asked.elapsed().as_secs_f64() * 1000.0));
                }
                anyhow::Ok(ends)
            }));
        }
    }
    let mut ends = Vec::new();
    for worker in workers {
        ends.extend(worker.await??);
    }
    let used = server.processor_seconds()? - cpu;
    let seconds = usize::try_from(STORM.as_secs())?;
    let mut by_second = vec![0.0; seconds];
    for (end, _) in &ends {
        if let Some(count) = by_second.get_mut(usize::try_from(end.as_secs())?) {
            *count += 1.0;
        }
    }
    let busy: Vec<f64> = ends.iter().map(|(_, took)| *took).collect();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let per_core = ends.len() as f64 / used;
    Ok(vec![
        Figure::of("review p99 ms", "ms", alone)?,
        Figure::of("review under full load ms", "ms", busy)?,
        Figure::of("reviews per second", "1/s", by_second)?,
        Figure::of("reviews per second and core", "1/s", vec![per_core])?,
        Figure::of("rss MB", "MB", vec![server.resident_megabytes()?])?,
    ])
}

/// The webhook under test.
struct Server {
    replica: Replica,
    trust: String,
}

impl Server {
    /// Starts the webhook where there are [`EIPS`] Eips, and waits until it knows them all.
    async fn start(control: &ControlPlane) -> Result<Self> {
        let chart = Chart::rendered().await?;
        install_crds(control).await?;
        let account = chart.account(control, "webhook").await?;
        let eips: Api<Eip> = Api::all(control.client());
        stream::iter(0..EIPS)
            .map(|number| {
                let eips = eips.clone();
                let spec = EipSpec {
                    address: address(number),
                    ..EipSpec::default()
                };
                async move {
                    let eip = Eip::new(&format!("eip-{number}"), spec);
                    eips.create(&PostParams::default(), &eip).await
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        let used: Api<EipAddress> = Api::all(control.client());
        stream::iter((0..EIPS).flat_map(|number| (1..=USED).map(move |last| (number, last))))
            .map(|(number, last)| {
                let used = used.clone();
                async move {
                    used.create(&PostParams::default(), &in_use(number, last))
                        .await
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        let replica = Replica::start(control, &chart, &account, "webhook", &[])?;
        replica.ready().await?;
        let secrets: Api<Secret> = Api::namespaced(control.client(), NAMESPACE);
        let bundle = secrets
            .get("openelb-admission")
            .await?
            .data
            .and_then(|mut data| data.remove("ca.crt"))
            .context("no ca.crt")?;
        let server = Self {
            replica,
            trust: String::from_utf8(bundle.0)?,
        };
        let mut client = server.connect().await?;
        let answer = ask(&mut client, "last", &address(EIPS - 1)).await?;
        ensure!(
            answer.get("allowed") == Some(&json!(false)),
            "it does not know the last Eip"
        );
        Ok(server)
    }

    async fn connect(&self) -> Result<Client> {
        self.replica.client(&self.trust).await
    }

    /// Processor time that the server has used.
    fn processor_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.replica.process.pid()))?;
        // After the name in brackets; user and system time are fields 14 and 15 of all, in hundredths of a second.
        let fields = stat.rsplit(')').next().context("a stat without a name")?;
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        Ok(ticks / 100.0)
    }

    fn resident_megabytes(&self) -> Result<f64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.replica.process.pid()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kilobytes: f64 = line
            .split_whitespace()
            .nth(1)
            .context("an empty VmRSS")?
            .parse()?;
        Ok(kilobytes / 1024.0)
    }
}

/// The addresses of an Eip: a /24 of 10.0.0.0/8 each.
fn address(number: u32) -> String {
    format!("10.{}.{}.0/24", number / 256, number % 256)
}

/// An address of an Eip that a Service has.
fn in_use(number: u32, last: u32) -> EipAddress {
    let address = format!("10.{}.{}.{last}", number / 256, number % 256);
    let holder = AddressHolder {
        namespace: "default".to_owned(),
        name: format!("web-{number}-{last}"),
        uid: format!("705ab4f5-6393-11e8-b7cc-{number:06}{last:06}"),
        ports: vec![HolderPort {
            protocol: "TCP".to_owned(),
            port: 80,
        }],
        selector: [("app".to_owned(), "web".to_owned())].into(),
        ..AddressHolder::default()
    };
    let spec = EipAddressSpec {
        address: address.clone(),
        eip: format!("eip-{number}"),
        services: vec![holder],
        revision: 1,
        ..EipAddressSpec::default()
    };
    EipAddress::new(&address, spec)
}

/// One review: of an Eip that overlaps with none, or (every tenth) with one.
async fn review(client: &mut Client, number: usize) -> Result<()> {
    let overlaps = number.is_multiple_of(10);
    let number = u32::try_from(number % 1000)?;
    let wanted = if overlaps {
        address(number)
    } else {
        format!("172.16.{}.0/24", number % 256)
    };
    let answer = ask(client, "new", &wanted).await?;
    ensure!(
        answer.get("allowed") == Some(&json!(!overlaps)),
        "a wrong answer: {answer}"
    );
    Ok(())
}

async fn ask(client: &mut Client, name: &str, address: &str) -> Result<Value> {
    let kind = json!({ "group": "network.kubesphere.io", "version": "v1alpha2", "kind": "Eip" });
    let resource =
        json!({ "group": "network.kubesphere.io", "version": "v1alpha2", "resource": "eips" });
    let request = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource,
        "requestKind": kind, "requestResource": resource, "name": name, "operation": "CREATE", "dryRun": false,
        "userInfo": { "username": "admin", "groups": ["system:masters", "system:authenticated"] },
        "object": {
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": {
                "name": name, "creationTimestamp": null, "generation": 1,
                "managedFields": [{ "manager": "kubectl", "operation": "Apply", "apiVersion": "network.kubesphere.io/v1alpha2" }],
            },
            "spec": { "address": address, "protocol": "bgp", "namespaces": ["default"], "priority": 5 },
        },
        "oldObject": null, "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
    });
    client.ask(PATH, &request).await
}
