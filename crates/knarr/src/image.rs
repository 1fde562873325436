//! `knarr image`: through the running server, or straight at the store when none runs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::Method;
use image_store::{Image, ImageStore};
use serde_json::{Value, json};

use crate::options::{Dirs, ImageCommand};
use crate::{control, host};

/// Carries out a command.
///
/// # Errors
/// When an archive cannot be imported, or the store cannot be opened.
pub async fn run(command: ImageCommand) -> Result<()> {
    host::require_root("knarr image")?;
    match command {
        ImageCommand::Import { dirs, files } => {
            for file in files {
                let path = std::fs::canonicalize(&file).with_context(|| format!("import {}", file.display()))?;
                let body = json!({"path": path});
                let imported = match control::ask(&dirs.control_socket(), Method::POST, "/images/import", &body).await?
                {
                    Some(answer) => answer,
                    None => {
                        let dir = &dirs.data_dir;
                        std::fs::create_dir_all(dir).with_context(|| format!("make directory {}", dir.display()))?;
                        without_server(&dirs, move |images| import(images, &path)).await?
                    }
                };
                print(&imported, "Imported ");
            }
        }
        // Like all prunes, that of images asks the Docker API.
        ImageCommand::Prune { options, all } => crate::prune::images(&options, all).await?,
        ImageCommand::List { dirs } => {
            let listed = match control::ask(&dirs.control_socket(), Method::GET, "/images", &Value::Null).await? {
                Some(answer) => answer,
                // Looking makes nothing.
                None if !dirs.images().exists() => Value::Null,
                None => without_server(&dirs, |images| Ok(list(images))).await?,
            };
            print(&listed, "");
        }
    }
    Ok(())
}

/// Opens the store while no server has it.
async fn without_server(
    dirs: &Dirs,
    work: impl FnOnce(&Arc<ImageStore>) -> Result<Value> + Send + 'static,
) -> Result<Value> {
    let hold = host::hold(&dirs.data_dir).with_context(|| {
        format!(
            "no server answers at {} (is it started with another --run-dir?), and its images",
            dirs.control_socket().display()
        )
    })?;
    let root = dirs.images();
    let done =
        tokio::task::spawn_blocking(move || work(&ImageStore::open(&root)?)).await.context("use the image store")?;
    drop(hold);
    done
}

/// Imports an archive into a store; the images it held.
///
/// # Errors
/// What is wrong with the archive.
pub fn import(images: &Arc<ImageStore>, path: &Path) -> Result<Value> {
    Ok(images.import(path)?.iter().map(|i| describe(i)).collect())
}

/// The images of a store.
pub fn list(images: &Arc<ImageStore>) -> Value {
    images.list().iter().map(|i| describe(i)).collect()
}

fn describe(image: &Image) -> Value {
    json!({"id": image.id, "tags": image.tags, "size": image.size})
}

fn print(images: &Value, lead: &str) {
    for image in images.as_array().into_iter().flatten() {
        let tags: Vec<&str> = image["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let name = if tags.is_empty() { "<none>".to_owned() } else { tags.join(", ") };
        let id = image["id"].as_str().unwrap_or_default();
        let megabytes = image["size"].as_f64().unwrap_or(0.0) / 1e6;
        println!("{lead}{name}  {}  {megabytes:.1} MB", id.get(..19).unwrap_or(id));
    }
}
