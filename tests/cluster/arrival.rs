//! The files are there when the app starts, and changes reach them.

use crate::{
    cluster::eventually,
    follow::Follower,
    pods::{self, FILES, INJECTED, NAMESPACE, USER},
    search::planted,
    suite::{Figures, Suite},
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::{fs, time::Duration};
use tokio::time::Instant;

/// The Deployment that all behaviours look at.
pub(crate) const APP: &str = "api";

/// How long a change may take to reach a file.
const CHANGE_LIMIT: Duration = Duration::from_secs(1);

/// The app. Its first instruction reads a file. Then it reads both fields, as a directory and as files, through one generation of the files, as
/// fast as it can, and says when they changed. Values begin with their version's number; only that is ever printed.
///
/// `cd` resolves `..data` once: what is read below it is one generation, or gone when it is replaced meanwhile, and then read again.
fn reader(control: &str) -> String {
    format!(
        r#"{{ read -r first < {FILES}/db/password; }} 2>/dev/null
echo "first ${{first%%.*}}"
echo "{control}"
trap 'exit 0' TERM
trap 'echo "total $reads $mixed $last"' USR1
reads=0 mixed=0 last=
while :; do
  turn=0
  while [ $turn -lt 50 ]; do
    turn=$((turn + 1)) a= b= c= d=
    {{ cd -P {FILES}/..data && read -r a < password; read -r b < username; read -r c < db/password; read -r d < db/username; }} 2>/dev/null
    if [ -n "$a" ] && [ -n "$b" ] && [ -n "$c" ] && [ -n "$d" ]; then
      reads=$((reads + 1)) a=${{a%%.*}} b=${{b%%.*}} c=${{c%%.*}} d=${{d%%.*}}
      if [ "$a" != "$b" ] || [ "$a" != "$c" ] || [ "$a" != "$d" ]; then mixed=$((mixed + 1)); fi
      if [ "$a" != "$last" ]; then last=$a; read -r up rest < /proc/uptime; echo "seen $a $up"; fi
    fi
  done
  usleep 1000
done"#
    )
}

/// A Deployment with one secret: what it looks like from outside and inside.
pub(crate) async fn comes_up(suite: &Suite) -> anyhow::Result<Figures> {
    let plant = planted(&suite.control);
    let annotations = [&INJECTED[..], &[("suite.strongroom.dev.invalid/control", plant.as_str())]].concat();
    let template = pods::template(&suite.image, APP, &annotations, &reader(&plant));
    let template = pods::with_tokens(template, &crate::install::audience(crate::install::CLUSTER));
    let started = Instant::now();
    suite.cluster.apply(&pods::deployment(NAMESPACE, APP, &template)).await?;
    suite.cluster.rolled_out(NAMESPACE, APP).await?;
    let took = started.elapsed();

    let name = suite.pod_of(APP).await?;
    let pod = suite.cluster.json(&["-n", NAMESPACE, "get", "pod", &name]).await?;
    let agent = check_spec(&pod)?;
    let log = suite.cluster.kubectl(&["-n", NAMESPACE, "logs", &name, "-c", "app"]).await?;
    let first = log.lines().next().unwrap_or_default();
    ensure!(first == "first 1", "the app's first instruction did not find its file; it printed {first:?}");

    let seen = suite.cluster.exec(NAMESPACE, &name, "app", &inspection()).await?;
    check_inside(&seen)?;
    let agents_own = inside_the_agent(suite, &name).await?;
    let limits = &agent["resources"]["limits"]["memory"];
    Ok(vec![
        format!(
            "rolled out in {:.1} s; one native sidecar, started once, limited to {} of memory",
            took.as_secs_f64(),
            limits.as_str().unwrap_or("?")
        ),
        "the first instruction found its file".to_owned(),
        format!(
            "files of user {USER} with mode 0400, on a tmpfs that is read-only to the app: nothing in it could be written, made or removed"
        ),
        format!("app: uid {USER}, no capabilities, no new privileges, seccomp; agent: {agents_own}"),
    ])
}

/// One init container, native, and what it may do.
fn check_spec(pod: &Value) -> anyhow::Result<&Value> {
    let init = pod["spec"]["initContainers"].as_array().context("nothing was injected")?;
    ensure!(init.len() == 1, "the pod has {} init containers", init.len());
    let agent = &init[0];
    ensure!(
        agent["name"] == "strongroom-agent" && agent["restartPolicy"] == "Always",
        "the agent is no native sidecar"
    );
    let context = &agent["securityContext"];
    ensure!(
        context["runAsNonRoot"] == true
            && context["runAsUser"] == USER
            && context["allowPrivilegeEscalation"] == false
            && context["readOnlyRootFilesystem"] == true
            && context["capabilities"]["drop"] == serde_json::json!(["ALL"]),
        "the agent's security context is not the restricted one"
    );
    let status = &pod["status"]["initContainerStatuses"][0];
    ensure!(status["started"] == true && status["restartCount"] == 0, "the agent is not started, or restarted");
    ensure!(
        pod["spec"]["containers"].as_array().is_some_and(|containers| containers.len() == 1),
        "the pod has other containers than its own"
    );
    Ok(agent)
}

/// Prints, each on a line of its own: the user, what `/proc` says of the process, the mount, each file's owner and mode, and what could be changed.
fn inspection() -> String {
    let files = "password username db/password db/username";
    format!(
        r#"echo "user $(id -u)"
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/1/status
while read -r device path kind options rest; do [ "$path" != {FILES} ] || echo "mount $kind $options"; done < /proc/1/mounts
for file in {files}; do echo "file $(stat -L -c '%u %a' {FILES}/$file)"; done
for try in "touch {FILES}/new" "touch {FILES}/password" "rm {FILES}/password" "mkdir {FILES}/new"; do $try 2>/dev/null && echo "changed by $try"; done
for file in {FILES}/..data/password; do (echo x > $file) 2>/dev/null && echo "changed by writing"; done
true"#
    )
}

fn check_inside(seen: &str) -> anyhow::Result<()> {
    let lines: Vec<&str> = seen.lines().map(str::trim).collect();
    let has = |line: &str| lines.iter().any(|seen| seen.split_whitespace().eq(line.split_whitespace()));
    ensure!(has(&format!("user {USER}")), "the app runs as another user: {seen}");
    check_process(seen)?;
    let mount = lines.iter().find_map(|line| line.strip_prefix("mount ")).context("nothing is mounted for the app")?;
    ensure!(mount.starts_with("tmpfs ro,"), "the app's mount is not a read-only tmpfs: {mount}");
    let files: Vec<_> = lines.iter().filter(|line| line.starts_with("file ")).collect();
    ensure!(
        files.len() == 4 && files.iter().all(|file| **file == format!("file {USER} 400")),
        "owner or mode are not as intended: {files:?}"
    );
    ensure!(!seen.contains("changed"), "the app can change its files: {seen}");
    Ok(())
}

/// No capabilities in any set, no new privileges, a seccomp filter.
fn check_process(status: &str) -> anyhow::Result<()> {
    let value = |name: &str| status.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        let bits = value(set).with_context(|| format!("{set} is not there"))?;
        ensure!(bits.bytes().all(|digit| digit == b'0'), "{set} {bits}");
    }
    ensure!(value("NoNewPrivs:") == Some("1"), "new privileges can be gained");
    ensure!(value("Seccomp:") == Some("2"), "there is no seccomp filter");
    Ok(())
}

