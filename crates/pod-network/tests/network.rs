//! Real wires between real namespaces. Needs root.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use pod_network::{Cidr, Network};

/// Makes this thread's network a machine of its own, with its own view of kernel parameters.
fn own_machine() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
}

fn namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let mut names: Vec<_> =
        text.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn two_pods_reach_each_other_and_nothing_stays_behind() {
    own_machine();
    let dir = tempfile::tempdir().unwrap();
    let before = (links(), fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
    let network = Network::open(dir.path(), "kn-test0", Cidr::parse("10.99.0.0/24").unwrap()).unwrap();
    let (a, b) = (namespace(), namespace());
    let address_a = network.attach("aaaaaaaaaaaaaaaa", &a).unwrap();
    let address_b = network.attach("bbbbbbbbbbbbbbbb", &b).unwrap();
    assert_eq!((address_a, address_b), (Ipv4Addr::new(10, 99, 0, 2), Ipv4Addr::new(10, 99, 0, 3)));
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");

    let listener = inside(&a, || TcpListener::bind("0.0.0.0:80").unwrap());
    let talk = || {
        let mut client =
            TcpStream::connect_timeout(&SocketAddr::from((address_a, 80)), Duration::from_secs(5)).unwrap();
        client.write_all(b"hello").unwrap();
    };
    let heard = || {
        let (mut server, from) = listener.accept().unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        (text, from.ip().to_string())
    };
    inside(&b, talk);
    assert_eq!(heard(), ("hello".into(), "10.99.0.3".into()));
    talk();
    assert_eq!(heard(), ("hello".into(), "10.99.0.1".into()));

    // The same once more, as after a crash in between.
    let network = Network::open(dir.path(), "kn-test0", Cidr::parse("10.99.0.0/24").unwrap()).unwrap();
    assert_eq!(network.attach("aaaaaaaaaaaaaaaa", &a).unwrap(), address_a);
    network.detach("bbbbbbbbbbbbbbbb").unwrap();
    network.detach("bbbbbbbbbbbbbbbb").unwrap();
    assert_eq!(network.pods(), ["aaaaaaaaaaaaaaaa"]);

    assert!(network.remove_everything().is_empty());
    assert_eq!((links(), fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap()), before);
    assert!(!dir.path().exists());
    fs::create_dir(dir.path()).unwrap();
}

#[test]
fn who_gets_the_address_of_one_who_is_gone_is_reached_at_once() {
    own_machine();
    let dir = tempfile::tempdir().unwrap();
    let reach = |pod: &OwnedFd, address: Ipv4Addr| {
        let listener = inside(pod, || TcpListener::bind("0.0.0.0:80").unwrap());
        TcpStream::connect_timeout(&SocketAddr::from((address, 80)), Duration::from_secs(5)).unwrap();
        drop(listener);
    };
    let (first, second, other) = (namespace(), namespace(), namespace());
    // Opened anew, as after a restart, addresses are given out from the start.
    let open = || Network::open(dir.path(), "kn-test0", Cidr::parse("10.99.0.0/24").unwrap()).unwrap();
    let network = open();
    // With nobody on it, a bridge forgets all neighbours.
    network.attach("cccccccccccccccc", &other).unwrap();
    let address = network.attach("aaaaaaaaaaaaaaaa", &first).unwrap();
    reach(&first, address);
    network.detach("aaaaaaaaaaaaaaaa").unwrap();
    let network = open();
    assert_eq!(network.attach("bbbbbbbbbbbbbbbb", &second).unwrap(), address);
    reach(&second, address);
    assert!(network.remove_everything().is_empty());
    fs::create_dir(dir.path()).unwrap();
}

#[test]
fn a_full_node_is_wired() {
    own_machine();
    let dir = tempfile::tempdir().unwrap();
    let network = Network::open(dir.path(), "kn-test0", Cidr::parse("10.99.0.0/24").unwrap()).unwrap();
    let namespaces: Vec<_> = (0..250).map(|_| namespace()).collect();
    let begin = Instant::now();
    for (number, namespace) in namespaces.iter().enumerate() {
        network.attach(&format!("{number:016}"), namespace).unwrap();
    }
    println!("250 pods: {:?} each", begin.elapsed() / 250);
    let begin = Instant::now();
    assert!(network.remove_everything().is_empty());
    println!("removed: {:?} each", begin.elapsed() / 250);
    fs::create_dir(dir.path()).unwrap();
}
