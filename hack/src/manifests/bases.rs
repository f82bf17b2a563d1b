//! The kustomize bases in `config/`: which object stands in which file.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::document::Document;
use super::{MADE, NAMESPACE, crds, push};

/// Folders of `config/` with what each is for, in the order in which they are applied.
const FOLDERS: [(&str, &str); 6] = [
    ("crd", "The kinds."),
    ("rbac", "Who may do what."),
    ("webhook", "What checks and completes objects."),
    ("controller", "What gives addresses to Services."),
    ("speaker", "What announces addresses from every node."),
    ("install", "Makes the key that speakers share, once."),
];

/// Every file of the bases with its text.
///
/// # Errors
/// The chart renders an object that has no place.
pub(super) fn files(documents: &[Document]) -> Result<BTreeMap<String, String>> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for document in documents {
        let path = format!("config/{}", place(document)?);
        let text = files.entry(path).or_insert_with(|| MADE.to_owned());
        push(text, &document.text);
    }
    let mut all = vec!["namespace.yaml".to_owned()];
    for (folder, purpose) in FOLDERS {
        let resources = if folder == "crd" {
            definitions()?
        } else {
            names_in(&files, folder)
        };
        let text = kustomization(purpose, &resources);
        files.insert(format!("config/{folder}/kustomization.yaml"), text);
        all.push(format!("../{folder}"));
    }
    let everything = kustomization(
        "All of it: kubectl apply --server-side -k config/default",
        &all,
    );
    files.insert("config/default/kustomization.yaml".to_owned(), everything);
    files.insert(
        "config/default/namespace.yaml".to_owned(),
        format!("{MADE}{NAMESPACE}"),
    );
    Ok(files)
}

/// The file below `config/` that an object belongs to.
fn place(document: &Document) -> Result<String> {
    let component = document.component.as_str();
    if !["controller", "speaker", "webhook", "install"].contains(&component) {
        bail!("no folder of config/ is for component {component:?}");
    }
    Ok(match document.kind.as_str() {
        "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            format!("rbac/{component}.yaml")
        }
        "MutatingWebhookConfiguration" => "webhook/mutating.yaml".to_owned(),
        "ValidatingWebhookConfiguration" => "webhook/validating.yaml".to_owned(),
        "Service" => format!("{component}/service.yaml"),
        "ConfigMap" => format!("{component}/configmap.yaml"),
        "PodDisruptionBudget" => format!("{component}/pdb.yaml"),
        "Deployment" => format!("{component}/deployment.yaml"),
        "DaemonSet" => format!("{component}/daemonset.yaml"),
        "Job" => format!("{component}/job.yaml"),
        kind => bail!("no file of config/ is for kind {kind}"),
    })
}

fn definitions() -> Result<Vec<String>> {
    let names = crds()?.into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        Some(format!("bases/{name}"))
    });
    Ok(names.collect())
}

fn names_in(files: &BTreeMap<String, String>, folder: &str) -> Vec<String> {
    let prefix = format!("config/{folder}/");
    files
        .keys()
        .filter_map(|path| path.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}

fn kustomization(purpose: &str, resources: &[String]) -> String {
    let mut text = format!(
        "# {purpose}\n{MADE}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
    );
    for resource in resources {
        text.push_str("  - ");
        text.push_str(resource);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, component: &str) -> Document {
        Document {
            kind: kind.to_owned(),
            component: component.to_owned(),
            text: format!("kind: {kind}\n"),
        }
    }

    #[test]
    fn every_file_is_named_by_its_folder_and_every_folder_by_the_whole() {
        let documents = [
            document("ClusterRole", "speaker"),
            document("DaemonSet", "speaker"),
            document("ServiceAccount", "speaker"),
        ];
        let files = files(&documents).unwrap();
        let rights = &files["config/rbac/speaker.yaml"];
        assert!(rights.contains("ClusterRole") && rights.contains("ServiceAccount"));
        assert!(files["config/rbac/kustomization.yaml"].contains("\n  - speaker.yaml\n"));
        assert!(files["config/speaker/kustomization.yaml"].contains("\n  - daemonset.yaml\n"));
        let all = &files["config/default/kustomization.yaml"];
        for (folder, _) in FOLDERS {
            assert!(all.contains(&format!("\n  - ../{folder}\n")), "{folder}");
        }
        assert!(files["config/crd/kustomization.yaml"].contains("eips.yaml"));
    }

    #[test]
    fn an_object_without_a_place_is_an_error() {
        assert!(files(&[document("Gateway", "speaker")]).is_err());
        assert!(files(&[document("Service", "admission")]).is_err());
    }
}
