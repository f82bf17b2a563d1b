//! Asking the API server whose a token is, and what that user may do.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use super::Verdict;

/// What a scraper must be allowed to `get`.
const PATH: &str = "/metrics";

/// Asks both questions.
pub(super) async fn ask(client: kube::Client, token: String) -> Result<Verdict, String> {
    let Some(user) = authenticate(client.clone(), token).await? else {
        return Ok(Verdict::Unknown);
    };
    let name = user.username.clone().unwrap_or_default();
    Ok(if may_scrape(client, user).await? {
        Verdict::Allowed
    } else {
        Verdict::Forbidden { user: name }
    })
}

/// Whose it is, if it is somebody's.
async fn authenticate(client: kube::Client, token: String) -> Result<Option<UserInfo>, String> {
    let question = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token),
            ..TokenReviewSpec::default()
        },
        ..TokenReview::default()
    };
    let answer = Api::all(client)
        .create(&PostParams::default(), &question)
        .await
        .map_err(plainly)?;
    let status = answer.status.unwrap_or_default();
    let known = status.authenticated.unwrap_or_default();
    Ok(status.user.filter(|_| known))
}

async fn may_scrape(client: kube::Client, user: UserInfo) -> Result<bool, String> {
    let question = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(PATH.to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::all(client)
        .create(&PostParams::default(), &question)
        .await
        .map_err(plainly)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// What the API server said, without the rest of its answer. No token is in it.
fn plainly(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
