//! A map from patterns to values that, given a name, finds the values of all patterns that mean it.
//!
//! It serves subscriptions (everything that matches), registrations (the best match) and permission rules. Each
//! kind of pattern has a structure of its own:
//!
//! - exact: a hash table, with random keys, for the names are chosen by strangers, and in parts, for none may wait
//!   until a table of a million names has grown;
//! - prefix: a radix tree over bytes, edges compressed;
//! - components: two tries over components, one for patterns with a tail and one for those without.
//!
//! **What a match costs** is the length of the name, whatever the number of patterns, with one exception: a
//! component can be met by a literal and by a hole, so the tries are walked along several paths. A walk visits one
//! node for a given name and a given choice of holes, hence at each depth at most as many nodes as there are
//! different sets of holes among the patterns. That number is held below [`HOLE_SETS_MAX`], more or less: see
//! there. Nothing is allocated while matching.
//!
//! Trees own their nodes: what a removed pattern alone needed is freed at once. They are walked recursively where
//! that is shorter, which is as deep as a name is long, at the most.

use std::collections::HashMap;
use std::ops::ControlFlow::{self, Break, Continue};

use super::name::{Form, Name, Parts, Pattern};
use super::table::Table;

/// How many different sets of holes (`a..c` and `x..z` have the same one) the patterns of components may use, with
/// a tail and without one counted apart, before a pattern with a new set is refused. Patterns with at most one hole
/// are always admitted, so that nobody can use up the sets of ordinary subscribers: there are but 65 of those sets.
///
/// With the limit reached on both sides, by patterns made to match a name of 64 components up to its last one, a
/// match visits some 2 * 64 * 256 nodes: about half a millisecond, by the row `hostile` of `benches/index.rs`.
pub const HOLE_SETS_MAX: usize = 256;

/// A pattern was refused: it would be one more set of holes than [`HOLE_SETS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many different sets of holes are in use")]
pub struct TooManyHoleSets;

/// A map from [`Pattern`] to `T`, searched by name.
///
/// `T` is meant to be small, an id or an `Arc`: it lies inside the nodes.
///
/// ```
/// use tandem_broker::core::{index::Index, name::{Name, Pattern}};
///
/// let mut index = Index::new();
/// index.insert(&Pattern::exact(Name::parse("a.b")?), 1)?;
/// index.insert(&Pattern::prefix("a")?, 2)?;
/// index.insert(&Pattern::wildcard(".b")?, 3)?;
///
/// let mut found = Vec::new();
/// index.for_each_match("a.b", |&value| found.push(value));
/// assert_eq!(found, [1, 2, 3]);
/// assert_eq!(index.best_match("x.b"), Some(&3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Index<T> {
    exact: Table<Name, T>,
    prefixes: PrefixTree<T>,
    /// Patterns of components that mean names of as many components.
    whole: ComponentTrie<T>,
    /// Patterns of components that mean everything below, too.
    tailed: ComponentTrie<T>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            exact: Table::default(),
            prefixes: PrefixTree::default(),
            whole: ComponentTrie::default(),
            tailed: ComponentTrie::default(),
        }
    }
}

