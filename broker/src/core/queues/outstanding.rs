//! What was handed out and is not settled yet, by its number.
//!
//! Numbers nearly always come in ascending order, and go nearly in that: this is a ring, from whose front the first goes
//! while the last one comes. What goes from the middle leaves a gap, until all before it is gone or there are more
//! gaps than anything else. What comes out of order, once more or because it is more urgent, is in a tree beside it.
//! So none of a hundred thousand is found by passing over the others.

use std::collections::{BTreeMap, VecDeque};

/// So many gaps are not worth moving the others together.
const GAPS_ALLOWED: usize = 32;

/// For how many one that is empty keeps memory.
const ROOM_KEPT: usize = 16;

/// By number what is outstanding.
#[derive(Debug)]
pub struct Outstanding<T> {
    /// By ascending number. The first is no gap.
    run: VecDeque<(u64, Option<T>)>,
    /// What in it is no gap.
    filled: usize,
    /// What came after something with a greater number. Nothing is in both.
    strays: BTreeMap<u64, T>,
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl<T> Default for Outstanding<T> {
    fn default() -> Outstanding<T> {
        Outstanding {
            run: VecDeque::new(),
            filled: 0,
            strays: BTreeMap::new(),
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        }
    }
}

impl<T> Outstanding<T> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.filled + self.strays.len()
    }

    /// True when there is nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One more. What had its number before is returned.
    pub fn insert(&mut self, number: u64, value: T) -> Option<T> {
        if !self.strays.is_empty()
            && let Some(known) = self.strays.get_mut(&number)
        {
            return Some(std::mem::replace(known, value));
        }
        if self.run.back().is_none_or(|(last, _)| *last < number) {
            self.run.push_back((number, Some(value)));
            self.filled += 1;
            return None;
        }
        let Some(place) = self.place(number) else { return self.strays.insert(number, value) };
        let before = self.run[place].1.replace(value);
        self.filled += usize::from(before.is_none());
        before
    }

    /// The one of that number.
    pub fn get(&self, number: u64) -> Option<&T> {
        match self.place(number) {
            Some(place) => self.run[place].1.as_ref(),
            None => self.strays.get(&number),
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.place(number) {
            Some(place) => self.run[place].1.as_mut(),
            None => self.strays.get_mut(&number),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let Some(place) = self.place(number) else { return self.strays.remove(&number) };
        let removed = self.run[place].1.take()?;
        self.filled -= 1;
        if place == 0 {
            while self.run.front().is_some_and(|(_, value)| value.is_none()) {
                self.run.pop_front();
                self.step();
            }
        } else if self.run.len() > 2 * self.filled + GAPS_ALLOWED {
            #[cfg(test)]
            self.steps.set(self.steps.get() + self.run.len());
            self.run.retain(|(_, value)| value.is_some());
        }
        if self.run.is_empty() && self.run.capacity() > ROOM_KEPT {
            self.run = VecDeque::new();
        }
        Some(removed)
    }

    /// All of them, by ascending number.
    pub fn into_ascending(self) -> impl Iterator<Item = (u64, T)> {
        let in_order = self.strays.is_empty();
        let run = self.run.into_iter().filter_map(|(number, value)| Some((number, value?)));
        let mut all: Vec<(u64, T)> = run.chain(self.strays).collect();
        if !in_order {
            all.sort_unstable_by_key(|(number, _)| *number);
        }
        all.into_iter()
    }

    /// Where in the run a number is, also if it is a gap.
    #[inline]
    fn place(&self, number: u64) -> Option<usize> {
        let (first, _) = self.run.front()?;
        self.step();
        if number == *first {
            return Some(0);
        }
        // Who gets everything finds it where it was counted to.
        let counted = usize::try_from(number.checked_sub(*first)?).ok()?;
        match self.run.get(counted) {
            Some((known, _)) if *known == number => Some(counted),
            Some(_) | None => self.search(number),
        }
    }

    fn search(&self, number: u64) -> Option<usize> {
        let compared = |(known, _): &(u64, Option<T>)| {
            self.step();
            known.cmp(&number)
        };
        self.run.binary_search_by(compared).ok()
    }

    /// What the tests count: an entry that was looked at.
    #[inline]
    fn step(&self) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MANY: u64 = 100_000;

    fn filled(numbers: impl Iterator<Item = u64>) -> Outstanding<u64> {
        let mut outstanding = Outstanding::default();
        numbers.for_each(|number| assert_eq!(outstanding.insert(number, number), None));
        outstanding
    }

    /// How many entries were looked at while these were taken out, for each of them.
    fn steps_to_remove(outstanding: &mut Outstanding<u64>, numbers: &[u64]) -> usize {
        outstanding.steps.set(0);
        for number in numbers {
            assert_eq!(outstanding.remove(*number), Some(*number));
        }
        outstanding.steps.get() / numbers.len()
    }

    #[test]
    fn each_of_a_hundred_thousand_is_taken_out_in_few_steps_in_whatever_order() {
        // As of two consumers who get every second one.
        let all: Vec<u64> = (0..MANY).map(|n| 7 + 2 * n).collect();
        let forward = all.clone();
        let backward: Vec<u64> = all.iter().rev().copied().collect();
        let first_last: Vec<u64> = std::iter::once(all[0]).chain(all[1..].iter().rev().copied()).collect();
        let last_first: Vec<u64> = all[1..].iter().chain(&all[..1]).copied().collect();
        let mixed: Vec<u64> = (0..MANY).map(|n| all[(n * 7919 % MANY) as usize]).collect();
        for (order, steps_max) in
            [(forward, 2), (backward, 30), (first_last, 30), (last_first, 30), (mixed, 30)]
        {
            let mut outstanding = filled(all.iter().copied());
            let steps = steps_to_remove(&mut outstanding, &order);
            assert!(steps <= steps_max, "{steps} steps for each");
            assert!(outstanding.is_empty() && outstanding.run.is_empty());
            assert_eq!(outstanding.run.capacity(), 0, "nothing is kept for a window that was large once");
        }
    }

    #[test]
    fn one_that_stays_for_ever_keeps_no_gaps_alive() {
        let mut outstanding = filled(0..50);
        for number in 50..MANY {
            outstanding.insert(number, number);
            assert_eq!(outstanding.remove(number - 49), Some(number - 49));
            assert!(outstanding.run.len() <= 2 * outstanding.len() + GAPS_ALLOWED + 1);
        }
        assert_eq!((outstanding.len(), outstanding.get(0)), (50, Some(&0)));
    }

    #[test]
    fn a_hundred_thousand_that_come_out_of_order_cost_no_more_steps() {
        let mut outstanding = filled((0..MANY).rev());
        assert_eq!(outstanding.strays.len() as u64, MANY - 1);
        let mixed: Vec<u64> = (0..MANY).map(|n| n * 7919 % MANY).collect();
        assert!(steps_to_remove(&mut outstanding, &mixed) <= 2);
        assert!(outstanding.is_empty());
    }

    proptest! {
        #[test]
        fn it_is_a_map(actions in vec((0..4_u8, 0..120_u64), 0..400)) {
            let mut outstanding = Outstanding::default();
            let mut model = BTreeMap::new();
            for (round, (action, number)) in actions.into_iter().enumerate() {
                match action {
                    0 | 1 => assert_eq!(outstanding.insert(number, round), model.insert(number, round)),
                    2 => assert_eq!(outstanding.remove(number), model.remove(&number)),
                    _ => assert_eq!(outstanding.get_mut(number), model.get_mut(&number)),
                }
                assert_eq!(outstanding.len(), model.len());
                assert_eq!(outstanding.is_empty(), model.is_empty());
                assert_eq!(outstanding.get(number), model.get(&number));
                assert!(outstanding.run.front().is_none_or(|(_, value)| value.is_some()));
            }
            assert!(outstanding.into_ascending().eq(model));
        }
    }
}
