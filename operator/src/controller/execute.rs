//! Carries a plan out: each call of the ledger's protocol becomes one API request.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Error, ResourceExt};
use openelb_api::v1alpha2::{EipAddress, name_for};
use openelb_ipam::ledger::{Answer, Call, Conclusion, Outcome, Plan, Step, Stored, Transaction};
use openelb_ipam::{Said, ServiceFacts, ServiceKey, ServiceStatus};
use tokio::time::timeout;

use super::lean::Lean;
use super::wire;

/// The field manager of everything that the controller writes.
pub(crate) const FIELD_MANAGER: &str = "openelb-controller";
/// How long one request may take; afterwards its end is unknown, and the protocol bears that.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// A plan, and what the patch of the status needs beside it.
pub(crate) struct Job {
    pub(crate) plan: Plan<ServiceStatus>,
    /// The condition as it is now.
    pub(crate) before: Option<Said>,
    pub(crate) generation: Option<i64>,
}

/// How a job ended.
pub(crate) struct Report {
    pub(crate) job: Job,
    pub(crate) end: Result<Conclusion, Failure>,
    /// The Service as it was read afterwards, where the plan has to be made again.
    pub(crate) fresh: Fresh,
}

/// A Service as it was read live.
pub(crate) enum Fresh {
    /// There was no need to, or no answer.
    NotRead,
    /// There is none.
    Gone,
    Found(Box<ServiceFacts>),
}

/// Why a request's end is not known, or why it was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the API server did not answer within {} s", REQUEST.as_secs())]
    Timeout,
    #[error(transparent)]
    Api(#[from] Box<Error>),
    #[error("the API server holds an unusable record: {0}")]
    Unusable(String),
}

impl Failure {
    /// Whether the API server understood and refuses, so that trying again soon is of no use.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Timeout => false,
            Self::Unusable(_) => true,
            Self::Api(error) => match &**error {
                Error::Api(status) => {
                    // Timeouts, and "too many requests", pass.
                    (400..500).contains(&status.code) && ![408, 409, 429].contains(&status.code)
                }
                _ => false,
            },
        }
    }

    /// A word for counting.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Api(_) => "api",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// Carries a job out to its end, whatever that is.
pub(crate) async fn run(client: Client, job: Job) -> Report {
    let mut transaction = Transaction::new(job.plan.clone());
    let end = loop {
        match transaction.step() {
            Step::End(conclusion) => break Ok(conclusion),
            Step::Call(call) => match request(&client, call, &job).await {
                Ok(answer) => transaction.answer(answer),
                Err(failure) => break Err(failure),
            },
        }
    };
    tracing::debug!(outcome = ?end.as_ref().map(|conclusion| &conclusion.outcome), "a plan has ended");
    let again = !matches!(
        &end,
        Ok(Conclusion {
            outcome: Outcome::Done | Outcome::Taken(_),
            ..
        })
    );
    let fresh = if again {
        read(&client, &job.plan.subject.key).await
    } else {
        Fresh::NotRead
    };
    Report { job, end, fresh }
}

/// Reads the Service live.
async fn read(client: &Client, key: &ServiceKey) -> Fresh {
    match timeout(REQUEST, services(client, key).get_opt(&key.name)).await {
        Ok(Ok(Some(service))) => ServiceFacts::read(&service)
            .map_or(Fresh::NotRead, |facts| Fresh::Found(Box::new(facts))),
        Ok(Ok(None)) => Fresh::Gone,
        Ok(Err(_)) | Err(_) => Fresh::NotRead,
    }
}

fn services(client: &Client, key: &ServiceKey) -> Api<Service> {
    Api::namespaced(client.clone(), &key.namespace)
}

async fn request(client: &Client, call: Call<ServiceStatus>, job: &Job) -> Result<Answer, Failure> {
    let records: Api<Lean<EipAddress>> = Api::all(client.clone());
    let answer = timeout(REQUEST, async {
        match call {
            Call::ReadService(key) => {
                let found = services(client, &key).get_metadata_opt(&key.name).await?;
                Ok(Answer::Service(found.and_then(|found| {
                    Some((
                        found.uid()?.as_str().into(),
                        found.resource_version()?.as_str().into(),
                    ))
                })))
            }
            Call::ReadRecord(address) => match records.get_opt(&name_for(address)).await? {
                Some(Lean(found)) => usable(&found).map(|stored| Answer::Record(Some(stored))),
                None => Ok(Answer::Record(None)),
            },
            Call::Create(record) => {
                let params = PostParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let mut reserved = job.plan.reserve.iter();
                let adopted =
                    reserved.any(|one| one.adopted && one.record.address == record.address);
                let object = wire::object(&record, adopted);
                written(records.create(&params, &Lean(object)).await)
            }
            Call::Update(stored) => {
                let patch = Patch::Merge(wire::record_patch(&stored));
                let name = name_for(stored.record.address);
                written(
                    records
                        .patch(&name, &PatchParams::apply(FIELD_MANAGER), &patch)
                        .await,
                )
            }
            Call::Delete(stored) => {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: Some(stored.uid.0.to_string()),
                    resource_version: Some(stored.version.0.to_string()),
                });
                match records
                    .delete(&name_for(stored.record.address), &params)
                    .await
                {
                    Ok(_) => Ok(Answer::Deleted),
                    Err(error) => refused(error),
                }
            }
            Call::Publish(subject, status) => {
                let now = jiff::Timestamp::now();
                let body =
                    wire::status_patch(&subject, &status, job.before.as_ref(), job.generation, now);
                let params = PatchParams::apply(FIELD_MANAGER);
                let api: Api<Lean<Service>> =
                    Api::namespaced(client.clone(), &subject.key.namespace);
                match api
                    .patch_status(&subject.key.name, &params, &Patch::Strategic(body))
                    .await
                {
                    Ok(service) => Ok(Answer::Published(
                        service
                            .resource_version()
                            .unwrap_or_default()
                            .as_str()
                            .into(),
                    )),
                    Err(error) => refused(error),
                }
            }
        }
    });
    answer.await.map_err(|_| Failure::Timeout)?
}

fn usable(found: &EipAddress) -> Result<Stored, Failure> {
    wire::stored(found).map_err(Failure::Unusable)
}

fn written(result: kube::Result<Lean<EipAddress>>) -> Result<Answer, Failure> {
    match result {
        Ok(Lean(found)) => usable(&found).map(Answer::Written),
        Err(error) => refused(error),
    }
}

/// A refusal that the protocol knows is an answer; any other error is a failure.
fn refused(error: Error) -> Result<Answer, Failure> {
    match &error {
        Error::Api(status) if status.is_already_exists() => Ok(Answer::Exists),
        Error::Api(status) if status.is_conflict() => Ok(Answer::Conflict),
        Error::Api(status) if status.is_not_found() => Ok(Answer::NotFound),
        _ => Err(error.into()),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Api(Box::new(error))
    }
}
