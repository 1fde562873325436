//! The envelope of every object: metadata, selectors, quantities, field errors, ApiError.
