//! The controller as a process on a node, whose way to the API server is lost without a word: no connection is reset,
//! and nothing comes any more.

#![allow(clippy::indexing_slicing, reason = "what is missing fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use openelb_api::keys::conditions::ANNOUNCED;
use openelb_api::v1alpha2::EipAddress;
use openelb_tests::ipam::{Asks as _, Bed, addresses, service};
use openelb_tests::{
    ControlPlane, Deadline, Network, Process, Program, binary, eventually, scenario,
};

/// The address of the world itself, where the API server is, on the nodes' segment.
const WORLD: [u8; 4] = [10, 0, 0, 2];

/// The kernel gives a silent connection up after six seconds. Without its help a watch would wait for five minutes.
const UNNOTICED: Deadline = Deadline::seconds(60);

/// A connection that was begun in the dark may be waited for until its time is over.
const RETURN: Deadline = Deadline::seconds(20);

/// What address management watches.
const WATCHED: [&str; 4] = ["Service", "Record", "Eip", "Namespace"];

/// Whether the Service says whether it is announced.
fn is_judged(service: &Service) -> bool {
    let status = service.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == ANNOUNCED)
}

/// Two nodes, an API server beside them, and 20 Services that `n1` has served.
struct Stage {
    network: Network,
    bed: Bed,
    controllers: BTreeMap<&'static str, Process>,
}

impl Stage {
    async fn start() -> Result<Self> {
        let network = Network::start(2).await?;
        let control = ControlPlane::config().at(IpAddr::from(WORLD));
        let bed = Bed::on(control.start().await?).await?;
        bed.eip("lan", "192.0.2.0/24").await?;
        for n in 0..20 {
            bed.create(&service(&format!("s{n}"))).await?;
        }
        let mut stage = Self {
            network,
            bed,
            controllers: BTreeMap::new(),
        };
        stage.control("n1")?;
        stage.leads("n1", true).await?;
        stage.control("n2")?;
        eventually("all that is to be written", Deadline::SHORT, async || {
            let services = stage.bed.services("default");
            let all = services.list(&ListParams::default()).await?;
            let is_done = |service: &&Service| !addresses(service).is_empty() && is_judged(service);
            let done = all.iter().filter(is_done).count();
            ensure!(done == 20, "{done} are served and judged");
            Ok(())
        })
        .await?;
        stage.leads("n2", false).await?;
        Ok(stage)
    }

    /// Starts the controller of a node.
    fn control(&mut self, node: &'static str) -> Result<()> {
        let program = Program::new(&format!("controller-{node}"), binary("openelb-operator")?)
            .args(["controller", "--identity", node])
            .args(["--metrics-addr", "127.0.0.1:50052"])
            .arg("--kubeconfig")
            .arg(self.bed.control.kubeconfig());
        let host = self.network.node(node)?.namespace();
        let process = host.program(program).start(self.network.folder().path())?;
        self.controllers.insert(node, process);
        Ok(())
    }

    /// Waits until a node's controller says that it leads, or that it does not.
    async fn leads(&self, node: &str, wanted: bool) -> Result<()> {
        let host = self.network.node(node)?.namespace();
        let what = format!("{node} to lead: {wanted}");
        let line = format!("openelb_controller_leader {}", u8::from(wanted));
        eventually(&what, UNNOTICED, async || {
            let url = "http://127.0.0.1:50052/metrics";
            let text = host.run(&["curl", "-sS", url]).await?;
            ensure!(text.lines().any(|found| found == line), "it is not so");
            Ok(())
        })
        .await
    }

    /// Waits until a node's controller has given up every watch that it had when `mark` was the length of its log.
    async fn notices(&self, node: &str, mark: usize) -> Result<()> {
        let process = &self.controllers[node];
        eventually(
            &format!("{node} to notice that nothing comes"),
            UNNOTICED,
            async || {
                process.check()?;
                let log = process.log();
                let told: BTreeSet<&str> = log
                    .get(mark..)
                    .unwrap_or_default()
                    .lines()
                    .filter(|line| line.contains("a watch was interrupted"))
                    .flat_map(|line| WATCHED.into_iter().filter(|kind| line.contains(kind)))
                    .collect();
                ensure!(told.len() == WATCHED.len(), "only {told:?} were given up");
                Ok(())
            },
        )
        .await
    }

    fn mark(&self, node: &str) -> usize {
        self.controllers[node].log().len()
    }

    async fn shown(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let services = self.bed.services("default");
        let all = services.list(&ListParams::default()).await?;
        let ours = all
            .iter()
            .filter(|service| service.name_any() != "kubernetes");
        Ok(ours
            .map(|service| (service.name_any(), addresses(service)))
            .collect())
    }

