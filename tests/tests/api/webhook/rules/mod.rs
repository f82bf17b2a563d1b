//! Every rule through `kubectl apply`: what is taken, what is refused and in which words, what is warned of.

mod bgp;
mod bgp_table;
mod eip_table;
mod eips;
mod injection;
mod metadata;
mod schema;
mod services;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use openelb_tests::{Deadline, eventually};
use serde_json::{Value, json};

use super::stage::{Said, Stage};

/// What shall come of an object.
#[derive(Clone, Copy)]
enum Expect {
    Taken,
    Warned(&'static str),
    /// By the webhook, in these words.
    Refused(&'static str),
    /// By the CRD's schema before the webhook is asked, in the first words; the webhook would say the second.
    Early(&'static str, &'static str),
    /// By the CRD's schema alone: how much a field may hold.
    Limited(&'static str),
}
use Expect::{Early, Limited, Refused, Taken, Warned};

/// How the API server begins what our webhooks refuse.
const BY_WEBHOOK: &str = "admission webhook \"validate.";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind,
        "metadata": { "name": name }, "spec": spec,
    })
}

fn eip(name: &str, spec: Value) -> Value {
    object("Eip", name, spec)
}

fn annotated(mut object: Value, annotations: Value) -> Value {
    object["metadata"]["annotations"] = annotations;
    object
}

/// How many questions are asked at a time; each is a kubectl.
const AT_ONCE: usize = 4;

const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
const EIP: &str = "eip.openelb.kubesphere.io/v1alpha2";
const DEFAULT: &str = "eip.openelb.kubesphere.io/is-default-eip";
const FORCE: &str = "openelb.kubesphere.io/force-delete";

impl Stage {
    /// Applies without storing, and compares.
    async fn expect(&self, object: &Value, expected: &Expect) -> Result<()> {
        let said = self.apply(object, &["--dry-run=server"]).await?;
        let by_webhook = said.err.contains(BY_WEBHOOK);
        let as_expected = match expected {
            Taken => said.succeeded && !said.err.contains("Warning"),
            Warned(text) => said.succeeded && said.err.contains(text),
            Refused(text) => !said.succeeded && by_webhook && said.err.contains(text),
            Early(text, _) | Limited(text) => {
                !said.succeeded && !by_webhook && said.err.contains(text)
            }
        };
        let wanted = match expected {
            Taken => "taken in silence",
            Warned(text) | Refused(text) | Early(text, _) | Limited(text) => text,
        };
        ensure!(
            as_expected,
            "{object}\n  wanted: {wanted}\n  said: {}{}",
            said.out,
            said.err
        );
        Ok(())
    }

    async fn store(&self, object: &Value) -> Result<()> {
        let said = self.apply(object, &[]).await?;
        ensure!(said.succeeded, "{object}: {}", said.err);
        Ok(())
    }

    /// As the controller does it, whom nobody asks.
    async fn store_as_controller(&self, object: &Value) -> Result<()> {
        let controller = self.chart.account(&self.control, "controller").await?;
        let file = self
            .control
            .folder()
            .write("by-controller.json", object.to_string())?;
        let file = file.to_str().context("a path is no text")?;
        controller
            .kubectl(&["create", "--filename", file])
            .await
            .map(drop)
    }

    /// Waits until the webhook has seen what was stored: until it answers as it must then.
    async fn seen(&self, object: &Value, expected: &Expect) -> Result<()> {
        eventually("the webhook to see it", Deadline::SHORT, async || {
            self.expect(object, expected).await
        })
        .await
    }
}

fn refused(said: &Said, text: &str) -> Result<()> {
    ensure!(
        !said.succeeded && said.err.contains(text),
        "wanted: {text}\nsaid: {}",
        said.err
    );
    Ok(())
}

/// Asks about each, and tells of every one that went otherwise than expected.
async fn all(stage: &Stage, cases: Vec<(Value, Expect)>) -> Result<()> {
    let wrong: Vec<String> = stream::iter(&cases)
        .map(|(object, expected)| stage.expect(object, expected))
        .buffer_unordered(AT_ONCE)
        .filter_map(async |outcome| outcome.err().map(|error| error.to_string()))
        .collect()
        .await;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
