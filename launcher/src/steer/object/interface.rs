//! The maps that a steering object shares with the launcher.

use std::fmt;

use aya_obj::{
    Map,
    generated::bpf_map_type::{
        self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
    },
};
use launcher_common::{Counters, MEMBERS_MAX, Table};

use crate::steer::program::Pinned;

/// A map of the interface.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) required: bool,
    shape: Shape,
    /// Whether it outlives the launcher.
    pinned: bool,
}

/// What a map is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    /// In bytes.
    key: u32,
    /// In bytes.
    value: u32,
    entries: u32,
}

impl Shape {
    const fn new(kind: bpf_map_type, value: usize, entries: usize) -> Self {
        Self {
            kind: kind as u32,
            key: 4,
            value: value as u32,
            entries: entries as u32,
        }
    }

    fn of(map: &Map) -> Self {
        Self {
            kind: map.map_type(),
            key: map.key_size(),
            value: map.value_size(),
            entries: map.max_entries(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(bpf_map_type, &str); 4] = [
            (BPF_MAP_TYPE_ARRAY, "ARRAY"),
            (BPF_MAP_TYPE_ARRAY_OF_MAPS, "ARRAY_OF_MAPS"),
            (BPF_MAP_TYPE_PERCPU_ARRAY, "PERCPU_ARRAY"),
            (BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, "REUSEPORT_SOCKARRAY"),
        ];
        let Self {
            kind,
            key,
            value,
            entries,
        } = self;
        match NAMES.iter().find(|(known, _)| *known as u32 == *kind) {
            Some((_, name)) => f.write_str(name)?,
            None => write!(f, "map of type {kind}")?,
        }
        write!(
            f,
            " with {entries} entries, keys of {key} and values of {value} bytes"
        )
    }
}

/// The table in force, in `TABLE`.
const TABLE: Shape = Shape::new(BPF_MAP_TYPE_ARRAY, size_of::<Table>(), 1);

/// The maps that an object shares with the launcher. It may have others.
pub(super) const INTERFACE: [Known; 4] = [
    Known {
        name: "MEMBERS",
        required: true,
        shape: Shape::new(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 4, MEMBERS_MAX + 1),
        pinned: true,
    },
    // Without it the program would not know whom to leave alone.
    Known {
        name: "TABLE",
        required: true,
        shape: Shape::new(BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 1),
        pinned: false,
    },
    Known {
        name: "COUNTERS",
        required: false,
        shape: Shape::new(
            BPF_MAP_TYPE_PERCPU_ARRAY,
            size_of::<Counters>(),
            MEMBERS_MAX + 1,
        ),
        pinned: true,
    },
    Known {
        name: "HINTS",
        required: false,
        shape: Shape::new(BPF_MAP_TYPE_ARRAY, size_of::<u64>(), MEMBERS_MAX),
        pinned: true,
    },
];

impl Known {
    /// How it is pinned, if it is.
    pub(super) fn pin(&self) -> Option<Pinned> {
        let Shape { value, entries, .. } = self.shape;
        self.pinned
            .then_some((self.name, value as usize, entries as usize))
    }

    /// Says what is wrong with an object's map of this name.
    pub(super) fn check(&self, map: &Map) -> Result<(), String> {
        let name = self.name;
        differs(&format!("its map {name}"), Shape::of(map), self.shape)?;
        if name != "TABLE" {
            return Ok(());
        }
        match map.inner() {
            Some(inner) => differs("what its map TABLE holds", Shape::of(&inner), TABLE),
            None => Err(format!(
                "its map TABLE does not say that it holds a {TABLE}"
            )),
        }
    }
}

fn differs(what: &str, shape: Shape, wanted: Shape) -> Result<(), String> {
    if shape == wanted {
        return Ok(());
    }
    Err(format!("{what} is a {shape}; wanted is a {wanted}"))
}
