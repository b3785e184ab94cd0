//! TOML in and out, `set`, and what bad recipes get.

use defrost_augment::{ColorJitter, Op, RandomResizedCrop, Rotate};

use super::nets;
use crate::{
    Adam, Head, Loss, Lr, Metric, Optimizer, PhaseSpec, Recipe, RecipeErrorKind, Schedule, Selector, Start,
    recipes,
};

const SMALL: &str = "[[phase]]\nname = \"a\"\nepochs = 5\ntrain = \"head\"\n";

fn error(text: &str) -> String {
    Recipe::from_toml(text).unwrap_err().to_string()
}

#[test]
fn every_recipe_that_the_program_carries_is_right_and_comes_back_the_same() {
    for (name, about, _) in recipes() {
        let recipe = Recipe::named(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((recipe.name.as_str(), recipe.about.as_str()), (*name, *about));
        assert!(!about.is_empty() && about.len() <= 110, "{name}: one line");
        assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe, "{name}: {}", recipe.to_toml());
    }
    assert_eq!(recipes()[0].0, "two-stage");
}

#[test]
fn every_recipe_runs_on_the_embedded_network_and_on_its_own() {
    let (mobilenet, resnet18, resnet50, vgg) =
        (nets::mobilenet_v2(), nets::resnet18(), nets::resnet50(), nets::vgg16());
    for (name, _, text) in recipes() {
        let recipe = Recipe::named(name).unwrap();
        let original = text.lines().find_map(|l| l.split_once("model.arch=")?.1.split(' ').next());
        let graphs: Vec<_> = match original {
            None if *name == "t3-rates-by-block" => vec![&mobilenet],
            None => vec![&mobilenet, &resnet18, &resnet50, &vgg],
            Some("resnet18") => vec![&mobilenet, &resnet18],
            Some("resnet50") => vec![&mobilenet, &resnet50],
            Some("vgg16") => vec![&mobilenet, &vgg],
            Some(other) => panic!("{name}: no network {other}"),
        };
        for graph in graphs {
            let phases = recipe.resolve(graph).unwrap_or_else(|e| panic!("{name}: {}", e.locate(text)));
            assert_eq!(phases.len(), recipe.phases.len());
            for phase in &phases {
                assert!(
                    phase.warnings.is_empty() || *name == "t3-rates-by-block",
                    "{name}: {:?}",
                    phase.warnings
                );
            }
        }
    }
}

#[test]
fn every_scenario_has_a_recipe() {
    let ids = "l1 l2 l3 l4 l5 l6 t1 t2 t3 t4 k1 k2 k3 k4 p1 p2 p3 p4 f1 f2 f3";
    for id in ids.split(' ') {
        assert!(recipes().iter().any(|(name, _, _)| name.starts_with(&format!("{id}-"))), "{id}");
    }
    assert_eq!(Recipe::named("p2").unwrap().name, "p2-last-stage");
    // Two recipes share the number: neither is meant.
    assert!(Recipe::named("l4").is_err());
}

#[test]
fn the_recipe_that_has_every_value_written_out_has_every_value() {
    let (_, _, text) = recipes().iter().find(|(name, ..)| *name == "l6-repeatable").unwrap();
    let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    assert_eq!(table(text), table(&Recipe::named("l6").unwrap().to_toml()));
}

