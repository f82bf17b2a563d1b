//! The Kubernetes that all other tests of this tier trust.

use anyhow::Result;
use openelb_tests::{ControlPlane, story, tools};

#[test]
fn kubectl_and_the_api_server_are_the_release_asked_for() {
    story(async || -> Result<()> {
        let control = ControlPlane::start().await?;
        let versions: serde_json::Value =
            serde_json::from_str(&control.kubectl(&["version", "--output=json"]).await?)?;
        let minor = |side: &str| versions[side]["minor"].as_str().map(str::to_owned);
        assert_eq!(minor("clientVersion"), minor("serverVersion"), "{versions}");
        assert_eq!(
            minor("serverVersion").as_deref() == Some("33"),
            tools::oldest(),
            "{versions}"
        );
        Ok(())
    });
}
