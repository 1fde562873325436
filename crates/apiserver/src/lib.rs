//! The life of a request: route, authenticate, authorise, decode, default, admit, validate, store; watch, discovery, OpenAPI, streams to nodes.