/// What `/proc` says of the agent, seen from a container beside it: its own image has no shell.
async fn inside_the_agent(suite: &Suite, pod: &str) -> anyhow::Result<String> {
    let custom = format!("{{\"securityContext\":{{\"runAsUser\":{USER}}}}}");
    let custom_file = std::env::temp_dir().join(format!("strongroom-debug-{}.json", std::process::id()));
    fs::write(&custom_file, custom)?;
    let image = format!("--image={}", suite.image.name);
    let pull = format!("--image-pull-policy={}", suite.image.pull_policy);
    let custom = format!("--custom={}", custom_file.display());
    let look = "grep -E '^(Uid|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/1/status";
    let debug = [
        "-n",
        NAMESPACE,
        "debug",
        pod,
        "--profile=restricted",
        "--target=strongroom-agent",
        "-c",
        "look",
        &image,
        &pull,
        &custom,
    ];
    let debugged = suite.cluster.kubectl(&[&debug[..], &["--", "/bin/sh", "-c", look]].concat()).await;
    // Best effort: it is in the system's temporary directory.
    let _ = fs::remove_file(&custom_file);
    debugged?;
    let status = eventually(Duration::from_secs(30), "the container beside the agent looked at it", async || {
        let log = suite.cluster.kubectl(&["-n", NAMESPACE, "logs", pod, "-c", "look"]).await?;
        Ok(log.contains("Seccomp:").then_some(log))
    })
    .await?;
    check_process(&status)?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let user = user.split_whitespace().next().unwrap_or_default();
    ensure!(user == USER.to_string(), "the agent runs as {user}");
    Ok(format!("uid {user}, the same"))
}

