//! Publications of one session to one topic, one right after the other: they go through the house together, so that each
//! receiver is found, locked and woken once for all of them, and each dialect encodes them into one piece.
//!
//! A session gathers while the pump takes in what it read at once ([`Gathered`]), and whatever else it does comes after
//! what it gathered; nothing waits for longer than that. Receivers see no difference: the order is the same, and a
//! mailbox without room for all of a bundle takes them one by one.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Content, Format, Payload};

use crate::core::budget::{Budget, Charge};
use crate::core::message::{Encodings, PUBLICATION_OVERHEAD, Publication, SessionId, SharedMessages};
use crate::core::name::{InvalidName, Name};

/// What a bundle may cost: about what one sender has in its turn where several share a mailbox
/// ([`flows`](crate::core::flows)), so that nobody waits for longer behind a bundle than behind one message.
pub const BUNDLE_BYTES_MAX: usize = 16 * 1024;

/// Publications to one topic that are arguments and nothing else, as most are: their bytes lie one after the other.
#[derive(Debug)]
pub struct Plain {
    name: Name,
    publisher: SessionId,
    /// Of all arguments.
    format: Format,
    bytes: Vec<u8>,
    /// The number of each, and where its arguments end.
    places: Vec<(u64, u32)>,
}

impl Plain {
    /// The number of each, and its arguments: a list.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.places.iter().map(|(_, end)| *end));
        let places = starts.zip(&self.places);
        places.map(|(start, (id, end))| (*id, &self.bytes[start as usize..*end as usize]))
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The bytes of all arguments.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn add(&mut self, id: u64, args: &[u8]) {
        self.bytes.extend_from_slice(args);
        let end = u32::try_from(self.bytes.len()).expect("what is gathered is bounded far below 4 GiB");
        self.places.push((id, end));
    }

    fn publication(&self, id: u64, args: Bytes) -> Publication {
        let arguments = Arguments { format: self.format, args, kwargs: Bytes::new() };
        let payload = Payload::new(Content::Arguments(arguments));
        Publication::new(id, self.name.clone(), self.publisher, payload)
    }

    /// Each for itself, so that none keeps the bytes of others.
    fn publications(&self) -> Box<[Publication]> {
        self.iter().map(|(id, args)| self.publication(id, Bytes::copy_from_slice(args))).collect()
    }

    /// The first, which there is no other beside.
    fn into_publication(mut self) -> Option<Publication> {
        let (id, _) = *self.places.first()?;
        // Without the room for more.
        let args = std::mem::take(&mut self.bytes).into_boxed_slice();
        Some(self.publication(id, args.into()))
    }
}

/// Publications to one topic, in order.
#[derive(Debug)]
enum Publications {
    Each(Vec<Publication>),
    /// And each for itself, once somebody looks at them so.
    Plain(Plain, OnceLock<Box<[Publication]>>),
}

/// Two publications or more.
#[derive(Debug)]
pub struct Bundle {
    publications: Publications,
    /// What they cost together.
    charge: Charge,
    /// What the dialects made of all of them.
    pub encodings: Encodings<SharedMessages>,
    /// Each for itself, once somebody could not take them together: those who cannot share them, and so what they cost.
    singles: OnceLock<Box<[Arc<Publication>]>>,
}

impl Bundle {
    /// Its publications, in order; never none.
    pub fn publications(&self) -> &[Publication] {
        match &self.publications {
            Publications::Each(publications) => publications,
            Publications::Plain(plain, each) => each.get_or_init(|| plain.publications()),
        }
    }

    /// The same, if they are nothing but arguments in this format.
    pub fn plain(&self, format: Format) -> Option<&Plain> {
        match &self.publications {
            Publications::Plain(plain, _) => (plain.format == format).then_some(plain),
            Publications::Each(_) => None,
        }
    }

    /// The same, each for itself, for who cannot take them together.
    pub fn singles(&self) -> impl Iterator<Item = Arc<Publication>> {
        let single = |publication: &Publication| {
            let charge = Some(self.charge.again(publication.cost()));
            Arc::new(Publication { charge, ..publication.uncharged() })
        };
        self.singles.get_or_init(|| self.publications().iter().map(single).collect()).iter().cloned()
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        match &self.publications {
            Publications::Each(publications) => publications.len(),
            Publications::Plain(plain, _) => plain.count(),
        }
    }

    /// The topic.
    pub fn name(&self) -> &Name {
        match &self.publications {
            Publications::Each(publications) => &first(publications).name,
            Publications::Plain(plain, _) => &plain.name,
        }
    }

