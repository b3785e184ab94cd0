//! The real client against a server on loopback.

mod server;

use std::fs;
use std::path::Path;
use std::time::Duration;

use defrost_hub::{Event, Fetched, HubError, Remote, Reuse, Settings};
use server::{COMMIT, Fault, Server, files_below, noise, sha256};

/// A server and empty caches.
struct Rig {
    server: Server,
    settings: Settings,
    home: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let url = server.url();
        let vars = [
            ("HF_ENDPOINT", url.clone()),
            ("DEFROST_TORCH_ENDPOINT", format!("{url}/models")),
            ("DEFROST_KERAS_ENDPOINT", format!("{url}/keras/")),
        ];
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        let mut settings = Settings::from_vars(home.path().into(), get);
        settings.first_wait = Duration::from_millis(1);
        Self { server, settings, home }
    }

    fn fetch(&self, remote: &Remote, reuse: Reuse) -> (Result<Fetched, HubError>, Vec<Event>) {
        let mut events = Vec::new();
        let result = remote.fetch(&self.settings, reuse, &mut |event| events.push(event));
        (result, events)
    }

    fn good(&self, remote: &Remote) -> Fetched {
        self.fetch(remote, Reuse::Cached).0.unwrap()
    }

    fn error(&self, remote: &Remote) -> HubError {
        self.fetch(remote, Reuse::Cached).0.unwrap_err()
    }

    /// Nothing but locks and unfinished files lies in the caches.
    fn is_empty(&self) -> bool {
        files_below(self.home.path()).iter().all(|f| f.ends_with(".lock") || f.ends_with(".incomplete"))
    }

    /// A file in torch's storage, called after its content.
    fn torch(&self, bytes: &[u8]) -> Remote {
        let file = format!("net-{}.pth", &sha256(bytes)[..8]);
        self.server.file(&format!("/models/{file}"), bytes, None);
        Remote::Torch { file }
    }

    fn retries(events: &[Event]) -> usize {
        events.iter().filter(|e| matches!(e, Event::Retry { .. })).count()
    }
}

