//! The value of the label `cache`: the name of the cache, made unique in the process.
//!
//! | cache | label |
//! | --- | --- |
//! | named `users` | `users` |
//! | named `users`, while another one of that name lives | `users#2`, `users#3`, ... |
//! | without a name | `unnamed`, `unnamed#2`, ... |
//!
//! Two living caches never share a label, and `#` is no character of a name. A label is free again
//! when its cache is dropped: the next cache of that name continues its counters. So no counter
//! falls, which a recorder would ignore: it takes an absolute value below the last one for old.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;

/// The label of a cache, until it is dropped.
pub(crate) struct Label {
    text: Arc<str>,
    name: Arc<str>,
    /// Which of the caches of this name it is.
    number: usize,
    /// By metric, the last value that was exported under this label for caches before this one.
    base: Totals,
    /// By metric, the last value that was exported for this cache, with its base.
    exported: Mutex<Totals>,
}

/// By the number of the metric in the table.
type Totals = HashMap<usize, u64>;

/// The labels of one name.
#[derive(Default)]
struct Labels {
    /// The highest number that was given.
    highest: usize,
    /// The numbers up to the highest one that no cache has.
    free: BTreeSet<usize>,
    /// By free number, the last values that were exported under its label.
    totals: HashMap<usize, Totals>,
}

/// By name: the labels that are taken, or were exported before.
static LABELS: LazyLock<Mutex<HashMap<Arc<str>, Labels>>> = LazyLock::new(Mutex::default);

impl Label {
    pub(super) fn claim(name: Option<&str>) -> Self {
        let name: Arc<str> = Arc::from(name.unwrap_or("unnamed"));
        let all = &mut *LABELS.lock();
        let labels = all.entry(Arc::clone(&name)).or_default();
        let number = labels.free.pop_first().unwrap_or(labels.highest + 1);
        labels.highest = labels.highest.max(number);
        let text = if number == 1 { Arc::clone(&name) } else { format!("{name}#{number}").into() };
        let base = labels.totals.remove(&number).unwrap_or_default();
        Self { text, name, number, exported: Mutex::new(base.clone()), base }
    }

    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Returns the total of a counter under this label, to be exported. `metric` is its number in
    /// the table.
    pub(super) fn total(&self, metric: usize, count: u64) -> u64 {
        let before = self.base.get(&metric).copied().unwrap_or(0);
        let total = before.wrapping_add(count);
        if total > 0 {
            let mut exported = self.exported.lock();
            let highest = exported.entry(metric).or_default();
            *highest = total.max(*highest);
        }
        total
    }
}

impl Drop for Label {
    fn drop(&mut self) {
        let totals = std::mem::take(self.exported.get_mut());
        let all = &mut *LABELS.lock();
        let Some(labels) = all.get_mut(&self.name) else { return };
        labels.free.insert(self.number);
        if !totals.is_empty() {
            labels.totals.insert(self.number, totals);
        }
        if labels.free.len() == labels.highest && labels.totals.is_empty() {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn living_caches_of_one_name_have_different_labels() {
        let labels = [(); 3].map(|()| Label::claim(Some("label-test-a")));
        let texts = labels.each_ref().map(|label| &*label.text);
        assert_eq!(texts, ["label-test-a", "label-test-a#2", "label-test-a#3"]);
        let [_first, second, _third] = labels;
        drop(second);
        assert_eq!(&**Label::claim(Some("label-test-a")).text(), "label-test-a#2");
        assert!(Label::claim(None).text().starts_with("unnamed"));
    }

    #[test]
    fn a_cache_continues_the_counters_of_the_one_before_it() {
        let first = Label::claim(Some("label-test-b"));
        assert_eq!((first.total(0, 5), first.total(0, 7), first.total(1, 0)), (5, 7, 0));
        drop(first);
        let second = Label::claim(Some("label-test-b"));
        assert_eq!((second.total(0, 2), second.total(1, 3)), (9, 3));
        drop(second);
        let third = Label::claim(Some("label-test-b"));
        assert_eq!(third.total(1, 1), 4);
        drop(third);
        assert_eq!(Label::claim(Some("label-test-b")).total(0, 0), 9, "without an export between");
    }

    #[test]
    fn a_label_that_was_never_exported_is_forgotten() {
        drop(Label::claim(Some("label-test-c")));
        assert!(!LABELS.lock().contains_key("label-test-c"));
    }
}
