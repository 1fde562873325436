//! The whole cluster: the real binary, the real kubectl and the tutorial's images. Each test has network and mount
//! namespaces, directories and control groups of its own, and leaves nothing behind.
//!
//! The tests need root, and what `cargo xtask images` and `cargo xtask clients` make; `cargo xtask test` sees to both.

mod application;
mod bad_input;
mod budgets;
mod built_in_kubectl;
mod custom;
mod docker;
mod helm;
mod ingress;
mod jobs;
mod kube_rs;
mod kubectl;
mod mistakes;
mod node;
mod nodes;
mod operators;
mod rights;
mod services;
mod stateful;
mod storage;
mod streams;
mod survival;
mod tutorial;
mod uninstall;
mod walk;