impl<T> Index<T> {
    /// An index without patterns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.prefixes.len + self.whole.len + self.tailed.len
    }

    /// Whether there is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of this very pattern.
    #[must_use]
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        match pattern.form() {
            Form::Exact(name) => self.exact.get(name.as_str()),
            Form::Prefix(text) => self.prefixes.root.get(text.as_bytes()),
            Form::Components(parts) => self.trie(parts).root.get(parts),
        }
    }

    /// The value of this very pattern, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, pattern: &Pattern) -> Option<&mut T> {
        match pattern.form() {
            Form::Exact(name) => self.exact.get_mut(name.as_str()),
            Form::Prefix(text) => self.prefixes.root.get_mut(text.as_bytes()),
            Form::Components(parts) => self.trie_mut(parts).root.get_mut(parts),
        }
    }

    /// Gives the pattern a value, and returns the one it had.
    ///
    /// # Errors
    ///
    /// If the pattern is new and so are its holes, and there are [`HOLE_SETS_MAX`] of them. Nothing has changed then.
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> Result<Option<T>, TooManyHoleSets> {
        match pattern.form() {
            Form::Exact(name) => {
                let Some(known) = self.exact.get_mut(name.as_str()) else {
                    self.exact.get_or_insert_with(name.as_str(), || (name.clone(), value));
                    return Ok(None);
                };
                Ok(Some(std::mem::replace(known, value)))
            }
            Form::Prefix(text) => Ok(self.prefixes.insert(text, value)),
            Form::Components(parts) => self.trie_mut(parts).insert(parts, value),
        }
    }

    /// The value of the pattern, which is made now if there is none.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn get_or_insert_with(
        &mut self,
        pattern: &Pattern,
        make: impl FnOnce() -> T,
    ) -> Result<&mut T, TooManyHoleSets> {
        match pattern.form() {
            Form::Exact(name) => Ok(self.exact.get_or_insert_with(name.as_str(), || (name.clone(), make()))),
            Form::Prefix(text) => Ok(self.prefixes.get_or_insert_with(text, make)),
            Form::Components(parts) => self.trie_mut(parts).get_or_insert_with(parts, make),
        }
    }

    /// Forgets the pattern, and returns its value.
    pub fn remove(&mut self, pattern: &Pattern) -> Option<T> {
        match pattern.form() {
            Form::Exact(name) => self.exact.remove(name.as_str()),
            Form::Prefix(text) => self.prefixes.remove(text),
            Form::Components(parts) => self.trie_mut(parts).remove(parts),
        }
    }

    /// Every pattern and its value, in no order to rely on. The patterns are made on the way.
    pub fn iter(&self) -> impl Iterator<Item = (Pattern, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (Pattern::exact(name.clone()), value));
        let components = self.whole.root.iter("").chain(self.tailed.root.iter("#"));
        exact.chain(self.prefixes.root.iter()).chain(components)
    }

    /// Visits the values of all patterns that mean `name`, which is the text of a [`Name`]: the exact one, prefixes
    /// from short to long, components without a tail, components with one.
    ///
    /// Patterns of components come in the order that [`best_match`](Self::best_match) prefers them.
    pub fn for_each_match<'a>(&'a self, name: &str, mut visit: impl FnMut(&'a T)) {
        if let Some(value) = self.exact.get(name) {
            visit(value);
        }
        self.prefixes.root.walk(name.as_bytes(), &mut visit);
        let mut visit = |value| {
            visit(value);
            Continue::<()>(())
        };
        for (trie, reach) in [(&self.whole, Reach::Whole), (&self.tailed, Reach::Below)] {
            // The visitor never breaks.
            let _ = trie.root.walk(Some(name), reach, &mut visit);
        }
    }

    /// The value of the pattern that means `name` most closely, by the rule of WAMP's registrations: the exact one;
    /// the longest prefix; of the components, those with the longest run of literals before the first hole, then
    /// after it, and so on. The ones with a tail, of which WAMP knows nothing, stand behind, the deeper before the
    /// shallower where they say the same.
    #[must_use]
    pub fn best_match(&self, name: &str) -> Option<&T> {
        if let Some(value) = self.exact.get(name) {
            return Some(value);
        }
        let mut longest = None;
        self.prefixes.root.walk(name.as_bytes(), &mut |value| longest = Some(value));
        longest
            .or_else(|| self.whole.first_match(name, Reach::Whole))
            .or_else(|| self.tailed.first_match(name, Reach::Below))
    }

    fn trie(&self, parts: &Parts) -> &ComponentTrie<T> {
        if parts.has_tail() { &self.tailed } else { &self.whole }
    }

    fn trie_mut(&mut self, parts: &Parts) -> &mut ComponentTrie<T> {
        if parts.has_tail() { &mut self.tailed } else { &mut self.whole }
    }
}

/// Puts `item` at `at`. The slice has exactly the room it needs: most nodes have one child, and a `Vec` would begin
/// with room for four.
fn insert_at<N>(slice: &mut Box<[N]>, at: usize, item: N) {
    let mut list = std::mem::take(slice).into_vec();
    list.reserve_exact(1);
    list.insert(at, item);
    *slice = list.into_boxed_slice();
}

fn remove_at<N>(slice: &mut Box<[N]>, at: usize) -> N {
    let mut list = std::mem::take(slice).into_vec();
    let item = list.remove(at);
    *slice = list.into_boxed_slice();
    item
}

// ---- prefixes ----

/// Values by the beginnings of names.
#[derive(Debug)]
struct PrefixTree<T> {
    root: PrefixNode<T>,
    len: usize,
}

/// A node is where a prefix ends or where prefixes part: all but the root have a value or at least two children.
#[derive(Debug)]
struct PrefixNode<T> {
    /// The bytes between the parent and here. Empty in the root alone.
    label: Label,
    value: Option<T>,
    /// By the first byte of their labels, which are all different: 256 at the most.
    children: Box<[Self]>,
}

/// A few bytes in place, or more of them elsewhere, where the first one is still at hand for the search.
#[derive(Debug)]
enum Label {
    Short { len: u8, bytes: [u8; LABEL_SHORT_MAX] },
    Long { first: u8, bytes: Box<[u8]> },
}

/// What fits in the room that a long label needs anyway.
const LABEL_SHORT_MAX: usize = 22;

impl<T> Default for PrefixTree<T> {
    fn default() -> Self {
        Self { root: PrefixNode::new(&[]), len: 0 }
    }
}

impl<T> PrefixTree<T> {
    fn insert(&mut self, text: &str, value: T) -> Option<T> {
        let old = self.root.slot(text.as_bytes()).replace(value);
        self.len += usize::from(old.is_none());
        old
    }

    fn get_or_insert_with(&mut self, text: &str, make: impl FnOnce() -> T) -> &mut T {
        let slot = self.root.slot(text.as_bytes());
        self.len += usize::from(slot.is_none());
        slot.get_or_insert_with(make)
    }

