//! A bar at a terminal, on standard error; elsewhere nothing.

use std::io::{self, IsTerminal as _, Write as _};

const WIDTH: usize = 30;

/// How far it is.
pub(crate) struct Progress {
    done: usize,
    total: usize,
    shown: bool,
}

impl Progress {
    /// A bar for `total` steps; `quiet` shows none.
    pub(crate) fn new(total: usize, quiet: bool) -> Self {
        Self { done: 0, total, shown: !quiet && total > 0 && io::stderr().is_terminal() }
    }

    pub(crate) fn step(&mut self) {
        self.done += 1;
        if self.shown {
            // A terminal that is gone is told nothing.
            let _ = write!(io::stderr(), "\r{}", bar(self.done, self.total));
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r{}\r", " ".repeat(bar(self.total, self.total).chars().count()));
        }
    }
}

fn bar(done: usize, total: usize) -> String {
    let filled = (done * WIDTH).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
    format!("[{}{}] {done}/{total}", "#".repeat(filled), " ".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_bar_fills_from_left_to_right() {
        assert_eq!(bar(0, 4), format!("[{}] 0/4", " ".repeat(30)));
        assert_eq!(bar(2, 4), format!("[{}{}] 2/4", "#".repeat(15), " ".repeat(15)));
        assert_eq!(bar(4, 4), format!("[{}] 4/4", "#".repeat(30)));
    }
}
