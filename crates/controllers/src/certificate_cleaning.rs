//! Requests for certificates go when nobody needs them any more.

use std::time::Duration;

use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::certificate_signing::REQUESTS;
use crate::{Action, Controller, Objects, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-cleaner-controller",
    subject: REQUESTS,
    reads: &[],
    writes: &[Writes::Shared { resource: REQUESTS, because: "it deletes requests whose time is up" }],
    plan,
};

/// How long a request stays that has been answered, and one that nobody answers (upstream's times).
const ANSWERED: i64 = 3600;
const PENDING: i64 = 24 * 3600;

fn plan(request: &Value, _objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(request).is_some() {
        return Ok(Vec::new());
    }
    let conditions = request["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let answers = conditions.iter().filter(|c| ["Approved", "Denied", "Failed"].iter().any(|kind| c["type"] == *kind));
    let mut ends: Vec<i64> = answers
        .filter_map(|condition| Some(time::parse(condition["lastUpdateTime"].as_str()?)?.as_second() + ANSWERED))
        .collect();
    if conditions.is_empty() {
        let since = request["metadata"]["creationTimestamp"].as_str().and_then(time::parse);
        ends.extend(since.map(|since| since.as_second() + PENDING));
    }
    // A certificate that is not valid any more is of use to nobody, however young the request is.
    ends.extend(kinds::issued_until(request));
    let Some(end) = ends.into_iter().min() else { return Ok(Vec::new()) };
    let left = end - now.as_second();
    if left > 0 {
        return Ok(vec![Action::Again(Duration::from_secs(left.unsigned_abs()))]);
    }
    Ok(vec![Action::Delete {
        resource: REQUESTS,
        namespace: String::new(),
        name: meta::name(request).to_owned(),
        options: json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": meta::uid(request), "resourceVersion": meta::resource_version(request)},
        }),
        event: None,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn a_request_goes_an_hour_after_its_answer_and_a_day_after_it_was_made() {
        let said = |created: &str, kind: &str, answered: &str| {
            let mut request = json!({"metadata": {"name": "r", "creationTimestamp": created}, "status": {}});
            if !kind.is_empty() {
                request["status"]["conditions"] = json!([{"type": kind, "status": "True", "lastUpdateTime": answered}]);
            }
            brief(&plan(&request, &Fixed::default(), now()).expect("a plan")).trim().to_owned()
        };
        let (old, gone) = ("2025-12-31T00:00:00Z", "delete certificatesigningrequests r");
        assert_eq!(said(old, "", ""), gone);
        assert_eq!(said("2025-12-31T00:01:00Z", "", ""), "again in 60s");
        for kind in ["Approved", "Denied", "Failed"] {
            assert_eq!(said(old, kind, "2025-12-31T23:00:00Z"), gone);
            assert_eq!(said(old, kind, "2025-12-31T23:00:01Z"), "again in 1s");
        }
    }
}
