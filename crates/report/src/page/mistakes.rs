//! Pictures of what went wrong.

use std::collections::BTreeMap;
use std::path::Path;

use defrost_train::{Prediction, Validation};
use maud::{Markup, html};

use super::Part;
use crate::run::Run;
use crate::thumb::Budget;
use crate::{Options, say};

/// Worst mistakes that are shown, large.
const WORST: usize = 10;
/// Pairs of classes that are shown.
const PAIRS: usize = 160;
/// Pictures of one pair.
const OF_A_PAIR: usize = 12;
/// The sides of the pictures, in pixels; twice what they take on the page, for fine screens.
const LARGE: u32 = 220;
const SMALL: u32 = 128;

/// The pictures, within what a file may weigh.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    worst: Vec<Shot>,
    /// Pairs of truth and prediction, those of the most mistakes first.
    pairs: Vec<((usize, usize), Vec<Shot>)>,
    /// Pictures that were looked for and are not there or broken.
    missing: usize,
    /// Pairs that there is no room for.
    left_out: usize,
}

/// One mistake and its picture.
#[derive(Debug)]
struct Shot {
    /// Its place among the predictions.
    at: usize,
    picture: Option<String>,
}

impl Gallery {
    /// Reads the pictures that are to be shown.
    pub(super) fn collect(run: &Run, options: &Options) -> Self {
        let mut gallery = Self::default();
        let Some(v) = run.validation.as_ref().filter(|v| !v.confusion.is_empty()) else { return gallery };
        let mut budget = Budget::new(options.picture_bytes, options.pictures);
        let data = options.data.as_deref();
        let mut pairs = by_pair(v);
        gallery.left_out = pairs.len().saturating_sub(PAIRS);
        pairs.truncate(PAIRS);
        pairs.iter_mut().for_each(|(_, places)| places.truncate(OF_A_PAIR));
        let worst = &v.worst[..v.worst.len().min(WORST)];
        let all = worst.iter().map(|&at| (at, LARGE));
        let all: Vec<_> =
            all.chain(pairs.iter().flat_map(|(_, places)| places.iter().map(|&at| (at, SMALL)))).collect();
        let files: Vec<_> =
            all.iter().map(|&(at, side)| (run.image(&v.predictions[at].path, data), side)).collect();
        let shown = budget.pictures(&files);
        gallery.missing = shown.iter().filter(|s| s.missing).count();
        let mut shots = all.iter().zip(shown).map(|(&(at, _), s)| Shot { at, picture: s.picture });
        gallery.worst = shots.by_ref().take(worst.len()).collect();
        for (pair, places) in pairs {
            gallery.pairs.push((pair, shots.by_ref().take(places.len()).collect()));
        }
        gallery
    }

    /// Whether it has the pair of a truth and a prediction.
    pub(super) fn shows(&self, pair: (usize, usize)) -> bool {
        self.pairs.iter().any(|(p, _)| *p == pair)
    }

    /// Whether it has anything.
    pub(super) fn any(&self) -> bool {
        !self.pairs.is_empty()
    }
}

/// The places of mistakes by truth and prediction, the most frequent pair and the most confident mistake first.
fn by_pair(v: &Validation) -> Vec<((usize, usize), Vec<usize>)> {
    let mut pairs: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (at, p) in v.predictions.iter().enumerate() {
        if p.truth != p.prediction {
            pairs.entry((p.truth, p.prediction)).or_default().push(at);
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(pair, places)| (std::cmp::Reverse(places.len()), *pair));
    for (_, places) in &mut pairs {
        places.sort_by(|&a, &b| {
            v.predictions[b].confidence.total_cmp(&v.predictions[a].confidence).then(a.cmp(&b))
        });
    }
    pairs
}

/// The worst mistakes, and all pairs.
pub(super) fn part(run: &Run, gallery: &Gallery) -> Option<Part> {
    let v = run.validation.as_ref()?;
    if !gallery.any() {
        return None;
    }
    let about = html! {
        "First those it was surest of: such a picture is hard, mislabelled, or shows what the network really looks at. "
        "Below, pair by pair, the most frequent first."
        @if gallery.left_out > 0 { " " (say::count(gallery.left_out as u64)) " further pairs are left out." }
        @if gallery.missing > 0 {
            " " (say::things(gallery.missing, "picture", "pictures")) " could not be read from the data's folder."
        }
    };
    let all = |pair: &(usize, usize)| v.confusion[pair.0][pair.1];
    let body = html! {
        @if !gallery.worst.is_empty() {
            h3 { "Surest mistakes" }
            div .worst { @for shot in &gallery.worst { (card(v, shot)) } }
        }
        h3 { "Pair by pair" }
        div .gallery { @for (pair, shots) in &gallery.pairs {
            div .pair.one[columns(shots.len()) == 1] id={ "pair-" (pair.0) "-" (pair.1) } style={ "--c:" (columns(shots.len())) } {
                h4 {
                    (v.classes[pair.0]) " " span { "taken for" } " " (v.classes[pair.1])
                    @if all(pair) > 1 { (say::NBSP) small { (say::count(all(pair) as u64)) } }
                }
                div .shots {
                    @for shot in shots { (small(v, shot)) }
                    @if all(pair) > shots.len() { p { "and " (say::count((all(pair) - shots.len()) as u64)) " more" } }
                }
            }
        } }
    };
    Some(Part { id: "mistakes", title: "Mistakes", about, body })
}

/// Columns that so many small pictures take.
fn columns(pictures: usize) -> usize {
    match pictures {
        0..=2 => 1,
        3..=4 => 2,
        5..=6 => 3,
        _ => 4,
    }
}

fn card(v: &Validation, shot: &Shot) -> Markup {
    let p = &v.predictions[shot.at];
    html! {
        figure {
            (frame(v, p, shot))
            figcaption {
                p .said { i { "said" } b { (v.classes[p.prediction]) } span .n { (say::percent(p.confidence.into())) } }
                p { i { "is" } b { (v.classes[p.truth]) } span .n { (say::percent(p.truth_confidence.into())) } }
                p .file title=(p.path) { (file(&p.path)) }
            }
        }
    }
}

fn small(v: &Validation, shot: &Shot) -> Markup {
    let p = &v.predictions[shot.at];
    html! {
        figure title=(p.path) {
            (frame(v, p, shot))
            figcaption { (say::percent(p.confidence.into())) span .file { (file(&p.path)) } }
        }
    }
}

fn frame(v: &Validation, p: &Prediction, shot: &Shot) -> Markup {
    html! {
        div .frame {
            @match &shot.picture {
                Some(uri) => img src=(uri) loading="lazy" decoding="async"
                    alt={ "shows " (v.classes[p.truth]) ", taken for " (v.classes[p.prediction]) };,
                None => span .none { "no picture" },
            }
        }
    }
}

pub(super) fn file(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |n| n.to_string_lossy().into_owned())
}
