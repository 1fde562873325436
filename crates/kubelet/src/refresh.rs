//! Keeps the files of a running pod up to date: ConfigMaps and Secrets as they change, labels and annotations, and tokens
//! before they end.

use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use futures::future::select_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::volumes::{self, PodDirectory, Tokens};
use crate::worker::Wanted;

/// A token is renewed when four fifths of its life are over, and after a day at the latest (upstream's rule).
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// Changes that come together are taken together.
const GATHER: Duration = Duration::from_millis(20);

/// Keeps files up to date until it is stopped or dropped.
pub(crate) struct Refresher {
    stop: CancellationToken,
    task: JoinSet<()>,
}

/// Tokens of a pod, and when they are to be renewed.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) tokens: Tokens,
    pub(crate) renew: Option<Instant>,
}

/// Asks for all tokens that the volumes of a pod need.
pub(crate) async fn issue(context: &Context, pod: &Pod) -> anyhow::Result<Issued> {
    let mut issued = Issued { tokens: Tokens::new(), renew: None };
    for (audience, seconds) in volumes::tokens_of(pod) {
        let token = context.token(pod, &audience, seconds).await?;
        issued.tokens.insert((audience, seconds), token);
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let due = Instant::now() + (life / 5 * 4).min(LONGEST_USE);
        issued.renew = Some(issued.renew.map_or(due, |renew| renew.min(due)));
    }
    Ok(issued)
}

impl Refresher {
    /// Starts for a pod whose volumes are in place. Without `issued`, tokens are asked for at once: those in place are of an
    /// earlier run.
    pub(crate) fn start(context: Arc<Context>, wanted: watch::Receiver<Wanted>, issued: Option<Issued>) -> Self {
        let (mut task, stop) = (JoinSet::new(), CancellationToken::new());
        task.spawn(run(context, wanted, issued, stop.clone()));
        Self { stop, task }
    }

    /// Ends it. Afterwards nothing is written any more.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended {
                tracing::error!("keep the files of a pod up to date: {error}");
            }
        }
    }
}

async fn run(
    context: Arc<Context>,
    mut wanted: watch::Receiver<Wanted>,
    mut issued: Option<Issued>,
    stop: CancellationToken,
) {
    let first = wanted.borrow_and_update().pod.clone();
    let namespace = first.metadata.namespace.clone().unwrap_or_default();
    let followed: Vec<_> =
        volumes::sources_of(&first).iter().map(|source| context.sources.follow(&namespace, source)).collect();
    let mut changes: Vec<_> = followed.iter().map(|followed| followed.changes()).collect();
    let mut due = issued.as_ref().map_or(Some(Instant::now()), |issued| issued.renew);
    loop {
        let any = async {
            if changes.is_empty() {
                return std::future::pending().await;
            }
            // One that has ended says that the kubelet stops, which ends this task, too.
            let _ = select_all(changes.iter_mut().map(|change| Box::pin(change.changed()))).await;
        };
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = any => {}
            () = time => {}
            alive = wanted.changed() => if alive.is_err() { return },
        }
        tokio::time::sleep(GATHER).await;
        changes.iter_mut().for_each(|change| _ = change.borrow_and_update());
        let Wanted { pod, gone } = wanted.borrow_and_update().clone();
        if gone {
            // What it refers to is none of this node's business any more, and nobody will read it.
            return;
        }
        due = match refresh(&context, &pod, &mut issued).await {
            Ok(()) => issued.as_ref().and_then(|issued| issued.renew),
            Err(error) => {
                context.event(&pod, None, EventType::Warning, "FailedMount", &format!("{error:#}"));
                Some(Instant::now() + PAUSE)
            }
        };
    }
}

async fn refresh(context: &Context, pod: &Arc<Pod>, issued: &mut Option<Issued>) -> anyhow::Result<()> {
    let in_time = issued.as_ref().is_some_and(|issued| issued.renew.is_none_or(|renew| renew > Instant::now()));
    if !in_time {
        *issued = Some(issue(context, pod).await?);
    }
    let tokens = issued.as_ref().map(|issued| issued.tokens.clone()).unwrap_or_default();
    let sources =
        context.read(pod.metadata.namespace.as_deref().unwrap_or_default(), &volumes::sources_of(pod)).await?;
    let directory = PodDirectory::new(&context.config.data_dir, pod.metadata.uid.as_deref().unwrap_or_default());
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| ip.ip.clone()).collect();
    let (pod, facts) = (pod.clone(), context.facts(ips));
    tokio::task::spawn_blocking(move || volumes::refresh(&directory, &pod, &sources, &tokens, &facts)).await?
}
