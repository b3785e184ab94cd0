//! Published weights, from a server on loopback to a prediction.

#[path = "../../../hub/tests/it/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use defrost::graph::ParamStore;
use defrost::weights::{NamedTensors, Precision, safetensors};
use defrost::zoo::Weights;
use server::{COMMIT, Fault, Server, noise};

use crate::folder::photos;
use crate::{stderr, stdout};

/// The program in `home`, with its network at `server`.
fn defrost(home: &Path, server: &Server) -> Command {
    let mut command = crate::defrost(home);
    for name in
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"]
    {
        command.env_remove(name);
    }
    let url = server.url();
    command
        .env("HF_HOME", home.join("hf"))
        .env("TORCH_HOME", home.join("torch"))
        .env("KERAS_HOME", home.join("keras"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", &url)
        .env("DEFROST_TORCH_ENDPOINT", format!("{url}/models"))
        .env("DEFROST_KERAS_ENDPOINT", format!("{url}/keras"));
    command
}

fn run(mut command: Command, code: i32) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}\n{}", stdout(&output), stderr(&output));
    output
}

/// Weights of the narrowest network that is published, made up: timm's repository of it.
const REPO: &str = "timm/mobilenetv2_050.lamb_in1k";

fn made_up() -> Vec<u8> {
    let weights = Weights::all().iter().find(|w| w.width == 0.5).unwrap();
    let graph = weights.spec(1000).build().unwrap();
    let mut tensors = NamedTensors::new();
    for (name, value) in ParamStore::init(&graph, 1).iter() {
        tensors.insert(name, value.clone());
    }
    safetensors::to_bytes(&tensors, Precision::F16)
}

#[test]
fn a_published_set_is_pulled_found_and_used() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    let server = Server::start();
    server.model(REPO, "model.safetensors", &made_up());
    let go = |arguments: &[&str], code| {
        let mut command = defrost(home, &server);
        command.args(arguments);
        run(command, code)
    };
    let listed = |arguments: &[&str]| stdout(&go(arguments, 0)).contains("models--timm--mobilenetv2_050");
    assert!(!listed(&["models"]) && !listed(&["pull", "--list"]));

    server.break_with(&[Fault::CutAfter(1_000_000)]);
    let pulled = go(&["pull", "mobilenet_v2/050_lamb_in1k"], 0);
    let path = home
        .join("hf/hub/models--timm--mobilenetv2_050.lamb_in1k/snapshots")
        .join(COMMIT)
        .join("model.safetensors");
    assert_eq!(stdout(&pulled).trim(), path.to_str().unwrap());
    assert_eq!(fs::read(&path).unwrap(), made_up());
    let said = stderr(&pulled);
    assert!(said.contains("downloading") && said.contains("again in") && said.contains("verified"), "{said}");
    assert!(listed(&["models"]) && listed(&["models", "--json"]) && listed(&["pull", "--list"]));

    server.seen();
    assert!(stderr(&go(&["pull", REPO], 0)).contains("there already"));
    photos(&home.join("photos"), 4);
    let picture = "photos/red/0.png";
    let predict =
        ["predict", "--model", "mobilenet_v2", "--weights", "050_lamb_in1k", "--image-size", "32", picture];
    assert!(stdout(&go(&predict, 0)).contains("red/0.png"));
    assert!(server.seen().is_empty(), "what is there is used without a network");
}

#[test]
fn training_brings_its_weights_by_itself_and_says_so_without_a_network() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    let server = Server::start();
    server.model(REPO, "model.safetensors", &made_up());
    photos(&home.join("photos"), 4);
    let train = |weights: &str, model: &str| {
        let run = format!("run-{model}-{weights}");
        let mut command = defrost(home, &server);
        command.args([
            "train",
            "photos",
            "--recipe",
            "head",
            "--set",
            "phase.1.epochs=1",
            "--image-size",
            "32",
        ]);
        command.args(["--model", model, "--weights", weights, "--run", &run]);
        command
    };
    let mut offline = train("050_lamb_in1k", "mobilenet_v2");
    offline.env("HF_HUB_OFFLINE", "1");
    let said = stderr(&run(offline, 1));
    assert!(
        said.contains("HF_HUB_OFFLINE") && said.contains("--weights FILE") && said.contains(REPO),
        "{said}"
    );
    assert!(server.seen().is_empty());

    // torchvision's, which the server does not have; and one that is not what its name says.
    let said = stderr(&run(train("imagenet", "resnet18"), 1));
    assert!(said.contains("resnet18-f37072fd.pth") && said.contains("404"), "{said}");
    server.file("/models/resnet18-f37072fd.pth", &noise(1000), None);
    let said = stderr(&run(train("imagenet", "resnet18"), 1));
    assert!(said.contains("SHA-256") && said.contains("f37072fd"), "{said}");
    assert!(!home.join("torch/hub/checkpoints/resnet18-f37072fd.pth").exists());

    run(train("050_lamb_in1k", "mobilenet_v2"), 0);
    let best = home.join("run-mobilenet_v2-050_lamb_in1k/checkpoints/best.safetensors");
    let best = safetensors::read(best).unwrap();
    assert!(best.metadata["preprocess"].contains("bicubic"), "what belongs to the weights came with them");
    // `imagenet` is what the program carries, where it carries some.
    server.seen();
    run(train("imagenet", "mobilenet_v2"), 0);
    assert!(server.seen().is_empty());
}

#[test]
fn names_that_nobody_has_end_with_2() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start();
    for (name, part) in [("resnet19", "resnet18"), ("resnet18/a1", "a1_in1k")] {
        let mut command = defrost(temp.path(), &server);
        command.args(["pull", "resnet18", name]);
        let said = stderr(&run(command, 2));
        assert!(said.contains(part), "{said}");
    }
    assert!(server.seen().is_empty(), "nothing is brought before all is understood");
}
