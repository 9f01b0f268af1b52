//! Things with numbers: a number is free again when its thing is gone.

/// Things by number.
#[derive(Debug)]
pub(super) struct Table<T> {
    things: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self {
            things: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Keeps it. Returns its number.
    pub(super) fn insert(&mut self, thing: T) -> usize {
        match self.free.pop() {
            Some(number) => {
                self.things[number] = Some(thing);
                number
            }
            None => {
                self.things.push(Some(thing));
                self.things.len() - 1
            }
        }
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.things.get_mut(number)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<T> {
        let thing = self.things.get_mut(number)?.take()?;
        self.free.push(number);
        Some(thing)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.things.len() == self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_when_it_is_free() {
        let mut table = Table::new();
        assert_eq!([table.insert('a'), table.insert('b')], [0, 1]);
        assert_eq!(table.remove(0), Some('a'));
        assert_eq!((table.remove(0), table.remove(9)), (None, None));
        assert_eq!(table.insert('c'), 0);
        assert_eq!(table.get_mut(0), Some(&mut 'c'));
        assert!(!table.is_empty());
        assert_eq!((table.remove(0), table.remove(1)), (Some('c'), Some('b')));
        assert!(table.is_empty());
    }
}