#[test]
fn a_file_of_the_hub_lands_in_its_cache_as_python_puts_it() {
    let rig = Rig::new();
    let bytes = noise(300_000);
    rig.server.model("timm/net", "model.safetensors", &bytes);
    let remote = Remote::hub("timm/net");
    assert_eq!(remote.cached(&rig.settings), None);
    let (fetched, events) = rig.fetch(&remote, Reuse::Cached);
    let fetched = fetched.unwrap();
    let repo = rig.settings.hub_cache.join("models--timm--net");
    assert_eq!(fetched.path, repo.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!((fetched.bytes, fetched.downloaded), (300_000, true));
    assert_eq!(fs::read(&fetched.path).unwrap(), bytes);
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    let blob = format!("blobs/{}", sha256(&bytes));
    assert_eq!(fs::read_link(&fetched.path).unwrap(), Path::new("../..").join(&blob));
    let lock = format!(".locks/models--timm--net/{}.lock", sha256(&bytes));
    assert!(rig.settings.hub_cache.join(lock).exists());
    assert_eq!(files_below(&repo).len(), 3, "blob, link, ref and no more: {:?}", files_below(&repo));
    assert!(matches!(events.first(), Some(Event::Start { total: Some(300_000), done: 0, .. })), "{events:?}");
    assert!(events.contains(&Event::Progress { done: 300_000, total: Some(300_000) }));

    rig.server.seen();
    let again = rig.good(&remote);
    assert_eq!((&again.path, again.bytes, again.downloaded), (&fetched.path, 300_000, false));
    assert!(rig.server.seen().is_empty(), "what is there is used without asking");
    assert_eq!(remote.cached(&rig.settings), Some(fetched.path));
}

#[test]
fn a_broken_transfer_goes_on_where_it_ended() {
    let rig = Rig::new();
    let bytes = noise(1_000_000);
    rig.server.model("timm/net", "model.safetensors", &bytes);
    rig.server.break_with(&[Fault::CutAfter(300_000), Fault::CutAfter(200_000)]);
    let (fetched, events) = rig.fetch(&Remote::hub("timm/net"), Reuse::Cached);
    assert_eq!(fs::read(fetched.unwrap().path).unwrap(), bytes);
    assert_eq!(Rig::retries(&events), 2);
    let asked: Vec<_> = rig.server.seen().into_iter().filter(|s| s.path.starts_with("/store")).collect();
    let starts: Vec<usize> = asked
        .iter()
        .map(|s| s.range.as_deref().map_or(0, |r| r[6..].trim_end_matches('-').parse().unwrap()))
        .collect();
    // A cut connection may swallow the last bytes sent, so the places are bounds.
    assert!(starts.len() == 3 && starts[0] == 0 && starts[1] > 0 && starts[1] <= 300_000, "{starts:?}");
    assert!(starts[2] >= starts[1] && starts[2] <= starts[1] + 200_000, "{starts:?}");
}

#[test]
fn a_transfer_given_up_is_taken_up_by_the_next_call() {
    let mut rig = Rig::new();
    rig.settings.attempts = 1;
    let bytes = noise(400_000);
    let remote = rig.torch(&bytes);
    rig.server.break_with(&[Fault::CutAfter(250_000)]);
    let error = rig.error(&remote);
    let HubError::Broken { done, total: Some(400_000), .. } = error else { panic!("{error:?}") };
    assert!(done > 0 && error.to_string().contains("goes on from there"), "{error}");
    assert!(rig.is_empty(), "a part is not the file");
    rig.server.seen();
    let fetched = rig.good(&remote);
    assert_eq!(fs::read(&fetched.path).unwrap(), bytes);
    let asked = rig.server.seen();
    assert_eq!(asked[0].range.as_deref(), Some(format!("bytes={done}-").as_str()));
    assert_eq!(fetched.path.parent().unwrap(), rig.settings.torch_cache);
    let left: Vec<_> =
        files_below(&rig.settings.torch_cache).into_iter().filter(|f| f.ends_with("incomplete")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_server_that_sends_all_again_is_understood() {
    let rig = Rig::new();
    let bytes = noise(400_000);
    let remote = rig.torch(&bytes);
    rig.server.break_with(&[Fault::CutAfter(250_000), Fault::Whole]);
    assert_eq!(fs::read(rig.good(&remote).path).unwrap(), bytes);
}

#[test]
fn a_whole_part_is_verified_and_one_too_long_is_not_trusted() {
    let rig = Rig::new();
    let bytes = noise(50_000);
    let remote = rig.torch(&bytes);
    let part = rig.settings.torch_cache.join(format!("{}.incomplete", remote.name()));
    fs::create_dir_all(&rig.settings.torch_cache).unwrap();
    for (left, gets) in [(bytes.clone(), 1), (noise(60_000), 2)] {
        fs::write(&part, left).unwrap();
        let fetched = rig.good(&remote);
        assert_eq!(fs::read(&fetched.path).unwrap(), bytes);
        assert_eq!(rig.server.seen().len(), gets);
        fs::remove_file(fetched.path).unwrap();
    }
}

#[test]
fn a_wrong_checksum_keeps_the_file_away() {
    let bytes = noise(100_000);
    for is_hub in [false, true] {
        let rig = Rig::new();
        rig.server.model("timm/net", "model.safetensors", &bytes);
        let remote = if is_hub { Remote::hub("timm/net") } else { rig.torch(&bytes) };
        rig.server.break_with(&[Fault::Damage]);
        let error = rig.error(&remote);
        assert!(matches!(error, HubError::Checksum { .. }), "{error:?}");
        assert!(error.to_string().contains("thrown away"), "{error}");
        let left = files_below(rig.home.path());
        assert!(left.iter().all(|f| f.ends_with(".lock")), "{left:?}");
        assert_eq!(fs::read(rig.good(&remote).path).unwrap(), bytes, "the next call is not poisoned");
    }
}

#[test]
fn a_damaged_part_of_an_earlier_transfer_is_brought_again() {
    let rig = Rig::new();
    let bytes = noise(100_000);
    let remote = rig.torch(&bytes);
    fs::create_dir_all(&rig.settings.torch_cache).unwrap();
    fs::write(rig.settings.torch_cache.join(format!("{}.incomplete", remote.name())), vec![7; 40_000])
        .unwrap();
    assert_eq!(fs::read(rig.good(&remote).path).unwrap(), bytes);
}

#[test]
fn lengths_that_lie_are_noticed() {
    let rig = Rig::new();
    let bytes = noise(100_000);
    let remote = rig.torch(&bytes);
    // More is announced than there is: asked for the rest, the server says that this was all, and it verifies.
    rig.server.break_with(&[Fault::AnnounceMore(10)]);
    let fetched = rig.good(&remote);
    assert_eq!(fs::read(&fetched.path).unwrap(), bytes);
    fs::remove_file(fetched.path).unwrap();
    // Less is announced, and so less comes.
    rig.server.break_with(&[Fault::AnnounceLess(10)]);
    let error = rig.error(&remote);
    assert!(matches!(error, HubError::Checksum { .. }), "{error:?}");
    // The hub says another length than its store.
    rig.server.model("timm/net", "model.safetensors", &bytes);
    rig.server.break_with(&[Fault::AnnounceLess(10)]);
    let error = rig.error(&Remote::hub("timm/net"));
    assert!(error.to_string().contains("99990 bytes and should have 100000"), "{error}");
    assert!(rig.is_empty());
}

#[test]
fn a_transfer_that_stands_still_is_taken_up_again() {
    let mut rig = Rig::new();
    rig.settings.stall_timeout = Duration::from_millis(200);
    let bytes = noise(100_000);
    let remote = rig.torch(&bytes);
    rig.server.break_with(&[Fault::StallAfter(60_000)]);
    let (fetched, events) = rig.fetch(&remote, Reuse::Cached);
    assert_eq!(fs::read(fetched.unwrap().path).unwrap(), bytes);
    assert_eq!(Rig::retries(&events), 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let rig = Rig::new();
    let bytes = noise(1000);
    let remote = rig.torch(&bytes);
    rig.server.break_with(&[Fault::Status(503), Fault::Status(429)]);
    let (fetched, events) = rig.fetch(&remote, Reuse::Cached);
    assert!(fetched.unwrap().downloaded);
    assert_eq!(Rig::retries(&events), 2);
}

#[test]
fn what_is_missing_or_closed_is_said() {
    let mut rig = Rig::new();
    rig.server.model("timm/net", "model.safetensors", &noise(10));
    rig.server.lock("timm/secret", "hf_right");
    rig.server.model("timm/secret", "model.safetensors", &noise(20));
    let refusals = [
        (Remote::Torch { file: "net-01234567.pth".into() }, 404, "no such file"),
        (Remote::hub("timm/net2"), 404, "Entry not found"),
        (Remote::hub("timm/secret"), 401, "HF_TOKEN"),
    ];
    for (remote, status, words) in refusals {
        let error = rig.error(&remote);
        let HubError::Refused { status: got, .. } = error else { panic!("{error:?}") };
        assert_eq!(got, status, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    rig.settings.token = Some("hf_wrong".into());
    assert!(rig.error(&Remote::hub("timm/secret")).to_string().contains("does not open it"));
    assert!(rig.is_empty());
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let mut rig = Rig::new();
    rig.server.lock("timm/secret", "hf_right");
    rig.server.model("timm/secret", "model.safetensors", &noise(20));
    rig.settings.token = Some("hf_right".into());
    rig.good(&Remote::hub("timm/secret"));
    rig.good(&rig.torch(&noise(30)));
    for seen in rig.server.seen() {
        let is_hub = seen.path.contains("/resolve/");
        assert_eq!(seen.token.is_some(), is_hub, "{seen:?}");
    }
}

#[test]
fn a_repository_that_moved_is_followed() {
    let rig = Rig::new();
    rig.server.rename("old/net", "timm/net");
    rig.server.model("timm/net", "model.safetensors", &noise(20));
    assert_eq!(fs::read(rig.good(&Remote::hub("old/net")).path).unwrap(), noise(20));
}

#[test]
fn offline_uses_what_is_there_and_asks_nobody() {
    let mut rig = Rig::new();
    rig.server.model("timm/net", "model.safetensors", &noise(20));
    let (there, torch) = (Remote::hub("timm/net"), rig.torch(&noise(9)));
    rig.good(&there);
    rig.server.seen();
    rig.settings.offline = Some("HF_HUB_OFFLINE");
    assert!(!rig.good(&there).downloaded);
    for remote in [Remote::hub("timm/other"), torch] {
        let text = rig.error(&remote).to_string();
        for part in ["HF_HUB_OFFLINE", "--weights FILE", remote.name(), &remote.url(&rig.settings)] {
            assert!(text.contains(part), "{text} does not say {part}");
        }
    }
    assert!(rig.server.seen().is_empty());
}

#[test]
fn without_a_network_the_error_comes_at_once_and_says_what_to_do() {
    let mut rig = Rig::new();
    // Nobody listens at a port that has just been given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    rig.settings.hub_endpoint = format!("http://{port}");
    rig.settings.torch_endpoint = "http://no-such-host.invalid/models".into();
    rig.settings.first_wait = Duration::from_secs(60);
    for (remote, mirror) in
        [(Remote::hub("timm/net"), "HF_ENDPOINT"), (rig.torch(&noise(9)), "DEFROST_TORCH_ENDPOINT")]
    {
        let text = rig.error(&remote).to_string();
        for part in ["--weights FILE", mirror, "HTTPS_PROXY", &remote.url(&rig.settings)] {
            assert!(text.contains(part), "{text} does not say {part}");
        }
    }
    assert!(rig.is_empty());
}

#[test]
fn two_that_want_the_same_file_bring_it_once() {
    let rig = Rig::new();
    let bytes = noise(200_000);
    rig.server.model("timm/net", "model.safetensors", &bytes);
    rig.server.break_with(&[Fault::Slow]);
    let remote = Remote::hub("timm/net");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| rig.fetch(&remote, Reuse::Cached))).collect();
        let all: Vec<_> = all.into_iter().map(|t| t.join().unwrap()).collect();
        let fetched: Vec<_> = all.iter().map(|(result, _)| result.as_ref().unwrap()).collect();
        assert_eq!(fetched.iter().filter(|f| f.downloaded).count(), 1);
        assert!(fetched.iter().all(|f| fs::read(&f.path).unwrap() == bytes));
        let waits = all.iter().flat_map(|(_, events)| events).filter(|e| matches!(e, Event::Waiting { .. }));
        assert!(waits.count() >= 1);
    });
    let gets = rig.server.seen().into_iter().filter(|s| s.path.starts_with("/store")).count();
    assert_eq!(gets, 1);
}

#[test]
fn a_damaged_file_in_the_cache_is_found_and_replaced() {
    let rig = Rig::new();
    let bytes = noise(5000);
    rig.server.model("timm/net", "model.safetensors", &bytes);
    for remote in [Remote::hub("timm/net"), rig.torch(&bytes)] {
        let path = rig.good(&remote).path;
        assert!(!rig.fetch(&remote, Reuse::Verified).0.unwrap().downloaded);
        fs::write(&path, b"damaged").unwrap();
        assert!(!rig.good(&remote).downloaded, "a cached file is not read");
        assert!(rig.fetch(&remote, Reuse::Verified).0.unwrap().downloaded);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    let newer = noise(6000);
    rig.server.model("timm/net", "model.safetensors", &newer);
    let remote = Remote::hub("timm/net");
    assert_eq!(fs::read(rig.good(&remote).path).unwrap(), bytes);
    assert_eq!(fs::read(rig.fetch(&remote, Reuse::Nothing).0.unwrap().path).unwrap(), newer);
}

#[test]
fn files_of_keras_are_verified_by_md5() {
    let rig = Rig::new();
    let md5 = "900150983cd24fb0d6963f7d28e17f72";
    let file = |path: &str, md5: Option<&str>| Remote::Keras { path: path.into(), md5: md5.map(Into::into) };
    rig.server.file("/keras/resnet/a.h5", b"abc", None);
    let fetched = rig.good(&file("resnet/a.h5", Some(md5)));
    assert_eq!(fetched.path, rig.settings.keras_cache.join("a.h5"));
    // Where Keras publishes none, its storage names one.
    rig.server.file("/keras/b.h5", b"abc", Some(&format!("\"{md5}\"")));
    rig.good(&file("b.h5", None));
    rig.server.file("/keras/c.h5", b"abd", Some(&format!("\"{md5}\"")));
    assert!(matches!(rig.error(&file("c.h5", None)), HubError::Checksum { .. }));
    rig.server.file("/keras/d.h5", b"abc", None);
    assert!(matches!(rig.error(&file("d.h5", None)), HubError::NoChecksum { .. }));
    assert!(!rig.settings.keras_cache.join("d.h5").exists());
}

#[test]
fn no_name_leads_out_of_the_cache() {
    let rig = Rig::new();
    let hub = |repo: &str, revision: &str, file: &str| Remote::Hub {
        repo: repo.into(),
        revision: revision.into(),
        file: file.into(),
    };
    let bad = [
        Remote::Torch { file: "../a-01234567.pth".into() },
        Remote::Torch { file: "/etc/a-01234567.pth".into() },
        hub("a", "main", "f"),
        hub("../..", "main", "f"),
        hub("a/b", "../../x", "f"),
        hub("a/b", "main", "x/../../f"),
        hub("a/b", "main", "f?x=1"),
    ];
    for remote in bad {
        assert!(matches!(rig.error(&remote), HubError::Name { .. }), "{remote:?}");
        assert_eq!(remote.cached(&rig.settings), None);
    }
    assert!(rig.server.seen().is_empty());
}