/// Ten changes by the command line program. The time is taken from before the program starts: to the moment the app noted (`/proc/uptime`, one
/// clock where pod and test share a kernel, in steps of 10 ms), and to the moment the app's line reached the test, which is later by the log's way.
pub(crate) async fn ten_changes(suite: &mut Suite) -> anyhow::Result<Figures> {
    let pod = suite.pod_of(APP).await?;
    let boot = "/proc/sys/kernel/random/boot_id";
    let one_clock =
        suite.cluster.exec(NAMESPACE, &pod, "app", &format!("cat {boot}")).await? == fs::read_to_string(boot)?;
    let mut log =
        Follower::start(&mut suite.cluster.command(&["-n", NAMESPACE, "logs", "-f", "--tail=1", &pod, "-c", "app"]))?;
    let (mut figures, mut noted, mut late) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let (up, started) = (uptime(&fs::read_to_string("/proc/uptime")?)?, Instant::now());
        let version = suite.put_next().await?;
        let put = started.elapsed();
        let seen = |line: &str| line.strip_prefix(&format!("seen {version} ")).map(str::to_owned);
        let (at, app_noted) =
            log.next(Duration::from_secs(10), seen).await.with_context(|| format!("version {version}"))?;
        let told = at.saturating_duration_since(started);
        let within = if one_clock { Duration::from_secs_f64((uptime(&app_noted)? - up).max(0.0)) } else { told };
        noted.push(within.as_millis());
        if within > CHANGE_LIMIT {
            late.push(version);
        }
        figures.push(format!(
            "version {version}: in the file after {} ms (`put` itself took {} ms; its line was here after {} ms)",
            within.as_millis(),
            put.as_millis(),
            told.as_millis()
        ));
    }
    suite.cluster.exec(NAMESPACE, &pod, "app", "kill -USR1 1").await?;
    let total =
        |line: &str| line.strip_prefix("total ").map(|rest| rest.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let (_, total) = log.next(Duration::from_secs(10), total).await.context("the reader's totals")?;
    let [reads, mixed, last] = &total[..] else { anyhow::bail!("the reader's totals are {total:?}") };
    ensure!(late.is_empty(), "versions {late:?} took longer than a second: {figures:?}");
    ensure!(
        mixed == "0" && *last == suite.version.to_string(),
        "{mixed} of {reads} reads saw two versions; the last one is {last}"
    );
    ensure!(reads.parse::<u64>().is_ok_and(|reads| reads > 1000), "only {reads} reads");
    noted.sort_unstable();
    let clock = if one_clock {
        "from the start of `put` to the app's own note, one clock, ±10 ms"
    } else {
        "from the start of `put` to its line here"
    };
    figures.push(format!("least {} ms, median {} ms, most {} ms: {clock}", noted[0], noted[5], noted[9]));
    figures.push(format!("{reads} reads of four files of one generation, {mixed} with two versions"));
    Ok(figures)
}

fn uptime(text: &str) -> anyhow::Result<f64> {
    text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).context("no uptime")
}

/// A Job whose pod has the sidecar ends when its own container does.
pub(crate) async fn job_completes(suite: &Suite) -> anyhow::Result<Figures> {
    let script = format!("read -r password < {FILES}/password; [ -n \"$password\" ] && echo \"had ${{password%%.*}}\"");
    let template = pods::template(&suite.image, "report", &INJECTED, &script);
    let started = Instant::now();
    suite.cluster.apply(&pods::job(NAMESPACE, "report", template)).await?;
    suite
        .cluster
        .kubectl(&["-n", NAMESPACE, "wait", "--for=condition=complete", "job/report", "--timeout=60s"])
        .await?;
    let took = started.elapsed().as_secs_f64();
    let log = suite.cluster.kubectl(&["-n", NAMESPACE, "logs", "job/report", "-c", "app"]).await?;
    let (had, version) = (log.trim(), suite.version);
    // `read` fails at a file's end without a line's end, which is how a value is stored; what it read counts.
    ensure!(had == format!("had {version}"), "the Job printed {had:?}");
    Ok(vec![format!("complete {took:.1} s after it was made, with the secret's version {version}")])
}
