//! YAML as people write it.

use anyhow::{Context, Result};
use serde_json::Value;

/// A document of a YAML stream.
pub(crate) fn document(value: &Value) -> Result<String> {
    let body = serde_saphyr::to_string(value).context("cannot write YAML")?;
    Ok(format!("---\n{}\n", body.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for crd in openelb_api::crd::crds() {
            let text = document(&crd).unwrap();
            let back: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(back, crd);
        }
    }
}
