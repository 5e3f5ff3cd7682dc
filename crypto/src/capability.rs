//! The right to open what no caller's grant is about.

/// The right to seal and open the system's own settings, such as a cluster's reviewer credential. Callers' secrets need a
/// [`strongroom_policy::Grant`] instead.
///
/// It holds nothing: its worth is that [`System::assume`] is on clippy's list of disallowed methods, so that the modules that take the right can be
/// read in one search.
#[derive(Debug)]
pub struct System(());

/// The right to open values in order to check that they open: `backup verify`. What was opened is dropped inside this crate.
///
/// As with [`System`], its worth is that [`Maintenance::assume`] is on clippy's list of disallowed methods.
#[derive(Debug)]
pub struct Maintenance(());

impl Maintenance {
    /// Takes the right. Each module that does so expects clippy's lint with its reason.
    #[must_use]
    pub fn assume() -> Self {
        Self(())
    }
}

impl System {
    /// Takes the right. Each module that does so expects clippy's lint with its reason.
    #[must_use]
    pub fn assume() -> Self {
        Self(())
    }
}
