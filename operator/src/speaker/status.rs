//! Writes this node's entries into the statuses of BgpConf and BgpPeers.
//!
//! Each speaker writes its own key and no other, by JSON merge patch, so that speakers never get in
//! each other's way. An entry is written when it differs from what the API shows, at most once a
//! second for an object; nothing is written because time passed. Failures are tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, NodeConfStatus, NodePeerStatus};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::report::Report;

/// The least time between two rounds of writing.
const PAUSE: Duration = Duration::from_secs(1);

/// What to write: the entries wanted and the ones that the API shows, for the objects that exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries {
    /// BgpConf `default`, where it exists.
    pub(super) conf: Option<Entry<NodeConfStatus>>,
    /// BgpPeers by name.
    pub(super) peers: BTreeMap<String, Entry<NodePeerStatus>>,
}

/// One entry: what it should be and what it is; `None` for no entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry<T> {
    /// What it should be.
    pub(super) wanted: Option<T>,
    /// What the API shows.
    pub(super) shown: Option<T>,
}

/// An entry as the API shows it, if there is one.
pub(super) type Shown<T> = Option<T>;

impl Entries {
    /// Puts wish and reality side by side.
    pub(super) fn new(
        report: &Report,
        conf: Option<Shown<NodeConfStatus>>,
        peers: BTreeMap<String, Shown<NodePeerStatus>>,
    ) -> Self {
        Self {
            conf: conf.map(|shown| Entry {
                wanted: report.conf.clone(),
                shown,
            }),
            peers: peers
                .into_iter()
                .map(|(name, shown)| {
                    let wanted = report.peers.get(&name).cloned();
                    (name, Entry { wanted, shown })
                })
                .collect(),
        }
    }
}

/// Follows `entries` until its sender is gone.
pub(super) async fn write(client: Client, node: String, mut entries: watch::Receiver<Entries>) {
    let confs: Api<BgpConf> = Api::all(client.clone());
    let peers: Api<BgpPeer> = Api::all(client);
    // What the API was last seen or made to show, and what was seen then: a patch of ours counts
    // until the watch shows something else.
    let mut written = Written::default();
    let mut again = false;
    loop {
        if again {
            tokio::time::sleep(PAUSE).await;
        } else if entries.changed().await.is_err() {
            return;
        }
        again = false;
        let now = Instant::now();
        let wish = entries.borrow_and_update().clone();
        written.forget_missing(&wish);
        if let Some(entry) = &wish.conf
            && let Some(value) = written.due("conf", entry)
        {
            let body = json!({"status": {"nodesConfStatus": {&node: value}}});
            again |= !patch(&confs, keys::BGP_CONF, &body).await;
            written.done("conf", entry, again);
        }
        for (name, entry) in &wish.peers {
            let key = format!("peer/{name}");
            if let Some(value) = written.due(&key, entry) {
                let body = json!({"status": {"nodesPeerStatus": {&node: value}}});
                let failed = !patch(&peers, name, &body).await;
                written.done(&key, entry, failed);
                again |= failed;
            }
        }
        sleep_until(now + PAUSE).await;
    }
}

/// Writes; says whether it worked, or never can (the object is gone).
async fn patch<K>(api: &Api<K>, name: &str, body: &serde_json::Value) -> bool
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = PatchParams {
        field_manager: Some("openelb-speaker".to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(name, &params, &Patch::Merge(body)).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.is_not_found() => true,
        Err(error) => {
            tracing::debug!(name, %error, "cannot write this node's status; trying again");
            false
        }
    }
}

/// What was written, by object.
#[derive(Default)]
struct Written(BTreeMap<String, (serde_json::Value, serde_json::Value)>);

impl Written {
    /// The value to write, where the object does not show it yet (`null` removes the entry).
    fn due<T: Serialize + PartialEq + Clone>(
        &self,
        key: &str,
        entry: &Entry<T>,
    ) -> Option<serde_json::Value> {
        if entry.wanted == entry.shown {
            return None;
        }
        let wanted = diff(entry);
        let written = self.0.get(key);
        let seen = serde_json::to_value(&entry.shown).unwrap_or_default();
        if written.is_some_and(|(value, then)| *value == wanted && *then == seen) {
            return None;
        }
        Some(wanted)
    }

    fn done<T: Serialize + PartialEq + Clone>(
        &mut self,
        key: &str,
        entry: &Entry<T>,
        failed: bool,
    ) {
        if failed {
            self.0.remove(key);
        } else {
            let seen = serde_json::to_value(&entry.shown).unwrap_or_default();
            self.0.insert(key.to_owned(), (diff(entry), seen));
        }
    }

    fn forget_missing(&mut self, wish: &Entries) {
        self.0.retain(|key, _| match key.strip_prefix("peer/") {
            Some(name) => wish.peers.contains_key(name),
            None => wish.conf.is_some(),
        });
    }
}

/// The wanted entry as a merge patch over the shown one: what is no longer there becomes `null`.
fn diff<T: Serialize>(entry: &Entry<T>) -> serde_json::Value {
    let wanted = serde_json::to_value(&entry.wanted).unwrap_or_default();
    let shown = serde_json::to_value(&entry.shown).unwrap_or_default();
    merge(&wanted, &shown)
}

fn merge(wanted: &serde_json::Value, shown: &serde_json::Value) -> serde_json::Value {
    let (Some(new), Some(old)) = (wanted.as_object(), shown.as_object()) else {
        return wanted.clone();
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut patch: serde_json::Map<_, _> = gone
        .map(|key| (key.clone(), serde_json::Value::Null))
        .collect();
    for (key, value) in new {
        let old = old.get(key).unwrap_or(&serde_json::Value::Null);
        patch.insert(key.clone(), merge(value, old));
    }
    serde_json::Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(wanted: Option<i64>, shown: Option<i64>) -> Entry<NodeConfStatus> {
        let status = |asn| NodeConfStatus {
            as_number: asn,
            ..NodeConfStatus::default()
        };
        Entry {
            wanted: wanted.map(status),
            shown: shown.map(status),
        }
    }

    #[test]
    fn what_the_api_shows_already_is_not_written() {
        let written = Written::default();
        assert_eq!(written.due("conf", &entry(Some(1), Some(1))), None);
        assert_eq!(written.due("conf", &entry(None, None)), None);
        assert_eq!(
            written.due("conf", &entry(Some(1), None)),
            Some(json!({"as": 1}))
        );
        assert_eq!(
            written.due("conf", &entry(None, Some(1))),
            Some(json!(null))
        );
    }

    #[test]
    fn a_write_counts_until_the_watch_shows_something_else() {
        let mut written = Written::default();
        written.done("conf", &entry(Some(2), Some(1)), false);
        assert_eq!(written.due("conf", &entry(Some(2), Some(1))), None);
        let reset = written.due("conf", &entry(Some(2), Some(7)));
        assert!(reset.is_some(), "somebody wrote over it");
        written.done("conf", &entry(Some(2), Some(1)), true);
        assert!(
            written.due("conf", &entry(Some(2), Some(1))).is_some(),
            "it failed"
        );
    }

    #[test]
    fn fields_that_are_no_longer_set_are_removed() {
        let shown = NodeConfStatus {
            message: "x".to_owned(),
            as_number: 1,
            ..NodeConfStatus::default()
        };
        let entry = Entry {
            wanted: entry(Some(1), None).wanted,
            shown: Some(shown),
        };
        assert_eq!(diff(&entry), json!({"as": 1, "message": null}));
    }
}
