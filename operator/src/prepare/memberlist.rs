//! The key with which speakers talk to each other. It is made once, by whoever comes first, and never changed while it is
//! good: speakers with different keys do not hear each other. It stays whatever helm does: OpenELB's chart has it among the
//! objects of its release, and an upgrade to ours would take it away from running speakers.

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
/// What tells helm to leave an object alone that its release had and has no longer.
const POLICY: (&str, &str) = ("helm.sh/resource-policy", "keep");

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
        return match api.create(&params, &fresh()).await {
            Ok(_) => {
                info!(secret = SECRET, "made a key for the speakers");
                Ok(())
            }
            // Somebody else was faster, with a key as good.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot make the Secret {SECRET}")),
        };
    };
    let kept = keep(&mut secret);
    let fault = mend(&mut secret);
    if !kept && fault.is_none() {
        return Ok(());
    }
    api.replace(SECRET, &params, &secret)
        .await
        .with_context(|| format!("cannot mend the Secret {SECRET}"))?;
    if kept {
        info!(secret = SECRET, "helm will leave it alone from now on");
    }
    if let Some(reason) = fault {
        info!(secret = SECRET, reason, "replaced the key of the speakers");
    }
    Ok(())
}

/// A Secret with a new key.
fn fresh() -> Secret {
    let mut secret = Secret {
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
    keep(&mut secret);
    secret
}

/// Tells helm to leave the Secret alone; whether that is news.
fn keep(secret: &mut Secret) -> bool {
    let (name, value) = POLICY;
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let before = annotations.insert(name.to_owned(), value.to_owned());
    before.as_deref() != Some(value)
}

/// Puts a good key into the Secret where there is none, and says what was wrong.
fn mend(secret: &mut Secret) -> Option<String> {
    let data = secret.data.get_or_insert_default();
    let fault = Key::new(data.get(FIELD).map_or(&[], |key| key.0.as_slice())).err()?;
    data.insert(FIELD.to_owned(), new_key());
    Some(fault.to_string())
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
    #[test]
    fn a_good_key_stays_and_helm_is_told_once() {
        let mut secret = fresh();
        let before = secret.clone();
        assert!(!keep(&mut secret));
        assert_eq!(mend(&mut secret), None);
        assert_eq!(secret, before);
    }

    #[test]
    fn a_key_that_openelb_left_is_kept_from_helm_and_from_everybody_who_knows_it() {
        let mut secret = fresh();
        secret.metadata.annotations = None;
        secret.data = Some(BTreeMap::from([(
            FIELD.to_owned(),
            ByteString(b"openelb-speakers".to_vec()),
        )]));
        assert!(keep(&mut secret));
        assert!(mend(&mut secret).is_some());
        assert_eq!(mend(&mut secret), None);
    }
}
