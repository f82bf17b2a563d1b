//! What `kubectl get` shows of each kind: OpenELB's columns in their places, and ours after them.

use anyhow::{Context, Result};
use openelb_tests::{ControlPlane, story};
use serde_json::{Value, json};

use super::{control_plane, object, patch_status};

/// Stores an object with this status.
async fn stored(
    control: &ControlPlane,
    kind: &str,
    name: &str,
    spec: Value,
    status: Value,
) -> Result<()> {
    control.apply(&object(kind, name, spec)).await?;
    let object = format!("{kind}/{name}");
    patch_status(control, &object, &json!({"status": status})).await
}

/// The table of a kind with one object in it, as a reader sees it: titles, values. No value here has two blanks in it.
async fn table(control: &ControlPlane, kind: &str) -> Result<[Vec<String>; 2]> {
    let table = control.kubectl(&["get", kind]).await?;
    let lines: Vec<Vec<String>> = table
        .lines()
        .map(|line| {
            let cells = line.split("  ").map(str::trim);
            let cells = cells.filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect()
        })
        .collect();
    lines.try_into().ok().context(table)
}

/// That a table has these columns with these values, and the object's age as the last.
fn assert_shows(table: &[Vec<String>; 2], columns: &[(&str, &str)]) -> Result<()> {
    let [titles, values] = table;
    let wanted: Vec<&str> = columns
        .iter()
        .map(|(title, _)| *title)
        .chain(["AGE"])
        .collect();
    assert_eq!(titles, &wanted);
    let (age, values) = values.split_last().context("no values")?;
    let wanted: Vec<&str> = columns.iter().map(|(_, value)| *value).collect();
    assert_eq!(values, wanted);
    assert!(
        age.starts_with(|first: char| first.is_ascii_digit()),
        "{age}"
    );
    Ok(())
}

#[test]
fn of_an_eip_openelbs_columns_come_first() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        stored(
            &control,
            "Eip",
            "lan",
            json!({"address": "192.0.2.0/28", "protocol": "layer2"}),
            json!({"usage": 3, "poolSize": 16, "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}),
        )
        .await?;
        assert_shows(
            &table(&control, "eips").await?,
            &[
                ("NAME", "lan"),
                ("CIDR", "192.0.2.0/28"),
                ("USAGE", "3"),
                ("TOTAL", "16"),
                ("PROTOCOL", "layer2"),
                ("READY", "True"),
            ],
        )?;
        let all = control.kubectl(&["get", "networking"]).await?;
        assert!(all.contains("eip.network.kubesphere.io/lan"), "{all}");
        Ok(())
    });
}

#[test]
fn of_an_address_every_service_and_the_announcer_are_shown() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        stored(
            &control,
            "EipAddress",
            "192.0.2.7",
            json!({"address": "192.0.2.7", "eip": "lan", "protocol": "layer2", "services": [
                {"namespace": "shop", "name": "web", "uid": "1"}, {"namespace": "shop", "name": "mail", "uid": "2"},
            ], "holders": "shop/web, shop/mail"}),
            json!({"announcers": [{"node": "worker-1", "interfaces": ["eth0"]}]}),
        )
        .await?;
        assert_shows(
            &table(&control, "eipa").await?,
            &[
                ("NAME", "192.0.2.7"),
                ("ADDRESS", "192.0.2.7"),
                ("EIP", "lan"),
                ("SERVICES", "shop/web, shop/mail"),
                ("PROTOCOL", "layer2"),
                ("ANNOUNCER", "worker-1"),
            ],
        )?;
        Ok(())
    });
}

#[test]
fn of_bgp_the_speaker_and_its_sessions_are_shown() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let accepted = json!([{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        stored(
            &control,
            "BgpConf",
            "default",
            json!({"as": 65000, "routerId": "10.0.0.1", "listenPort": 17900}),
            json!({"conditions": accepted}),
        )
        .await?;
        assert_shows(
            &table(&control, "bgpconfs").await?,
            &[
                ("NAME", "default"),
                ("AS", "65000"),
                ("PORT", "17900"),
                ("ACCEPTED", "True"),
            ],
        )?;
        stored(
            &control,
            "BgpPeer",
            "spine",
            json!({"conf": {"neighborAddress": "192.0.2.254", "peerAs": 65001}}),
            json!({"conditions": accepted, "summary": "2/3 Established"}),
        )
        .await?;
        assert_shows(
            &table(&control, "bgppeers").await?,
            &[
                ("NAME", "spine"),
                ("PEER", "192.0.2.254"),
                ("AS", "65001"),
                ("SESSIONS", "2/3 Established"),
                ("ACCEPTED", "True"),
            ],
        )?;
        Ok(())
    });
}
