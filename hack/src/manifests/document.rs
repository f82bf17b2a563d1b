//! One object of what helm renders, as people without helm need it.

/// An object.
pub(super) struct Document {
    /// `Deployment`, `ClusterRole` and so on.
    pub(super) kind: String,
    /// What of the product it belongs to: `controller`, `speaker`, `webhook`, `install`.
    pub(super) component: String,
    /// The YAML.
    pub(super) text: String,
}

/// A document without what only helm needs; nothing of the hooks that only helm can run.
pub(super) fn plain(document: &str) -> Option<Document> {
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
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let deeper = lines
            .get(at + 1)
            .is_some_and(|next| indent(next) > indent(line));
        if line.trim() == "annotations:" && !deeper {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    let kind = value(&text, "kind:")?;
    let component = value(&text, "    component:").unwrap_or_default();
    if kind == "Job" {
        text = named_after_its_version(&text);
    }
    Some(Document {
        kind,
        component,
        text,
    })
}

/// A Job cannot be changed: under a name of its own for each version, the next one can be applied while this one is still
/// there.
fn named_after_its_version(text: &str) -> String {
    let version = value(text, "    app.kubernetes.io/version:").unwrap_or_default();
    let version = version.trim_matches('"');
    let Some(name) = value(text, "  name:") else {
        return text.to_owned();
    };
    text.replacen(
        &format!("\n  name: {name}\n"),
        &format!("\n  name: {name}-{version}\n"),
        1,
    )
}

/// What the first line that begins with `key` says.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(|value| value.trim().to_owned())
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
        let document = plain(document).unwrap();
        assert_eq!(
            document.text,
            "kind: Role\nmetadata:\n  labels:\n    component: install\nrules: []\n"
        );
        assert_eq!(document.kind, "Role");
        assert_eq!(document.component, "install");
    }

    #[test]
    fn annotations_of_others_stay() {
        let document = "kind: Role\nmetadata:\n  annotations:\n    helm.sh/chart: x\n    a: b\n";
        assert_eq!(
            plain(document).unwrap().text,
            "kind: Role\nmetadata:\n  annotations:\n    a: b\n"
        );
    }

    #[test]
    fn hooks_that_only_helm_can_run_are_left_out() {
        assert!(plain("kind: Job\ncomponent: admission\nhelm.sh/hook: post-install\n").is_none());
        assert!(plain("# only a comment\n").is_none());
    }

    #[test]
    fn the_next_versions_job_is_another_object() {
        let job = "kind: Job\nmetadata:\n  name: install\n  labels:\n    app.kubernetes.io/version: \"0.7.0\"\n\
                   spec:\n  template:\n    spec:\n      serviceAccountName: install\n";
        let job = plain(job).unwrap();
        assert!(job.text.contains("\n  name: install-0.7.0\n"));
        assert!(job.text.contains("serviceAccountName: install\n"));
    }
}
