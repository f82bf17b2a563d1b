//! Which build this is.

use serde_json::Value;

/// What the command `version` prints, in the shape of OpenELB's.
#[must_use]
pub fn json() -> String {
    value().to_string()
}

/// The same as a value.
#[must_use]
pub fn value() -> Value {
    serde_json::json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
