//! Images from real archives: in, unpacked, mounted, out, removed, and through crashes.

mod made;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use image_store::{Image, ImageStore, RemoveError};
use made::{Built, Item, build, docker_archive, layout};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

fn lower_dirs(store: &Arc<ImageStore>, image: &Image) -> Vec<std::path::PathBuf> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.lower_dirs(image)).unwrap()
}

fn import(store: &ImageStore, dir: &Path, built: &Built, names: &[&str]) -> anyhow::Result<Vec<Arc<Image>>> {
    let path = dir.join("image.tar");
    docker_archive(&path, &[(built, names)]);
    store.import(&path)
}

/// Mounts layers over each other in a mount namespace of a thread of its own, and looks.
fn through_overlay<T: Send>(lower: &[std::path::PathBuf], look: impl FnOnce(&Path) -> T + Send) -> T {
    let joined = lower.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>().join(":");
    std::thread::scope(|scope| {
        let looker = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let target = tempfile::tempdir().unwrap();
            let options = format!("lowerdir={joined}");
            mount(Some("overlay"), target.path(), Some("overlay"), MsFlags::MS_RDONLY, Some(&*options)).unwrap();
            let seen = look(target.path());
            nix::mount::umount(target.path()).unwrap();
            seen
        });
        looker.join().unwrap()
    })
}

