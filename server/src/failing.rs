//! What fails again and again is said once; what fails otherwise meanwhile is said too.

use std::collections::BTreeSet;

/// What went wrong since it last went well.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    said: BTreeSet<String>,
}

/// Most that are remembered. What comes on top of so many is no news.
const MOST: usize = 64;

impl Failing {
    /// Whether this was not said yet since it last went well. An outage does not hide what is found during it.
    pub(crate) fn is_new(&mut self, error: &str) -> bool {
        self.said.len() < MOST && self.said.insert(error.to_owned())
    }

    /// It went well.
    pub(crate) fn ends(&mut self) {
        self.said.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_said_once_until_it_goes_well_again() {
        let mut failing = Failing::default();
        let said: Vec<_> =
            ["away", "away", "tampered", "away", "tampered"].into_iter().filter(|e| failing.is_new(e)).collect();
        assert_eq!(said, ["away", "tampered"]);
        failing.ends();
        assert!(failing.is_new("tampered"));
        assert_eq!(
            (0..1_000).filter(|n| failing.is_new(&n.to_string())).count(),
            MOST - 1,
            "it does not grow for ever"
        );
    }
}
