//! Selectors against a graph: which parameters they mean.

use std::collections::BTreeSet;

use defrost_graph::{Graph, ParamId, ParamKind};
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use crate::error::nearest;
use crate::{RecipeErrorKind, Selection, Selector, keras};

/// Parameter groups by place: a name and the trainable parameters, from the input to the output.
pub(crate) type Units = Vec<(String, Vec<ParamId>)>;

/// A bit for each entry of the parameter table; buffers are never set.
pub(crate) type Bits = Vec<bool>;

/// What `selection` means in `graph`, whose parameter groups are `units`. Things to warn of are added to `warnings`.
pub(crate) fn select(
    graph: &Graph,
    units: &Units,
    selection: &Selection,
    warnings: &mut Vec<String>,
) -> Result<Bits, RecipeErrorKind> {
    let (minus, plus): (Vec<_>, Vec<_>) = selection.0.iter().partition(|s| matches!(s, Selector::Not(_)));
    let mut bits = vec![plus.is_empty() && !minus.is_empty(); graph.params().len()];
    for selector in plus {
        for (bit, found) in bits.iter_mut().zip(one(graph, units, selector, warnings)?) {
            *bit |= found;
        }
    }
    for selector in minus {
        for (bit, found) in bits.iter_mut().zip(one(graph, units, selector, warnings)?) {
            *bit &= !found;
        }
    }
    Ok(trainable(graph, bits))
}

fn trainable(graph: &Graph, mut bits: Bits) -> Bits {
    for (bit, param) in bits.iter_mut().zip(graph.params()) {
        *bit &= param.kind.is_trainable();
    }
    bits
}

/// What one selector means; a [`Selector::Not`] is read as what it takes out.
pub(crate) fn one(
    graph: &Graph,
    units: &Units,
    selector: &Selector,
    warnings: &mut Vec<String>,
) -> Result<Bits, RecipeErrorKind> {
    let of = |choose: &dyn Fn(ParamId) -> bool| graph.param_ids().map(choose).collect::<Bits>();
    let kind = |id: ParamId| graph.param(id).kind;
    let too_many = |has: String| RecipeErrorKind::TooMany {
        selector: selector.to_string(),
        network: graph.name().to_owned(),
        has,
    };
    let bits = match selector {
        Selector::All => of(&|_| true),
        Selector::Head => of(&|id| graph.stages()[graph.stage_of(id)].head),
        Selector::Body => of(&|id| !graph.stages()[graph.stage_of(id)].head),
        Selector::Norms => of(&|id| kind(id).is_norm()),
        Selector::Biases => of(&|id| kind(id) == ParamKind::Bias),
        Selector::Not(inner) => return one(graph, units, inner, warnings),
        Selector::LastStages(n) => {
            let stages = by_place(graph, |id| graph.stage_of(id));
            last(graph, &stages, *n)
                .ok_or_else(|| too_many(format!("{} stages with parameters", stages.len())))?
        }
        Selector::LastBlocks(n) => {
            let blocks = by_place(graph, |id| graph.param(id).block);
            last(graph, &blocks, *n)
                .ok_or_else(|| too_many(format!("{} blocks with parameters", blocks.len())))?
        }
        Selector::LastLayers(n) => {
            let layers = weight_layers(graph);
            last(graph, &layers, *n)
                .ok_or_else(|| too_many(format!("{} layers with weights", layers.len())))?
        }
        Selector::LastKerasLayers(n) => {
            let layers = keras::layers(graph);
            let start = layers
                .len()
                .checked_sub(*n)
                .ok_or_else(|| too_many(format!("{} layers as Keras counts", layers.len())))?;
            let params: BTreeSet<_> = layers[start..].iter().flat_map(|l| l.params.iter().copied()).collect();
            let base: BTreeSet<_> = layers.iter().flat_map(|l| l.params.iter().copied()).collect();
            of(&|id| params.contains(&id) || !base.contains(&id))
        }
        Selector::FreezeTo(n) => {
            let len = units.len() as i64;
            let from = if *n < 0 { len + n } else { *n };
            if !(0..len).contains(&from) {
                return Err(too_many(format!("{len} parameter groups")));
            }
            let mut bits = vec![false; graph.params().len()];
            for (_, params) in &units[from as usize..] {
                params.iter().for_each(|id| bits[id.index()] = true);
            }
            bits
        }
        Selector::Stage(text) => {
            let pattern = Pattern::new(&Selector::Name(text.clone()))?;
            of(&|id| leading(&graph.stages()[graph.stage_of(id)].name).any(|name| pattern.matches(name)))
        }
        Selector::Name(_) | Selector::Regex(_) => {
            let pattern = Pattern::new(selector)?;
            let block = |id: ParamId| graph.blocks()[graph.param(id).block].name.as_str();
            let stage = |id: ParamId| graph.stages()[graph.stage_of(id)].name.as_str();
            // A parameter's own name says most, its stage's least: a stage may be called after its first layer.
            let own = of(&|id| leading(&graph.param(id).name).any(|name| pattern.matches(name)));
            let blocks = of(&|id| leading(block(id)).any(|name| pattern.matches(name)));
            let stages = of(&|id| leading(stage(id)).any(|name| pattern.matches(name)));
            pattern.warn(graph, warnings);
            let any = |bits: &Bits| bits.iter().any(|b| *b);
            if any(&own) && pattern.is_plain() {
                let more = |id: &ParamId| stages[id.index()] && !own[id.index()];
                if let Some(id) = graph.param_ids().find(|id| more(id) && stage(*id) == pattern.text) {
                    warnings.push(format!(
                        "`{0}` is the layer alone; the stage of that name has `{1}` too: {{ stage = \"{0}\" }}",
                        pattern.text,
                        graph.param(id).name
                    ));
                }
            }
            [own, blocks, stages].into_iter().find(any).unwrap_or_default()
        }
    };
    if bits.iter().any(|b| *b) {
        return Ok(bits);
    }
    Err(RecipeErrorKind::NoMatch {
        selector: selector.to_string(),
        network: graph.name().into(),
        nearest: like(graph, &selector.to_string()).into(),
        stages: graph.stages().iter().map(|stage| stage.name.clone()).collect(),
    })
}

