//! The value occurs nowhere but where it is meant to be.

use crate::{
    install::NAMESPACE_OF_STRONGROOM,
    pods::{FILES, NAMESPACE},
    search::{FORMS, Needles, planted},
    suite::{Figures, Suite},
};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::{fs, path::Path};

/// Where values are looked for: what it is, how much of it there is, and its content.
struct Place {
    what: &'static str,
    parts: usize,
    content: Vec<u8>,
}

/// Looks through everything. In each place a control was planted in every form, and must be found in every form.
pub(crate) async fn none(suite: &mut Suite) -> anyhow::Result<Figures> {
    // The control of the search itself: where the values are meant to be, they are.
    let app = suite.pod_of(crate::arrival::APP).await?;
    let file = suite.cluster.exec(NAMESPACE, &app, "app", &format!("cat {FILES}/password {FILES}/username")).await?;
    let markers = suite.markers.each_ref().map(|marker| Needles::of(marker));
    ensure!(
        markers.iter().all(|marker| marker.found_in(file.as_bytes()) == ["raw"]),
        "the values are not even in the app's files"
    );

    plant(suite).await?;
    suite.keep_logs().await?;
    let talkative = talkative(suite)?;
    let places = [
        objects(suite).await?,
        events(suite).await?,
        logs(suite),
        audit(suite).await?,
        dump(suite).await?,
        data_files(suite).await?,
    ];
    let control = Needles::of(&suite.control);
    let mut figures = Vec::new();
    for Place { what, parts, content } in places {
        let found = control.found_in(&content);
        ensure!(found == FORMS, "{what}: the control was found only as {found:?}, so the search proves nothing");
        for (field, needles) in ["password", "username"].iter().zip(&markers) {
            let found = needles.found_in(&content);
            ensure!(found.is_empty(), "{what}: the {field} stands there as {found:?}");
        }
        figures.push(format!(
            "{what}: {parts} with {} KiB; the control found in {} forms, the values in none",
            content.len() / 1024,
            FORMS.len()
        ));
    }
    figures.push(format!("{} versions of two fields were put; {talkative}", suite.version));
    Ok(figures)
}

/// An event and a table that hold the control; the app's annotations and log have held it since its start.
async fn plant(suite: &Suite) -> anyhow::Result<()> {
    let control = planted(&suite.control);
    let pod = json!({"kind": "Pod", "namespace": NAMESPACE, "name": "control"});
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "control", "namespace": NAMESPACE},
        "involvedObject": pod, "type": "Normal", "reason": "Control", "message": control,
    });
    suite.cluster.apply(&event).await?;
    let table = format!("CREATE TABLE control (planted text NOT NULL); INSERT INTO control VALUES ('{control}');");
    suite.database.sql(&table).await.map(drop)
}

async fn objects(suite: &Suite) -> anyhow::Result<Place> {
    let kinds = "pods,deployments,replicasets,jobs,configmaps,secrets,serviceaccounts,services,endpointslices";
    let list = suite.cluster.json(&["get", kinds, "-A", "--show-managed-fields"]).await?;
    let parts = list["items"].as_array().context("no list of objects")?.len();
    Ok(Place {
        what: "objects of the Kubernetes API, pods' specs among them",
        parts,
        content: list.to_string().into_bytes(),
    })
}

async fn events(suite: &Suite) -> anyhow::Result<Place> {
    let list = suite.cluster.json(&["get", "events", "-A"]).await?;
    let parts = list["items"].as_array().context("no list of events")?.len();
    Ok(Place { what: "events", parts, content: list.to_string().into_bytes() })
}

fn logs(suite: &Suite) -> Place {
    let content = suite.logs().iter().flat_map(|log| log.lines.iter().copied()).collect();
    Place { what: "containers' logs at the level trace", parts: suite.logs().len(), content }
}

async fn audit(suite: &Suite) -> anyhow::Result<Place> {
    let text = suite
        .database
        .sql("SELECT audit_events::text FROM audit_events UNION ALL SELECT control::text FROM control")
        .await?;
    let parts = text.lines().count() - 1;
    ensure!(parts > 20, "the audit log has only {parts} events");
    Ok(Place { what: "audit events", parts, content: text.into_bytes() })
}

async fn dump(suite: &Suite) -> anyhow::Result<Place> {
    Ok(Place { what: "PostgreSQL's dump", parts: 1, content: suite.database.dump().await? })
}

async fn data_files(suite: &Suite) -> anyhow::Result<Place> {
    suite.database.sql("CHECKPOINT").await?;
    let mut place =
        Place { what: "PostgreSQL's files: data, write-ahead log, its own log", parts: 0, content: Vec::new() };
    for directory in suite.database.directories() {
        read_below(&directory, &mut place)?;
    }
    Ok(place)
}

fn read_below(directory: &Path, place: &mut Place) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot look into {}", directory.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_below(&entry.path(), place)?;
        } else if kind.is_file() {
            place.parts += 1;
            match fs::read(entry.path()) {
                Ok(content) => place.content.extend(content),
                // It runs: files of its own come and go.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", entry.path().display())),
            }
        }
    }
    Ok(())
}

/// Our three programs did log, below `info` too: silence would prove nothing.
fn talkative(suite: &Suite) -> anyhow::Result<String> {
    let of = |part: &str| -> String {
        let logs = suite.logs().iter().filter(|log| log.container.contains(part));
        logs.map(|log| String::from_utf8_lossy(&log.lines)).collect()
    };
    let mut said = Vec::new();
    for (program, part) in [
        ("server", format!("{NAMESPACE_OF_STRONGROOM}/strongroom-server")),
        ("injector", format!("{NAMESPACE_OF_STRONGROOM}/strongroom-injector")),
        ("agent", "/strongroom-agent".to_owned()),
    ] {
        let text = of(&part);
        let detailed = text.lines().filter(|line| line.contains("\"DEBUG\"") || line.contains("\"TRACE\"")).count();
        ensure!(text.lines().count() > 0, "the {program} logged nothing");
        said.push(format!("{program} {} lines, {detailed} of them below info", text.lines().count()));
    }
    Ok(format!("logged: {}", said.join("; ")))
}
