//! Level 2: keepalived from a typed configuration.

use openelb_tests::{Network, Prober, Traffic, Vrrp, VrrpState, scenario};

use crate::faults::{all, serve};

#[test]
fn keepalived_moves_its_addresses_off_an_unplugged_node_and_back() {
    scenario(async || {
        let network = Network::start(2).await?;
        let [one, two] = network.nodes() else {
            anyhow::bail!("two nodes")
        };
        let vips = ["10.0.0.100".parse()?, "fd00:10::100".parse()?];
        let mut servers = Vec::new();
        for node in network.nodes() {
            servers.push(serve(&network, node, &[]).await?);
        }
        let first = Vrrp::new(7, &vips).priority(200);
        let first = first.start(one, network.folder()).await?;
        let second = Vrrp::new(7, &vips).start(two, network.folder()).await?;
        first.becomes(VrrpState::Master).await?;
        second.becomes(VrrpState::Backup).await?;
        let mut prober = Prober::start(network.lan_client(), &all(&vips, &[Traffic::Tcp]))?;
        prober.answered(50).await?;
        let fault = prober.mark("n1 is unplugged");
        network.unplug(one).await?;
        second.becomes(VrrpState::Master).await?;
        prober.answered(50).await?;
        network.plug(one).await?;
        second.becomes(VrrpState::Backup).await?;
        first.becomes(VrrpState::Master).await?;
        prober.answered(50).await?;
        let report = prober.stop().await?;
        println!("keepalived, 100 ms: gap {:?}\n{report}", report.gap());
        anyhow::ensure!(report.failed_before(fault) == 0, "{report}");
        anyhow::ensure!(report.by_node().len() == 2, "{report}");
        Ok(())
    });
}