#[test]
fn layers_lie_over_each_other_as_the_archive_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let built = build(&[
        vec![
            Item::dir("etc", 0o755),
            Item::file("etc/gone", "old"),
            Item::file("etc/kept", "kept").owner(1000, 1001).mode(0o4750).mtime(1_234_567_890),
            Item::dir("data", 0o700).mtime(1_111_111_111),
            Item::file("data/below", "below"),
            Item::dir("again", 0o755),
            Item::file("again/below", "below"),
            Item::file("lower", "lower"),
            Item::symlink("link", "/etc/kept"),
            Item::fifo("pipe"),
            Item::device("null", 1, 3),
            Item::file(&long, "long"),
        ],
        vec![
            Item::file("etc/.wh.gone", ""),
            Item::file("data/.wh..wh..opq", ""),
            Item::file("data/above", "above"),
            // A directory removed and made again hides what was in it.
            Item::file(".wh.again", ""),
            Item::dir("again", 0o755),
            Item::file("again/above", "above"),
            Item::file("a", "shared"),
            Item::hard_link("b", "a"),
            Item::hard_link("c", "lower"),
            Item::file("attr", "x").xattr("user.colour", "blue"),
        ],
    ]);
    let images = import(&store, dir.path(), &built, &["x/y:1"]).unwrap();
    let lower = lower_dirs(&store, &images[0]);
    assert_eq!(lower.len(), 2);
    assert!(fs::symlink_metadata(lower[0].join("etc/gone")).unwrap().file_type().is_char_device());
    through_overlay(&lower, |root| {
        let names = |path: &str| {
            let mut names: Vec<_> =
                fs::read_dir(root.join(path)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names("etc"), ["kept"]);
        assert_eq!(names("data"), ["above"]);
        assert_eq!(names("again"), ["above"]);
        let kept = fs::metadata(root.join("etc/kept")).unwrap();
        assert_eq!((kept.uid(), kept.gid(), kept.mode() & 0o7777, kept.mtime()), (1000, 1001, 0o4750, 1_234_567_890));
        // The second layer's archive does not name `data`: it keeps the mode it had.
        assert_eq!(fs::metadata(root.join("data")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/kept"));
        assert!(fs::metadata(root.join("pipe")).unwrap().file_type().is_fifo());
        let null = fs::metadata(root.join("null")).unwrap();
        assert!(null.file_type().is_char_device());
        assert_eq!(null.rdev(), nix::sys::stat::makedev(1, 3));
        assert_eq!(fs::read_to_string(root.join(&long)).unwrap(), "long");
        let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
        assert_eq!(inode("a"), inode("b"));
        assert_eq!(inode("c"), inode("lower"));
        assert_eq!(fs::read_to_string(root.join("c")).unwrap(), "lower");
        assert_eq!(xattr::get(root.join("attr"), "user.colour").unwrap().unwrap(), b"blue");
    });
    assert_eq!(fs::metadata(lower[1].join("data")).unwrap().mtime(), 1_111_111_111);
}

#[test]
fn archives_that_reach_outside_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let attempts = [
        vec![Item::file("../evil", "x")],
        vec![Item::file("a/../../evil", "x")],
        vec![Item::symlink("way", out), Item::file("way/evil", "x")],
        vec![Item::symlink("way", "../../../outside"), Item::file("way/evil", "x")],
        vec![Item::symlink("way", out), Item::hard_link("mine", "way/x")],
        vec![Item::hard_link("mine", "../../../index.json")],
        vec![Item::symlink("way", out), Item::file("way/.wh.x", "")],
        vec![Item::file(".wh...", "")],
    ];
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    for items in attempts {
        let named = format!("{items:?}");
        let built = build(&[items]);
        let error = import(&store, dir.path(), &built, &["evil"]).expect_err(&named);
        assert!(format!("{error:#}").contains("unpack"), "{error:#}");
        assert!(store.list().is_empty());
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // An absolute name means the layer's own root.
    let built = build(&[vec![Item::file("/inside", "x")]]);
    let image = import(&store, dir.path(), &built, &["fine"]).unwrap().remove(0);
    assert!(lower_dirs(&store, &image)[0].join("inside").exists());
    assert!(!Path::new("/inside").exists());
}

#[test]
fn a_replaced_symlink_does_not_carry_later_files_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let built = build(&[vec![
        Item::dir("a", 0o755),
        Item::file("a/one", "1"),
        Item::symlink("a", "/tmp"),
        Item::dir("a", 0o755),
        Item::file("a/two", "2"),
    ]]);
    let image = import(&store, dir.path(), &built, &["fine"]).unwrap().remove(0);
    let lower = lower_dirs(&store, &image);
    assert!(lower[0].join("a/two").exists() && !lower[0].join("a/one").exists());
}

#[test]
fn an_image_comes_the_same_from_every_form_of_file() {
    let dir = tempfile::tempdir().unwrap();
    let built = build(&[vec![Item::file("hello", "world")], vec![Item::file("again", "x")]]);
    let plain = dir.path().join("plain.tar");
    docker_archive(&plain, &[(&built, &["a/b:t", "other"])]);
    let bytes = fs::read(&plain).unwrap();
    let gzip = dir.path().join("image.tar.gz");
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&gzip).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    encoder.finish().unwrap();
    let zstd = dir.path().join("image.tar.zst");
    fs::write(&zstd, zstd::stream::encode_all(&*bytes, 1).unwrap()).unwrap();
    let oci = dir.path().join("oci");
    layout(&oci, &built, "a/b:t");
    let oci_tar = dir.path().join("oci.tar");
    #[expect(clippy::disallowed_methods, reason = "an independent writer of archives, for this test alone")]
    let status = std::process::Command::new("tar").arg("-C").arg(&oci).arg("-cf").arg(&oci_tar).arg(".").status();
    assert!(status.unwrap().success());
    for (number, path) in [plain, gzip, zstd, oci, oci_tar].iter().enumerate() {
        let store = ImageStore::open(&dir.path().join(format!("store{number}"))).unwrap();
        let images = store.import(path).unwrap();
        assert_eq!(images.len(), 1, "{}", path.display());
        assert_eq!(images[0].id, built.id());
        assert_eq!(images[0].tags[0], "docker.io/a/b:t");
        assert!(lower_dirs(&store, &images[0])[1].join("hello").exists());
        let back = dir.path().join("back.tar");
        store.export_docker_archive(&["a/b:t".to_owned()], &back).unwrap();
        let second = ImageStore::open(&dir.path().join(format!("second{number}"))).unwrap();
        assert_eq!(second.import(&back).unwrap()[0].id, built.id());
        assert_eq!(second.resolve("a/b:t").unwrap().tags, ["docker.io/a/b:t"]);
    }
}