    fn remove(&mut self, text: &str) -> Option<T> {
        let value = self.root.remove(text.as_bytes());
        self.len -= usize::from(value.is_some());
        value
    }
}

impl<T> PrefixNode<T> {
    fn new(label: &[u8]) -> Self {
        Self { label: Label::new(label), value: None, children: Box::default() }
    }

    /// Where the child is whose label begins with `first`, or where it would be.
    fn find(&self, first: u8) -> Result<usize, usize> {
        self.children.binary_search_by_key(&first, |child| child.label.first())
    }

    /// The child towards `key`, and what of the key is left behind it.
    fn step<'k>(&self, key: &'k [u8]) -> Option<(usize, &'k [u8])> {
        let at = self.find(*key.first()?).ok()?;
        Some((at, key.strip_prefix(self.children[at].label.as_bytes())?))
    }

    fn walk<'a>(&'a self, name: &[u8], visit: &mut impl FnMut(&'a T)) {
        let (mut node, mut rest) = (self, name);
        loop {
            if let Some(value) = &node.value {
                visit(value);
            }
            let Some((at, behind)) = node.step(rest) else { return };
            (node, rest) = (&node.children[at], behind);
        }
    }

    fn get(&self, key: &[u8]) -> Option<&T> {
        let (mut node, mut rest) = (self, key);
        while !rest.is_empty() {
            let (at, behind) = node.step(rest)?;
            (node, rest) = (&node.children[at], behind);
        }
        node.value.as_ref()
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut T> {
        let (mut node, mut rest) = (self, key);
        while !rest.is_empty() {
            let (at, behind) = node.step(rest)?;
            (node, rest) = (&mut node.children[at], behind);
        }
        node.value.as_mut()
    }

    /// The place for the value of `key`, with all nodes on the way to it. The caller puts something there.
    fn slot(&mut self, key: &[u8]) -> &mut Option<T> {
        let (mut node, mut rest) = (self, key);
        while let Some(&first) = rest.first() {
            let at = match node.find(first) {
                Ok(at) => {
                    let child = &mut node.children[at];
                    let label = child.label.as_bytes();
                    let common = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
                    if common < label.len() {
                        child.split(common);
                    }
                    rest = &rest[common..];
                    at
                }
                Err(at) => {
                    insert_at(&mut node.children, at, Self::new(rest));
                    rest = &[];
                    at
                }
            };
            node = &mut node.children[at];
        }
        &mut node.value
    }

    /// Makes two of one: the first `at` bytes of the label, and below them the rest with all that was here.
    fn split(&mut self, at: usize) {
        let (above, below) = self.label.as_bytes().split_at(at);
        let (above, below) = (Self::new(above), Label::new(below));
        let mut lower = std::mem::replace(self, above);
        lower.label = below;
        self.children = Box::new([lower]);
    }

    /// Takes the value of `key`, and the nodes that nothing else needs.
    fn remove(&mut self, key: &[u8]) -> Option<T> {
        if key.is_empty() {
            return self.value.take();
        }
        let (at, rest) = self.step(key)?;
        let child = &mut self.children[at];
        let value = child.remove(rest)?;
        if child.value.is_none() {
            match child.children.len() {
                0 => drop(remove_at(&mut self.children, at)),
                1 => child.join(),
                _ => {}
            }
        }
        Some(value)
    }

    /// Makes one of two: this node, which has nothing, and its only child.
    fn join(&mut self) {
        let mut lower = remove_at(&mut self.children, 0);
        lower.label = Label::new(&[self.label.as_bytes(), lower.label.as_bytes()].concat());
        *self = lower;
    }

    fn iter(&self) -> impl Iterator<Item = (Pattern, &T)> {
        let mut ahead = vec![(Vec::new(), self)];
        std::iter::from_fn(move || {
            loop {
                let (path, node) = ahead.pop()?;
                for child in &node.children {
                    ahead.push(([&path, child.label.as_bytes()].concat(), child));
                }
                if let Some(value) = &node.value {
                    let text = String::from_utf8(path).expect("the labels down to a value spell its pattern");
                    return Some((Pattern::prefix_again(&text), value));
                }
            }
        })
    }
}

impl Label {
    fn new(label: &[u8]) -> Self {
        let mut bytes = [0; LABEL_SHORT_MAX];
        match (bytes.get_mut(..label.len()), u8::try_from(label.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(label);
                Self::Short { len, bytes }
            }
            _ => Self::Long { first: label[0], bytes: label.into() },
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long { bytes, .. } => bytes,
        }
    }

    /// The first byte; of an empty label, 0.
    fn first(&self) -> u8 {
        match self {
            Self::Short { bytes, .. } => bytes[0],
            Self::Long { first, .. } => *first,
        }
    }
}

// ---- components ----

/// Values by components with holes: all of the patterns with a tail, or all of those without.
#[derive(Debug)]
struct ComponentTrie<T> {
    root: ComponentNode<T>,
    len: usize,
    /// How many patterns have their holes there; see [`Parts::holes`].
    hole_sets: HashMap<u64, usize>,
}

