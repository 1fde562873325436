//! The errors a caller branches on.

use thiserror::Error;

/// Why an image could not be pulled.
#[derive(Debug, Clone, Error)]
pub enum PullError {
    /// Nobody answered at the registry's address: an image in the store may stand in.
    #[error("registry {registry} did not answer: {cause}")]
    Unreachable {
        /// The registry's host, with its port if the reference names one.
        registry: String,
        /// What happened on the way to it.
        cause: String,
    },
    /// The registry answered that it has no such image.
    #[error("{reference}: not found")]
    NotFound {
        /// The full reference asked for.
        reference: String,
    },
    /// The registry refuses these credentials, or wants some.
    #[error("{reference}: access denied, the repository may not exist or may need credentials: {cause}")]
    Unauthorized {
        /// The full reference asked for.
        reference: String,
        /// The registry's own words.
        cause: String,
    },
    /// Anything else: a malformed reference, a digest that does not match, a full disk.
    #[error("{0}")]
    Other(String),
}

/// Why an image could not be removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// No image has this name or id.
    #[error("no such image: {0}")]
    NotFound(String),
    /// A container holds the image.
    #[error("image {image} is in use by {user}")]
    InUse {
        /// The image's id.
        image: String,
        /// Who pinned it.
        user: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}
