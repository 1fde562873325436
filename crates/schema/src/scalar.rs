//! Canonical text of scalars: quantities, times, durations.
