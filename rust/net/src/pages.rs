//! A table that gives out keys and uses them again, in pages that are freed when empty.

/// Places of a page: as many as a word has bits.
const PAGE: usize = u64::BITS as usize;

type Places<T> = Box<[Option<T>; PAGE]>;

/// Values by key. It costs what its pages hold, and moves nothing when it grows.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Page<T>>,
    /// The pages that have free places, each once; the last is filled first.
    open: Vec<usize>,
    /// An empty page for the next time that one is needed, as when a single value comes and goes.
    spare: Option<Places<T>>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    /// `None` while the page is empty.
    places: Option<Places<T>>,
    /// A bit for each place that is taken.
    taken: u64,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), open: Vec::new(), spare: None, len: 0 }
    }
}

impl<T> Pages<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The key that [`insert`](Self::insert) will give next.
    pub(crate) fn next_key(&self) -> usize {
        match self.open.last() {
            Some(&page) => page * PAGE + self.pages[page].taken.trailing_ones() as usize,
            None => self.pages.len() * PAGE,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        let key = self.next_key();
        let (number, place) = (key / PAGE, key % PAGE);
        if number == self.pages.len() {
            self.pages.push(Page { places: None, taken: 0 });
            self.open.push(number);
        }
        let Page { places, taken } = &mut self.pages[number];
        let places = places.get_or_insert_with(|| {
            self.spare.take().unwrap_or_else(|| Box::new([const { None }; PAGE]))
        });
        places[place] = Some(value);
        *taken |= 1 << place;
        if *taken == u64::MAX {
            self.open.pop();
        }
        self.len += 1;
        key
    }

    pub(crate) fn get(&self, key: usize) -> Option<&T> {
        self.pages.get(key / PAGE)?.places.as_ref()?[key % PAGE].as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.pages.get_mut(key / PAGE)?.places.as_mut()?[key % PAGE].as_mut()
    }

    /// Drops the value, if there is one.
    pub(crate) fn remove(&mut self, key: usize) {
        let (number, place) = (key / PAGE, key % PAGE);
        let Some(Page { places, taken }) = self.pages.get_mut(number) else { return };
        if *taken & 1 << place == 0 {
            return;
        }
        if let Some(places) = places {
            places[place] = None;
        }
        if *taken == u64::MAX {
            self.open.push(number);
        }
        *taken &= !(1 << place);
        if *taken == 0 {
            self.spare = places.take();
        }
        self.len -= 1;
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages
            .iter_mut()
            .filter_map(|page| page.places.as_mut())
            .flat_map(|p| &mut **p)
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_used_again_and_never_twice_at_once() {
        let mut pages = Pages::default();
        for number in 0..3 * PAGE {
            assert_eq!(pages.next_key(), number);
            assert_eq!(pages.insert(number), number);
        }
        for key in (0..3 * PAGE).step_by(2) {
            assert_eq!(pages.get(key), Some(&key));
            pages.remove(key);
            pages.remove(key);
            assert_eq!(pages.get(key), None);
        }
        let again: Vec<usize> = (0..3 * PAGE / 2).map(|_| pages.insert(usize::MAX)).collect();
        assert!(again.iter().all(|key| key % 2 == 0), "{again:?}");
        assert_eq!((pages.len(), pages.next_key()), (3 * PAGE, 3 * PAGE));
        for key in (1..3 * PAGE).step_by(2) {
            assert_eq!(pages.get_mut(key), Some(&mut { key }));
        }
        assert_eq!(pages.values_mut().filter(|value| **value == usize::MAX).count(), 3 * PAGE / 2);
    }

    #[test]
    fn empty_pages_are_freed_but_for_one() {
        let mut pages = Pages::default();
        let keys: Vec<usize> = (0..10 * PAGE).map(|number| pages.insert(number)).collect();
        for key in keys {
            pages.remove(key);
        }
        assert_eq!(pages.len(), 0);
        assert!(pages.pages.iter().all(|page| page.places.is_none()));
        assert!(pages.spare.is_some());
        pages.insert(1);
        assert!(pages.spare.is_none());
    }
}
