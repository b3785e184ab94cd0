//! Which classes are taken for which, and how well each is told.

use maud::{Markup, html};

use super::mistakes::Gallery;
use super::{Part, scrolling};
use crate::matrix::Matrix;
use crate::plot::tint;
use crate::run::Run;
use crate::say;

/// Pairs that are listed.
const PAIRS: usize = 12;
/// Classes from which on the table can be searched.
const SEARCHED: usize = 25;

/// The matrix and the most confused pairs.
pub(super) fn matrix(run: &Run, gallery: &Gallery) -> Option<Part> {
    let v = run.validation.as_ref().filter(|v| !v.confusion.is_empty())?;
    let m = Matrix::new(v);
    let wide = m.names.len() > 12;
    let cell = |i: usize, j: usize| -> Markup {
        let count = m.counts[i][j];
        if count == 0 {
            return html! { td .zero { "·" } };
        }
        let strength = tint(m.share(i, j));
        let link = m.class[i].zip(m.class[j]).filter(|pair| gallery.shows(*pair));
        let what = format!("{} taken for {}: {}", m.names[i], m.names[j], count);
        html! {
            td .hit[i == j] .deep[strength > 0.55] style={ "--s:" (format!("{strength:.2}")) } title=(what) {
                @match link {
                    Some((t, p)) => a href={ "#pair-" (t) "-" (p) } aria-label=(what) { (say::count(count as u64)) },
                    None => (say::count(count as u64)),
                }
            }
        }
    };
    let table = html! {
        table .matrix.wide[wide] {
            thead {
                tr {
                    td .corner { span { "truth ↓" } span { "prediction →" } }
                    @for name in &m.names { th scope="col" title=(name) { span { (name) } } }
                }
            }
            tbody {
                @for (i, name) in m.names.iter().enumerate() {
                    tr {
                        th scope="row" title=(name) { (name) }
                        @for j in 0..m.names.len() { (cell(i, j)) }
                    }
                }
            }
        }
    };
    let about = html! {
        "A row is what the pictures show, a column what they were taken for. Colour is the part of the row: blue is right, orange wrong. "
        @if gallery.any() { "A number leads to its pictures. " }
        @if m.others > 0 {
            "Of " (say::count(v.classes.len() as u64)) " classes, the " (m.names.len() - 1)
            " most confused are shown; the others are one row and one column."
        }
    };
    let body = html! { (scrolling("Confusion matrix", &table)) (pairs(run, gallery)) };
    Some(Part { id: "confusion", title: "Confusion", about, body })
}

fn pairs(run: &Run, gallery: &Gallery) -> Markup {
    let Some(v) = run.validation.as_ref().filter(|v| !v.confused.is_empty()) else { return html! {} };
    html! {
        h3 { "Most confused pairs" }
        table .pairs {
            thead {
                tr {
                    th scope="col" { "shows" }
                    th scope="col" { "taken for" }
                    th scope="col" .n { "pictures" }
                    th scope="col" .n { "of the class" }
                    th scope="col" .n { "and the other way" }
                }
            }
            tbody {
                @for pair in v.confused.iter().take(PAIRS) {
                    @let key = (pair.truth, pair.prediction);
                    tr {
                        th scope="row" { (v.classes[pair.truth]) }
                        td { (v.classes[pair.prediction]) }
                        td .n {
                            @if gallery.shows(key) {
                                a href={ "#pair-" (key.0) "-" (key.1) } { (say::count(pair.images as u64)) }
                            } @else { (say::count(pair.images as u64)) }
                        }
                        td .n { (say::percent(pair.images as f64 / v.per_class[pair.truth].images.max(1) as f64)) }
                        td .n { (say::count(v.confusion[pair.prediction][pair.truth] as u64)) }
                    }
                }
            }
        }
    }
}

/// The scores of every class or label.
pub(super) fn classes(run: &Run) -> Option<Part> {
    let v = run.validation.as_ref().filter(|v| !v.per_class.is_empty())?;
    // Of several labels an image, none is taken for another.
    let several = v.confusion.is_empty();
    let word = if several { "label" } else { "class" };
    let column = |name: &str, number: bool, sorted: bool| {
        html! {
            th scope="col" .n[number] aria-sort=[sorted.then_some("ascending")] {
                button type="button" data-sort=(if number { "n" } else { "s" }) { (name) }
            }
        }
    };
    let mut order: Vec<usize> = (0..v.classes.len()).collect();
    order.sort_by(|&a, &b| v.per_class[a].f1.total_cmp(&v.per_class[b].f1).then(a.cmp(&b)));
    let score = |x: f64, sure: bool| {
        html! {
            td .n.bar data-v=(format!("{x:.6}")) style={ "--p:" (format!("{:.3}", x.clamp(0.0, 1.0))) } {
                @if sure { (say::percent(x)) } @else { "–" }
            }
        }
    };
    let table = html! {
        table #class-table .sortable {
            thead {
                tr {
                    (column(word, false, false)) (column("pictures", true, false)) (column("recall", true, false))
                    (column("precision", true, false)) (column("F1", true, true))
                    @if several { (column("average precision", true, false)) (column("AUC", true, false)) }
                    @else { (column("mostly taken for", false, false)) }
                }
            }
            tbody {
                @for &i in &order {
                    @let c = &v.per_class[i];
                    tr {
                        th scope="row" { (c.class) }
                        td .n data-v=(c.images) { (say::count(c.images as u64)) }
                        (score(c.recall, c.images > 0))
                        (score(c.precision, c.predicted > 0))
                        (score(c.f1, c.images + c.predicted > 0))
                        @if several {
                            @for part in [c.average_precision, c.auc] { (score(part.unwrap_or(0.0), part.is_some())) }
                        } @else {
                            td { (taken_for(&v.confusion[i], i).map_or("–", |j| v.classes[j].as_str())) }
                        }
                    }
                }
            }
        }
    };
    let about = html! {
        "Recall: how many of a class's pictures were found. Precision: how often it is right when it says the class. "
        "F1 is their harmonic mean. "
        @if several {
            "A label is said where its probability is above one half; average precision and AUC look at the order of the "
            "pictures by probability, whatever the threshold. "
        }
        "The worst come first; a column's name sorts by it."
    };
    let many = v.classes.len() > SEARCHED;
    let body = html! {
        @if many {
            label .search { "Find a " (word) " " input type="search" data-filter="class-table" autocomplete="off"; }
        }
        div .scroll.tall[many] role="region" aria-label="Scores of every class" tabindex="0" { (table) }
    };
    let (id, title) = if several { ("labels", "Labels") } else { ("classes", "Classes") };
    Some(Part { id, title, about, body })
}

fn taken_for(row: &[usize], class: usize) -> Option<usize> {
    let others = row.iter().enumerate().filter(|&(j, &n)| j != class && n > 0);
    others.max_by_key(|&(j, &n)| (n, std::cmp::Reverse(j))).map(|(j, _)| j)
}