#[test]
fn a_recipe_can_be_built_in_rust() {
    let augment = [
        Op::RandomResizedCrop(RandomResizedCrop { scale: [0.5, 1.0], ..Default::default() }),
        Op::FlipHorizontal(Default::default()),
        Op::Rotate(Rotate { degrees: 10.0, p: 0.5, ..Default::default() }),
        Op::ColorJitter(ColorJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.0, p: 0.75 }),
    ];
    let built = Recipe::new("two-stage", "mobilenet_v2")
        .about("the head first, then everything at lower rates that rise from the input to the head")
        .image_size(128)
        .augment(augment)
        .loss(Loss::smoothed(0.1))
        .phase(PhaseSpec::new("head", 5, "head").lr(3e-3).schedule(Schedule::one_cycle()))
        .phase(
            PhaseSpec::new("everything", 10, "all")
                .norm(crate::NormMode::AffineOnly)
                .lr([2e-5, 1e-3])
                .schedule(Schedule::one_cycle()),
        );
    assert_eq!(built, Recipe::named("two-stage").unwrap());

    let adam = || Optimizer::Adam(Adam { eps: 1e-7, ..Adam::default() });
    let flat = Head::flattened([256]);
    let built = Recipe::new("k2", "mobilenet_v2")
        .head(flat)
        .image_size(128)
        .augment([
            Op::RandomResizedCrop(RandomResizedCrop { scale: [0.5, 1.0], ..Default::default() }),
            Op::FlipHorizontal(Default::default()),
        ])
        .phase(PhaseSpec::new("head", 5, "head").lr(1e-3).optimizer(adam()))
        .phase(PhaseSpec::new("last 3 layers", 8, Selector::LastKerasLayers(3)).lr(1e-4).optimizer(adam()));
    let mut read = Recipe::named("k2").unwrap();
    (read.name, read.about) = ("k2".into(), String::new());
    assert_eq!(built, read);
    assert_eq!(Recipe::from_toml(&built.to_toml()).unwrap(), built);
}

#[test]
fn unknown_keys_are_told_with_line_and_nearest() {
    assert_eq!(
        error(&format!("sed = 1\n{SMALL}")),
        "line 1: there is no key `sed` here; did you mean `seed`?"
    );
    assert_eq!(
        error(&format!("{SMALL}epoch = 4\n")),
        "line 5: there is no key `epoch` here; did you mean `epochs`?"
    );
    // In tables that are read as a whole too, on whatever line the key is.
    assert_eq!(
        error(&format!("{SMALL}[phase.optimizer]\nkind = \"sgd\"\nmomentun = 0.9\n")),
        "line 7, `phase.1.optimizer`: there is no key `momentun` here; did you mean `momentum`?"
    );
    assert_eq!(
        error(&format!("{SMALL}schedule = {{ kind = \"cosin\" }}\n")),
        "line 5, `phase.1.schedule`: `cosin` is none of the words that can stand here; did you mean `cosine`?"
    );
    assert_eq!(
        error(&format!("{SMALL}schedule = {{ kind = \"cosine\", gamma = 1.0 }}\n")),
        "line 5, `phase.1.schedule`: there is no key `gamma` here; known are end, cycles, mult"
    );
    assert!(error(&format!("{SMALL}train = {{ last_stage = 2 }}\n")).contains("line 5"));
    assert!(error(&format!("{SMALL}norm = \"frosen\"\n")).contains("did you mean `frozen`?"));
    assert!(
        error(&format!("{SMALL}epochs = 2\n")).contains("line 5: this is not TOML: duplicate key `epochs`")
    );
    assert!(
        error(&format!("loss = {{ class_weights = \"balance\" }}\n{SMALL}"))
            .contains("did you mean `balanced`?")
    );
    assert!(error("[[phase]\n").starts_with("line 1: this is not TOML"));
}

