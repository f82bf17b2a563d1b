//! The test tiers: what each runs and what it needs.

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::ahead::Ahead;
use crate::command::{cargo, program, root, say, show};
use crate::crowd::Crowd;
use crate::prerequisites;
use crate::providers;
use crate::tally::Tally;

/// A group of tests that need the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Format, clippy with warnings as errors, generated files, licences, one crypto provider. Needs Rust.
    Lint,
    /// Unit, property, fuzz (a short fixed count) and doc tests of every crate. Needs Rust.
    Unit,
    /// The test world's own tests: control plane, network and cluster start, break and vanish. Needs root.
    World,
    /// CRDs, webhook, controller on a real etcd and kube-apiserver. Needs Go.
    Api,
    /// BGP, BFD, ARP and NDP against FRR, BIRD, GoBGP and the kernel, in network namespaces. Needs root.
    Network,
    /// The product as users run it: three real nodes, the chart, every story and fault. Needs Go and root.
    Cluster,
}

/// The parts that differ in the oldest supported Kubernetes, with which the world tier starts a cluster too.
const OLDEST: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
];

/// Why a tier did not run.
pub(crate) enum Outcome {
    Ran(Tally),
    Skipped(String),
}

impl Tier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::World => "world",
            Self::Api => "api",
            Self::Network => "network",
            Self::Cluster => "cluster",
        }
    }

    /// Whether the arguments for test programs reach this tier.
    pub(crate) fn takes_a_filter(self) -> bool {
        self != Self::Lint
    }

    /// Runs the tier to its end, also past failing tests. `keep` leaves the tests' worlds running.
    ///
    /// # Errors
    /// Something other than a test failed: a build, an installation, a check.
    pub(crate) fn run(self, filter: &[String], keep: bool) -> Result<Outcome> {
        match self {
            Self::Lint => lint().map(Outcome::Ran),
            Self::Unit => unit(filter).map(Outcome::Ran),
            Self::World | Self::Network | Self::Cluster if !prerequisites::is_root() => Ok(
                Outcome::Skipped("it makes network namespaces, which needs root".to_owned()),
            ),
            Self::World | Self::Api | Self::Network | Self::Cluster => {
                end_to_end(self, filter, keep).map(Outcome::Ran)
            }
        }
    }

    /// How many of its tests run side by side. Most of the time they wait, for a router's timer or another process: what
    /// bounds them is how many API servers start at once, and memory.
    fn crowd(self) -> Option<Crowd> {
        let (per_two_cores, megabytes) = match self {
            Self::Lint | Self::Unit => return None,
            Self::World => (2, 900),
            Self::Api => (4, 700),
            Self::Network => (6, 600),
            Self::Cluster => (2, 1_800),
        };
        Some(Crowd {
            per_two_cores,
            megabytes,
        })
    }

    /// The parts of `hack/tools` that must be built first.
    fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Lint | Self::Unit => &[],
            Self::Api => &[
                "etcd",
                "kube-apiserver",
                "kube-controller-manager",
                "kubectl",
                "helm",
            ],
            Self::Network => &[
                "etcd",
                "kube-apiserver",
                "kubectl",
                "gobgp",
                "gobgpd",
                "helm",
            ],
            Self::World | Self::Cluster => &["all"],
        }
    }
}

/// Builds the parts that these tiers need beside those of them that need none, where there are both.
pub(crate) fn build_ahead(tiers: &[Tier]) -> Option<Ahead> {
    let (parts, oldest) = needed_later(tiers)?;
    Ahead::start(&parts, oldest)
}

