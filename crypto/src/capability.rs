//! The right to open what no caller's grant is about.

/// The right to seal and open the system's own settings, such as a cluster's reviewer credential. Callers' secrets need a
/// [`strongroom_policy::Grant`] instead.
///
/// It holds nothing: its worth is that [`System::assume`] is on clippy's list of disallowed methods, so that the modules that take the right can be
/// read in one search.
#[derive(Debug)]
pub struct System(());

impl System {
    /// Takes the right. Each module that does so expects clippy's lint with its reason.
    #[must_use]
    pub fn assume() -> Self {
        Self(())
    }
}

/// The right to open a caller's secret for work that reveals nothing of it to anybody, such as a version made of the current one's fields and new ones.
///
/// As with [`System`], its worth is the list of modules that take it.
#[derive(Debug)]
pub struct Maintenance(());

impl Maintenance {
    /// Takes the right. Each module that does so expects clippy's lint with its reason.
    #[must_use]
    pub fn assume() -> Self {
        Self(())
    }
}
