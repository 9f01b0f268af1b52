//! What one group's program knows of the account.

use std::rc::Rc;

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use launcher_common::Loads;

use super::account::{Account, Counter, Ledger};

/// A group's own maps for it.
pub(super) struct Books {
    loads: ArrayOfMaps<MapData, Array<MapData, Loads>>,
    moved: ArrayOfMaps<MapData, HashMap<MapData, u64, u32>>,
    listeners: HashMap<MapData, u64, u32>,
    /// While the group's connections are counted.
    counter: Option<Rc<Counter>>,
}

impl Books {
    /// With the maps of these names.
    ///
    /// # Errors
    /// When they are of another kind.
    pub(super) fn of(loads: Map, moved: Map, listeners: Map) -> Result<Self, MapError> {
        Ok(Self {
            loads: loads.try_into()?,
            moved: moved.try_into()?,
            listeners: listeners.try_into()?,
            counter: None,
        })
    }

    /// Has the program compare by what is counted there.
    ///
    /// # Errors
    /// When the kernel has no memory.
    pub(super) fn open(&mut self, account: &Account) -> Result<(), MapError> {
        if self.counter.is_none() && !account.continues() {
            // An earlier launcher may have listed some, at which others have begun since.
            self.close();
        }
        self.set_ledger(account.ledger())?;
        self.counter = Some(account.counter());
        Ok(())
    }

    /// Has the program compare by these loads.
    ///
    /// # Errors
    /// When the kernel has no memory.
    pub(super) fn set_ledger(&mut self, ledger: &Ledger) -> Result<(), MapError> {
        self.loads.set(0, &ledger.loads, 0)?;
        self.moved.set(0, &ledger.moved, 0)
    }

    /// No connection that begins is counted any more.
    pub(super) fn close(&mut self) {
        self.counter = None;
        for listener in self.listeners.keys().flatten().collect::<Vec<_>>() {
            self.forget(listener);
        }
    }

    /// What counts, while the group's connections are counted.
    pub(super) fn counter(&self) -> Option<&Rc<Counter>> {
        self.counter.as_ref()
    }

    /// Has the connections that wait at this listener counted for those to whom they move. They have to
    /// be counted for this seat, all of them, or have moved here.
    ///
    /// # Errors
    /// When the kernel has no memory, or there are too many.
    pub(super) fn list(&mut self, listener: u64, seat: u16) -> Result<(), MapError> {
        self.listeners.insert(listener, u32::from(seat), 0)
    }

    /// Whether [`Books::list`] was called.
    pub(super) fn is_listed(&self, listener: u64) -> bool {
        self.listeners.get(&listener, 0).is_ok()
    }

    /// Forgets a listener that has closed.
    pub(super) fn forget(&mut self, listener: u64) {
        // It may never have been listed.
        let _ = self.listeners.remove(&listener);
    }
}
