//! How long those take who have a say in requests, and what they say, as the metrics tell it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::question::Operation;
use client::metrics::{Durations, Page};

use crate::metrics::lock;

/// Bounds of the buckets of durations, in seconds (upstream's).
const SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
type Times = Durations<8>;
/// Codes above this one are not told apart (upstream's limit).
const CODE_MAX: u16 = 600;

/// What is done with an object by those who are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// They may change it.
    Mutate,
    /// They may refuse it.
    Judge,
}

/// What one webhook said to one kind of request.
type Asked = (String, Step, &'static str, bool);

/// Why a webhook's word ended a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rejection {
    /// It said so.
    Denied,
    /// It could not be asked.
    Call,
    /// Its answer could not be used.
    Internal,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    /// By phase, operation, and whether the request was refused.
    steps: [[[Times; 2]; 4]; 2],
    policies: [[[Times; 2]; 4]; 2],
    webhooks: Mutex<BTreeMap<Asked, Times>>,
    requests: Mutex<BTreeMap<(Asked, u16), u64>>,
    rejections: Mutex<BTreeMap<(String, Step, &'static str, Rejection, u16), u64>>,
    open: Mutex<BTreeMap<(String, Step), u64>>,
}

impl Measures {
    /// Counts what all of them together took for a request.
    pub fn step(&self, phase: Step, operation: Operation, refused: bool, took: Duration) {
        self.steps[phase as usize][operation as usize][usize::from(refused)].observe_in(&SECONDS, took);
    }

    /// Counts what policies took for a request.
    pub fn policies(&self, phase: Step, operation: Operation, refused: bool, took: Duration) {
        self.policies[phase as usize][operation as usize][usize::from(refused)].observe_in(&SECONDS, took);
    }

    /// Counts an answer of a webhook: its status, and whether it ended the request.
    pub fn webhook(&self, name: &str, phase: Step, operation: Operation, rejected: bool, code: u16, took: Duration) {
        let asked = (name.to_owned(), phase, operation.name(), rejected);
        lock(&self.webhooks).entry(asked.clone()).or_default().observe_in(&SECONDS, took);
        *lock(&self.requests).entry((asked, code.min(CODE_MAX))).or_default() += 1;
    }

    /// Counts a request that a webhook ended.
    pub fn rejection(&self, name: &str, phase: Step, operation: Operation, why: Rejection, code: u16) {
        let key = (name.to_owned(), phase, operation.name(), why, code.min(CODE_MAX));
        *lock(&self.rejections).entry(key).or_default() += 1;
    }

    /// Counts a request that went on though a webhook could not be asked.
    pub fn fail_open(&self, name: &str, phase: Step) {
        *lock(&self.open).entry((name.to_owned(), phase)).or_default() += 1;
    }

    /// The rows of the page of metrics.
    pub fn rows(&self, page: &mut Page) {
        let name = "apiserver_admission_step_admission_duration_seconds";
        page.head(name, "histogram", "How long all together took who have a say in a request, in seconds.");
        each(&self.steps, |phase, operation, refused, durations| {
            let labels = labels(operation, refused, if phase == Step::Mutate { "admit" } else { "validate" });
            durations.rows(page, name, &labels, SECONDS);
        });
        let name = "apiserver_admission_controller_admission_duration_seconds";
        page.head(name, "histogram", "How long policies and webhooks took for a request, in seconds.");
        each(&self.policies, |phase, operation, refused, durations| {
            let (plugin, kind) = match phase {
                Step::Mutate => ("MutatingAdmissionPolicy", "admit"),
                Step::Judge => ("ValidatingAdmissionPolicy", "validate"),
            };
            let labels = format!("name=\"{plugin}\",{}", labels(operation, refused, kind));
            durations.rows(page, name, &labels, SECONDS);
        });
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        page.head(name, "histogram", "How long a webhook took to answer, in seconds.");
        for ((hook, phase, operation, rejected), durations) in lock(&self.webhooks).iter() {
            let labels = format!("name=\"{hook}\",{}", labels(operation, *rejected, of_webhook(*phase)));
            durations.rows(page, name, &labels, SECONDS);
        }
        let name = "apiserver_admission_webhook_request_total";
        page.head(name, "counter", "Questions to webhooks, by what came of them.");
        for (((hook, phase, operation, rejected), code), count) in lock(&self.requests).iter() {
            let rest = labels(operation, *rejected, of_webhook(*phase));
            page.row(name, &format!("code=\"{code}\",name=\"{hook}\",{rest}"), count);
        }
        let name = "apiserver_admission_webhook_rejection_count";
        page.head(name, "counter", "Requests that a webhook ended, by why.");
        for ((hook, phase, operation, why, code), count) in lock(&self.rejections).iter() {
            let why = match why {
                Rejection::Denied => "no_error",
                Rejection::Call => "calling_webhook_error",
                Rejection::Internal => "apiserver_internal_error",
            };
            let labels = format!(
                "error_type=\"{why}\",name=\"{hook}\",operation=\"{operation}\",rejection_code=\"{code}\",type=\"{}\"",
                of_webhook(*phase)
            );
            page.row(name, &labels, count);
        }
        let name = "apiserver_admission_webhook_fail_open_count";
        page.head(name, "counter", "Requests that went on though a webhook could not be asked.");
        for ((hook, phase), count) in lock(&self.open).iter() {
            page.row(name, &format!("name=\"{hook}\",type=\"{}\"", of_webhook(*phase)), count);
        }
    }
}

fn of_webhook(phase: Step) -> &'static str {
    if phase == Step::Mutate { "admit" } else { "validating" }
}

