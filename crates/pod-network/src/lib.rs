//! Wires a pod: bridge, veth, addresses, host ports.
