//! Server-sent events (HTML Living Standard, 9.2), as much as Strongroom's watch uses, bounded: a line and an event have at most 16 KiB each.
//!
//! Unlike a browser it hands out events that have a name and no data, and refuses a lone carriage return and text that is not UTF-8.

use std::collections::VecDeque;

/// Longest line and largest event in bytes.
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Why a stream is not server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadStream {
    #[error("a line of the stream is longer than {MAX_LINE} bytes")]
    LongLine,
    #[error("an event of the stream has more than {MAX_LINE} bytes of data")]
    LargeEvent,
    #[error("the stream is not UTF-8")]
    NotText,
    #[error("a line of the stream has a carriage return within it")]
    CarriageReturn,
}

/// Turns chunks, cut anywhere, into events.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    started: bool,
    events: VecDeque<Event>,
}

impl Parser {
    /// Takes a chunk. After an error the stream is of no use.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) -> Result<(), BadStream> {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.grow_line(&chunk[..end])?;
            chunk = &chunk[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.end_line(&line)?;
        }
        self.grow_line(chunk)
    }

    /// The next event that is complete.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn grow_line(&mut self, part: &[u8]) -> Result<(), BadStream> {
        if self.line.len() + part.len() > MAX_LINE {
            return Err(BadStream::LongLine);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), BadStream> {
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| BadStream::NotText)?;
        let line = if std::mem::replace(&mut self.started, true) { line } else { line.trim_start_matches('\u{feff}') };
        if line.contains('\r') {
            return Err(BadStream::CarriageReturn);
        }
        if line.is_empty() {
            self.end_event();
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() > MAX_LINE {
                    return Err(BadStream::LargeEvent);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments (an empty field name), `id`, `retry` and what later versions may add.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) || !name.is_empty() {
            self.events.push_back(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, BadStream> {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.push(chunk)?;
        }
        Ok(std::iter::from_fn(|| parser.next_event()).map(|event| (event.name, event.data)).collect())
    }

    fn events(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect()
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let stream = "\u{feff}: hello\r\nevent: change\r\ndata: {\"a\":\r\ndata:1}\r\nid: 7\r\n\r\nevent: heartbeat\n\ndata: bare\n\n\nevent: cut".as_bytes();
        let expected = Ok(events(&[("change", "{\"a\":\n1}"), ("heartbeat", ""), ("", "bare")]));
        assert_eq!(parse(&[stream]), expected);
        for cut in 1..stream.len() {
            assert_eq!(parse(&[&stream[..cut], &stream[cut..]]), expected, "cut at {cut}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(parse(&bytes), expected);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        assert_eq!(parse(&[&vec![b'a'; MAX_LINE + 1]]), Err(BadStream::LongLine));
        assert_eq!(parse(&[&vec![b'a'; MAX_LINE], b"a"]), Err(BadStream::LongLine));
    }

    #[test]
    fn an_event_without_end_is_refused_before_it_fills_the_memory() {
        let line = [b"data:".as_slice(), &[b'a'; 1024], b"\n"].concat();
        assert_eq!(parse(&[line.as_slice(); 17]), Err(BadStream::LargeEvent));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        assert_eq!(parse(&[b"data: \xff\n"]), Err(BadStream::NotText));
    }

    #[test]
    fn a_lone_carriage_return_is_refused() {
        assert_eq!(parse(&[b"data: a\rdata: b\n"]), Err(BadStream::CarriageReturn));
    }
}
