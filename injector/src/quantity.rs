//! Amounts, written as Kubernetes writes them.

/// A number of bytes, written as Kubernetes does: `4Mi`, `512Ki`, `1Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Parses a whole number with `Ki`, `Mi` or `Gi`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "Ki" => 10,
            "Mi" => 20,
            "Gi" => 30,
            _ => return None,
        };
        let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        whole.then(|| digits.parse::<u64>().ok()?.checked_mul(1 << shift).map(Self))?
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (shift, unit) = [(30, "Gi"), (20, "Mi"), (10, "Ki")]
            .into_iter()
            .find(|(shift, _)| self.0.trailing_zeros() >= *shift)
            .unwrap_or((0, ""));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// Processor time in thousandths of a core, written as Kubernetes does: `100m`, or `1` for a whole core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millicores(u32);

impl Millicores {
    /// The least limit the agent runs with.
    pub const LEAST: Self = Self(10);
    /// What the agent of a Guaranteed pod asks for and is limited to: enough for a handshake and a probe within a second.
    pub const GUARANTEED: Self = Self(50);
    /// More than that would be a mistake.
    pub const MOST: Self = Self(4000);

    /// Parses a whole number of cores, or of thousandths with `m`.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, factor) = text.strip_suffix('m').map_or((text, 1000), |digits| (digits, 1));
        let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        whole.then(|| digits.parse::<u32>().ok()?.checked_mul(factor).map(Self))?
    }
}

impl std::fmt::Display for Millicores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print_alike() {
        for text in ["4Mi", "512Ki", "1Gi", "24Mi"] {
            assert_eq!(ByteSize::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "Mi", "-4Mi", "4M", "4", "99999999999999999999Gi", "4 Mi", "4\u{e9}", "4.5Mi"] {
            assert_eq!(ByteSize::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn processor_time_parses_and_prints_as_kubernetes_writes_it() {
        for (text, printed) in [("10m", "10m"), ("1", "1"), ("1000m", "1"), ("1500m", "1500m")] {
            assert_eq!(Millicores::parse(text).unwrap().to_string(), printed);
        }
        for text in ["", "m", "-1", "0.5", "1 m", "1M", "1e3", "4294967296", "4294968", "\u{661}"] {
            assert_eq!(Millicores::parse(text), None, "{text:?}");
        }
    }
}
