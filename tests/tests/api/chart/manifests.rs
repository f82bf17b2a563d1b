//! What people without helm install: `deploy/openelb.yaml` and the bases in `config/`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use openelb_tests::product::repository;
use openelb_tests::{ControlPlane, story};
use serde_json::Value;

const DEPLOY: &str = "deploy/openelb.yaml";

/// Objects by kind and name.
fn objects(text: &str) -> Result<BTreeMap<String, Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let mut objects = BTreeMap::new();
    for document in documents {
        let kind = document["kind"].as_str().context("no kind")?;
        let name = document["metadata"]["name"].as_str().context("no name")?;
        objects.insert(format!("{kind}/{name}"), document);
    }
    Ok(objects)
}

#[test]
fn the_bases_together_are_the_one_file() {
    story(async || -> Result<()> {
        let control = ControlPlane::start().await?;
        let base = repository().join("config/default");
        let built = control
            .kubectl(&["kustomize", &base.to_string_lossy()])
            .await?;
        let file = std::fs::read_to_string(repository().join(DEPLOY))?;
        let (bases, file) = (objects(&built)?, objects(&file)?);
        assert!(file.len() > 25);
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&bases), names(&file));
        for (name, object) in &file {
            assert_eq!(Some(object), bases.get(name), "{name}");
        }
        Ok(())
    });
}

/// Strictly, twice, and then the next version while the first one's Job is still there.
#[test]
fn an_api_server_takes_the_one_file_again_and_again() {
    story(async || -> Result<()> {
        let control = ControlPlane::start().await?;
        let text = std::fs::read_to_string(repository().join(DEPLOY))?;
        let version = env!("CARGO_PKG_VERSION");
        assert!(text.contains(&format!("openelb-install-{version}\n")));
        let next = text.replace(version, "99.0.0");
        let count = objects(&text)?.len();
        for (name, text) in [
            ("one.yaml", &text),
            ("again.yaml", &text),
            ("next.yaml", &next),
        ] {
            let file = control.folder().write(name, text.clone())?;
            let answer = control
                .kubectl(&[
                    "apply",
                    "--server-side",
                    "--validate=strict",
                    "--filename",
                    &file.to_string_lossy(),
                ])
                .await?;
            assert_eq!(answer.lines().count(), count, "{answer}");
        }
        let rights = control
            .kubectl(&[
                "get",
                "role/openelb-install",
                "--namespace=openelb-system",
                "--output=jsonpath={.rules[*].resources}",
            ])
            .await?;
        assert!(!rights.contains("deployments"), "left for ever: {rights}");
        Ok(())
    });
}
