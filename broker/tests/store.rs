//! The store on a disk that crashes, tears, fails, fills up and changes bits.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod fake_disk;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use redb::{Database, TableDefinition};

use tandem_broker::core::store::{Change, Fetch, Fetched, QueueId, Store, Submission, Unstorable};
use tandem_broker::store::disk::{DiskStore, OpenError, Opened, StoreLimits, StoreSettings};
use tandem_broker::store::space::SpaceLimits;

use fake_disk::{
    Content, FakeFile, FakeGauge, SPACE, append, content, make, open, open_gauged, read, record, torn, write,
};

/// Numbers of a seed: no more than these tests need.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Cost, deliveries and bytes of messages, by their places.
type Messages = BTreeMap<u64, (u32, u32, Bytes)>;

/// What should be in a store.
#[derive(Clone, Default)]
struct Model {
    queues: BTreeMap<QueueId, (String, Messages)>,
}

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change.clone() {
                Change::Make { queue, name, .. } => {
                    self.queues.insert(queue, (name.to_string(), BTreeMap::new()));
                }
                Change::Delete { queue } => drop(self.queues.remove(&queue)),
                Change::Append { queue, sequence, cost, record, .. } => {
                    self.queues.get_mut(&queue).unwrap().1.insert(sequence, (cost, 0, record));
                }
                Change::Remove { queue, sequence } | Change::PutAside { queue, sequence } => {
                    self.queues.get_mut(&queue).unwrap().1.remove(&sequence);
                }
                Change::Delivered { queue, sequence, deliveries } => {
                    if let Some(message) = self.queues.get_mut(&queue).unwrap().1.get_mut(&sequence) {
                        message.1 = deliveries;
                    }
                }
            }
        }
    }

    fn content(&self) -> Content {
        let message = |(sequence, (cost, deliveries, record)): (&u64, &(u32, u32, Bytes))| {
            (*sequence, *cost, *deliveries, record.clone())
        };
        let queue =
            |(name, messages): &(String, Messages)| (name.clone(), messages.iter().map(message).collect());
        let mut all: Content = self.queues.values().map(queue).collect();
        all.sort();
        all
    }
}

/// A few changes that belong together, of what could happen next.
fn changes(model: &Model, last: &mut u64, chance: &mut Chance) -> Vec<Change> {
    let mut made = Vec::new();
    let mut model = model.clone();
    for _ in 0..=chance.below(4) {
        let queues: Vec<QueueId> = model.queues.keys().copied().collect();
        let change = match (chance.below(10), queues.is_empty()) {
            (0, _) | (_, true) => {
                *last += 1;
                make(QueueId(*last), &format!("queue{last}"))
            }
            (kind, false) => {
                let queue = queues[chance.below(queues.len() as u64) as usize];
                let messages = &model.queues[&queue].1;
                let some = messages.keys().nth(chance.below(messages.len().max(1) as u64) as usize).copied();
                match (kind, some) {
                    (1, _) if queues.len() > 2 => Change::Delete { queue },
                    (2 | 3, Some(sequence)) => Change::Remove { queue, sequence },
                    (4, Some(sequence)) => Change::Delivered { queue, sequence, deliveries: kind as u32 },
                    _ => {
                        *last += 1;
                        append(queue, *last, chance.below(700) as usize)
                    }
                }
            }
        };
        model.apply(std::slice::from_ref(&change));
        made.push(change);
    }
    made
}

fn closed(opened: Opened) {
    opened.store.close();
}

#[test]
fn what_was_answered_survives_and_the_rest_is_whole_or_not_there_when_unsynced_writes_are_lost() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let file = FakeFile::default();
        let opened = open(&file).unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let mut model = Model::default();
        let (mut states, mut last) = (vec![model.content()], 0);
        let count = 5 + chance.below(60);
        for number in 0..count {
            let changes = changes(&model, &mut last, &mut chance);
            model.apply(&changes);
            states.push(model.content());
            let counter = answered.clone();
            let done = Box::new(move |outcome: Result<(), Unstorable>| {
                outcome.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
            });
            opened.store.submit(Submission { changes, done: Some(done) });
            if number % 7 == 0 {
                write(&opened.store, Vec::new()).unwrap();
            }
        }
        let wanted = chance.below(count + 1) as usize;
        let deadline = Instant::now() + Duration::from_secs(20);
        while answered.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let before = answered.load(Ordering::SeqCst);
        let image = file.crash(|| chance.below(2) == 0);
        let found = open(&FakeFile::of(image)).unwrap();
        let content = content(&found);
        let right = states[before..].contains(&content);
        assert!(right, "seed {seed}: after {before} of {count} answers there is {content:?}");
        closed(found);
        closed(opened);
    }
}

