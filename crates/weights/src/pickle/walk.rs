//! The named arrays in a tree of dicts, lists and modules.

use super::{Pickle, Ref, Value};
use crate::{Error, Result};

/// Dicts in dicts that are followed.
const MAX_DEPTH: usize = 32;
/// Values that are looked at. A dict that holds another one twice, and so on down, has more than there are atoms.
const MAX_VISITS: usize = 1 << 20;
/// Bytes of all names together.
const MAX_NAMES: usize = 64 << 20;

struct Walk<'p, 'b> {
    pickle: &'p Pickle<'b>,
    is_leaf: &'p dyn Fn(Ref) -> bool,
    visits: usize,
    names: usize,
    out: Vec<(String, Ref)>,
}

impl Pickle<'_> {
    /// Every value below `at` for which `is_leaf` holds, under its keys joined by dots and in the file's order.
    ///
    /// Elements of a list have their index as key. A pickled PyTorch module counts as the dict of its parameters,
    /// buffers and children. Whatever else there is, is passed over.
    pub(crate) fn leaves(&self, at: Ref, is_leaf: &dyn Fn(Ref) -> bool) -> Result<Vec<(String, Ref)>> {
        let mut walk = Walk { pickle: self, is_leaf, visits: 0, names: 0, out: Vec::new() };
        walk.visit(at, &mut String::new(), 0)?;
        Ok(walk.out)
    }
}

impl Walk<'_, '_> {
    fn visit(&mut self, at: Ref, path: &mut String, depth: usize) -> Result<()> {
        let pickle = self.pickle;
        self.visits += 1;
        if self.visits > MAX_VISITS || self.names > MAX_NAMES {
            let what = "what the pickle's dicts hold, taken together,".into();
            return Err(Error::TooLarge {
                format: pickle.format,
                what,
                limit: format!("{MAX_VISITS} entries"),
            });
        }
        if (self.is_leaf)(at) {
            self.names += path.len();
            self.out.push((path.clone(), at));
        } else if let Value::List(items) | Value::Tuple(items) = pickle.get(at) {
            for (i, &item) in items.iter().enumerate() {
                self.child(&i.to_string(), item, path, depth)?;
            }
        } else {
            let pairs = pickle.dict(at).map(|pairs| [pairs, &[], &[]]).or_else(|| module(pickle, at));
            for &(key, value) in pairs.iter().flatten().copied().flatten() {
                let Some(key) = pickle.scalar(key) else {
                    return Err(pickle.bad("a dict with a key that is neither text nor number"));
                };
                self.child(&key, value, path, depth)?;
            }
        }
        Ok(())
    }

    fn child(&mut self, key: &str, value: Ref, path: &mut String, depth: usize) -> Result<()> {
        if depth == MAX_DEPTH {
            return Err(self.pickle.bad(format!("dicts nested deeper than {MAX_DEPTH}, at `{path}`")));
        }
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        self.visit(value, path, depth + 1)?;
        path.truncate(length);
        Ok(())
    }
}

/// The parameters, buffers and children of a pickled `torch.nn.Module`.
fn module<'p>(pickle: &'p Pickle<'_>, at: Ref) -> Option<[&'p [(Ref, Ref)]; 3]> {
    let state = pickle.state(at)?;
    let part = |key| pickle.entry(state, key).and_then(|r| pickle.dict(r));
    Some([part("_parameters")?, part("_buffers")?, part("_modules")?])
}
