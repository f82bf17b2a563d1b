//! What `version` prints.

/// The version, in the shape of OpenELB's `version` command.
pub(crate) fn json() -> String {
    serde_json::json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
    .to_string()
}
