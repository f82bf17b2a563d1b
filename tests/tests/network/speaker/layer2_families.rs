//! Both families of one Service on a LAN: each is led, announced and shown by itself.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use openelb_api::Family;
use openelb_membership::leader;
use openelb_tests::{Capture, Deadline, eventually, scenario};
use serde_json::json;

use super::layer2::{
    ADDRESS, KEY, answering_at, believed, counts, give_key, shown_at, speak_everywhere,
};
use super::stage::Stage;

const BOTH: [&str; 2] = ["n1", "n2"];

/// Who leads an address while all live.
fn leads(address: &str) -> Result<&'static str> {
    leader(address.parse()?, BOTH).context("nobody")
}

/// An address of the segment that another node leads than [`ADDRESS`].
fn elsewhere() -> Result<String> {
    let first = leader(ADDRESS.parse()?, BOTH);
    let all = (0x100..0x200).map(|last| Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, last));
    let mut others = all.filter(|ip| leader(IpAddr::V6(*ip), BOTH) != first);
    Ok(others.next().context("one node leads all")?.to_string())
}

/// Waits until a node answers for an address.
async fn answers(stage: &Stage, address: &str, node: &str) -> Result<()> {
    eventually(
        &format!("{node} at {address}"),
        Deadline::LONG,
        async || {
            stage.check_but_killed()?;
            let found = answering_at(stage, address).await?;
            ensure!(found == node, "{found} answers");
            anyhow::Ok(())
        },
    )
    .await
}

#[test]
fn each_family_of_a_service_has_a_leader_of_its_own_and_moves_by_itself() {
    scenario(async || {
        let v6 = elsewhere()?;
        let mut stage = Stage::start(2).await?;
        give_key(&stage, KEY).await?;
        let range = format!("{ADDRESS}/32,{v6}/128");
        let spec = json!({"address": range, "protocol": "layer2", "interface": "eth0"});
        stage.ours("Eip", "pool", &spec).await?;
        stage
            .service_of("pool", "web", "Cluster", &[ADDRESS, &v6])
            .await?;
        for family in Family::ALL {
            stage.slice("web", &["n1"], family).await?;
        }
        speak_everywhere(&mut stage, &["--enable-layer2"]).await?;
        let (first, second) = (leads(ADDRESS)?, leads(&v6)?);
        for (address, node) in [(ADDRESS, first), (&v6, second)] {
            answers(&stage, address, node).await?;
            shown_at(&stage, address, node).await?;
        }
        for (node, protocol) in [(first, "arp"), (second, "ndp")] {
            counts(&stage, node, "addresses", |value| value == 1).await?;
            for what in ["requests", "responses", "gratuitous"] {
                let name = format!("{what}_total{{protocol=\"{protocol}\"}}");
                counts(&stage, node, &name, |value| value > 0).await?;
            }
        }

        // The leader of the one dies without a word. A host that knows the address is told who has it now.
        let host = stage.network.lan_client();
        let capture = Capture::start(host.namespace(), stage.network.folder()).await?;
        let heir = stage.network.node(first)?.clone();
        let heir = heir.namespace().hardware_address(heir.interface).await?;
        answers(&stage, &v6, second).await?;
        stage.speaker(second)?.kill().await;
        eventually(
            "the host to be told of the heir",
            Deadline::SHORT,
            async || {
                let found = believed(&stage, &v6).await?;
                ensure!(found == first, "it takes {found} for the one");
                let claims = capture.claims().into_iter();
                let mut told = claims.filter(|claim| claim.is_announcement() && claim.from == heir);
                ensure!(told.any(|claim| claim.address.to_string() == v6));
                anyhow::Ok(())
            },
        )
        .await?;
        shown_at(&stage, &v6, first).await?;
        counts(&stage, first, "addresses", |value| value == 2).await?;
        // The other family has stayed where it was, and is shown there.
        ensure!(answering_at(&stage, ADDRESS).await? == first);
        shown_at(&stage, ADDRESS, first).await?;

        // It comes back, and gets its own family alone.
        stage.speak(second, &[]).await?;
        for (address, node) in [(&*v6, second), (ADDRESS, first)] {
            answers(&stage, address, node).await?;
            shown_at(&stage, address, node).await?;
        }
        counts(&stage, first, "addresses", |value| value == 1).await
    });
}
