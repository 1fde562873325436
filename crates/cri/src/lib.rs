//! The CRI v1 messages, client and server traits.