    /// The versions of all Services and EipAddresses: who writes any of them changes this.
    async fn versions(&self) -> Result<Vec<(String, Option<String>)>> {
        let all = ListParams::default();
        let services = self.bed.services("default").list(&all).await?;
        let records = Api::<EipAddress>::all(self.bed.client()).list(&all).await?;
        let services = services
            .iter()
            .map(|one| (one.name_any(), one.resource_version()));
        let records = records
            .iter()
            .map(|one| (one.name_any(), one.resource_version()));
        Ok(services.chain(records).collect())
    }

    /// Waits until these Services have an address, and says after how long.
    async fn served(&self, names: &[&str], since: Instant) -> Result<()> {
        for name in names {
            eventually(&format!("an address for {name}"), RETURN, async || {
                ensure!(!self.bed.shown(name).await?.is_empty(), "none");
                Ok(())
            })
            .await?;
            println!("{name} was served after {:?}", since.elapsed());
        }
        Ok(())
    }

    /// Whoever had an address before and is still there has it, and nothing is doubled or left.
    async fn is_sound(&self, before: &BTreeMap<String, Vec<String>>) -> Result<()> {
        eventually("a clean ledger", Deadline::SHORT, async || {
            self.bed.audit().await
        })
        .await?;
        let after = self.shown().await?;
        for (name, shown) in &after {
            let had = before.get(name);
            ensure!(
                had.is_none_or(|had| had == shown),
                "{name} moved: {had:?}, {shown:?}"
            );
        }
        Ok(())
    }
}

#[test]
fn an_api_server_that_falls_silent_is_noticed_and_served_again_when_it_is_back() {
    scenario(async || {
        let stage = Stage::start().await?;
        let before = stage.shown().await?;
        let marks = ["n1", "n2"].map(|node| (node, stage.mark(node)));
        let fault = Instant::now();
        stage.network.unplug(stage.network.world()).await?;
        for (node, mark) in marks {
            stage.leads(node, false).await?;
            stage.notices(node, mark).await?;
            println!("{node} noticed after {:?}", fault.elapsed());
        }
        // The users are on the API server's side, and see nothing of all this.
        let quiet = stage.versions().await?;
        stage.bed.create(&service("meanwhile")).await?;
        stage.bed.delete("s3").await?;
        let back = Instant::now();
        stage.network.plug(stage.network.world()).await?;
        stage.bed.create(&service("late")).await?;
        stage.served(&["late", "meanwhile"], back).await?;
        stage.is_sound(&before).await?;
        // Nobody was written to but the newcomers.
        let old = |versions: Vec<(String, Option<String>)>| -> BTreeMap<_, _> {
            let served = before.keys().filter(|name| *name != "s3");
            let known: BTreeSet<&String> = served.collect();
            let mut versions: BTreeMap<_, _> = versions.into_iter().collect();
            versions.retain(|name, _| known.contains(name));
            versions
        };
        ensure!(
            old(quiet) == old(stage.versions().await?),
            "something was written anew"
        );
        Ok(())
    });
}

#[test]
fn a_leader_that_is_cut_off_leads_no_more_and_what_it_knew_moves_nothing_when_it_is_back() {
    scenario(async || {
        let stage = Stage::start().await?;
        let before = stage.shown().await?;
        let given_back = before["s0"].join(",");
        let mark = stage.mark("n1");
        let fault = Instant::now();
        stage.network.unplug(stage.network.node("n1")?).await?;
        stage.leads("n1", false).await?;
        stage.leads("n2", true).await?;
        println!("n2 leads after {:?}", fault.elapsed());
        // What n1 knew is no longer true: an address of its Services is another's, another is free.
        stage.bed.delete("s0").await?;
        stage.bed.create(&service("heir").ip(&given_back)).await?;
        stage.bed.shows("heir", &[&given_back]).await?;
        stage.bed.delete("s1").await?;
        stage.notices("n1", mark).await?;
        println!("n1 noticed after {:?}", fault.elapsed());
        // It is back, and has to lead at once.
        let quiet = stage.shown().await?;
        let back = Instant::now();
        stage.network.plug(stage.network.node("n1")?).await?;
        stage.controllers["n2"].kill().await;
        stage.bed.create(&service("late")).await?;
        stage.served(&["late"], back).await?;
        stage.leads("n1", true).await?;
        stage.is_sound(&quiet).await?;
        stage.bed.shows("heir", &[&given_back]).await
    });
}
