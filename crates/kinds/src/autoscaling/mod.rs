//! Kinds of the group autoscaling: HorizontalPodAutoscaler in two versions, which are views of the same objects.

mod metrics;
pub(crate) mod v1;
pub(crate) mod v2;

const GROUP: &str = "autoscaling";