/// A node is a beginning of patterns: all but the root have a value or something below them.
#[derive(Debug)]
struct ComponentNode<T> {
    literals: Literals<T>,
    hole: Option<Box<Self>>,
    value: Option<T>,
}

/// The children of a node that stand for one component each.
#[derive(Debug)]
enum Literals<T> {
    /// Sorted.
    Few(Box<[(Box<str>, ComponentNode<T>)]>),
    /// Boxed: most nodes have few children and should not hold room for a table.
    Many(Box<Table<Box<str>, ComponentNode<T>>>),
}

/// Up to how many children are a list, and down to how many they stay a table once they are one.
const LITERALS_FEW_MAX: usize = 16;
const LITERALS_MANY_MIN: usize = 8;

/// Which nodes on the way through a name count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those reached with the whole name.
    Whole,
    /// All of them: the rest of the name is their tail.
    Below,
}

impl<T> Default for ComponentTrie<T> {
    fn default() -> Self {
        Self { root: ComponentNode::default(), len: 0, hole_sets: HashMap::new() }
    }
}

impl<T> ComponentTrie<T> {
    fn insert(&mut self, parts: &Parts, value: T) -> Result<Option<T>, TooManyHoleSets> {
        self.admit(parts)?;
        let old = self.root.slot(parts).replace(value);
        if old.is_none() {
            self.count(parts);
        }
        Ok(old)
    }

    fn get_or_insert_with(
        &mut self,
        parts: &Parts,
        make: impl FnOnce() -> T,
    ) -> Result<&mut T, TooManyHoleSets> {
        self.admit(parts)?;
        if self.root.get(parts).is_none() {
            self.count(parts);
        }
        Ok(self.root.slot(parts).get_or_insert_with(make))
    }

    fn remove(&mut self, parts: &Parts) -> Option<T> {
        let value = self.root.remove(&mut parts.iter())?;
        self.len -= 1;
        let holes = parts.holes();
        if let Some(patterns) = self.hole_sets.get_mut(&holes) {
            *patterns -= 1;
            if *patterns == 0 {
                self.hole_sets.remove(&holes);
            }
        }
        Some(value)
    }

    fn admit(&self, parts: &Parts) -> Result<(), TooManyHoleSets> {
        let holes = parts.holes();
        let admitted = holes.count_ones() <= 1
            || self.hole_sets.len() < HOLE_SETS_MAX
            || self.hole_sets.contains_key(&holes);
        if admitted { Ok(()) } else { Err(TooManyHoleSets) }
    }

    fn count(&mut self, parts: &Parts) {
        self.len += 1;
        *self.hole_sets.entry(parts.holes()).or_default() += 1;
    }

    fn first_match(&self, name: &str, reach: Reach) -> Option<&T> {
        match self.root.walk(Some(name), reach, &mut |value| Break(value)) {
            Break(value) => Some(value),
            Continue(()) => None,
        }
    }
}

impl<T> Default for ComponentNode<T> {
    fn default() -> Self {
        Self { literals: Literals::Few(Box::default()), hole: None, value: None }
    }
}

impl<T> ComponentNode<T> {
    /// Visits what means the `rest` of a name, `None` being its end: with the next component as a literal, with the
    /// next component in a hole, and last what ends here.
    fn walk<'a, B>(
        &'a self,
        rest: Option<&str>,
        reach: Reach,
        visit: &mut impl FnMut(&'a T) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(rest) = rest {
            let (component, rest) = match rest.split_once('.') {
                Some((component, rest)) => (component, Some(rest)),
                None => (rest, None),
            };
            if let Some(child) = self.literals.get(component) {
                child.walk(rest, reach, visit)?;
            }
            if let Some(child) = &self.hole {
                child.walk(rest, reach, visit)?;
            }
        }
        match &self.value {
            Some(value) if rest.is_none() || reach == Reach::Below => visit(value),
            _ => Continue(()),
        }
    }

    fn get(&self, parts: &Parts) -> Option<&T> {
        let node = parts.iter().try_fold(self, |node, part| match part {
            Some(component) => node.literals.get(component),
            None => node.hole.as_deref(),
        })?;
        node.value.as_ref()
    }

    fn get_mut(&mut self, parts: &Parts) -> Option<&mut T> {
        let node = parts.iter().try_fold(self, |node, part| match part {
            Some(component) => node.literals.get_mut(component),
            None => node.hole.as_deref_mut(),
        })?;
        node.value.as_mut()
    }

    /// The place for the value of `parts`, with all nodes on the way to it. The caller puts something there.
    fn slot(&mut self, parts: &Parts) -> &mut Option<T> {
        let node = parts.iter().fold(self, |node, part| match part {
            Some(component) => node.literals.get_or_insert(component),
            None => node.hole.get_or_insert_default(),
        });
        &mut node.value
    }

    /// Takes the value of `parts`, and the nodes that nothing else needs.
    fn remove<'p>(&mut self, parts: &mut impl Iterator<Item = Option<&'p str>>) -> Option<T> {
        let Some(part) = parts.next() else { return self.value.take() };
        if let Some(component) = part {
            let child = self.literals.get_mut(component)?;
            let value = child.remove(parts)?;
            if child.is_bare() {
                self.literals.remove(component);
            }
            Some(value)
        } else {
            let child = self.hole.as_mut()?;
            let value = child.remove(parts)?;
            if child.is_bare() {
                self.hole = None;
            }
            Some(value)
        }
    }

    fn is_bare(&self) -> bool {
        self.value.is_none() && self.hole.is_none() && self.literals.len() == 0
    }

    /// The patterns of this trie; `tail` is how the tail is spelled that all of them have, or empty.
    fn iter<'a>(&'a self, tail: &'static str) -> impl Iterator<Item = (Pattern, &'a T)> {
        // A path is a spelling with a dot behind every part.
        let mut ahead = vec![(String::new(), self)];
        std::iter::from_fn(move || {
            loop {
                let (path, node) = ahead.pop()?;
                node.literals
                    .for_each(&mut |component, child| ahead.push((format!("{path}{component}."), child)));
                if let Some(child) = &node.hole {
                    ahead.push((format!("{path}."), child));
                }
                if let Some(value) = &node.value {
                    let text = if tail.is_empty() { path[..path.len() - 1].to_owned() } else { path + tail };
                    return Some((Pattern::components_again(&text), value));
                }
            }
        })
    }
}