#[test]
fn a_last_write_that_is_torn_anywhere_leaves_what_was_answered() {
    let file = FakeFile::default();
    let opened = open(&file).unwrap();
    let mut model = Model::default();
    let queue = QueueId(1);
    let mut submit = |changes: Vec<Change>| {
        model.apply(&changes);
        write(&opened.store, changes).unwrap();
        model.content()
    };
    submit(vec![make(queue, "q"), append(queue, 1, 3000)]);
    let before = submit((2..40).map(|sequence| append(queue, sequence, 900)).collect());
    file.keep_syncs();
    let after = submit(vec![append(queue, 40, 5000), Change::Remove { queue, sequence: 3 }]);
    let syncs = file.syncs();
    assert!(syncs.len() >= 2, "a commit has two phases");
    let mut images = 0;
    for (disk, writes) in syncs {
        torn(&disk, &writes, |image| {
            images += 1;
            let found = open(&FakeFile::of(image)).unwrap();
            let content = content(&found);
            assert!(content == before || content == after);
            closed(found);
        });
    }
    assert!(images > 20, "there were {images} places to tear");
    closed(opened);
}

#[test]
fn of_a_thousand_changed_bits_none_makes_a_message_silently_wrong_or_missing() {
    let file = FakeFile::default();
    let opened = open(&file).unwrap();
    let mut model = Model::default();
    for queue in (1..=3).map(QueueId) {
        let mut changes = vec![make(queue, &format!("queue{}", queue.0))];
        changes
            .extend((1..=300).map(|sequence| append(queue, sequence, 100 + (sequence as usize * 37) % 900)));
        changes.extend((1..=300).step_by(3).map(|sequence| Change::Remove { queue, sequence }));
        changes.push(Change::Delivered { queue, sequence: 2, deliveries: 3 });
        model.apply(&changes);
        write(&opened.store, changes).unwrap();
    }
    closed(opened);
    let image = file.disk();
    let mut chance = Chance(4);
    let (mut unaffected, mut reported, mut refused) = (0, 0, 0);
    for _ in 0..1000 {
        let bit = chance.below(image.len() as u64 * 8) as usize;
        let mut image = image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        match open(&FakeFile::of(image)) {
            Err(OpenError::Damaged(_)) => refused += 1,
            Err(other) => panic!("{other}"),
            Ok(found) => match judge(&found, &model) {
                Judgement::Same => unaffected += 1,
                Judgement::Reported => reported += 1,
                Judgement::Silent(what) => panic!("bit {bit}: {what}"),
            },
        }
    }
    println!("no effect: {unaffected}, reported: {reported}, refused to open: {refused}");
    assert!(reported > 100, "the bits must hit something");
}

enum Judgement {
    Same,
    Reported,
    Silent(String),
}

/// What is in a store, beside what should be.
fn judge(found: &Opened, model: &Model) -> Judgement {
    let mut complaints = found.complaints.len();
    let mut lost: u64 = found.complaints.iter().map(|(_, lost)| lost).sum();
    let mut missing = 0;
    let mut silent = None;
    for (id, (name, messages)) in &model.queues {
        let Some(queue) = found.queues.iter().find(|queue| queue.queue == *id && *queue.name == **name)
        else {
            missing += messages.len() as u64;
            continue;
        };
        let listed: BTreeMap<u64, _> =
            queue.messages.iter().map(|message| (message.sequence, message)).collect();
        let Ok(read) = read(&found.store, *id) else {
            // It says that it failed; nothing is delivered.
            complaints += 1;
            continue;
        };
        let read: BTreeMap<u64, _> = read.into_iter().map(|read| (read.sequence, read.record)).collect();
        for (sequence, (cost, deliveries, record)) in messages {
            match (listed.get(sequence), read.get(sequence)) {
                (None, _) => missing += 1,
                // The queue sees that it is damaged, or that it is not there.
                (Some(_), None | Some(None)) => complaints += 1,
                (Some(known), Some(Some(read))) => {
                    // Where an index was made anew, what was delivered is not known.
                    let counts = known.deliveries == *deliveries || complaints > 0 && known.deliveries == 1;
                    if read != record || known.cost != *cost || !counts {
                        silent = Some(format!("message {sequence} of {name} is wrong"));
                    }
                }
            }
        }
        for sequence in listed.keys().filter(|sequence| !messages.contains_key(sequence)) {
            // Nothing comes of it if there is no such record.
            if read.get(sequence).is_some_and(|record| record.is_some()) {
                silent = Some(format!("message {sequence} of {name} was removed and is back"));
            }
        }
    }
    found.store.close();
    if missing > 0 && complaints == 0 {
        silent = Some(format!("{missing} are missing"));
    }
    lost = lost.max(u64::from(complaints > 0));
    match silent {
        Some(what) => Judgement::Silent(what),
        None if lost > 0 => Judgement::Reported,
        None => Judgement::Same,
    }
}