fn labels(operation: &str, refused: bool, kind: &str) -> String {
    format!("operation=\"{operation}\",rejected=\"{refused}\",type=\"{kind}\"")
}

fn each(all: &[[[Times; 2]; 4]; 2], mut row: impl FnMut(Step, &'static str, bool, &Times)) {
    for (phase, of_phase) in [Step::Mutate, Step::Judge].into_iter().zip(all) {
        for (operation, both) in Operation::ALL.into_iter().zip(of_phase) {
            for (refused, durations) in [false, true].into_iter().zip(both) {
                if !durations.is_empty() {
                    row(phase, operation.name(), refused, durations);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_webhook_says_is_counted_by_its_name() {
        let measures = Measures::default();
        let (name, create) = ("a.example.com", Operation::Create);
        measures.webhook(name, Step::Judge, create, false, 200, Duration::from_millis(30));
        measures.webhook(name, Step::Judge, create, true, 403, Duration::from_secs(2));
        measures.rejection(name, Step::Judge, create, Rejection::Denied, 403);
        measures.fail_open(name, Step::Mutate);
        measures.step(Step::Judge, create, true, Duration::from_secs(3));
        let mut page = Page::default();
        measures.rows(&mut page);
        let text = page.to_string();
        let of = "name=\"a.example.com\",operation=\"CREATE\"";
        for row in [
            format!(
                "apiserver_admission_webhook_admission_duration_seconds_bucket{{{of},rejected=\"false\",type=\"validating\",le=\"0.1\"}} 1"
            ),
            format!("apiserver_admission_webhook_admission_duration_seconds_sum{{{of},rejected=\"true\",type=\"validating\"}} 2"),
            format!("apiserver_admission_webhook_request_total{{code=\"403\",{of},rejected=\"true\",type=\"validating\"}} 1"),
            format!(
                "apiserver_admission_webhook_rejection_count{{error_type=\"no_error\",{of},rejection_code=\"403\",type=\"validating\"}} 1"
            ),
            "apiserver_admission_webhook_fail_open_count{name=\"a.example.com\",type=\"admit\"} 1".to_owned(),
            "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"true\",type=\"validate\"} 1"
                .to_owned(),
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in {text}");
        }
    }
}
