//! How long a connection of HTTP may be a stranger's. One that goes on asking is not to hold its place for ever.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::front::connection::now;

/// Since when a connection has been a stranger's without a break.
#[derive(Debug)]
pub struct Stay(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    since: Option<Instant>,
    asked: Asked,
}

/// What a connection asked for last: how long its answer may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// For nothing yet: it has not finished its first question.
    Nothing,
    /// For what is answered at once, and in a few words.
    Page,
    /// For what may be long.
    File,
    /// For what is answered when there is something to answer.
    Poll,
}

impl Stay {
    /// From then on.
    pub fn new(since: Instant) -> Stay {
        Stay(Mutex::new(State { since: Some(since), asked: Asked::Nothing }))
    }

    /// It is a stranger's, if it was none before.
    pub fn begin(&self, now: Instant) {
        self.0.lock().since.get_or_insert(now);
    }

    /// What was asked before was somebody else's: a stranger's time begins anew.
    pub fn begin_anew(&self, now: Instant) {
        let mut state = self.0.lock();
        state.since = state.since.map(|_| now);
    }

    /// It is somebody's who was let in.
    pub fn end(&self) {
        self.0.lock().since = None;
    }

    /// Since when it is a stranger's.
    pub fn since(&self) -> Option<Instant> {
        self.0.lock().since
    }

    /// Says what is asked for.
    pub fn ask(&self, asked: Asked) {
        self.0.lock().asked = asked;
    }

    /// Ready when it has been a stranger's for so long. One that polls has as long again: its session ends by itself in that
    /// time, and says so to the next who ask.
    pub async fn is_over(&self, time_max: Duration) {
        loop {
            let State { since, asked } = *self.0.lock();
            let time_max = if asked == Asked::Poll { time_max * 2 } else { time_max };
            let left = match since {
                Some(since) => (since + time_max).saturating_duration_since(now()),
                None => time_max,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// To be asked once it is over: ready when the last answer has had its time as well.
    pub async fn is_overdone(&self, page_time_max: Duration, file_time_max: Duration) {
        loop {
            let State { since, asked } = *self.0.lock();
            match asked {
                Asked::Nothing => return,
                Asked::Page if since.is_some() => return tokio::time::sleep(page_time_max).await,
                Asked::File if since.is_some() => return tokio::time::sleep(file_time_max).await,
                // That has limits of its own.
                Asked::Page | Asked::File | Asked::Poll => tokio::time::sleep(file_time_max).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn asking_again_does_not_lengthen_the_stay_of_a_stranger() {
        let (stay, begin) = (Stay::new(now()), now());
        let asking = async {
            loop {
                stay.begin(now());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = stay.is_over(TIME) => assert!(now() - begin >= TIME && now() - begin < TIME * 2),
            () = asking => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_proxy_each_request_has_the_time_of_a_stranger() {
        let (stay, begin) = (Stay::new(now()), now());
        let asking = async {
            for _ in 0..30 {
                stay.begin_anew(now());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stay.is_over(TIME) => assert_eq!((now() - begin).as_secs(), 29 + 10),
            () = asking => {}
        }
        stay.end();
        stay.begin_anew(now());
        assert_eq!(stay.since(), None, "who was let in is no stranger by that");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_let_in_stays_and_is_a_stranger_anew_afterwards() {
        let stay = Stay::new(now());
        stay.end();
        assert!(tokio::time::timeout(TIME * 100, stay.is_over(TIME)).await.is_err());
        stay.begin(now());
        assert!(tokio::time::timeout(TIME / 2, stay.is_over(TIME)).await.is_err());
        assert!(tokio::time::timeout(TIME * 2, stay.is_over(TIME)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_on_its_way_has_its_time_by_its_kind() {
        let stay = Stay::new(now());
        let lasts = async |stay: &Stay| {
            let begin = now();
            let over = stay.is_overdone(TIME, TIME * 3);
            tokio::time::timeout(TIME * 100, over).await.ok().map(|()| (now() - begin).as_secs())
        };
        assert_eq!(lasts(&stay).await, Some(0));
        for (asked, seconds) in [(Asked::Page, Some(10)), (Asked::File, Some(30)), (Asked::Poll, None)] {
            stay.ask(asked);
            assert_eq!(lasts(&stay).await, seconds);
        }
    }
}
