//! What must be true in a cluster before the rest is installed: `openelb-operator prepare`, which the chart runs as a hook
//! before an installation and before an upgrade.
//!
//! Every step says what shall be and lets the API server find the difference, so that a second run changes nothing.

mod crds;
mod memberlist;
mod namespace;
mod workloads;

use std::time::Duration;

use anyhow::Result;
use kube::api::PatchParams;

use crate::process::Context;

/// How long one step may take: an API server that is slow to publish a kind, a pod that is slow to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// What to prepare; nothing when nothing is named.
#[derive(Debug, Clone, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a step that can be left out"
)]
pub(crate) struct Args {
    /// Apply the CRDs and wait until they are served.
    #[arg(long)]
    crds: bool,
    /// Label the namespace for Pod Security, so that speakers may use the host's network.
    #[arg(long)]
    pod_security: bool,
    /// Make the key with which speakers talk to each other, where there is none or everybody knows it.
    #[arg(long)]
    memberlist: bool,
    /// Remove workloads of OpenELB whose selector differs from ours.
    #[arg(long)]
    replace_openelb: bool,
}

/// Does what `args` name. OpenELB's workloads go last: until then they carry the addresses.
///
/// # Errors
/// The API server cannot be reached or refuses, or a step takes longer than a minute.
pub(crate) async fn run(args: Args, context: Context) -> Result<()> {
    let (client, namespace) = (&context.client, &context.namespace);
    if args.pod_security {
        namespace::label(client, namespace).await?;
    }
    if args.crds {
        crds::apply(client).await?;
    }
    if args.memberlist {
        memberlist::ensure(client, namespace).await?;
    }
    if args.replace_openelb {
        workloads::remove_foreign(client, namespace).await?;
    }
    Ok(())
}

fn ours() -> PatchParams {
    PatchParams::apply("openelb-install").force()
}

/// What the API server said, without the rest of its answer.
fn plainly(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::Error::msg(status.message.clone()),
        other => other.into(),
    }
}
