//! Pod sandboxes and containers: implements CRI v1 over image-store, isolation and pod-network.
