//! The one place where the components of a process read the wall clock.

use jiff::Timestamp;

/// The current time.
#[allow(clippy::disallowed_methods)] // this is the clock the ban points to
pub fn now() -> Timestamp {
    Timestamp::now()
}
