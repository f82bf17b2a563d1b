//! The webhook's account: what it needs, which every other test here shows by running with it, and no more.

use anyhow::Result;
use openelb_tests::story;

use super::stage::Stage;

#[test]
fn the_webhook_may_do_what_it_does_and_nothing_else() {
    story(async || -> Result<()> {
        let stage = Stage::prepare(0, &[]).await?;
        let account = stage.chart.account(&stage.control, "webhook").await?;
        for (verb, what) in [
            ("list", "eips"),
            ("watch", "nodes"),
            ("update", "secrets/openelb-admission"),
            ("patch", "validatingwebhookconfigurations/openelb-admission"),
        ] {
            assert!(stage.may(&account, verb, what).await?, "{verb} {what}");
        }
        for (verb, what) in [
            ("get", "secrets/other"),
            ("list", "secrets"),
            ("delete", "secrets/openelb-admission"),
            ("update", "eips"),
            ("patch", "eips"),
            ("delete", "eips"),
            ("create", "eipaddresses"),
            ("patch", "bgppeers"),
            ("get", "services"),
            ("patch", "services"),
            ("get", "pods"),
            ("patch", "nodes"),
            ("create", "events"),
            ("get", "configmaps"),
            ("create", "validatingwebhookconfigurations"),
            ("patch", "validatingwebhookconfigurations/other"),
            ("patch", "mutatingwebhookconfigurations/other"),
            ("delete", "mutatingwebhookconfigurations/openelb-admission"),
        ] {
            assert!(!stage.may(&account, verb, what).await?, "{verb} {what}");
        }
        Ok(())
    });
}
