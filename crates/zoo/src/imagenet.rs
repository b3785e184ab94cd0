//! The classes of ImageNet-1k in the order of the outputs of published weights.

/// A class of ImageNet-1k.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ImagenetClass {
    /// Its WordNet id, which names its folder in the data set, as in `n01440764`.
    pub wnid: &'static str,
    /// Its name, as in `tench` (torchvision's; no two are the same).
    pub name: &'static str,
}

/// All 1000 classes. `data/README.md` in this crate says where the names are from.
pub fn imagenet_classes() -> impl ExactSizeIterator<Item = ImagenetClass> {
    let lines: Vec<_> = include_str!("../data/imagenet.txt").lines().collect();
    lines.into_iter().map(|line| {
        let (wnid, name) = line.split_once(' ').unwrap_or((line, line));
        ImagenetClass { wnid, name }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_a_thousand_and_no_two_are_the_same() {
        let all: Vec<_> = imagenet_classes().collect();
        assert_eq!((all.len(), all[0].wnid, all[999].name), (1000, "n01440764", "toilet tissue"));
        assert_eq!((all[281].name, all[967].name), ("tabby", "espresso"));
        assert_eq!(all.iter().map(|c| c.name).collect::<HashSet<_>>().len(), 1000);
        assert!(all.is_sorted_by_key(|c| c.wnid), "the outputs are in the order of the ids");
    }
}