#[test]
fn a_bad_file_gives_one_clear_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("store")).unwrap();
    let path = dir.path().join("bad");
    let error = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        format!("{:#}", store.import(&path).unwrap_err()).replace(dir.path().to_str().unwrap(), "")
    };
    let built = build(&[vec![Item::file("hello", "world")]]);
    let tar = dir.path().join("t.tar");
    docker_archive(&tar, &[(&built, &["x"])]);
    let good = fs::read(&tar).unwrap();
    let mut wrong = build(&[vec![Item::file("hello", "world")]]);
    wrong.layers[0] = made::tar(&[Item::file("hello", "other")]);
    docker_archive(&tar, &[(&wrong, &["x"])]);
    let wrong = fs::read(&tar).unwrap();
    let found = [error(b""), error(b"this is text"), error(&good[..good.len() / 2]), error(&wrong)].join("\n");
    assert!(found.lines().all(|line| line.starts_with("import /bad: ")), "{found}");
    assert!(found.contains("the image says sha256:"), "{found}");
    let missing = format!("{:#}", store.import(Path::new("/no/such/file")).unwrap_err());
    expect_test::expect!["import /no/such/file: No such file or directory (os error 2)"].assert_eq(&missing);
    assert!(store.list().is_empty());
}

#[test]
fn names_ids_and_prefixes_find_an_image_and_removal_frees_what_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = ImageStore::open(&root).unwrap();
    let base = vec![Item::file("base", &"b".repeat(10_000))];
    let one = build(&[base.clone(), vec![Item::file("one", &"1".repeat(5_000))]]);
    let two = build(&[base, vec![Item::file("two", &"2".repeat(6_000))]]);
    let path = dir.path().join("two.tar");
    docker_archive(&path, &[(&one, &["one"]), (&two, &["two", "two:x"])]);
    assert_eq!(store.import(&path).unwrap().len(), 2);
    let hex = two.id()["sha256:".len()..].to_owned();
    for name in ["two", "two:x", "docker.io/library/two:latest", &two.id(), &hex, &hex[..12]] {
        assert_eq!(store.resolve(name).unwrap().id, two.id(), "{name}");
    }
    assert!(store.resolve("three").is_none() && store.resolve("two:y").is_none());
    store.tag("two", "localhost:5000/three").unwrap();
    store.pin(&two.id(), "container 7").unwrap();
    let refused = store.remove("three").unwrap_err();
    assert!(matches!(refused, RemoveError::NotFound(_)));
    let RemoveError::InUse { user, .. } = store.remove("two").unwrap_err() else { panic!("not refused") };
    assert_eq!(user, "container 7");
    store.release(&two.id(), "container 7");
    assert_eq!(store.untag("two:x").unwrap().deleted, None);
    let before = store.size();
    let removed = store.remove("two").unwrap();
    assert_eq!(removed.untagged, ["docker.io/library/two:latest", "localhost:5000/three:latest"]);
    assert_eq!(before - store.size(), removed.freed);
    assert!(removed.freed > 6_000 && removed.freed < 25_000, "{}", removed.freed);
    let image = store.resolve("one").unwrap();
    assert!(lower_dirs(&store, &image)[1].join("base").exists());
    assert_eq!(store.untag("one").unwrap().deleted, Some(one.id()));
    assert_eq!(store.size(), 0);
}

#[test]
fn opening_again_finds_everything_and_sweeps_what_was_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = ImageStore::open(&root).unwrap();
    let built = build(&[vec![Item::file("hello", "world")]]);
    import(&store, dir.path(), &built, &["x"]).unwrap();
    let second = format!("{:#}", ImageStore::open(&root).err().unwrap());
    assert!(second.contains("another process is using it"), "{second}");
    drop(store);
    // As after kill -9: an unpack cut short, a blob without an image, a layer that went.
    fs::create_dir_all(root.join("tmp/layer-1/x/etc")).unwrap();
    fs::write(root.join("blobs/sha256").join("0".repeat(64)), "orphan").unwrap();
    let layer = fs::read_dir(root.join("layers")).unwrap().next().unwrap().unwrap().path();
    fs::remove_dir_all(&layer).unwrap();
    let store = ImageStore::open(&root).unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("blobs/sha256")).unwrap().count(), 3);
    let image = store.resolve("x").unwrap();
    assert!(lower_dirs(&store, &image)[0].join("hello").exists());
    // An image whose layer is damaged is dropped, the store still opens.
    drop(store);
    let blob = image.layers[0].digest["sha256:".len()..].to_owned();
    fs::write(root.join("blobs/sha256").join(blob), "short").unwrap();
    assert!(ImageStore::open(&root).unwrap().resolve("x").is_none());
}
