//! The key with which speakers talk to each other. It is made once, by whoever comes first, and never changed while it is
//! good: speakers with different keys do not hear each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use openelb_membership::Key;
use tracing::info;

/// The Secret and the key in it, as OpenELB has them.
const SECRET: &str = openelb_api::keys::MEMBERLIST_SECRET;
const FIELD: &str = openelb_api::keys::MEMBERLIST_KEY;

/// Makes sure that `namespace` has a key that speakers accept.
pub(super) async fn ensure(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PostParams {
        field_manager: Some("openelb-install".to_owned()),
        ..PostParams::default()
    };
    let found = api
        .get_opt(SECRET)
        .await
        .with_context(|| format!("cannot read the Secret {SECRET}"))?;
    let Some(mut secret) = found else {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some(BTreeMap::from([
                    ("app".to_owned(), "openelb".to_owned()),
                    ("component".to_owned(), "speaker".to_owned()),
                ])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(FIELD.to_owned(), new_key())])),
            ..Secret::default()
        };
        return match api.create(&params, &secret).await {
            Ok(_) => {
                info!(secret = SECRET, "made a key for the speakers");
                Ok(())
            }
            // Somebody else was faster, with a key as good.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot make the Secret {SECRET}")),
        };
    };
    let data = secret.data.get_or_insert_default();
    let Err(fault) = Key::new(data.get(FIELD).map_or(&[], |key| key.0.as_slice())) else {
        return Ok(());
    };
    data.insert(FIELD.to_owned(), new_key());
    api.replace(SECRET, &params, &secret)
        .await
        .with_context(|| format!("cannot put a good key into the Secret {SECRET}"))?;
    info!(secret = SECRET, reason = %fault, "replaced the key of the speakers");
    Ok(())
}

/// 32 random bytes as text, because the key reaches the speakers through their environment.
fn new_key() -> ByteString {
    let mut text = String::new();
    for byte in rand::random::<[u8; 32]>() {
        let _ = write!(text, "{byte:02x}");
    }
    ByteString(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_accepted_and_no_two_are_equal() {
        let (one, other) = (new_key(), new_key());
        assert!(Key::new(&one.0).is_ok());
        assert_ne!(one, other);
    }
}