#[test]
fn after_the_first_sync_that_fails_nothing_is_answered_well_nor_tried_again() {
    let file = FakeFile::default();
    let opened = open(&file).unwrap();
    let queue = QueueId(1);
    write(&opened.store, vec![make(queue, "q"), append(queue, 1, 10)]).unwrap();
    file.fail_syncs(true);
    assert_eq!(write(&opened.store, vec![append(queue, 2, 10)]), Err(Unstorable::Failed));
    assert_eq!(opened.store.admit(), Err(Unstorable::Failed));
    assert!(opened.store.has_failed());
    let syncs = file.sync_count();
    file.fail_syncs(false);
    assert_eq!(write(&opened.store, vec![append(queue, 3, 10)]), Err(Unstorable::Failed));
    assert_eq!(write(&opened.store, Vec::new()), Err(Unstorable::Failed));
    assert_eq!(file.sync_count(), syncs, "a failed fsync is never tried again");
    let found = open(&FakeFile::of(file.disk())).unwrap();
    let content = content(&found);
    assert_eq!(content[0].1[0].3, record(queue, 1, 10));
    closed(found);
    closed(opened);
}

#[test]
fn a_disk_that_is_full_all_of_a_sudden_fails_the_store_and_loses_nothing_that_was_answered() {
    let file = FakeFile::default();
    let opened = open(&file).unwrap();
    let queue = QueueId(1);
    write(&opened.store, vec![make(queue, "q")]).unwrap();
    file.set_length_max(Some(file.disk().len() as u64 + (2 << 20)));
    let mut answered = 0;
    let outcome = loop {
        match write(&opened.store, vec![append(queue, answered + 1, 50_000)]) {
            Ok(()) => answered += 1,
            Err(why) => break why,
        }
    };
    assert_eq!(outcome, Unstorable::Failed);
    closed(opened);
    let found = open(&FakeFile::of(file.disk())).unwrap();
    let messages = &content(&found)[0].1;
    assert!(messages.len() as u64 >= answered && answered > 0);
    closed(found);
}

#[test]
fn a_disk_that_is_nearly_full_takes_no_more_messages_until_there_is_space_again() {
    let free = Arc::new(AtomicU64::new(1000));
    let opened = open_gauged(&FakeFile::default(), &FakeGauge(free.clone())).unwrap();
    let queue = QueueId(1);
    write(&opened.store, vec![make(queue, "q"), append(queue, 1, 10)]).unwrap();
    assert_eq!(opened.store.admit(), Ok(()));
    free.store(99, Ordering::SeqCst);
    write(&opened.store, vec![Change::Delivered { queue, sequence: 1, deliveries: 1 }]).unwrap();
    assert_eq!(opened.store.admit(), Err(Unstorable::NearlyFull));
    // What makes room goes on.
    write(&opened.store, vec![Change::Remove { queue, sequence: 1 }]).unwrap();
    free.store(100, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    while opened.store.admit().is_err() {
        assert!(Instant::now() < deadline, "it recovers by itself");
        std::thread::yield_now();
    }
    write(&opened.store, vec![append(queue, 2, 10)]).unwrap();
    closed(opened);
}

#[test]
fn too_much_that_waits_for_the_disk_is_refused() {
    let gauge = Box::new(FakeGauge(Arc::new(AtomicU64::new(10_000))));
    let limits = StoreLimits { waiting_changes_max: 100, ..StoreLimits::new(SPACE) };
    let file = FakeFile::default();
    let opened = DiskStore::open_with(file.clone(), gauge, limits).unwrap();
    let queue = QueueId(1);
    write(&opened.store, vec![make(queue, "q")]).unwrap();
    // One submission holds the writer while others pile up: none of them is answered before.
    let (release, held) = sync_channel::<()>(0);
    let done = Box::new(move |_: Result<(), Unstorable>| held.recv().unwrap());
    opened.store.submit(Submission { changes: vec![append(queue, 1, 1)], done: Some(done) });
    let mut sequence = 1;
    while opened.store.admit().is_ok() {
        sequence += 1;
        opened.store.submit(Submission { changes: vec![append(queue, sequence, 1)], done: None });
        assert!(sequence < 1000, "there is a limit");
    }
    assert_eq!(opened.store.admit(), Err(Unstorable::Busy));
    // Notes of deliveries are left out then; removals are not.
    let note = vec![Change::Delivered { queue, sequence: 2, deliveries: 1 }];
    opened.store.submit(Submission { changes: note, done: None });
    let removal = vec![Change::Remove { queue, sequence: 3 }];
    opened.store.submit(Submission { changes: removal, done: None });
    release.send(()).unwrap();
    write(&opened.store, Vec::new()).unwrap();
    assert_eq!(opened.store.admit(), Ok(()));
    closed(opened);
    let found = open(&file).unwrap();
    let messages = content(&found).remove(0).1;
    assert_eq!((messages[1].0, messages[1].2, messages[2].0), (2, 0, 4));
    closed(found);
}

#[test]
fn who_panics_at_an_answer_does_not_take_the_store_from_others() {
    let opened = open(&FakeFile::default()).unwrap();
    let queue = QueueId(1);
    let done = Box::new(|_: Result<(), Unstorable>| panic!("badly received"));
    opened.store.submit(Submission { changes: vec![make(queue, "q")], done: Some(done) });
    write(&opened.store, vec![append(queue, 1, 10)]).unwrap();
    let answer = Box::new(|_: Result<Vec<Fetched>, Unstorable>| panic!("badly received"));
    opened.store.fetch(Fetch { queue, from: 1, bytes_max: 1, answer });
    assert_eq!(read(&opened.store, queue).unwrap().len(), 1);
    closed(opened);
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let file = FakeFile::default();
    closed(open(&file).unwrap());
    let database = Database::builder().create_with_backend(file.clone()).unwrap();
    let writing = database.begin_write().unwrap();
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    writing.open_table(meta).unwrap().insert("format", 3).unwrap();
    writing.commit().unwrap();
    drop(database);
    let before = file.disk();
    let error = open(&FakeFile::of(before)).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 3, known: 2 }));
    assert!(error.to_string().contains("format 3"), "{error}");
}

