//! `get`.

use crate::{
    connection::ConnectionOptions,
    failure::{Exit, Failure},
    output::{Paint, Printer, moment, remark, table, write, write_secret},
};
use clap::Args;
use std::io::{self, IsTerminal as _};
use strongroom_api::secrets::SecretValue;
use strongroom_client::Versioned;
use strongroom_core::{Payload, Reference, SecretBytes};

const EXAMPLES: &str = "\
Examples:
  strongroom get payments/db#password
  strongroom get payments/db@3 | jq -r .password
  strongroom get payments/tls > keystore.p12";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The secret, PATH[#FIELD][@VERSION]; a version is a number or `previous`.
    reference: String,
    /// Show values at a terminal, too.
    #[arg(long)]
    reveal: bool,
}

pub(crate) async fn run(
    arguments: &Arguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let reference = Reference::parse(&arguments.reference).map_err(|error| {
        Failure::usage(error, "Write PROJECT/NAME, PROJECT/NAME#FIELD or PROJECT/NAME#FIELD@VERSION.")
    })?;
    let secret = connection.open()?.client.read(&reference).await?;
    let terminal = io::stdout().is_terminal();
    if printer.is_json() {
        return whole(reference, secret);
    }
    match (&reference.field, &secret.payload) {
        (Some(name), payload @ Payload::Fields(_)) => {
            let value = payload
                .field(name)
                .ok_or_else(|| Failure::new(Exit::Failed, "the answer lacks the field that was asked for"))?;
            exactly(value, terminal)
        }
        (_, Payload::Raw { bytes, .. }) => exactly(bytes, terminal),
        (None, Payload::Fields(_)) if terminal => fields(&reference, &secret, arguments.reveal),
        (None, payload) => {
            write_secret(&payload.encode())?;
            write(b"\n")
        }
    }
}

/// The value and nothing else. A terminal gets no value that would act on it.
fn exactly(value: &SecretBytes, terminal: bool) -> Result<(), Failure> {
    if !terminal {
        return write_secret(value);
    }
    let is_text = value
        .expose_str()
        .is_some_and(|text| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')));
    if !is_text {
        return Err(Failure::new(Exit::Failed, "the value is not plain text, and a terminal would act on it")
            .remedy("Send it to a file or a program: strongroom get … > FILE"));
    }
    write_secret(value)?;
    // Looked at for its last byte only.
    if value.expose_bytes().ends_with(b"\n") { Ok(()) } else { write(b"\n") }
}

/// The table of a whole secret at a terminal.
fn fields(reference: &Reference, secret: &Versioned, reveal: bool) -> Result<(), Failure> {
    let Payload::Fields(fields) = &secret.payload else { unreachable!("only payloads of fields come here") };
    let shown = |value: &SecretBytes| {
        // Exposed at the word of the person at the terminal.
        let text = value.expose_str().unwrap_or_default();
        match (reveal, text.chars().any(char::is_control)) {
            (false, _) => "\u{2022}".repeat(8),
            (true, false) => text.to_owned(),
            (true, true) => format!("{text:?}"),
        }
    };
    let rows: Vec<_> = fields.iter().map(|(name, value)| vec![name.to_string(), shown(value)]).collect();
    write(format!("{} version {}, {}\n\n", reference.path, secret.version, moment(secret.created_at)).as_bytes())?;
    write_secret(&SecretBytes::from(table(&["FIELD", "VALUE"], &rows, Paint::stdout())))?;
    if !reveal {
        remark(format_args!(
            "\n--reveal shows the values; {}#{} is one of them",
            reference.path,
            fields.keys().next().map_or("FIELD", |name| name.as_str())
        ));
    }
    Ok(())
}

fn whole(reference: Reference, secret: Versioned) -> Result<(), Failure> {
    let value =
        SecretValue::expose_payload(reference.path, secret.version, secret.revision, secret.created_at, secret.payload);
    let mut text = Vec::with_capacity(4096);
    serde_json::to_writer_pretty(&mut text, &value).map_err(|error| Failure::new(Exit::Failed, error))?;
    text.push(b'\n');
    write_secret(&SecretBytes::new(text))
}
