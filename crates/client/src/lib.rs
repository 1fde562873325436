//! How everyone talks to the API: requests, shared list+watch caches, work queue, leases, events.
