//! `strongroom-server backup verify` and `strongroom-server restore`.

use crate::BackupVerb;
use anyhow::Context as _;
use std::{fs::File, io::BufReader, path::Path, time::Instant};
use strongroom_core::SystemClock;
use strongroom_server::{
    Settings,
    backup::{CannotRestore, DamagedRecords, Report, rehearse, restore as restore_backup, verify as verify_backup},
    process::{self, CoreDumps},
    root::Root,
    settings::{RootKeySettings, RootKeySource},
};
use strongroom_store::{InstanceKind, Options, Store};

pub(crate) async fn verify(verb: BackupVerb) -> anyhow::Result<()> {
    let BackupVerb::Verify { file, root_key, settings, scratch_url_file } = verb;
    process::harden(CoreDumps::default());
    let root_key = match root_key {
        Some(path) => RootKeySettings::only(RootKeySource::File(path)),
        None => Settings::load(&settings)?.root_key,
    };
    let root = Root::open(&root_key)?;
    let root = root.keys().as_ref();
    let started = Instant::now();
    let report = verify_backup(open(&file)?, root).await?;
    print(&report);
    anyhow::ensure!(report.is_sound(), "the backup is not sound: see above");
    if let Some(url_file) = scratch_url_file {
        let url = std::fs::read_to_string(&url_file).with_context(|| format!("cannot read {}", url_file.display()))?;
        let store = Store::connect(url.trim_end(), &Options::default())?;
        let outcome = rehearse(open(&file)?, &store, root).await;
        store.close().await;
        outcome.map_err(failed)?;
        println!("restored: into the scratch database, and taken back");
    }
    println!("sound: everything is as it was written, and opens ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

pub(crate) async fn restore(file: &Path, settings: &Path, records: DamagedRecords) -> anyhow::Result<()> {
    let settings = Settings::load(settings)?;
    process::log("warn")?;
    process::harden(settings.core_dumps);
    let root = Root::open(&settings.root_key)?;
    let url = settings.database_url.expose_str().context("the database's URL is not text")?;
    let options = Options {
        ca: settings.database_ca.clone(),
        require_tls: settings.kind == InstanceKind::Production,
        ..Options::default()
    };
    let store = Store::connect(url, &options)?;
    let started = Instant::now();
    let instance = (settings.instance.as_str(), settings.kind);
    let outcome = restore_backup(open(file)?, &store, root.keys().as_ref(), instance, records, &SystemClock).await;
    store.close().await;
    let report = outcome.map_err(failed)?.report;
    print(&report);
    if !report.damaged_records.is_empty() {
        println!("left out: {} damaged records, as told; they are in the backup only", report.damaged_records.len());
    }
    println!("restored in {:.1} s", started.elapsed().as_secs_f64());
    println!("what came after the backup was taken is lost; start the server, then see `strongroom backup reconcile`");
    Ok(())
}

fn open(file: &Path) -> anyhow::Result<BufReader<File>> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(BufReader::with_capacity(1 << 20, opened))
}

fn print(report: &Report) {
    let header = &report.header;
    println!("instance: {} ({}), {}", header.instance.name, header.instance.id, header.instance.kind);
    println!("taken at: {} by release {}, schema {}", header.taken_at, header.server, header.schema);
    println!("sha256:   {} (of all but the last line)", report.sha256);
    for (table, rows) in &report.rows {
        println!("{table}: {rows}");
    }
    println!("values opened: {} ({} bytes)", report.values.0, report.values.1);
    for project in &report.quarantined {
        println!(
            "quarantined: project {project}; its rows wait for an operator's word, and still do once this is restored"
        );
    }
    for problem in &report.problems {
        println!("WRONG {} {}: {}", problem.table, problem.row, problem.what);
    }
    if report.more_problems > 0 {
        println!("WRONG {} more", report.more_problems);
    }
}

fn failed(error: CannotRestore) -> anyhow::Error {
    if let CannotRestore::NotSound(report) = &error {
        print(report);
        if report.is_sound_but_for_records() {
            println!(
                "only records are damaged that nothing is decided by; --accept-damaged-records restores without them"
            );
        }
    }
    error.into()
}
