//! `knarr container|image|volume|network|system prune`: docker's prunes, with docker's questions and answers, for a
//! machine without docker. They ask the running server over its Docker API.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::options::{Dirs, PruneOptions};

/// What `docker container prune` warns of, and its kin.
const CONTAINERS: &str = "WARNING! This will remove all stopped containers.";
const DANGLING: &str = "WARNING! This will remove all dangling images.";
const IMAGES: &str = "WARNING! This will remove all images without at least one container associated to them.";
const ANONYMOUS: &str = "WARNING! This will remove anonymous local volumes not used by at least one container.";
const VOLUMES: &str = "WARNING! This will remove all local volumes not used by at least one container.";
const NETWORKS: &str = "WARNING! This will remove all custom networks not used by at least one container.";

/// Removes stopped containers.
///
/// # Errors
/// When no server answers, or it refuses.
pub async fn containers(options: &PruneOptions) -> Result<()> {
    if agreed(options, CONTAINERS)? {
        let filters = filters(options, None);
        let answer = ask(&options.dirs, "containers", &filters).await?;
        report(&containers_text(&answer), &answer)?;
    }
    Ok(())
}

/// Removes dangling images, or all that nobody uses.
///
/// # Errors
/// As [`containers`].
pub async fn images(options: &PruneOptions, all: bool) -> Result<()> {
    if agreed(options, if all { IMAGES } else { DANGLING })? {
        let filters = filters(options, Some(("dangling", if all { "false" } else { "true" })));
        let answer = ask(&options.dirs, "images", &filters).await?;
        report(&images_text(&answer), &answer)?;
    }
    Ok(())
}

/// Removes volumes that nobody uses.
///
/// # Errors
/// As [`containers`].
pub async fn volumes(options: &PruneOptions, all: bool) -> Result<()> {
    if agreed(options, if all { VOLUMES } else { ANONYMOUS })? {
        let filters = filters(options, all.then_some(("all", "true")));
        let answer = ask(&options.dirs, "volumes", &filters).await?;
        report(&volumes_text(&answer), &answer)?;
    }
    Ok(())
}

/// Removes networks that nobody uses.
///
/// # Errors
/// As [`containers`].
pub async fn networks(options: &PruneOptions) -> Result<()> {
    if agreed(options, NETWORKS)? {
        let answer = ask(&options.dirs, "networks", &filters(options, None)).await?;
        say(&networks_text(&answer))?;
    }
    Ok(())
}

/// Removes everything that nobody uses.
///
/// # Errors
/// As [`containers`]; and when volumes are to be pruned by age, which is unknown of them.
pub async fn system(options: &PruneOptions, all: bool, volumes: bool) -> Result<()> {
    if volumes && options.filter.iter().any(|(name, _)| name == "until") {
        bail!("ERROR: The \"until\" filter is not supported with \"--volumes\"");
    }
    if !agreed(options, &system_warning(options, all, volumes))? {
        return Ok(());
    }
    let mut text = String::new();
    let mut freed = 0;
    let plain = filters(options, None);
    let mut add = |part: String, answer: &Value| {
        text += &part;
        freed += answer["SpaceReclaimed"].as_u64().unwrap_or(0);
    };
    let answer = ask(&options.dirs, "containers", &plain).await?;
    add(containers_text(&answer), &answer);
    let answer = ask(&options.dirs, "networks", &plain).await?;
    add(networks_text(&answer), &answer);
    if volumes {
        let answer = ask(&options.dirs, "volumes", &plain).await?;
        add(volumes_text(&answer), &answer);
    }
    let dangling = filters(options, Some(("dangling", if all { "false" } else { "true" })));
    let answer = ask(&options.dirs, "images", &dangling).await?;
    add(images_text(&answer), &answer);
    report(&text, &json!({"SpaceReclaimed": freed}))
}

fn system_warning(options: &PruneOptions, all: bool, volumes: bool) -> String {
    let mut warning =
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
            .to_owned();
    if volumes {
        warning += "  - all anonymous volumes not used by at least one container\n";
    }
    warning += if all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    };
    warning += if all { "  - all build cache\n" } else { "  - unused build cache\n" };
    if !options.filter.is_empty() {
        warning += "\n  Items to be pruned will be filtered with:\n";
        for (name, value) in &options.filter {
            warning += &format!("  - {name}={value}\n");
        }
    }
    warning
}