/// The runs of parameters that lie in one place, from the input to the output.
fn by_place(graph: &Graph, place: impl Fn(ParamId) -> usize) -> Vec<Vec<ParamId>> {
    let mut places = std::collections::BTreeMap::<usize, Vec<ParamId>>::new();
    for id in graph.param_ids() {
        places.entry(place(id)).or_default().push(id);
    }
    places.into_values().collect()
}

/// Layers with weights in the order of the graph; a normalisation belongs to the layer before it.
fn weight_layers(graph: &Graph) -> Vec<Vec<ParamId>> {
    let mut layers: Vec<Vec<ParamId>> = Vec::new();
    for node in graph.nodes() {
        let params = node.op.params();
        match layers.last_mut() {
            _ if params.is_empty() => {}
            Some(layer) if node.op.norm().is_some() => layer.extend(params),
            _ => layers.push(params),
        }
    }
    layers
}

fn last(graph: &Graph, places: &[Vec<ParamId>], n: usize) -> Option<Bits> {
    let mut bits = vec![false; graph.params().len()];
    for id in places[places.len().checked_sub(n)?..].iter().flatten() {
        bits[id.index()] = true;
    }
    Some(bits)
}

/// All names a parameter answers to: its own and its leading segments, those of its block, its stage.
fn names(graph: &Graph, id: ParamId) -> BTreeSet<&str> {
    let param = graph.param(id);
    let block = &graph.blocks()[param.block];
    let stage = &graph.stages()[block.stage].name;
    [&param.name, &block.name, stage].into_iter().flat_map(|name| leading(name)).collect()
}

