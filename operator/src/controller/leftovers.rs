//! Deletes records that nobody needs: they name no Service, are not reserved, and nothing keeps them.
//!
//! Such a record is deleted at exactly the version that was seen. Whoever is about to take it up raises it
//! first, so one of the two finds the other's write.

use std::net::IpAddr;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, Preconditions};
use openelb_api::v1alpha2::{EipAddress, name_for};
use openelb_ipam::ledger::Stored;
use openelb_ipam::{Index, Millis};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::execute::REQUEST;

/// How many are deleted at the same time.
const PARALLEL: usize = 4;
/// How long one that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

enum End {
    Deleted,
    /// It was changed: the watch says how.
    Changed,
    Failed,
}

/// Records to delete.
#[derive(Default)]
pub(crate) struct Leftovers {
    waiting: Vec<Stored>,
    running: JoinSet<(Stored, End)>,
}

impl Leftovers {
    /// Takes up what the index tells of, as far as there is room.
    pub(crate) fn work(&mut self, index: &mut Index, client: &Client) {
        self.waiting.extend(index.take_leftovers());
        while self.running.len() < PARALLEL {
            let Some(stored) = self.waiting.pop() else {
                return;
            };
            self.running.spawn(delete(client.clone(), stored));
        }
    }

    /// Waits until a deletion has ended and tells the index; for ever when none runs.
    pub(crate) async fn ended(&mut self) -> Ended {
        match self.running.join_next().await {
            Some(Ok((stored, end))) => Ended(Some((stored, end))),
            Some(Err(_)) => Ended(None),
            None => std::future::pending().await,
        }
    }
}

/// How a deletion ended.
pub(crate) struct Ended(Option<(Stored, End)>);

impl Ended {
    /// Tells the index.
    pub(crate) fn tell(self, index: &mut Index, now: Millis) {
        let Some((stored, end)) = self.0 else { return };
        let address: IpAddr = stored.record.address;
        match end {
            End::Deleted => index.remove_record(address, &stored.uid, now),
            End::Changed => {}
            End::Failed => index.doubt(address),
        }
    }
}

async fn delete(client: Client, stored: Stored) -> (Stored, End) {
    let api: Api<EipAddress> = Api::all(client);
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: Some(stored.uid.0.to_string()),
        resource_version: Some(stored.version.0.to_string()),
    });
    let name = name_for(stored.record.address);
    let end = match timeout(REQUEST, api.delete(&name, &params)).await {
        Ok(Ok(_)) => {
            tracing::info!(eipaddress = name, "nobody needs it any more");
            End::Deleted
        }
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => End::Deleted,
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => End::Changed,
        Ok(Err(error)) => {
            tracing::warn!(eipaddress = name, %error, "cannot delete it; trying again");
            End::Failed
        }
        Err(_) => End::Failed,
    };
    if matches!(end, End::Failed) {
        sleep(PAUSE).await;
    }
    (stored, end)
}
