//! Writes this node's entries into the statuses of BgpConf and BgpPeers.
//!
//! Each speaker writes its own key and no other, by JSON merge patch, so that speakers never get in
//! each other's way. An entry is written when it differs from what the API shows, at most once a
//! second for an object; nothing is written because time passed. Failures are tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, NodeConfStatus, NodePeerStatus};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::report::Report;

/// The least time between two rounds of writing.
const PAUSE: Duration = Duration::from_secs(1);

/// How many are written at the same time: a round is over within its second also where there are many peers.
const AT_ONCE: usize = 16;
/// How long one may take.
const REQUEST: Duration = Duration::from_secs(5);

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

/// Which entries this process wrote. Objects with the cni label are the CNI's, and so are the statuses in them: what
/// stands there under this node's name is taken out only where we put it there.
#[derive(Debug, Default)]
pub(super) struct Own {
    conf: bool,
    peers: BTreeSet<String>,
}

/// Whose objects these are.
pub(super) struct Foreign<'a> {
    /// The BgpConf is the CNI's.
    pub(super) conf: bool,
    /// These BgpPeers are.
    pub(super) peers: BTreeSet<&'a str>,
}

impl Own {
    /// Takes the entries out that are none of ours.
    pub(super) fn keep(&mut self, entries: &mut Entries, foreign: &Foreign<'_>) {
        if let Some(entry) = &entries.conf {
            self.conf |= entry.wanted.is_some();
            if foreign.conf {
                self.conf &= entry.shown.is_some();
                if !self.conf {
                    entries.conf = None;
                }
            }
        }
        self.peers.retain(|name| entries.peers.contains_key(name));
        entries.peers.retain(|name, entry| {
            if entry.wanted.is_some() {
                self.peers.insert(name.clone());
            } else if foreign.peers.contains(name.as_str()) {
                if entry.shown.is_none() {
                    self.peers.remove(name);
                }
                return self.peers.contains(name);
            }
            true
        });
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
        let mut due = Vec::new();
        if let Some(entry) = &wish.conf
            && let Some(value) = written.due(CONF, entry)
        {
            due.push((None, json!({"status": {"nodesConfStatus": {&node: value}}})));
        }
        for (name, entry) in &wish.peers {
            if let Some(value) = written.due(&peer_key(name), entry) {
                let body = json!({"status": {"nodesPeerStatus": {&node: value}}});
                due.push((Some(name.clone()), body));
            }
        }
        // What the watch shows of our own writes is a change too, and nothing to wait for: the next may be a real one.
        if due.is_empty() {
            continue;
        }
        let patches = due.into_iter().map(|(name, body)| {
            let (confs, peers) = (confs.clone(), peers.clone());
            async move {
                let done = match &name {
                    None => patch(&confs, keys::BGP_CONF, &body).await,
                    Some(name) => patch(&peers, name, &body).await,
                };
                (name, done)
            }
        });
        let done: Vec<_> = stream::iter(patches)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (name, done) in done {
            again |= !done;
            match name {
                None => {
                    if let Some(entry) = &wish.conf {
                        written.done(CONF, entry, !done);
                    }
                }
                Some(name) => {
                    if let Some(entry) = wish.peers.get(&name) {
                        written.done(&peer_key(&name), entry, !done);
                    }
                }
            }
        }
        sleep_until(now + PAUSE).await;
    }
}

/// What the BgpConf is called in [`Written`].
const CONF: &str = "conf";

/// What a BgpPeer is called there.
fn peer_key(name: &str) -> String {
    format!("peer/{name}")
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
    let patch = Patch::Merge(body);
    let request = api.patch_status(name, &params, &patch);
    match timeout(REQUEST, request).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => true,
        Err(_) => {
            tracing::debug!(
                name,
                "this node's status was not taken in time; trying again"
            );
            false
        }
        Ok(Err(error)) => {
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
    fn what_the_cni_wrote_stays_and_what_we_wrote_goes() {
        let peer = |wanted: bool, shown: bool| {
            let some = |is: bool| is.then(NodePeerStatus::default);
            let entry = Entry {
                wanted: some(wanted),
                shown: some(shown),
            };
            Entries {
                conf: None,
                peers: [("r".to_owned(), entry)].into(),
            }
        };
        let theirs = Foreign {
            conf: false,
            peers: ["r"].into(),
        };
        let ours = Foreign {
            conf: false,
            peers: BTreeSet::new(),
        };
        let kept = |own: &mut Own, mut entries: Entries, foreign: &Foreign<'_>| {
            own.keep(&mut entries, foreign);
            !entries.peers.is_empty()
        };
        let mut own = Own::default();
        assert!(!kept(&mut own, peer(false, true), &theirs), "never ours");
        assert!(kept(&mut own, peer(true, true), &ours));
        assert!(kept(&mut own, peer(false, true), &theirs), "it was ours");
        assert!(!kept(&mut own, peer(false, false), &theirs), "it is gone");
        assert!(!kept(&mut own, peer(false, true), &theirs), "and is theirs");
        assert!(
            kept(&mut own, peer(false, true), &ours),
            "left by a process before"
        );
    }

    #[test]
    fn the_bgpconf_of_the_cni_is_left_alone() {
        let conf = |entry| Entries {
            conf: Some(entry),
            peers: BTreeMap::new(),
        };
        let theirs = Foreign {
            conf: true,
            peers: BTreeSet::new(),
        };
        let mut own = Own::default();
        let mut entries = conf(entry(None, Some(1)));
        own.keep(&mut entries, &theirs);
        assert!(entries.conf.is_none());
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