    /// Who published them.
    pub fn publisher(&self) -> SessionId {
        match &self.publications {
            Publications::Each(publications) => first(publications).publisher,
            Publications::Plain(plain, _) => plain.publisher,
        }
    }

    /// What it costs a mailbox that holds it, in bytes.
    pub fn cost(&self) -> usize {
        self.charge.bytes()
    }
}

/// The first, which says of all of them who published what topic.
fn first(publications: &[Publication]) -> &Publication {
    publications.first().expect("a bundle is made of two publications or more")
}

/// What was gathered and is to be published.
#[derive(Debug)]
pub enum Due {
    /// One publication, and whom not to.
    One(Arc<Publication>, Option<SessionId>),
    /// Several, and whom not to.
    Several(Arc<Bundle>, Option<SessionId>),
}

impl Due {
    fn one(publication: Publication, charge: Charge, exclude: Option<SessionId>) -> Option<Due> {
        Some(Due::One(Arc::new(Publication { charge: Some(charge), ..publication }), exclude))
    }
}

/// What a session has published and the house has not seen yet.
#[derive(Debug, Default)]
pub struct Gathered {
    pile: Pile,
    cost: usize,
    exclude: Option<SessionId>,
    last: Last,
}

#[derive(Debug, Default)]
enum Pile {
    #[default]
    Empty,
    Each(Vec<Publication>),
    Plain(Plain),
}

/// What went together the last time: it may be as much again.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    count: u32,
    bytes: u32,
}

impl Gathered {
    /// The topic of what was gathered, if there is anything.
    pub fn topic(&self) -> Option<&Name> {
        match &self.pile {
            Pile::Empty => None,
            Pile::Each(publications) => publications.last().map(|last| &last.name),
            Pile::Plain(plain) => Some(&plain.name),
        }
    }

    /// The name that a text is, as [`Name::parse`]; made only once for what goes to one topic.
    pub fn name(&self, text: &str) -> Result<Name, InvalidName> {
        let known = self.topic().filter(|name| name.as_str() == text);
        known.map_or_else(|| Name::parse(text), |name| Ok(name.clone()))
    }

    /// One more, and whom not to. What was gathered is due first if this one cannot go with it.
    pub fn add(
        &mut self,
        publication: Publication,
        exclude: Option<SessionId>,
        budget: &Arc<Budget>,
    ) -> Option<Due> {
        let cost = publication.cost();
        if let Pile::Each(publications) = &mut self.pile
            && publications.last().is_some_and(|last| last.name == publication.name)
            && self.exclude == exclude
            && self.cost + cost <= BUNDLE_BYTES_MAX
        {
            publications.push(publication);
            self.cost += cost;
            return None;
        }
        let due = self.take(budget);
        let mut publications = Vec::with_capacity(self.last.count.max(1) as usize);
        publications.push(publication);
        (self.pile, self.cost, self.exclude) = (Pile::Each(publications), cost, exclude);
        due
    }

    /// One more that is arguments and nothing else, to everybody but its publisher, who is the same always.
    pub fn add_plain(
        &mut self,
        id: u64,
        topic: &str,
        publisher: SessionId,
        (format, args): (Format, &[u8]),
        budget: &Arc<Budget>,
    ) -> Result<Option<Due>, InvalidName> {
        let cost = args.len() + PUBLICATION_OVERHEAD;
        if let Pile::Plain(plain) = &mut self.pile
            && plain.name.as_str() == topic
            && plain.format == format
            && self.cost + cost <= BUNDLE_BYTES_MAX
        {
            plain.add(id, args);
            self.cost += cost;
            return Ok(None);
        }
        let name = self.name(topic)?;
        let due = self.take(budget);
        let bytes = Vec::with_capacity(args.len().max(self.last.bytes as usize));
        let places = Vec::with_capacity(self.last.count.max(1) as usize);
        let mut plain = Plain { name, publisher, format, bytes, places };
        plain.add(id, args);
        (self.pile, self.cost, self.exclude) = (Pile::Plain(plain), cost, Some(publisher));
        Ok(due)
    }

