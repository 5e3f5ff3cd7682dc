//! Messages of parsers, without what they repeat of their input.

/// An error's message without what it repeats of the input. serde quotes the offending value before ", expected": only what follows is kept. Messages
/// that do not quote (a missing field, a syntax error, our own parsers') stay whole, without the place that is said already.
pub(crate) fn harmless(message: &str) -> &str {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let quotes = ["invalid type", "invalid value", "invalid length", "unknown field", "unknown variant"];
    if quotes.iter().any(|quote| message.starts_with(quote)) {
        match message.rsplit_once(", expected") {
            Some((quoted, _)) => &message[quoted.len() + 2..],
            None => "not what is expected here",
        }
    } else {
        message
    }
}
