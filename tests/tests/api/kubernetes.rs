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
        let oldest = tools::oldest_minor()?.to_string();
        // What the user gives may be of any release.
        if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
            let found = minor("serverVersion");
            assert_eq!(found == Some(oldest), tools::oldest(), "{versions}");
        }
        Ok(())
    });
}
