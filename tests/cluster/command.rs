//! Child processes: what they printed, and whether they succeeded.

use anyhow::{Context as _, bail};
use std::{process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How long any one command may take; builds are not run this way.
const LIMIT: Duration = Duration::from_mins(3);

/// How a command ended.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs a command with `input` on its standard input, whether or not it succeeds.
pub(crate) async fn output(command: &mut Command, input: &[u8]) -> anyhow::Result<Output> {
    let name = name(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{name} does not start"))?;
    let mut stdin = child.stdin.take().expect("standard input was asked for");
    let feed = async move {
        // A command that does not read its input closes it; its status says whether that was right.
        let _ = stdin.write_all(input).await;
    };
    let ((), ended) = tokio::join!(feed, timeout(LIMIT, child.wait_with_output()));
    let ended = ended.with_context(|| format!("{name} did not end within {} s", LIMIT.as_secs()))??;
    let stderr = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Ok(Output { success: ended.status.success(), stdout: ended.stdout, stderr })
}

/// What a command that succeeds prints.
pub(crate) async fn bytes(command: &mut Command, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let output = output(command, input).await?;
    if !output.success {
        bail!("{}: {}", name(command), output.stderr);
    }
    Ok(output.stdout)
}

/// What a command that succeeds prints, as text.
pub(crate) async fn text(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
    String::from_utf8(bytes(command, input).await?)
        .with_context(|| format!("{} printed other than text", name(command)))
}

/// Runs a command that may take long and shows what it prints.
pub(crate) async fn shown(command: &mut Command) -> anyhow::Result<()> {
    let name = name(command);
    let status = command.kill_on_drop(true).status().await.with_context(|| format!("{name} does not start"))?;
    if !status.success() {
        bail!("{name} failed");
    }
    Ok(())
}

/// The command as it was typed, cut: scripts are long.
fn name(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy());
    let mut line = words.collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(160) {
        line.truncate(cut);
        line.push('…');
    }
    line
}