#[test]
fn types_and_ranges_are_told_with_line() {
    let e = error(&format!("batch_size = \"many\"\n{SMALL}"));
    assert_eq!(
        e,
        "line 1, `batch_size`: expected a whole number that is not negative, found the string \"many\""
    );
    for (value, found) in [("2.5", "2.5"), ("-1", "-1"), ("true", "true"), ("[]", "a list")] {
        let e = error(&format!("batch_size = {}\n{SMALL}", value));
        let found = found.replace("2.5", "`2.5`").replace("-1", "`-1`").replace("true", "`true`");
        assert!(e.ends_with(&format!("a whole number that is not negative, found {found}")), "{e}");
    }
    let e = error(&format!("[model]\nhead = 3\n{SMALL}"));
    assert_eq!(e, "line 2, `model.head`: expected a table, found `3`");
    let e = error(&format!("[augment]\ntrain = [\"flip_horizontal\"]\n{SMALL}"));
    assert!(e.starts_with("line 2, `augment.train.1`: expected a table, as in `{ name = … }`"), "{e}");
    let e = error("[phase]\nepochs = 1\n");
    assert!(e.starts_with("line 1, `phase`: expected a list, found a table") && e.contains("`[[…]]`"), "{e}");
    for (head, tail) in [
        ("batch_size = 4611686018427387904\n", ""),
        ("", "[data]\nimage_size = 4611686018427387904\n"),
        ("", "[model.head]\nkind = \"pooled\"\nhidden = 4611686018427387904\n"),
        ("", "[model]\nin_channels = 4611686018427387904\n"),
    ] {
        let e = error(&format!("{head}{SMALL}{tail}"));
        assert!(e.contains("4611686018427387904 is not allowed") && e.starts_with("line "), "{e}");
    }
    assert_eq!(
        error(&format!("{SMALL}lr = -1e-3\n")),
        "line 5, `phase.1.lr`: -0.001 is not allowed: a rate must be greater than 0"
    );
    let e = error(&format!("{SMALL}\n[[phase]]\nepochs = 1\nlr = {{ default = 1e-3, head = -1.0 }}\n"));
    assert!(e.starts_with("line 8, `phase.2.lr.head`"), "{e}");
    assert!(error(&format!("{SMALL}lr = [1, 2, 3]\n")).contains("a slice of rates has two ends"));
    assert_eq!(error("seed = 1\n"), "there is no `[[phase]]`: a recipe trains in one phase or more");
    let e = error(&format!("{SMALL}schedule = {{ kind = \"multi_step\", at = [2, 5] }}\n"));
    assert_eq!(
        e,
        "line 5, `phase.1.schedule.at`: a milestone at epoch 5 lies beyond the phase, which has 5 epochs (counted from 0)"
    );
    // A name that no checkpoint can have is told now, and not when the phase ends.
    for bad in ["", "../x", "a/b", "resume", "best", "best-1", "last", "epoch-003"] {
        let e = error(&format!("{SMALL}save = \"{bad}\"\n"));
        assert!(e.starts_with(&format!("line 5, `phase.1.save`: \"{bad}\" is not allowed: ")), "{e}");
    }
    let e = error(&format!("{SMALL}start = \"stage-1\"\n"));
    assert!(e.contains("no phase before this one saves a checkpoint called `stage-1`"), "{e}");
    let e = error(&format!("{SMALL}[augment]\ntrain = [{{ rotate = {{ degrees = 400.0 }} }}]\n"));
    assert!(e.starts_with("line 6, `augment.train`"), "{e}");
    let e = error(&format!("{SMALL}thaw = {{ lr_factor = 0.5 }}\n"));
    assert!(e.contains("give `at`, `every` or `plateau`"), "{e}");
    let e = error(&format!("loss = \"huber\"\nmonitor = \"accuracy\"\n{SMALL}"));
    assert!(e.starts_with("line 2, `monitor`") && e.contains("a regression has the metrics"), "{e}");
    let labels = "loss = \"binary_cross_entropy\"\n";
    let e = error(&format!("{labels}monitor = \"top5\"\n{SMALL}"));
    assert!(
        e.starts_with("line 2, `monitor`") && e.contains("map, auc, accuracy (every label right)"),
        "{e}"
    );
    for (monitor, loss) in
        [("f1_micro", labels), ("auc", labels), ("f1_weighted", ""), ("rmse", "loss = \"huber\"\n")]
    {
        Recipe::from_toml(&format!("{loss}monitor = \"{monitor}\"\n{SMALL}"))
            .unwrap_or_else(|e| panic!("{monitor}: {e}"));
    }
    let e = error(&format!("loss = \"mean_squared\"\nmonitor = \"r2\"\n[augment]\ncutmix = 1.0\n{SMALL}"));
    assert!(e.starts_with("line 4, `augment.cutmix`") && e.contains("mixup"), "{e}");
    let e = error(&format!("[data]\nviews = 2\ncache_folder = \"\"\n{SMALL}"));
    assert!(e.starts_with("line 3, `data.cache_folder`") && e.contains("the run's own folder"), "{e}");
    let e = error(&format!("[data]\ncache_memory = 1000000001\n{SMALL}"));
    assert!(e.starts_with("line 2, `data.cache_memory`") && e.contains("megabytes"), "{e}");
    let e = error(&format!("[data]\ncache_file = -1\n{SMALL}"));
    assert!(e.starts_with("line 2, `data.cache_file`") && e.contains("not negative"), "{e}");
    let e = error(&format!("{labels}monitor = \"map\"\n[data]\nbalance = true\n{SMALL}"));
    assert!(e.starts_with("line 4, `data.balance`"), "{e}");
}

