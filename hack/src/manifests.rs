//! `hack manifests`: `deploy/openelb.yaml`, all of the chart as one file for `kubectl apply --server-side -f`.
//!
//! It is what helm renders with the default values, with the CRDs and the namespace before it and without what only helm
//! needs. One of the chart's hooks stays as a plain Job: it makes the key that the speakers share.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::command::{program, read, root, say};

/// Write, or only compare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when the file is not what the chart gives.
    #[arg(long)]
    check: bool,
}

const NAMESPACE: &str = "\
# The load balancer for bare-metal Kubernetes, with the chart's default values:
#   kubectl apply --server-side -f openelb.yaml
# Made from charts/openelb by `hack/manifests`; not to be edited.
apiVersion: v1
kind: Namespace
metadata:
  name: openelb-system
  labels:
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
";

/// Writes or compares the file.
///
/// # Errors
/// helm cannot be built or fails, or the file differs.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let file = root().join("deploy/openelb.yaml");
    let wanted = manifest()?;
    if args.check {
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        if found != wanted {
            bail!("deploy/openelb.yaml is not what the chart gives (mend: hack/manifests)");
        }
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(root().join("deploy")).context("cannot make the folder deploy")?;
    std::fs::write(&file, wanted).with_context(|| format!("cannot write {}", file.display()))?;
    say("wrote deploy/openelb.yaml");
    Ok(ExitCode::SUCCESS)
}

fn manifest() -> Result<String> {
    let mut text = NAMESPACE.to_owned();
    for crd in crds()? {
        push(&mut text, &std::fs::read_to_string(crd)?);
    }
    for document in rendered()?.split("\n---\n") {
        if let Some(document) = plain(document) {
            push(&mut text, &document);
        }
    }
    Ok(text)
}

fn push(text: &mut String, document: &str) {
    text.push_str("---\n");
    text.push_str(document.trim_start_matches("---\n").trim_end());
    text.push('\n');
}

fn crds() -> Result<Vec<PathBuf>> {
    let folder = root().join("charts/openelb/files/crds");
    let mut files = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

fn rendered() -> Result<String> {
    let mut build = program(root().join("hack/tools/build"));
    build.arg("helm");
    let folder = read(build)?;
    let mut helm = program(PathBuf::from(folder.trim()).join("helm"));
    helm.args(["template", "openelb", "charts/openelb"])
        .args(["--namespace", "openelb-system", "--kube-version", "1.30.0"])
        .args(["--set", "install.crds=false,install.podSecurity=false"]);
    read(helm)
}

/// A document as people without helm need it; nothing of the hooks that only helm can run.
fn plain(document: &str) -> Option<String> {
    let hook = document.contains("helm.sh/hook:");
    if hook && !document.contains("component: install") {
        return None;
    }
    let mut lines: Vec<&str> = Vec::new();
    for line in document.lines() {
        let helms = line.trim_start().starts_with("helm.sh/")
            || line.contains("app.kubernetes.io/managed-by:")
            || line.starts_with("# Source:");
        if !helms {
            lines.push(line);
        }
    }
    let mut kept = String::new();
    for (at, line) in lines.iter().enumerate() {
        let deeper = lines
            .get(at + 1)
            .is_some_and(|next| indent(next) > indent(line));
        if line.trim() == "annotations:" && !deeper {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    (!kept.trim().is_empty()).then_some(kept)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_helm_needs_is_left_out() {
        let document = "# Source: openelb/templates/x.yaml\nkind: Role\nmetadata:\n  labels:\n    component: install\n    \
                        helm.sh/chart: openelb-1\n  annotations:\n    helm.sh/hook: pre-install\nrules: []\n";
        assert_eq!(
            plain(document).unwrap(),
            "kind: Role\nmetadata:\n  labels:\n    component: install\nrules: []\n"
        );
    }

    #[test]
    fn annotations_of_others_stay() {
        let document = "metadata:\n  annotations:\n    helm.sh/chart: x\n    a: b\n";
        assert_eq!(
            plain(document).unwrap(),
            "metadata:\n  annotations:\n    a: b\n"
        );
    }

    #[test]
    fn hooks_that_only_helm_can_run_are_left_out() {
        assert_eq!(
            plain("component: admission\nhelm.sh/hook: post-install\n"),
            None
        );
    }
}
