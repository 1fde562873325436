//! Namespaces, cgroups v1 and v2, mounts, capabilities, seccomp, the first process and its shim.