#[test]
fn how_much_is_cached_is_written_read_and_built() {
    let text =
        format!("[data]\nviews = 3\ncache_memory = 10\ncache_file = 0\ncache_folder = \"scratch\"\n{SMALL}");
    let recipe = Recipe::from_toml(&text).unwrap();
    let built = Recipe::from_toml(SMALL).unwrap().views(3).cache(10, 0).cache_folder("scratch");
    assert_eq!(recipe, built);
    assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
    let mut default = Recipe::from_toml(SMALL).unwrap();
    assert_eq!((default.data.cache_memory, default.data.cache_file), (1024, 16_384));
    default.set("data.cache_memory", "10").unwrap();
    assert_eq!(default.data.cache_memory, 10);
}

#[test]
fn a_loss_of_another_task_brings_its_metric() {
    let mut recipe = Recipe::named("p4").unwrap();
    recipe.early_stopping.as_mut().unwrap().metric = Metric::Accuracy;
    recipe.set("loss", "huber").unwrap();
    assert_eq!((recipe.monitor, recipe.early_stopping.as_ref().unwrap().metric), (Metric::Mae, Metric::Loss));
    recipe.set("monitor", "r2").unwrap();
    recipe.set("loss.delta", "2.0").unwrap();
    assert_eq!(recipe.monitor, Metric::R2, "the same task keeps what it watches");
    recipe.set("loss", "binary_cross_entropy").unwrap();
    assert_eq!(recipe.monitor, Metric::Map);
}