impl<T> Literals<T> {
    fn len(&self) -> usize {
        match self {
            Self::Few(children) => children.len(),
            Self::Many(children) => children.len(),
        }
    }

    fn get(&self, component: &str) -> Option<&ComponentNode<T>> {
        match self {
            Self::Few(children) => Some(&children[position(children, component).ok()?].1),
            Self::Many(children) => children.get(component),
        }
    }

    fn get_mut(&mut self, component: &str) -> Option<&mut ComponentNode<T>> {
        match self {
            Self::Few(children) => {
                let at = position(children, component).ok()?;
                Some(&mut children[at].1)
            }
            Self::Many(children) => children.get_mut(component),
        }
    }

    fn get_or_insert(&mut self, component: &str) -> &mut ComponentNode<T> {
        if let Self::Few(children) = self
            && children.len() >= LITERALS_FEW_MAX
            && position(children, component).is_err()
        {
            *self = Self::Many(Box::new(std::mem::take(children).into_iter().collect()));
        }
        match self {
            Self::Few(children) => {
                let at = position(children, component).unwrap_or_else(|at| {
                    insert_at(children, at, (component.into(), ComponentNode::default()));
                    at
                });
                &mut children[at].1
            }
            Self::Many(children) => {
                children.get_or_insert_with(component, || (component.into(), ComponentNode::default()))
            }
        }
    }

    fn remove(&mut self, component: &str) {
        match self {
            Self::Few(children) => {
                if let Ok(at) = position(children, component) {
                    remove_at(children, at);
                }
            }
            Self::Many(children) => {
                children.remove(component);
                if children.len() >= LITERALS_MANY_MIN {
                    return;
                }
                let mut few: Box<[_]> = children.drain().collect();
                few.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                *self = Self::Few(few);
            }
        }
    }

    fn for_each<'a>(&'a self, visit: &mut impl FnMut(&'a str, &'a ComponentNode<T>)) {
        match self {
            Self::Few(children) => children.iter().for_each(|(component, child)| visit(component, child)),
            Self::Many(children) => children.iter().for_each(|(component, child)| visit(component, child)),
        }
    }
}