/// Whether the user says yes. Anything else, and the end of the input, is no.
fn agreed(options: &PruneOptions, warning: &str) -> Result<bool> {
    if options.force {
        return Ok(true);
    }
    print!("{warning}\nAre you sure you want to continue? [y/N] ");
    std::io::stdout().flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    if answer.is_empty() {
        println!();
    }
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// The filters as the API takes them.
fn filters(options: &PruneOptions, more: Option<(&str, &str)>) -> String {
    let mut filters: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    let given = options.filter.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in given.chain(more) {
        filters.entry(name).or_default().insert(value, true);
    }
    json!(filters).to_string()
}

async fn ask(dirs: &Dirs, what: &str, filters: &str) -> Result<Value> {
    let socket = dirs.docker_socket();
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(error) => {
            bail!(
                "no server answers at {} ({error}): start it with `knarr server`, or say where it is with --run-dir",
                socket.display()
            );
        }
    };
    exchange(stream, what, filters).await.with_context(|| format!("prune {what} at {}", Path::new(&socket).display()))
}

async fn exchange(stream: UnixStream, what: &str, filters: &str) -> Result<Value> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let encoded: String = filters.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v1.47/{what}/prune?filters={encoded}"))
        .header(header::HOST, "knarr")
        .body(Full::<Bytes>::default())?;
    let talk = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let value: Value = serde_json::from_slice(&body).context("read the answer")?;
        if !status.is_success() {
            bail!("{}", value["message"].as_str().unwrap_or("the server refused"));
        }
        Ok(value)
    };
    tokio::select! {
        answer = talk => answer,
        ended = connection => match ended {
            Ok(()) => bail!("the server closed the connection"),
            Err(error) => Err(error.into()),
        },
    }
}

fn lines(title: &str, rows: &[String]) -> String {
    if rows.is_empty() { String::new() } else { format!("{title}\n{}\n\n", rows.join("\n")) }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|row| row.as_str().map(str::to_owned)).collect()
}

fn containers_text(answer: &Value) -> String {
    lines("Deleted Containers:", &texts(&answer["ContainersDeleted"]))
}

fn volumes_text(answer: &Value) -> String {
    lines("Deleted Volumes:", &texts(&answer["VolumesDeleted"]))
}

fn networks_text(answer: &Value) -> String {
    lines("Deleted Networks:", &texts(&answer["NetworksDeleted"]))
}

fn images_text(answer: &Value) -> String {
    let rows = answer["ImagesDeleted"].as_array().into_iter().flatten().filter_map(|row| {
        let untagged = row["Untagged"].as_str().map(|name| format!("untagged: {name}"));
        untagged.or_else(|| row["Deleted"].as_str().map(|id| format!("deleted: {id}")))
    });
    lines("Deleted Images:", &rows.collect::<Vec<_>>())
}

fn report(text: &str, answer: &Value) -> Result<()> {
    let freed = answer["SpaceReclaimed"].as_u64().unwrap_or(0);
    say(&format!("{text}Total reclaimed space: {}\n", human(freed)))
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("say what was removed")
}

/// Bytes with four digits and a unit of thousands, as docker prints them.
fn human(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, 0);
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    while size >= 1000.0 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    // Four significant digits, without zeros at the end.
    let whole = (size.max(1.0).log10().floor() as usize) + 1;
    let text = format!("{size:.*}", 4usize.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        let sizes = [0, 999, 1000, 4096, 10_485_760, 123_456_789, 2_000_000_000].map(human);
        assert_eq!(sizes, ["0B", "999B", "1kB", "4.096kB", "10.49MB", "123.5MB", "2GB"]);
    }

    #[test]
    fn what_was_removed_is_listed_as_docker_lists_it() {
        let answer = json!({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:b"}], "SpaceReclaimed": 1});
        assert_eq!(images_text(&answer), "Deleted Images:\nuntagged: a:1\ndeleted: sha256:b\n\n");
        assert_eq!(containers_text(&json!({"ContainersDeleted": []})), "");
    }
}