#[test]
fn a_message_that_was_put_aside_is_not_in_its_queue_any_more() {
    let file = FakeFile::default();
    let opened = open(&file).unwrap();
    let queue = QueueId(1);
    write(&opened.store, vec![make(queue, "q"), append(queue, 1, 10), append(queue, 2, 10)]).unwrap();
    write(&opened.store, vec![Change::PutAside { queue, sequence: 1 }]).unwrap();
    closed(opened);
    let found = open(&file).unwrap();
    let places: Vec<u64> = content(&found)[0].1.iter().map(|message| message.0).collect();
    assert_eq!((places, found.queues[0].last_sequence), (vec![2], 2));
    assert_eq!(found.queues[0].properties, [("x".to_owned(), "y".to_owned())]);
    closed(found);
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("tandem-store-{}-{name}", std::process::id()));
        Directory(path.join("inner"))
    }

    fn settings(&self) -> StoreSettings {
        let space = SpaceLimits { free_bytes_min: 0, free_percent_min: 0, free_percent_bytes_max: 0 };
        StoreSettings { directory: self.0.clone(), limits: StoreLimits::new(space) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[test]
fn a_store_is_for_its_owner_and_for_one_process() {
    let directory = Directory::new("owner");
    let opened = DiskStore::open(&directory.settings()).unwrap();
    let mode = |name: &str| std::fs::metadata(directory.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("queues.redb"), mode("lock")), (0o700, 0o600, 0o600));
    let second = DiskStore::open(&directory.settings()).unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    let queue = opened.store.next_queue();
    write(&opened.store, vec![make(queue, "q"), append(queue, 5, 10)]).unwrap();
    closed(opened);
    let again = DiskStore::open(&directory.settings()).unwrap();
    assert_eq!(content(&again)[0].1.len(), 1);
    assert!(again.store.next_queue() > queue);
    closed(again);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_store_has_what_a_simple_model_has_however_often_it_is_opened(
        rounds in vec((any::<u64>(), 1..12_u8), 1..6)
    ) {
        let file = FakeFile::default();
        let (mut model, mut last) = (Model::default(), 0);
        for (seed, count) in rounds {
            let mut chance = Chance(seed);
            let opened = open(&file).unwrap();
            prop_assert_eq!(content(&opened), model.content());
            for _ in 0..count {
                let changes = changes(&model, &mut last, &mut chance);
                model.apply(&changes);
                opened.store.submit(Submission { changes, done: None });
            }
            closed(opened);
        }
        let opened = open(&file).unwrap();
        prop_assert_eq!(content(&opened), model.content());
        closed(opened);
    }
}