/// Where the component is among sorted children, or where it would be.
fn position<T>(children: &[(Box<str>, ComponentNode<T>)], component: &str) -> Result<usize, usize> {
    children.binary_search_by(|(literal, _)| (**literal).cmp(component))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::name::{COMPONENTS_MAX, MatchKind, NAME_BYTES_MAX};
    use super::*;

    impl<T> Index<T> {
        fn nodes(&self) -> usize {
            self.prefixes.root.nodes() + self.whole.root.nodes() + self.tailed.root.nodes()
        }
    }

    impl<T> PrefixNode<T> {
        fn nodes(&self) -> usize {
            let below = self.children.iter().inspect(|child| {
                assert!(child.value.is_some() || child.children.len() > 1, "a node without a reason");
            });
            1 + below.map(Self::nodes).sum::<usize>()
        }
    }

    impl<T> ComponentNode<T> {
        fn nodes(&self) -> usize {
            let mut count = 1;
            self.literals.for_each(&mut |_, child| {
                assert!(!child.is_bare(), "a node without a reason");
                count += child.nodes();
            });
            count + self.hole.as_ref().map_or(0, |child| child.nodes())
        }
    }

    fn exact(text: &str) -> Pattern {
        Pattern::exact(Name::parse(text).expect("a name"))
    }

    fn prefix(text: &str) -> Pattern {
        Pattern::prefix(text).expect("a prefix")
    }

    fn wildcard(text: &str) -> Pattern {
        Pattern::wildcard(text).expect("a wildcard")
    }

    fn tailed(text: &str) -> Pattern {
        let parts = text.split('.').filter(|_| !text.is_empty());
        Pattern::components(parts.map(|part| (part != "*").then_some(part)), true).expect("parts")
    }

    fn index_of(patterns: &[Pattern]) -> Index<usize> {
        let mut index = Index::new();
        for (n, pattern) in patterns.iter().enumerate() {
            assert_eq!(index.insert(pattern, n), Ok(None));
        }
        index
    }

    fn all_matches(index: &Index<usize>, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        index.for_each_match(name, |&value| found.push(value));
        found
    }

    /// The example of the chapter on pattern-based registrations. One line of it contradicts the chapter's own
    /// definition of a prefix: for `a1.b2.c33.d4.e5` it wants the wildcard, though the prefix `a1.b2.c3` matches.
    #[test]
    fn the_best_match_is_the_one_of_wamps_example() {
        let index = index_of(&[
            exact("unused"),
            exact("a1.b2.c3.d4.e55"),
            prefix("a1.b2.c3"),
            prefix("a1.b2.c3.d4"),
            wildcard("a1.b2..d4.e5"),
            wildcard("a1.b2.c33..e5"),
            wildcard("a1.b2..d4.e5..g7"),
            wildcard("a1.b2..d4..f6.g7"),
        ]);
        for (name, best) in [
            ("a1.b2.c3.d4.e55", Some(1)),
            ("a1.b2.c3.d98.e74", Some(2)),
            ("a1.b2.c3.d4.e325", Some(3)),
            ("a1.b2.c55.d4.e5", Some(4)),
            ("a1.b2.c33.d4.e5", Some(2)), // 5 in the example
            ("a1.b2.c88.d4.e5.f6.g7", Some(6)),
            ("a2.b2.c2.d2.e2", None),
        ] {
            assert_eq!(index.best_match(name).copied(), best, "{name}");
        }
    }

    #[test]
    fn matches_come_exact_first_then_prefixes_from_short_to_long_then_components_then_tails() {
        let index = index_of(&[
            tailed(""),
            tailed("a"),
            tailed("a.*.c"),
            tailed("a.b.c"),
            wildcard(".."),
            wildcard("a..c"),
            wildcard("a.b."),
            wildcard("a.b.c"),
            prefix("a.b.c"),
            prefix("a.b"),
            prefix("a."),
            prefix(""),
            exact("a.b.c"),
        ]);
        assert_eq!(all_matches(&index, "a.b.c"), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(index.best_match("a.b.c"), Some(&12));
    }

    #[test]
    fn an_event_reaches_patterns_of_one_spelling_once_each() {
        let index = index_of(&[exact("a.b"), prefix("a.b"), wildcard("a.b")]);
        assert_eq!(all_matches(&index, "a.b"), [0, 1, 2]);
        assert_eq!(all_matches(&index, "a.bc"), [1]);
        assert_eq!(all_matches(&index, "a.b.c"), [1]);
        assert_eq!(index.get(&wildcard("a.b")), Some(&2));
        assert_eq!(index.get(&tailed("a.b")), None);
    }

    #[test]
    fn labels_of_any_length_split_and_join_between_the_bytes_of_a_character() {
        let long = "größe".repeat(20);
        let patterns = [&*long, &long[..70], &long[..1], "gröss", "grö", "grø", ""].map(prefix);
        let mut index = index_of(&patterns);
        assert_eq!(all_matches(&index, &long), [6, 2, 4, 1, 0]);
        assert_eq!(all_matches(&index, "grøss"), [6, 2, 5]);
        let spelled = index.iter().map(|(pattern, &n)| assert_eq!(pattern, patterns[n])).count();
        assert_eq!(spelled, patterns.len());
        for (n, pattern) in patterns.iter().enumerate() {
            assert_eq!(index.remove(pattern), Some(n));
            assert_eq!(index.remove(pattern), None);
            index.nodes();
        }
        assert_eq!(index.nodes(), 3);
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn nodes_are_small() {
        assert_eq!(size_of::<PrefixNode<u64>>(), 56);
        assert_eq!(size_of::<ComponentNode<u64>>(), 40);
    }

    #[test]
    fn a_value_is_made_only_for_a_new_pattern() {
        for pattern in [exact("a"), prefix("a"), wildcard("a"), tailed("a")] {
            let mut index = Index::new();
            *index.get_or_insert_with(&pattern, || 1).expect("few sets") += 1;
            assert_eq!(index.get_or_insert_with(&pattern, || unreachable!()), Ok(&mut 2));
            *index.get_mut(&pattern).expect("present") += 1;
            assert_eq!(index.insert(&pattern, 4), Ok(Some(3)));
            assert_eq!((index.len(), index.remove(&pattern), index.len()), (1, Some(4), 0));
        }
    }

    #[test]
    fn many_children_become_a_table_and_few_a_list_again() {
        let patterns: Vec<_> = (0..1000).map(|n| wildcard(&format!("a.{n}."))).collect();
        let mut index = index_of(&patterns);
        assert_eq!(all_matches(&index, "a.777.x"), [777]);
        for (n, pattern) in patterns.iter().enumerate() {
            assert_eq!(index.remove(pattern), Some(n));
            assert_eq!(index.best_match("a.999.x").copied(), (n < 999).then_some(999));
        }
        assert_eq!(index.nodes(), 3);
    }

    #[test]
    fn the_deepest_trees_need_little_stack() {
        let patterns: Vec<_> = (0..=NAME_BYTES_MAX)
            .map(|length| prefix(&"n".repeat(length)))
            .chain((1..=COMPONENTS_MAX).map(|parts| tailed(&vec!["*"; parts].join("."))))
            .collect();
        let walk = move || {
            let mut index = index_of(&patterns);
            assert_eq!(all_matches(&index, &"n".repeat(NAME_BYTES_MAX)).len(), NAME_BYTES_MAX + 2);
            assert_eq!(all_matches(&index, &["n"; COMPONENTS_MAX].join(".")).len(), 2 + COMPONENTS_MAX);
            for pattern in &patterns {
                assert!(index.remove(pattern).is_some());
            }
            drop(index_of(&patterns));
        };
        let small = std::thread::Builder::new().stack_size(512 * 1024);
        small.spawn(walk).expect("a thread").join().expect("no panic, and no overflow");
    }

    /// Patterns with their holes at the bits of `holes`, else literals like the name's, and one part more, which the
    /// name has not.
    fn dead_end(holes: u64, components: usize) -> Pattern {
        let parts = (0..components).map(|n| (holes >> n & 1 == 0).then_some("n"));
        Pattern::components(parts.chain([Some("end")]), false).expect("parts")
    }

    #[test]
    fn a_new_set_of_holes_is_refused_when_there_are_too_many() {
        let mut index = Index::new();
        let many_holes = (0_u64..).filter(|holes| holes.count_ones() > 1);
        for holes in many_holes.clone().take(HOLE_SETS_MAX) {
            assert_eq!(index.insert(&dead_end(holes, 60), 0), Ok(None));
        }
        let one_more = dead_end(u64::MAX, 60);
        assert_eq!(index.insert(&one_more, 0), Err(TooManyHoleSets));
        assert_eq!(index.get_or_insert_with(&one_more, || 0), Err(TooManyHoleSets));
        assert_eq!((index.len(), index.get(&one_more)), (HOLE_SETS_MAX, None));

        assert_eq!(index.insert(&wildcard("..a"), 0), Ok(None), "a set that is in use");
        assert_eq!(index.insert(&wildcard("a.b.c.d.e.f.g.h.."), 0), Err(TooManyHoleSets));
        assert_eq!(index.insert(&wildcard("a.b.c.d.e.f.g.h.i."), 0), Ok(None), "one hole");
        assert_eq!(index.insert(&tailed("*.*.*.*.*.*.*.*.*"), 0), Ok(None), "tails are counted apart");

        assert_eq!(index.remove(&wildcard("a.b.c.d.e.f.g.h.i.")), Some(0));
        assert_eq!(index.remove(&dead_end(0b101, 60)), Some(0));
        assert_eq!(index.insert(&one_more, 0), Ok(None), "there is room again");
    }

    #[test]
    fn a_walk_visits_no_more_nodes_than_sets_of_holes_times_components() {
        let mut index = Index::new();
        // Sets that part early and then run along the whole name: the worst there is.
        for holes in 0..HOLE_SETS_MAX as u64 {
            assert_eq!(index.insert(&dead_end(holes, COMPONENTS_MAX - 1), 0), Ok(None));
        }
        // Others that share their beginnings, but not their literals, are not on the way.
        for n in 0..1000 {
            assert_eq!(index.insert(&wildcard(&format!("{n}..x..")), 0), Ok(None));
        }
        fn visited(node: &ComponentNode<usize>, rest: &[&str]) -> usize {
            let Some((component, rest)) = rest.split_first() else { return 1 };
            let ways = [node.literals.get(component), node.hole.as_deref()];
            1 + ways.into_iter().flatten().map(|child| visited(child, rest)).sum::<usize>()
        }
        let nodes = visited(&index.whole.root, &["n"; COMPONENTS_MAX]);
        assert!(nodes > HOLE_SETS_MAX * (COMPONENTS_MAX - 10), "{nodes} is less than was meant to be tried");
        assert!(nodes <= HOLE_SETS_MAX * COMPONENTS_MAX, "{nodes}");
    }

    #[test]
    fn a_million_patterns_leave_nothing_behind() {
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            // Knuth's MMIX generator; the low bits are poor.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut index = Index::new();
        let empty = index.nodes();
        let patterns: Vec<_> = (0..1_000_000)
            .map(|n| {
                let (a, b, c) = (random(50), random(5000), random(1_000_000));
                match n % 4 {
                    0 => exact(&format!("{a}.{b}.{c}")),
                    1 => prefix(&format!("{a}.{b}.{c}")),
                    2 => wildcard(&format!("{a}.{b}..{c}")),
                    _ => tailed(&format!("{a}.*.{b}.{c}")),
                }
            })
            .collect();
        for pattern in &patterns {
            index.insert(pattern, 0_u32).expect("one set of holes");
        }
        assert!(index.len() > 900_000 && index.nodes() > 1_000_000);
        for pattern in &patterns {
            index.remove(pattern);
        }
        assert_eq!((index.len(), index.nodes()), (0, empty));
        assert!(index.exact.room() <= 2048);
    }

    /// The index as it would be written in five lines.
    #[derive(Default)]
    struct Naive(Vec<(Pattern, usize)>);

    impl Naive {
        fn remove(&mut self, pattern: &Pattern) -> Option<usize> {
            let at = self.0.iter().position(|(known, _)| known == pattern)?;
            Some(self.0.remove(at).1)
        }

        fn matches(&self, name: &str) -> Vec<&(Pattern, usize)> {
            let mut found: Vec<_> = self.0.iter().filter(|(pattern, _)| pattern.matches(name)).collect();
            found.sort_by_key(|(pattern, _)| {
                // Literals before holes before the end of the pattern, and tails after all others.
                let (ranks, tail) = pattern.parts().map_or_else(Default::default, |(parts, tail)| {
                    (parts.map(|part| u8::from(part.is_none())).chain([2]).collect::<Vec<_>>(), tail)
                });
                let length = if pattern.kind() == MatchKind::Prefix { pattern.as_str().len() } else { 0 };
                (pattern.kind(), length, tail, ranks)
            });
            found
        }

        fn best(&self, name: &str) -> Option<usize> {
            let found = self.matches(name);
            let of = |kind| found.iter().filter(move |(pattern, _)| pattern.kind() == kind);
            let mut all =
                of(MatchKind::Exact).chain(of(MatchKind::Prefix).rev()).chain(of(MatchKind::Components));
            all.next().map(|(_, value)| *value)
        }
    }

    fn names() -> impl Strategy<Value = String> {
        vec(prop_oneof!["a", "b", "ab", "ba", "ä"], 1..5).prop_map(|parts| parts.join("."))
    }

    fn patterns() -> impl Strategy<Value = Pattern> {
        let parts = vec(prop_oneof![Just(None), "a|b|ab|ba|ä".prop_map(Some)], 0..5);
        prop_oneof![
            names().prop_map(|text| exact(&text)),
            "[abä.]{0,5}".prop_map(|text| prefix(&text)),
            (parts, any::<bool>()).prop_map(|(parts, tail)| {
                let tail = tail || parts.is_empty();
                Pattern::components(parts.iter().map(Option::as_deref), tail).expect("parts")
            }),
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Pattern),
        Remove(Pattern),
        RemoveKnown(prop::sample::Index),
        Match(String),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => patterns().prop_map(Step::Insert),
            1 => patterns().prop_map(Step::Remove),
            2 => any::<prop::sample::Index>().prop_map(Step::RemoveKnown),
            4 => names().prop_map(Step::Match),
        ]
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_list(steps in vec(steps(), 1..200)) {
            let mut index = Index::new();
            let mut naive = Naive::default();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(pattern) => {
                        let old = naive.remove(&pattern);
                        naive.0.push((pattern.clone(), n));
                        prop_assert_eq!(index.insert(&pattern, n), Ok(old));
                        prop_assert_eq!(index.get(&pattern), Some(&n));
                    }
                    Step::Remove(pattern) => {
                        prop_assert_eq!(index.get(&pattern).copied(), index.get_mut(&pattern).copied());
                        prop_assert_eq!(index.remove(&pattern), naive.remove(&pattern));
                    }
                    Step::RemoveKnown(_) if naive.0.is_empty() => {}
                    Step::RemoveKnown(at) => {
                        let (pattern, value) = naive.0.swap_remove(at.index(naive.0.len()));
                        prop_assert_eq!(index.remove(&pattern), Some(value));
                    }
                    Step::Match(name) => {
                        let expected: Vec<_> = naive.matches(&name).iter().map(|(_, value)| *value).collect();
                        prop_assert_eq!(all_matches(&index, &name), expected);
                        prop_assert_eq!(index.best_match(&name).copied(), naive.best(&name));
                    }
                }
                prop_assert_eq!(index.len(), naive.0.len());
            }
            let mut listed: Vec<_> = index.iter().map(|(pattern, value)| (*value, pattern)).collect();
            listed.sort_by_key(|(value, _)| *value);
            naive.0.sort_by_key(|(_, value)| *value);
            prop_assert_eq!(listed, naive.0.iter().cloned().map(|(p, n)| (n, p)).collect::<Vec<_>>());
            index.nodes();
            for (pattern, value) in naive.0 {
                prop_assert_eq!(index.remove(&pattern), Some(value));
            }
            prop_assert!(index.is_empty());
            prop_assert_eq!(index.nodes(), 3);
        }
    }
}