    /// All that was gathered, now charged to the budget.
    pub fn take(&mut self, budget: &Arc<Budget>) -> Option<Due> {
        let (exclude, cost) = (self.exclude, self.cost);
        let publications = match std::mem::take(&mut self.pile) {
            Pile::Empty => return None,
            Pile::Each(mut publications) => {
                self.last.count = publications.len() as u32;
                if publications.len() < 2 {
                    return Due::one(publications.pop()?, budget.charge(cost), exclude);
                }
                trim(&mut publications);
                Publications::Each(publications)
            }
            Pile::Plain(mut plain) => {
                // One that is longer than a bundle may be says nothing of the next.
                let bytes = plain.bytes().min(BUNDLE_BYTES_MAX) as u32;
                self.last = Last { count: plain.count() as u32, bytes };
                if plain.count() < 2 {
                    return Due::one(plain.into_publication()?, budget.charge(cost), exclude);
                }
                trim(&mut plain.bytes);
                trim(&mut plain.places);
                Publications::Plain(plain, OnceLock::new())
            }
        };
        let (charge, encodings, singles) = (budget.charge(cost), Encodings::default(), OnceLock::new());
        Some(Due::Several(Arc::new(Bundle { publications, charge, encodings, singles }), exclude))
    }
}

/// Gives back room for many more than there are: a bundle may wait for long, and is charged for what is in it.
fn trim<T>(list: &mut Vec<T>) {
    if list.capacity() > 2 * list.len() {
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{UNIT, publication as shared};

    fn publication(topic: &str, id: u64) -> Publication {
        Arc::into_inner(shared(topic, id)).unwrap()
    }

    fn numbers(due: Option<Due>) -> Vec<u64> {
        match due {
            None => Vec::new(),
            Some(Due::One(publication, _)) => vec![publication.id],
            Some(Due::Several(bundle, _)) => {
                assert_eq!(bundle.cost(), bundle.count() * UNIT);
                bundle.publications().iter().map(|publication| publication.id).collect()
            }
        }
    }

    #[test]
    fn what_goes_to_one_topic_is_gathered_and_another_topic_comes_after_it() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        assert!(gathered.take(&budget).is_none());
        assert!((1..=3).all(|id| gathered.add(publication("a", id), None, &budget).is_none()));
        assert_eq!(numbers(gathered.add(publication("b", 4), None, &budget)), [1, 2, 3]);
        assert_eq!(numbers(gathered.add(publication("a", 5), None, &budget)), [4]);
        assert_eq!(numbers(gathered.take(&budget)), [5]);
        assert_eq!(budget.bytes(), 0, "nobody holds them any more");
        assert!(gathered.take(&budget).is_none());
    }

    #[test]
    fn what_is_kept_from_another_is_not_of_the_same_bundle() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        assert!(gathered.add(publication("a", 1), Some(SessionId(1)), &budget).is_none());
        let due = gathered.add(publication("a", 2), None, &budget);
        assert!(matches!(due, Some(Due::One(_, Some(SessionId(1))))));
        assert!(matches!(gathered.take(&budget), Some(Due::One(_, None))));
    }

    #[test]
    fn what_is_taken_out_of_a_bundle_is_charged_for_as_long_as_it_lives() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        (1..=3).for_each(|id| drop(gathered.add(publication("a", id), None, &budget)));
        assert_eq!(budget.bytes(), 0);
        let Some(Due::Several(bundle, None)) = gathered.take(&budget) else { panic!() };
        assert_eq!(budget.bytes(), 3 * UNIT);
        let singles: Vec<_> = bundle.singles().collect();
        assert_eq!(budget.bytes(), 6 * UNIT);
        drop(bundle);
        assert_eq!(
            singles.iter().map(|single| (single.id, single.cost())).collect::<Vec<_>>(),
            [(1, UNIT), (2, UNIT), (3, UNIT)]
        );
        drop(singles);
        assert_eq!(budget.bytes(), 0);
    }

    const ME: SessionId = SessionId(7);

    fn add_plain(gathered: &mut Gathered, topic: &str, id: u64, budget: &Arc<Budget>) -> Option<Due> {
        let args = format!("[{id}]");
        gathered.add_plain(id, topic, ME, (Format::Json, args.as_bytes()), budget).unwrap()
    }

    fn args(publication: &Publication) -> &[u8] {
        match publication.payload.content() {
            Content::Arguments(arguments) => &arguments.args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_but_arguments_goes_together_and_can_be_looked_at_one_by_one() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        assert!((1..=3).all(|id| add_plain(&mut gathered, "a", id, &budget).is_none()));
        assert_eq!(gathered.topic().map(Name::as_str), Some("a"));
        let Some(Due::Several(bundle, Some(ME))) = gathered.take(&budget) else { panic!() };
        assert_eq!((bundle.name().as_str(), bundle.publisher(), bundle.count()), ("a", ME, 3));
        assert!(bundle.plain(Format::MsgPack).is_none());
        let plain: Vec<_> = bundle.plain(Format::Json).unwrap().iter().collect();
        assert_eq!(plain, [(1, &b"[1]"[..]), (2, b"[2]"), (3, b"[3]")]);
        let each: Vec<_> = bundle.publications().iter().map(|one| (one.id, args(one))).collect();
        assert_eq!(each, plain);
        let costs: usize = bundle.publications().iter().map(Publication::cost).sum();
        assert_eq!((costs, budget.bytes()), (bundle.cost(), bundle.cost()));
        assert!(bundle.publications().iter().all(|one| one.name == *bundle.name() && one.publisher == ME));
        let singles: Vec<_> = bundle.singles().collect();
        assert_eq!(singles.iter().map(|one| (one.id, args(one))).collect::<Vec<_>>(), plain);
        assert_eq!(budget.bytes(), 2 * costs);
    }

    #[test]
    fn what_is_more_than_arguments_is_not_of_the_same_bundle() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        assert!(add_plain(&mut gathered, "a", 1, &budget).is_none());
        let Some(Due::One(first, Some(ME))) = gathered.add(publication("a", 2), Some(ME), &budget) else {
            panic!()
        };
        assert_eq!((first.id, args(&first), first.cost()), (1, &b"[1]"[..], 3 + PUBLICATION_OVERHEAD));
        assert_eq!(numbers(add_plain(&mut gathered, "a", 3, &budget)), [2]);
        assert_eq!(numbers(add_plain(&mut gathered, "b", 4, &budget)), [3]);
        assert!(gathered.add_plain(5, "b..c", ME, (Format::Json, b"[5]"), &budget).is_err());
        assert_eq!(numbers(gathered.take(&budget)), [4], "what is no name changes nothing");
    }

    #[test]
    fn a_bundle_of_nothing_but_arguments_is_bounded_in_bytes() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        let args = [b'x'; 1000];
        let most = (BUNDLE_BYTES_MAX / (args.len() + PUBLICATION_OVERHEAD)) as u64;
        let mut add =
            |id, args: &[u8]| gathered.add_plain(id, "a", ME, (Format::Json, args), &budget).unwrap();
        assert!((0..most).all(|id| add(id, &args).is_none()));
        let Some(Due::Several(bundle, _)) = add(most, &args) else { panic!() };
        assert_eq!(bundle.count() as u64, most);
        let Some(Due::One(..)) = add(most + 1, &[b'x'; 2 * BUNDLE_BYTES_MAX]) else { panic!() };
        let Some(Due::One(long, _)) = add(most + 2, &args) else { panic!() };
        assert_eq!(long.payload.len(), 2 * BUNDLE_BYTES_MAX);
    }

    #[test]
    fn a_bundle_holds_about_what_it_is_charged_for() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        let add = |gathered: &mut Gathered, topic: &str, id, args: &[u8]| {
            gathered.add_plain(id, topic, ME, (Format::Json, args), &budget).unwrap()
        };
        let mut kept = Vec::new();
        for _ in 0..10 {
            // Nobody subscribed to this, and somebody who does not read to that.
            (0..2).for_each(|id| drop(add(&mut gathered, "large", id, &[b'x'; 7000])));
            drop(gathered.take(&budget));
            (0..2).for_each(|id| drop(add(&mut gathered, "small", id, b"[1]")));
            let Some(Due::Several(bundle, _)) = gathered.take(&budget) else { panic!() };
            kept.push(bundle);
        }
        let held = |bundle: &Arc<Bundle>| match &bundle.publications {
            Publications::Plain(plain, _) => plain.bytes.capacity() + plain.places.capacity() * 16,
            Publications::Each(_) => panic!(),
        };
        let held: usize = kept.iter().map(held).sum();
        assert!(held <= 2 * budget.bytes(), "{held} bytes are held, and {} charged", budget.bytes());
    }

    #[test]
    fn a_bundle_is_bounded_in_bytes() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        let most = BUNDLE_BYTES_MAX / UNIT;
        let due: Vec<_> =
            (0..).map(|id| gathered.add(publication("a", id), None, &budget)).take(most + 1).collect();
        assert!(due[..most].iter().all(Option::is_none));
        assert_eq!(numbers(due.into_iter().next_back().flatten()).len(), most);
    }
}
