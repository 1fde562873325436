//! One schema engine for built-in kinds and custom resources: decoding, defaulting, protobuf, patches, OpenAPI.
