//! What `version` prints.

use serde_json::Value;

/// The version, in the shape of OpenELB's `version` command.
pub(crate) fn json() -> String {
    value().to_string()
}

/// The same as a value.
pub(crate) fn value() -> Value {
    serde_json::json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
