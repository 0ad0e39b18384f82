//! What queues can do, at random, with crashes at random moments: a message is in one place.
//!
//! The queue gives up to another whatever it gives up. So what was confirmed and not accepted is in the one or in the
//! other, once, whatever happened: it grew too old, came back too often, was rejected, had no room, or waits for its time.

use tandem_broker::core::message::Handling;
use tandem_broker::core::queues::{Browse, ConsumeTerms, Properties, WhenFull};

use super::features::{Timed, taking};
use super::*;

#[derive(Clone, Debug)]
enum Move {
    Send(Handling),
    Settle {
        which: usize,
        settlement: Settlement,
    },
    /// Several at once, and a message beside.
    Commit {
        count: usize,
        settlement: Settlement,
    },
    Pass(u64),
    Tick,
    Sync,
    /// Everybody goes, and somebody else comes: perhaps somebody who wants only some, or reads again what was.
    Leave {
        picks: bool,
        reads: bool,
    },
    Crash {
        kept: usize,
    },
}

fn settlement() -> impl Strategy<Value = Settlement> {
    prop_oneof![
        3 => Just(Settlement::Accept),
        2 => Just(Settlement::Requeue),
        1 => Just(Settlement::Reject),
    ]
}

fn handling() -> impl Strategy<Value = Handling> {
    let rarely = |range: std::ops::Range<u64>| prop::option::weighted(0.25, range);
    (prop::option::of(0..4_u8), rarely(1..300), rarely(1..200), rarely(0..3), prop::bool::ANY).prop_map(
        |(priority, ttl_ms, delay_ms, group, ends_group)| {
            let group = group.map(|group| format!("g{group}").into());
            Handling { priority, ttl_ms, delay_ms, group, ends_group, ..Handling::default() }
        },
    )
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => handling().prop_map(Move::Send),
        6 => (0..50_usize, settlement()).prop_map(|(which, settlement)| Move::Settle { which, settlement }),
        2 => (0..4_usize, settlement()).prop_map(|(count, settlement)| Move::Commit { count, settlement }),
        2 => (1..120_u64).prop_map(Move::Pass),
        3 => Just(Move::Tick),
        6 => Just(Move::Sync),
        1 => (prop::bool::ANY, prop::bool::ANY).prop_map(|(picks, reads)| Move::Leave { picks, reads }),
        1 => (0..6_usize).prop_map(|kept| Move::Crash { kept }),
    ]
}

fn like(is_short: bool) -> Properties {
    Properties {
        dead_letters: Some(name("dead")),
        delivery_limit: Some(2),
        backoff_ms: Some(30),
        kept_max: Some(5),
        messages_max: is_short.then_some(12),
        when_full: is_short.then_some(WhenFull::DropHead),
        ..Properties::default()
    }
}

struct Run {
    house: Timed,
    peer: Peer,
    consumer: ConsumerId,
    held: Vec<(u64, u64)>,
    /// Sent; and whether the store confirmed it.
    sent: BTreeMap<u64, bool>,
    /// Accepted; and whether the store confirmed that.
    accepted: BTreeMap<u64, bool>,
    tickets: BTreeMap<u64, (Vec<u64>, Vec<u64>)>,
    last: u64,
}

impl Run {
    fn new(is_short: bool) -> Run {
        let declared = vec![(name("q"), like(is_short))];
        let house = Timed::declaring(SimulatedStore::new(), Arc::new(AtomicU64::new(1000)), declared);
        Run::on(house, BTreeMap::new(), BTreeMap::new(), 0, false, false)
    }