/// `a.b.c`, `a.b`, `a`.
fn leading(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.match_indices('.').map(|(i, _)| &name[..i]);
    dots.chain(std::iter::once(name))
}

/// Names in the network that are like `word`, the best first.
fn like(graph: &Graph, word: &str) -> Vec<String> {
    let all: BTreeSet<_> = graph.param_ids().flat_map(|id| names(graph, id)).collect();
    let mut rest: Vec<_> = all.into_iter().chain(["all", "head", "body", "norms", "biases"]).collect();
    let mut found = Vec::new();
    while let Some(name) = nearest(word, rest.iter().copied()).filter(|_| found.len() < 3) {
        rest.retain(|n| *n != name);
        found.push(name);
    }
    found
}

/// A name, glob or regular expression over whole segments.
pub(crate) struct Pattern {
    text: String,
    glob: Option<GlobMatcher>,
    regex: Option<Regex>,
}

impl Pattern {
    pub(crate) fn new(selector: &Selector) -> Result<Self, RecipeErrorKind> {
        let bad =
            |text: &str, message: String| RecipeErrorKind::Pattern { pattern: text.to_owned(), message };
        let (text, glob, regex) = match selector {
            Selector::Regex(text) => {
                let whole = Regex::new(&format!("^(?:{text})$"));
                // The library draws what it read over three lines; the last one says what is wrong.
                let last = |e: regex::Error| {
                    let text = e.to_string();
                    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
                };
                let whole = whole.map_err(|e| bad(text, last(e)))?;
                (text.clone(), None, Some(whole))
            }
            other => {
                let text = other.to_string();
                let glob = if text.contains(META) {
                    // Dots separate segments as slashes do in paths.
                    let path = text.replace('.', "/");
                    let glob = GlobBuilder::new(&path).literal_separator(true).build();
                    let glob = glob.map_err(|e| bad(&text, e.kind().to_string()))?;
                    Some(glob.compile_matcher())
                } else {
                    None
                };
                (text, glob, None)
            }
        };
        Ok(Self { text, glob, regex })
    }

    fn is_plain(&self) -> bool {
        self.glob.is_none() && self.regex.is_none()
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match (&self.glob, &self.regex) {
            (Some(glob), _) => glob.is_match(name.replace('.', "/")),
            (_, Some(regex)) => regex.is_match(name),
            _ => self.text == name,
        }
    }

    /// Warns of a number that is cut short: as a bare prefix `block_1` is also `block_10`.
    fn warn(&self, graph: &Graph, warnings: &mut Vec<String>) {
        let literal = self.text.split(META).next().unwrap_or_default().replace("\\.", ".");
        let literal = literal.trim_end_matches(['.', '\\']);
        let open = self.text.len() > literal.len() && !self.text[literal.len()..].starts_with(['.', '\\']);
        if !literal.ends_with(|c: char| c.is_ascii_digit()) {
            return;
        }
        let all: BTreeSet<_> = graph.param_ids().flat_map(|id| names(graph, id)).collect();
        let longer = |name: &&str| {
            let next = name.strip_prefix(literal).and_then(|rest| rest.chars().next());
            next.is_some_and(|c| c.is_ascii_digit())
        };
        let more: Vec<_> =
            all.into_iter().filter(longer).filter(|name| !name[literal.len()..].contains('.')).collect();
        let (Some(first), Some(end)) = (more.first(), more.last()) else { return };
        let range = if more.len() == 1 { format!("`{first}`") } else { format!("`{first}` to `{end}`") };
        let caught = more.iter().any(|name| self.matches(name));
        warnings.push(match (caught, open) {
            (true, _) => format!("`{}` also catches {range}; `{literal}` alone does not", self.text),
            (false, _) => format!(
                "`{}` is `{literal}` alone; as a bare prefix, as in Keras code, it would also catch {range}",
                self.text
            ),
        });
    }
}

const META: [char; 12] = ['*', '?', '[', '{', '(', '|', '+', '^', '$', ']', '}', ')'];
