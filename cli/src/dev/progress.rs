//! What is said while it starts.

use super::directory::Directory;
use crate::output::{Paint, plain, remark};

/// One line for each thing that is up, on standard error.
pub(super) struct Progress {
    paint: Paint,
}

impl Progress {
    pub(super) fn begin() -> Self {
        let paint = Paint::stderr();
        remark(paint.faint("starting …"));
        Self { paint }
    }

    pub(super) fn done(&self, part: &str, text: &str) {
        remark(self.paint.faint(&format!("  {part:<9} {}", plain(text))));
    }

    pub(super) fn end(&self, directory: &Directory) {
        if !directory.is_in_memory() {
            remark(
                self.paint.faint(
                    "  note      this system has no directory in memory; the sample secret is written to a disk",
                ),
            );
        }
        remark("");
    }
}