    fn on(
        house: Timed,
        sent: BTreeMap<u64, bool>,
        accepted: BTreeMap<u64, bool>,
        last: u64,
        picks: bool,
        reads: bool,
    ) -> Run {
        let mut peer = house.join();
        if reads {
            let browse = Some(Browse::Kept { from: Some(0), ends: false });
            let terms = taking(ConsumeTerms { browse, ..ConsumeTerms::default() });
            peer.member.consume_under(&name("q"), ENDLESS, terms).unwrap();
        }
        let filter = picks.then(|| read_filter("1")).flatten();
        let terms = taking(ConsumeTerms { filter, ..ConsumeTerms::default() });
        let consumer = peer.member.consume_under(&name("q"), few(4), terms).unwrap();
        Run { house, peer, consumer, held: Vec::new(), sent, accepted, tickets: BTreeMap::new(), last }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn send(&mut self, handling: Handling) {
        let id = self.next();
        self.sent.insert(id, false);
        self.tickets.insert(id, (vec![id], vec![]));
        let terms = SendTerms { handling: Some(Arc::new(handling)), ..SendTerms::default() };
        match self.peer.member.send_for(persistent("q", id), terms, id) {
            Ok((_, progress)) => assert_eq!(progress, Progress::Storing),
            // All that it may hold is held.
            Err(Refusal::QueueFull(_)) => {
                self.sent.remove(&id);
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn decided(&mut self, ids: &[u64], settlement: Settlement) -> Vec<u64> {
        if settlement != Settlement::Accept {
            return Vec::new();
        }
        self.accepted.extend(ids.iter().map(|id| (*id, false)));
        ids.to_vec()
    }

    fn act(mut self, step: Move) -> Run {
        match step {
            Move::Send(handling) => self.send(handling),
            Move::Settle { which, settlement } if !self.held.is_empty() => {
                let (sequence, id) = self.held.remove(which % self.held.len());
                let ticket = self.next();
                let gone = self.decided(&[id], settlement);
                self.tickets.insert(ticket, (vec![], gone));
                let progress =
                    self.peer.member.settle_for(self.consumer, sequence, settlement, Some(ticket)).unwrap();
                assert!(progress == Progress::Storing || settlement == Settlement::Requeue);
            }
            Move::Settle { .. } => {}
            Move::Commit { count, settlement } => {
                let from = self.held.len().saturating_sub(count);
                let held = self.held.split_off(from);
                let (id, ticket) = (self.next(), self.next());
                let settle =
                    |(sequence, _): &(u64, u64)| Operation::Settle(self.consumer, *sequence, settlement);
                let mut operations: Vec<_> = held.iter().map(settle).collect();
                operations.push(Operation::Send(persistent("other", id), SendTerms::default()));
                let ids: Vec<u64> = held.iter().map(|(_, id)| *id).collect();
                let gone = self.decided(&ids, settlement);
                self.sent.insert(id, false);
                self.tickets.insert(ticket, (vec![id], gone));
                assert_eq!(self.peer.member.commit_for(operations, ticket), Ok(Progress::Storing));
            }
            Move::Pass(milliseconds) => {
                self.house.clock.fetch_add(milliseconds, Ordering::Relaxed);
            }
            Move::Tick => self.house.realm.queues().tick(),
            Move::Sync => self.house.store.sync(),
            Move::Leave { picks, reads } => {
                let Run { house, peer, sent, accepted, last, tickets, .. } = self;
                drop(peer);
                self = Run { tickets, ..Run::on(house, sent, accepted, last, picks, reads) };
            }
            Move::Crash { kept } => {
                let Run { house, sent, accepted, last, .. } = self;
                self = Run::on(house.crash(kept), sent, accepted, last, false, kept % 2 == 0);
            }
        }
        self.look();
        self
    }

    fn look(&mut self) {
        self.peer.look();
        for (ticket, outcome) in self.peer.answers() {
            outcome.unwrap();
            let Some((sent, accepted)) = self.tickets.remove(&ticket) else { continue };
            self.sent.extend(sent.into_iter().map(|id| (id, true)));
            self.accepted.extend(accepted.into_iter().map(|id| (id, true)));
        }
        let consumers = std::mem::take(&mut self.peer.consumers);
        for ((id, sequence, _), consumer) in
            std::mem::take(&mut self.peer.delivered).into_iter().zip(consumers)
        {
            // The other one only reads what was.
            if consumer == self.consumer {
                assert_ne!(self.accepted.get(&id), Some(&true), "{id} came again although it was gone");
                self.held.push((sequence, id));
            }
        }
    }

    /// The power fails once more, all times come, and somebody takes everything.
    fn end(self) {
        let Run { house, sent, accepted, .. } = self;
        let house = house.crash(0);
        house.settle_down();
        house.pass(100_000);
        let mut found = Vec::new();
        // Who takes something keeps it: else it would come back too often, and go to the dead letters.
        let mut peers = Vec::new();
        for queue in ["q", "dead", "other"] {
            let mut peer = house.join();
            peer.member.consume(&name(queue), ENDLESS).unwrap();
            house.settle_down();
            found.extend(peer.ids());
            peers.push(peer);
        }
        let once: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "each in one place: {found:?}");
        for (id, is_confirmed) in &sent {
            match accepted.get(id) {
                None if *is_confirmed => assert!(once.contains(id), "{id} was confirmed and is lost"),
                Some(true) => assert!(!once.contains(id), "{id} was gone and is back"),
                _ => {}
            }
        }
        assert!(found.iter().all(|id| sent.contains_key(id)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_queue_does_a_message_is_in_one_place_after_any_crash(
        is_short in prop::bool::ANY,
        moves in vec(a_move(), 1..100),
    ) {
        moves.into_iter().fold(Run::new(is_short), Run::act).end();
    }
}
