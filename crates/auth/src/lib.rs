//! Who may do what, as pure functions: certificates, tokens, RBAC.
