//! The store that the house has: its own on a disk, or one of the application that it is part of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::core::queues::durable::{Journal, Keeping};
use crate::core::realms::Realms;
use crate::core::store::{Store, StoredQueue, StoredShelf, Unstorable};
use crate::front::readiness::{Readiness, Unready};
use crate::stomp;
use crate::store::disk::{DiskStore, OpenError};

/// How often to look whether the store failed.
const INTERVAL: Duration = Duration::from_millis(500);

/// A store of an application, and what is in it.
#[derive(Debug)]
pub struct ProvidedStore {
    /// The store. It is for the application to close it, once the broker has ended.
    pub store: Arc<dyn Store>,
    /// The queues in it.
    pub queues: Vec<StoredQueue>,
    /// What topics kept in it.
    pub shelves: Vec<StoredShelf>,
}

impl ProvidedStore {
    /// One with nothing in it.
    pub fn empty(store: Arc<dyn Store>) -> ProvidedStore {
        ProvidedStore { store, queues: Vec::new(), shelves: Vec::new() }
    }
}

/// A store in use.
pub(super) struct Keep {
    store: Arc<dyn Store>,
    /// The same, if it is our own.
    disk: Option<Arc<DiskStore>>,
    queues: Vec<StoredQueue>,
    shelves: Vec<StoredShelf>,
    failure: CancellationToken,
}

impl Keep {
    /// The application's, or that of the configuration, if there is one.
    pub(super) fn open(config: &Config, provided: Option<ProvidedStore>) -> Result<Option<Keep>, OpenError> {
        if let Some(ProvidedStore { store, queues, shelves }) = provided {
            return Ok(Some(Keep { store, disk: None, queues, shelves, failure: CancellationToken::new() }));
        }
        let Some(settings) = config.store() else { return Ok(None) };
        let opened = DiskStore::open(&settings)?;
        Ok(Some(Keep {
            failure: opened.store.failure().clone(),
            disk: Some(opened.store.clone()),
            store: opened.store,
            queues: opened.queues,
            shelves: opened.shelves,
        }))
    }

    /// Cancelled once it failed.
    pub(super) fn failure(&self) -> &CancellationToken {
        &self.failure
    }

    /// Whether it failed, and keeps nothing any more.
    pub(super) fn has_failed(&self) -> bool {
        let failed = match &self.disk {
            Some(disk) => disk.has_failed(),
            None => matches!(self.store.admit(), Err(Unstorable::Failed)),
        };
        if failed {
            self.failure.cancel();
        }
        failed
    }

    /// Says so when it failed, which it does once and for good.
    pub(super) async fn watch(self: Arc<Keep>, readiness: Arc<Readiness>, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            if self.has_failed() {
                return readiness.set(Unready::Store, true);
            }
        }
    }

    /// Makes safe what is to be kept, and closes it, if it is our own.
    pub(super) async fn close(&self) {
        let Some(disk) = self.disk.clone() else { return };
        let closed = tokio::task::spawn_blocking(move || disk.close()).await;
        debug_assert!(closed.is_ok(), "closing the store does not panic");
    }

    /// Gives each realm what its topics kept.
    pub(super) fn restore_shelves(&mut self, realms: &Realms) {
        let mut by_realm: BTreeMap<Arc<str>, Vec<StoredShelf>> = BTreeMap::new();
        for shelf in std::mem::take(&mut self.shelves) {
            by_realm.entry(shelf.queue.realm.clone()).or_default().push(shelf);
        }
        for (name, shelves) in by_realm {
            let messages: usize = shelves.iter().map(|shelf| shelf.records.len()).sum();
            let realm = &*name;
            match realms.open(&name) {
                Ok(found) => {
                    tracing::info!(realm, messages, "what topics kept is restored");
                    found.topics().restore(shelves);
                }
                Err(why) => {
                    tracing::warn!(realm, messages, %why, "what topics kept is of a realm that there is not, and rests");
                }
            }
        }
    }

    /// Gives each realm the queues that there were of it. One that is made on first use is made for them.
    pub(super) fn restore_queues(&mut self, realms: &Realms) {
        let queues = std::mem::take(&mut self.queues);
        let messages: usize = queues.iter().map(|queue| queue.messages.len()).sum();
        tracing::info!(queues = queues.len(), messages, "the store is open");
        let mut by_realm: BTreeMap<Arc<str>, Vec<StoredQueue>> = BTreeMap::new();
        for queue in queues {
            by_realm.entry(queue.realm.clone()).or_default().push(queue);
        }
        for (name, queues) in by_realm {
            match realms.open(&name) {
                Ok(realm) => realm.restore(queues, &stomp::read_filter),
                Err(why) => {
                    let (realm, queues) = (&*name, queues.len());
                    tracing::warn!(realm, queues, %why, "stored queues are of a realm that there is not, and rest");
                }
            }
        }
    }
}

/// What each realm does with persistent messages.
pub(super) fn keeping(
    config: &Config,
    keep: Option<&Keep>,
) -> impl Fn(&str) -> Keeping + Send + Sync + use<> {
    let (store, required) = (keep.map(|keep| keep.store.clone()), config.store.required);
    let limits = config.journal_limits();
    move |realm| match &store {
        Some(store) => Keeping::Stored(Journal::new(store.clone(), realm, limits)),
        None if required => Keeping::Refused,
        None => Keeping::InMemory,
    }
}
