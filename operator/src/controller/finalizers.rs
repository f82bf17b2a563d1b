//! Takes OpenELB's finalizers off the objects that carry them, so that nothing hangs when we are gone. We
//! never add any.

use std::fmt::Debug;

use futures::StreamExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use super::execute::FIELD_MANAGER;
use super::feed;
use crate::process::Context;

/// Watches BgpConfs and BgpPeers for as long as the process runs; acts while it leads.
pub(crate) fn watch_bgp(context: &Context, leading: watch::Receiver<bool>) {
    watch_kind::<BgpConf>(context, leading.clone());
    watch_kind::<BgpPeer>(context, leading);
}

fn watch_kind<K>(context: &Context, mut leading: watch::Receiver<bool>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let metadata: Api<PartialObjectMeta<K>> = Api::all(context.client.clone());
    let api: Api<K> = Api::all(context.client.clone());
    tokio::spawn(
        context
            .shutdown
            .clone()
            .run_until_cancelled_owned(async move {
                if leading.wait_for(|leads| *leads).await.is_err() {
                    return;
                }
                let stream = watcher::watcher(metadata, watcher::Config::default());
                let mut stream = Box::pin(stream.backoff(feed::patience()).applied_objects());
                while let Some(event) = stream.next().await {
                    let Ok(object) = event else { continue };
                    let carries = object
                        .finalizers()
                        .iter()
                        .any(|known| known == keys::OPENELB_FINALIZER);
                    if carries && *leading.borrow() {
                        let name = object.name_any();
                        if let Err(error) = take_off(&api, &name, keys::OPENELB_FINALIZER).await {
                            tracing::warn!(%name, %error, "cannot take OpenELB's finalizer off");
                        }
                    }
                }
            }),
    );
}

/// Attempts to take a finalizer off against others who write the object too.
const ATTEMPTS: u8 = 8;

/// Takes one finalizer off an object, if it is there. A conflict with another writer is tried again on a fresh
/// read; the object is most often being written by ourselves at that moment.
pub(crate) async fn take_off<K>(api: &Api<K>, name: &str, finalizer: &str) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut attempt = 1;
    loop {
        match try_take_off(api, name, finalizer).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn try_take_off<K>(api: &Api<K>, name: &str, finalizer: &str) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let Some(found) = api.get_metadata_opt(name).await? else {
        return Ok(());
    };
    if !found.finalizers().iter().any(|known| known == finalizer) {
        return Ok(());
    }
    let left: Vec<_> = found
        .finalizers()
        .iter()
        .filter(|known| *known != finalizer)
        .collect();
    let body =
        json!({"metadata": {"resourceVersion": found.resource_version(), "finalizers": left}});
    api.patch_metadata(
        name,
        &PatchParams::apply(FIELD_MANAGER),
        &Patch::Merge(body),
    )
    .await
    .map(drop)
}
