//! Transactions: steps in several queues, of which all are taken or none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::core::access::Refusal;
use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::queues::consumer::ConsumerKey;
use crate::core::queues::durable::{Asker, Journal, Progress, Writing};
use crate::core::queues::item::{DeadLetter, Settlement};
use crate::core::queues::properties::Properties;
use crate::core::queues::queue::{Letters, Queue};
use crate::core::queues::state::{State, Sum};
use crate::core::store::Change;
use crate::metrics;

/// Which queue a message is for, beyond its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueTerms {
    /// What it must be like, and is made like.
    pub properties: Properties,
    /// It must exist: it is not made.
    pub existing: bool,
}

/// One step of a transaction that concerns queues.
#[derive(Debug)]
pub enum Step {
    /// Put a message into the queue that it names.
    Send(Arc<Publication>, QueueTerms),
    /// Settle a delivery.
    Settle {
        /// The queue it came from.
        queue: Arc<Queue>,
        /// The consumer that holds it.
        consumer: ConsumerKey,
        /// Its place in the queue.
        sequence: u64,
        /// The decision.
        settlement: Settlement,
    },
}

/// What became of a transaction: what its queues gave up, whether it waits for the store, and who is to be told once
/// the dead letters are elsewhere.
type Taken = (Letters, Progress, Option<Asker>);

/// Takes each step in its queue, all of which are locked meanwhile, or none of them. With a journal, what is
/// sent waits for the store, and what is given up goes into one of `graves` in the same submission, as `bury` says.
pub(super) fn take_steps(
    steps: Vec<Step>,
    involved: &[Arc<Queue>],
    graves: &[Arc<Queue>],
    bury: impl Fn(DeadLetter) -> Option<Publication>,
    journal: Option<&Arc<Journal>>,
    asker: Option<Asker>,
) -> Result<Taken, Refusal> {
    let mut by_id: Vec<&Arc<Queue>> = involved.iter().chain(graves).collect();
    by_id.sort_by_key(|queue| queue.id);
    by_id.dedup_by_key(|queue| queue.id);
    let mut locked: BTreeMap<u64, (&Queue, MutexGuard<'_, State>)> = BTreeMap::new();
    for queue in by_id {
        locked.insert(queue.id, (queue, queue.state.lock()));
    }
    check_steps(&steps, involved, &locked)?;
    let mut writing = Writing::default();
    for (step, queue) in steps.into_iter().zip(involved) {
        let Some((_, state)) = locked.get_mut(&queue.id) else { continue };
        match (step, journal) {
            (Step::Send(publication, _), Some(journal)) => {
                queue.append_pending(state, publication, false, journal, &mut writing);
            }
            (Step::Send(publication, _), None) => state.append(publication, false, queue.now_ms()),
            (Step::Settle { consumer, sequence, settlement, .. }, _) => {
                state.settle(consumer, sequence, settlement, queue.now_ms());
            }
        }
    }
    if let Some(journal) = journal {
        // What was given up for other reasons, and is for a queue that is not locked, is brought away later.
        let is_grave = |name: &Name| graves.iter().any(|grave| grave.name() == name);
        let letters: Vec<DeadLetter> =
            locked.values_mut().flat_map(|(_, state)| state.take_stored_dead(is_grave)).collect();
        for letter in letters {
            let removal = letter.origin.map(|(queue, sequence)| Change::Remove { queue, sequence });
            writing.changes.extend(removal);
            let grave = graves.iter().find(|grave| *grave.name() == letter.to);
            let state = grave.and_then(|grave| Some((grave, &mut locked.get_mut(&grave.id)?.1)));
            let buried = state.zip(bury(letter)).is_some_and(|((grave, state), publication)| {
                let has_room = state.check_room(Sum::default(), Sum::default(), publication.cost()).is_ok();
                if has_room {
                    grave.append_pending(state, Arc::new(publication), false, journal, &mut writing);
                }
                has_room
            });
            if !buried {
                metrics::DEAD_LETTERS_LOST.add(1);
            }
        }
    }
    let is_later = locked.values().any(|(_, state)| state.has_stored_dead());
    let (now, later) = if is_later { (None, asker) } else { (asker, None) };
    let mut progress = Progress::Done;
    if let Some(journal) = journal {
        locked.values_mut().for_each(|(_, state)| state.take_changes(&mut writing.changes));
        progress = writing.submit(journal, now);
    }
    locked.values_mut().for_each(|(queue, state)| state.dispatch(queue.now_ms()));
    let letters = locked.into_values().flat_map(|(queue, state)| queue.finish(state)).collect();
    Ok((letters, progress, later))
}

/// Whether all steps can be taken, with what the earlier ones among them would change.
fn check_steps(
    steps: &[Step],
    involved: &[Arc<Queue>],
    locked: &BTreeMap<u64, (&Queue, MutexGuard<'_, State>)>,
) -> Result<(), Refusal> {
    let mut changes: HashMap<u64, Sum> = HashMap::new();
    let mut total = Sum::default();
    let mut settled = HashSet::new();
    for (step, queue) in steps.iter().zip(involved) {
        let (_, state) = &locked[&queue.id];
        let change = changes.entry(queue.id).or_default();
        match step {
            Step::Send(publication, _) => {
                let cost = publication.cost();
                state.check_room(*change, total, cost)?;
                change.add(1, cost);
                total.add(1, cost);
            }
            Step::Settle { consumer, sequence, settlement, .. } => {
                let item = state.held(*consumer, *sequence).ok_or(Refusal::NoSuchDelivery)?;
                if !settled.insert((queue.id, *consumer, *sequence)) {
                    return Err(Refusal::NoSuchDelivery);
                }
                if *settlement != Settlement::Requeue && !state.is_browser(*consumer) {
                    let cost = item.cost();
                    change.add(-1, cost);
                    total.add(-1, cost);
                }
            }
        }
    }
    Ok(())
}
