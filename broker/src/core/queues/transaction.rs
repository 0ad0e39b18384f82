//! Transactions: steps in several queues, of which all are taken or none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::core::access::Refusal;
use crate::core::message::Publication;
use crate::core::queues::consumer::ConsumerKey;
use crate::core::queues::item::{DeadLetter, Settlement};
use crate::core::queues::properties::Properties;
use crate::core::queues::queue::Queue;
use crate::core::queues::state::{Change, State};

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

/// Takes each step in its queue, all of which are locked meanwhile, or none of them.
pub(super) fn take_steps(steps: Vec<Step>, involved: &[Arc<Queue>]) -> Result<Vec<DeadLetter>, Refusal> {
    let mut by_id: Vec<&Arc<Queue>> = involved.iter().collect();
    by_id.sort_by_key(|queue| queue.id);
    by_id.dedup_by_key(|queue| queue.id);
    let mut locked: BTreeMap<u64, (&Queue, MutexGuard<'_, State>)> = BTreeMap::new();
    for queue in by_id {
        locked.insert(queue.id, (queue, queue.state.lock()));
    }
    check_steps(&steps, involved, &locked)?;
    for (step, queue) in steps.into_iter().zip(involved) {
        let Some((_, state)) = locked.get_mut(&queue.id) else { continue };
        match step {
            Step::Send(publication, _) => state.append(publication, false, queue.now_ms()),
            Step::Settle { consumer, sequence, settlement, .. } => {
                state.settle(consumer, sequence, settlement, queue.now_ms());
            }
        }
    }
    locked.values_mut().for_each(|(queue, state)| state.dispatch(queue.now_ms()));
    Ok(locked.into_values().flat_map(|(queue, state)| queue.finish(state)).collect())
}

/// Whether all steps can be taken, with what the earlier ones among them would change.
fn check_steps(
    steps: &[Step],
    involved: &[Arc<Queue>],
    locked: &BTreeMap<u64, (&Queue, MutexGuard<'_, State>)>,
) -> Result<(), Refusal> {
    let mut changes: HashMap<u64, Change> = HashMap::new();
    let mut total = Change::default();
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
                    let cost = item.publication.cost();
                    change.add(-1, cost);
                    total.add(-1, cost);
                }
            }
        }
    }
    Ok(())
}
