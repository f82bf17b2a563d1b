//! Level 1.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ListParams};
use openelb_tests::{ControlPlane, Deadline, eventually, story};

#[test]
fn two_control_planes_run_side_by_side_and_know_nothing_of_each_other() {
    story(async || {
        let (one, other) = tokio::try_join!(ControlPlane::start(), ControlPlane::start())?;
        one.kubectl(&["create", "namespace", "only-here"]).await?;
        assert!(
            Api::<Namespace>::all(one.client())
                .get_opt("only-here")
                .await?
                .is_some()
        );
        assert!(
            Api::<Namespace>::all(other.client())
                .get_opt("only-here")
                .await?
                .is_none()
        );
        Ok(())
    });
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_no_more() {
    story(async || {
        let control = ControlPlane::config().audit().start().await?;
        let reader = control.service_account("team", "reader").await?;
        let maps = Api::<ConfigMap>::namespaced(reader.client(), "team");
        let refused = maps.list(&ListParams::default()).await.unwrap_err();
        assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));

        control
            .kubectl(&[
                "-n",
                "team",
                "create",
                "role",
                "reader",
                "--verb=list",
                "--resource=configmaps",
            ])
            .await?;
        control
            .kubectl(&[
                "-n",
                "team",
                "create",
                "rolebinding",
                "reader",
                "--role=reader",
                "--serviceaccount=team:reader",
            ])
            .await?;
        eventually("the role to hold", Deadline::SHORT, async || {
            maps.list(&ListParams::default()).await
        })
        .await?;
        assert!(
            reader
                .kubectl(&["-n", "team", "create", "configmap", "mine"])
                .await
                .is_err()
        );

        let asked = control.audit()?;
        let lists: Vec<_> = asked
            .iter()
            .filter(|request| request.user.username == reader.name() && request.verb == "list")
            .collect();
        let codes: Vec<_> = lists
            .iter()
            .filter_map(|request| request.response_status.as_ref())
            .map(|r| r.code)
            .collect();
        assert_eq!(
            (codes.first(), codes.last()),
            (Some(&403), Some(&200)),
            "{lists:?}"
        );
        Ok(())
    });
}

#[test]
fn the_controller_manager_gives_each_namespace_its_account() {
    story(async || {
        let began = std::time::Instant::now();
        let control = ControlPlane::config().controller_manager().start().await?;
        println!("a control plane after {:?}", began.elapsed());
        control.kubectl(&["create", "namespace", "fresh"]).await?;
        let accounts = Api::<ServiceAccount>::namespaced(control.client(), "fresh");
        eventually("the default ServiceAccount", Deadline::SHORT, async || {
            accounts.get("default").await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_paused_api_server_answers_nobody_and_goes_on_where_it_was() {
    story(async || {
        let control = ControlPlane::start().await?;
        control.api_server().pause();
        let namespaces = Api::<Namespace>::all(control.client());
        let answer =
            tokio::time::timeout(Duration::from_millis(300), namespaces.get("default")).await;
        assert!(answer.is_err(), "a paused API server answered: {answer:?}");
        control.api_server().resume();
        control.ready().await?;
        Ok(())
    });
}

#[test]
fn a_restarted_control_plane_remembers() {
    story(async || {
        let control = ControlPlane::start().await?;
        control.kubectl(&["create", "namespace", "kept"]).await?;
        control.api_server().stop().await?;
        assert!(control.kubectl(&["get", "namespaces"]).await.is_err());
        control.etcd().restart().await?;
        control.api_server().restart().await?;
        control.ready().await?;
        control.kubectl(&["get", "namespace", "kept"]).await?;
        Ok(())
    });
}
