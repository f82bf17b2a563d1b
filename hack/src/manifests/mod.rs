//! `hack manifests`: what people without helm install. `deploy/openelb.yaml` is all of the chart as one file for
//! `kubectl apply --server-side -f`; `config/` holds the same objects as kustomize bases, one folder for each concern.
//!
//! Both are what helm renders with the default values, with the CRDs and the namespace before it and without what only helm
//! needs. One of the chart's hooks stays as a plain Job: it makes the key that the speakers share.

mod bases;
mod document;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::document::Document;
use crate::command::{program, read, root, say};

/// Write, or only compare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a file is not what the chart gives.
    #[arg(long)]
    check: bool,
}

/// What stands at the head of every generated file.
const MADE: &str = "# Made from charts/openelb by `hack/manifests`; not to be edited.\n";

const NAMESPACE: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: openelb-system
  labels:
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
";

/// Writes or compares the files.
///
/// # Errors
/// helm cannot be built or fails, or a file differs.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.check {
        check()?;
    } else {
        for (path, wanted) in stale()? {
            write(&path, &wanted)?;
            say(&format!("wrote {path}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails when a file is not what the chart gives.
///
/// # Errors
/// As [`run`].
pub(crate) fn check() -> Result<()> {
    let stale: Vec<String> = stale()?.into_keys().collect();
    if !stale.is_empty() {
        bail!(
            "not what the chart gives: {} (mend: hack/manifests)",
            stale.join(", ")
        );
    }
    Ok(())
}

/// The files that are not what they should be, with what they should be.
fn stale() -> Result<BTreeMap<String, String>> {
    let mut files = files()?;
    files.retain(|path, wanted| {
        !std::fs::read_to_string(root().join(path)).is_ok_and(|found| found == *wanted)
    });
    Ok(files)
}

fn write(path: &str, text: &str) -> Result<()> {
    let file = root().join(path);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Every generated file with its text.
fn files() -> Result<BTreeMap<String, String>> {
    let documents: Vec<Document> = rendered()?
        .split("\n---\n")
        .filter_map(document::plain)
        .collect();
    let mut files = bases::files(&documents)?;
    let mut deploy = format!(
        "# The load balancer for bare-metal Kubernetes, with the chart's default values:\n\
         #   kubectl apply --server-side -f openelb.yaml\n{MADE}{NAMESPACE}"
    );
    for crd in crds()? {
        let text = std::fs::read_to_string(&crd)
            .with_context(|| format!("cannot read {}", crd.display()))?;
        push(&mut deploy, &text);
    }
    for document in &documents {
        push(&mut deploy, &document.text);
    }
    files.insert("deploy/openelb.yaml".to_owned(), deploy);
    Ok(files)
}

fn push(text: &mut String, document: &str) {
    text.push_str("---\n");
    text.push_str(document.trim_start_matches("---\n").trim_end());
    text.push('\n');
}

/// The CRDs, as `crd-gen` writes them.
fn crds() -> Result<Vec<PathBuf>> {
    let folder = root().join("charts/openelb/files/crds");
    let mut files = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

/// OpenELB's workloads are left out of what is prepared: kubectl cannot change a selector afterwards either.
fn rendered() -> Result<String> {
    let mut build = program(root().join("hack/tools/build"));
    build.arg("helm");
    let folder = read(build)?;
    let mut helm = program(PathBuf::from(folder.trim()).join("helm"));
    helm.args(["template", "openelb", "charts/openelb"])
        .args(["--namespace", "openelb-system", "--kube-version", "1.33.0"])
        .args(["--set", "install.crds=false,install.podSecurity=false"])
        .args(["--set", "install.replaceOpenELB=false"]);
    read(helm)
}