#[test]
fn a_recipe_is_written_for_people() {
    let text = Recipe::named("l5").unwrap().to_toml();
    for part in [
        "name = \"l5-thaw-on-plateau\"\n",
        "\n[model]\narch = \"mobilenet_v2\"\nweights = \"embedded\"\n",
        "head = { kind = \"linear\", hidden = [], batch_norm = false }\n",
        "train = [\n    { random_resized_crop = { scale = [0.5, 1.0]",
        "\n[[phase]]\nname = \"thawing\"\nepochs = 16\ntrain = { last_stages = 2 }\n",
        "lr = 3e-4\n",
        "optimizer = { kind = \"adam\", betas = [0.9, 0.999], eps = 1e-8, ",
        "\n[phase.thaw]\nunit = \"stage\"\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let names = Recipe::named("t3").unwrap().to_toml();
    assert!(names.contains("lr = { default = 0.001, \"features.2\" = 1e-5, "), "{names}");
}

#[test]
fn a_selector_without_a_match_gets_its_line() {
    let text = SMALL.replace("\"head\"", "[\"head\", \"layr4\"]");
    let recipe = Recipe::from_toml(&text).unwrap();
    let error = recipe.resolve(&nets::resnet18()).unwrap_err().locate(&text);
    assert_eq!(error.line(), Some(4));
    assert_eq!(
        error.to_string(),
        "line 4, `phase.1.train`: `layr4` matches nothing in resnet18; did you mean `layer4`?"
    );
    let error_of = |selector: &str| {
        let recipe = Recipe::from_toml(&SMALL.replace("\"head\"", selector)).unwrap();
        recipe.resolve(&nets::resnet18()).unwrap_err().to_string()
    };
    let e = error_of("\"zzz\"");
    assert!(
        e.ends_with("matches nothing in resnet18; its stages are conv1, layer1, layer2, layer3, layer4, fc"),
        "{e}"
    );
    // What the libraries of patterns say fits into one line.
    for bad in ["{ regex = \"layer[\" }", "\"layer{3\""] {
        let e = error_of(bad);
        assert!(e.contains("is no pattern: unclosed") && !e.contains('\n'), "{e}");
    }
}

#[test]
fn short_forms_stand_for_tables() {
    let r = Recipe::from_toml(&format!(
        "loss = {{ label_smoothing = 0.1 }}\n{SMALL}schedule = \"cosine\"\noptimizer = {{ weight_decay = 0.1 }}\n"
    ))
    .unwrap();
    assert_eq!(r.loss, Loss::smoothed(0.1));
    assert_eq!(r.phases[0].schedule, Schedule::cosine());
    assert_eq!((r.phases[0].optimizer.name(), r.phases[0].optimizer.weight_decay()), ("adamw", 0.1));
    for (text, start) in [("best", Start::Best { before: 0 }), ("best-2", Start::Best { before: 2 })] {
        assert_eq!(Start::from(text.to_owned()), start);
        assert_eq!(String::from(start), text);
    }
    assert_eq!(Start::from("best-ever".to_owned()), Start::Named("best-ever".into()));
}

#[test]
fn the_momentum_of_running_statistics_is_a_share() {
    let mut r = Recipe::named("full").unwrap();
    for good in ["0.001", "1.0"] {
        r.set("model.norm_momentum", good).unwrap();
    }
    for bad in ["0.0", "-0.1", "1.5"] {
        let error = r.set("model.norm_momentum", bad).unwrap_err().to_string();
        assert!(error.contains("model.norm_momentum") && error.contains("above 0"), "{error}");
    }
}

#[test]
fn one_value_is_set_by_its_path() {
    let mut r = Recipe::named("two-stage").unwrap();
    r.set("phase.2.lr", "1e-4").unwrap();
    assert_eq!(r.phases[1].lr, Lr::Uniform(1e-4));
    r.set("phase.head.epochs", "7").unwrap();
    assert_eq!(r.phases[0].epochs, 7);
    r.set("model.arch", "resnet18").unwrap();
    assert_eq!(r.model.arch, "resnet18");
    r.set("phase.1.schedule", "constant").unwrap();
    r.set("phase.1.optimizer.kind", "sgd").unwrap();
    r.set("phase.1.optimizer.nesterov", "true").unwrap();
    assert_eq!(r.phases[0].optimizer.name(), "sgd");
    r.set("early_stopping.patience", "2").unwrap();
    assert_eq!(r.early_stopping.as_ref().unwrap().patience, 2);
    r.set("phase.2.lr", "{ default = 1e-3, \"features.1\" = 1e-5 }").unwrap();
    r.set("phase.2.lr.\"features.2\"", "2e-5").unwrap();
    assert_eq!(r.phases[1].lr, Lr::by_name(1e-3, [("features.1", 1e-5), ("features.2", 2e-5)]));
    r.set("phase.2.train", "[\"head\", { last_stages = 3 }]").unwrap();

    let before = r.clone();
    let error = |path: &str, value: &str| r.clone().set(path, value).unwrap_err().to_string();
    assert_eq!(error("sed", "1"), "`sed`: there is no key `sed` here; did you mean `seed`?");
    assert!(error("phase.1.epoch", "1").contains("did you mean `epochs`?"));
    assert!(error("phase.3.lr", "1").contains("known are phase.1, phase.2"), "{}", error("phase.3.lr", "1"));
    assert!(error("phase.hed.lr", "1").contains("did you mean `phase.head`?"));
    assert!(error("phase.1.lr", "-1").contains("greater than 0"));
    assert!(error("seed.value", "1").contains("`seed.value`"));
    assert!(error("batch_size", "lots").contains("string \"lots\""));
    assert_eq!(r, before);
}

#[test]
fn a_recipe_is_named_or_the_nearest_is_told() {
    let error = Recipe::named("two_stage").unwrap_err();
    assert_eq!(error.to_string(), "there is no recipe `two_stage`; did you mean `two-stage`?");
    assert!(matches!(error.kind(), RecipeErrorKind::NoRecipe { .. }));
}
