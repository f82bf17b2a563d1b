//! A replica whose clock jumps: the certificate that it makes is of no use to the others, and theirs of none to it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use openelb_tests::clock::Clock;
use openelb_tests::{ControlPlane, Deadline, Folder, eventually, story};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::certificates::Load;
use super::stage::{SECRET, Stage};

/// Past the life of a serving certificate, which is 30 days.
const AHEAD: i64 = 40 * 24 * 3600;
/// How long the clocks disagree once the replicas have noticed: replicas that undid each other's writes as fast as they
/// see them would do so some hundred times.
const DISAGREEMENT: Duration = Duration::from_secs(20);
/// Writes that both replicas together may make until the clocks agree: each four at once, and then after pauses of 1, 2,
/// 4, 8 and 16 seconds; and one for the first certificate.
const MOST_WRITES: usize = 2 * (4 + 5) + 1;

/// How often the Secret was written so far.
fn writes(stage: &Stage) -> Result<usize> {
    let requests = stage.control.audit()?;
    let of_the_secret = requests.iter().filter(|request| {
        let taken = request.response_status.as_ref();
        request.is_write()
            && taken.is_some_and(|response| response.code < 300)
            && request.object_ref.as_ref().is_some_and(|object| {
                // One that is created has no name in its path, and there is no other.
                object.resource == "secrets" && (object.name == SECRET || object.name.is_empty())
            })
    });
    Ok(of_the_secret.count())
}

/// That every replica serves what the Secret holds, and that a client with the real time trusts it, by what the
/// configurations say.
async fn all_is_well(stage: &Stage) -> Result<()> {
    let held = stage.secret("tls.crt").await?;
    let held = CertificateDer::from_pem_slice(held.as_bytes())?;
    let trust = stage.ca_bundle().await?;
    for replica in &stage.replicas {
        replica.process.check()?;
        let served = replica.handshake(&trust).await?;
        ensure!(served == held, "a replica serves another certificate");
    }
    Ok(())
}

#[test]
fn a_clock_that_jumps_ahead_and_back_fails_no_review_and_writes_no_end_of_secrets() {
    story(async || -> Result<()> {
        let folder = Folder::new("clock")?;
        let clock = Clock::new(&folder)?;
        let control = ControlPlane::config().audit().start().await?;
        let stage = Stage::prepare_on(control, 2, &[], |number, program| match number {
            0 => program,
            _ => clock.program(program),
        })
        .await?;
        stage.configure().await?;
        stage.ready().await?;
        let [right, moved] = stage.replicas.as_slice() else {
            anyhow::bail!("two replicas")
        };
        Clock::forget_names(&moved.process);
        all_is_well(&stage).await?;
        let trust = stage.ca_bundle().await?;
        let (right, moved) = (right.process.log_path(), moved.process.log_path());
        let (right, moved) = (right.to_owned(), moved.to_owned());

        let stage = Arc::new(stage);
        let load = Load::start(&stage);
        clock.set_ahead(AHEAD)?;
        // It looks at the clock every half minute.
        for (log, words) in [(&moved, "expired at"), (&right, "the clock went back")] {
            eventually("both to notice", Deadline::LONG, async || {
                let said = std::fs::read_to_string(log)?;
                ensure!(said.contains(words), "{said}");
                anyhow::Ok(())
            })
            .await?;
        }
        tokio::time::sleep(DISAGREEMENT).await;
        clock.set_ahead(0)?;
        eventually(
            "a certificate of the real time",
            Deadline::LONG,
            async || all_is_well(&stage).await,
        )
        .await?;
        let reviews = load.finish().await?;
        ensure!(reviews > 100, "only {reviews} reviews");
        let writes = writes(&stage)?;
        println!("{reviews} reviews, {writes} writes of the Secret");
        // Both made a certificate at least once, beside the first one.
        ensure!((3..=MOST_WRITES).contains(&writes), "{writes} writes");
        ensure!(stage.ca_bundle().await? == trust, "another authority");
        let trusted = stage.secret("ca.crt").await?;
        ensure!(trusted == trust, "the Secret trusts another authority");
        Ok(())
    });
}
