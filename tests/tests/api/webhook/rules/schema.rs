//! The webhook's rules by themselves, where no CRD schema is in front of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use openelb_tests::story;
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::Expect::{Early, Refused};
use super::eip_table::{OVERLAP, address, lan};
use super::{Expect, all, bgp_table, eip_table};

impl Stage {
    /// Has the CRDs take anything, as those of another release may.
    async fn drop_schemas(&self) -> Result<()> {
        let text = self
            .control
            .kubectl(&["get", "crds", "--output=json"])
            .await?;
        let mut list: Value = serde_json::from_str(&text)?;
        for crd in list["items"].as_array_mut().context("no CRDs")? {
            for version in crd["spec"]["versions"]
                .as_array_mut()
                .context("no versions")?
            {
                version["schema"]["openAPIV3Schema"] =
                    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            }
        }
        let file = self.control.folder().write("crds.json", list.to_string())?;
        let file = file.to_str().context("a path is no text")?;
        self.control
            .kubectl(&["replace", "--filename", file])
            .await
            .map(drop)
    }
}

/// What the schema refuses, the webhook refuses too, and says why.
#[test]
fn without_the_schemas_every_refusal_is_the_webhooks_own() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        stage.store(&lan()).await?;
        stage
            .seen(&address("192.168.0.100"), &Refused(OVERLAP))
            .await?;
        stage.drop_schemas().await?;
        let alone = |(object, expected): (Value, Expect)| match expected {
            Early(_, words) => Some((object, Refused(words))),
            _ => None,
        };
        let cases = eip_table::cases().into_iter().chain(bgp_table::cases());
        let mut cases: Vec<_> = cases.filter_map(alone).collect();
        cases.extend(reservations());
        // Until the API server uses them for each kind.
        let mut kinds = BTreeSet::new();
        for (object, expected) in &cases {
            if kinds.insert(object["kind"].to_string()) {
                stage.seen(object, expected).await?;
            }
        }
        all(&stage, cases).await
    });
}

fn reservations() -> Vec<(Value, Expect)> {
    let reservation = |name: &str, reserved_for: &str| {
        let spec =
            json!({ "address": "192.168.0.160", "reserved": true, "reservedFor": [reserved_for] });
        super::object("EipAddress", name, spec)
    };
    vec![
        (
            reservation("somewhere", "default/web"),
            Refused("metadata.name: must be 192.168.0.160, the name of the address 192.168.0.160"),
        ),
        (
            reservation("192.168.0.160", "web"),
            Refused("spec.reservedFor[0]: \"web\" must be namespace/name of a Service"),
        ),
    ]
}