/// The parts that some of these tiers need while others need none, and those of the oldest Kubernetes.
fn needed_later(tiers: &[Tier]) -> Option<(Vec<&'static str>, &'static [&'static str])> {
    let parts = tiers.iter().flat_map(|tier| tier.tools()).copied();
    let mut parts: Vec<&str> = parts.collect();
    if parts.is_empty() || tiers.iter().all(|tier| !tier.tools().is_empty()) {
        return None;
    }
    parts.sort_unstable();
    parts.dedup();
    if parts.contains(&"all") {
        parts = vec!["all"];
    }
    let oldest = if tiers.contains(&Tier::World) {
        OLDEST
    } else if tiers.contains(&Tier::Api) {
        Tier::Api.tools()
    } else {
        &[]
    };
    Some((parts, oldest))
}

fn lint() -> Result<Tally> {
    let mut tally = Tally::default();
    prerequisites::rust_components()?;
    let deny = prerequisites::cargo_deny()?;
    prerequisites::sources()?;
    let mut checks = Vec::new();

    let mut fmt = cargo();
    fmt.args(["fmt", "--all", "--check"]);
    checks.push(("the code is formatted (mend: cargo fmt --all)", fmt));

    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    checks.push(("clippy has nothing to say", clippy));

    let mut generated = cargo();
    generated.args(["run", "--quiet", "--package", "crd-gen", "--", "--check"]);
    checks.push((
        "generated files are up to date (mend: cargo run -p crd-gen -- --write)",
        generated,
    ));

    let mut manifests = program(root().join("hack/manifests"));
    manifests.arg("--check");
    checks.push((
        "config/ and deploy/ are what the chart gives (mend: hack/manifests)",
        manifests,
    ));

    let mut reference = program(root().join("hack/docs"));
    reference.arg("--check");
    checks.push((
        "the reference says what the programs say (mend: hack/docs)",
        reference,
    ));

    let mut release = program(root().join("hack/release"));
    release
        .args(["--without-images", "--output"])
        .arg(root().join("target/lint-release"));
    checks.push(("a release can be made of all but the images", release));

    let mut licences = program(&deny);
    licences.args([
        "--log-level",
        "error",
        "--offline",
        "check",
        "licenses",
        "bans",
        "sources",
    ]);
    checks.push((
        "dependencies are licensed for us, allowed and from the registry",
        licences,
    ));

    for (what, command) in checks {
        tally += judged(what, show(command));
    }
    let what = "a second crypto provider would be refused";
    tally += judged(what, providers::another_is_refused(&deny));
    Ok(tally)
}

/// Says how a check went, and counts it.
fn judged<T>(what: &str, outcome: Result<T>) -> Tally {
    match outcome {
        Ok(_) => {
            say(&format!("ok: {what}"));
            Tally::CHECK
        }
        Err(error) => {
            say(&format!("FAILED: {what}: {error:#}"));
            Tally::failed_check(what)
        }
    }
}

fn unit(filter: &[String]) -> Result<Tally> {
    let mut programs = cargo();
    programs.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
    for target in unit_targets()? {
        programs.args(["--test", &target]);
    }
    programs.arg("--").args(filter);
    let mut tally = show(programs)?;
    let mut documentation = cargo();
    documentation
        .args(["test", "--workspace", "--no-fail-fast", "--doc", "--"])
        .args(filter);
    tally += show(documentation)?;
    Ok(tally)
}

/// The integration test targets of every crate but the end-to-end one.
fn unit_targets() -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let mut metadata = cargo();
    metadata.args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]);
    let metadata: Metadata = serde_json::from_str(&crate::command::read(metadata)?)?;
    let mut names: Vec<String> = metadata
        .packages
        .into_iter()
        .filter(|package| package.name != "openelb-tests")
        .flat_map(|package| package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        .map(|target| target.name)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn end_to_end(tier: Tier, filter: &[String], keep: bool) -> Result<Tally> {
    prerequisites::apt_packages(tier.name())?;
    prerequisites::tools(tier.tools(), None)?;
    if tier == Tier::World {
        prerequisites::tools(OLDEST, Some("oldest"))?;
    }
    let mut build = cargo();
    build.args(["build", "--quiet", "--workspace", "--bins"]);
    show(build)?;
    if tier == Tier::Cluster {
        crate::image::for_the_lab()?;
    }
    let mut tests = cargo();
    tests
        .args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--test",
            tier.name(),
            "--",
        ])
        .args(filter);
    if keep {
        // One world after the other: each stays until its user has seen enough.
        tests
            .env("RUST_TEST_THREADS", "1")
            .env("OPENELB_KEEP_WORLD", "1");
    } else if let Some(crowd) = tier.crowd()
        && std::env::var_os("RUST_TEST_THREADS").is_none()
    {
        let crowd = crowd.here();
        say(&format!("up to {crowd} tests side by side"));
        tests.env("RUST_TEST_THREADS", crowd.to_string());
    }
    let whole = filter.is_empty();
    let rights = root().join("target/rights.txt");
    if tier == Tier::Cluster && whole {
        // What an earlier run used says nothing about this one.
        drop(std::fs::remove_file(&rights));
        tests.env("OPENELB_RIGHTS", &rights);
    }
    let mut tally = show(tests)?;
    if tally.passed + tally.failed == 0 && filter.is_empty() {
        bail!("tier {} ran no test", tier.name());
    }
    match tier {
        Tier::Api if whole => tally += chart_on_oldest()?,
        Tier::Cluster if whole => tally += every_right_is_used(&rights),
        _ => {}
    }
    Ok(tally)
}

/// What the chart renders, before the oldest Kubernetes that is supported; the tests before this one had the current.
fn chart_on_oldest() -> Result<Tally> {
    prerequisites::tools(Tier::Api.tools(), Some("oldest"))?;
    say("the chart once more, on the oldest Kubernetes");
    let mut tests = cargo();
    tests
        .args(["test", "--package", "openelb-tests", "--no-fail-fast"])
        .args(["--test", "api", "--", "chart::"])
        .env("OPENELB_KUBERNETES", "oldest");
    show(tests)
}

/// Rights that no story used are too many. Judged over all stories, as each uses a part.
fn every_right_is_used(file: &Path) -> Tally {
    let mut judge = cargo();
    judge
        .args(["run", "--quiet", "--package", "openelb-tests"])
        .args(["--bin", "unused-rights"])
        .arg(file);
    judged("every right that the chart gives is used", show(judge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_tier_needs_is_built_beside_one_that_needs_nothing() {
        let all = needed_later(Tier::value_variants());
        assert_eq!(all, Some((vec!["all"], OLDEST)));
        let network = needed_later(&[Tier::Unit, Tier::Network]).unwrap();
        assert!(network.0.contains(&"gobgpd") && network.1.is_empty());
        assert_eq!(needed_later(&[Tier::Lint, Tier::Unit]), None);
        assert_eq!(needed_later(&[Tier::Cluster]), None);
    }
}
