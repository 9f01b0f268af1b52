//! Reading many entries of an eBPF hash map with one system call, where two for each would keep the
//! event loop from its work (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `linux/bpf.h`.
const LOOKUP_BATCH: libc::c_int = 24;

/// How many entries are read at once. A bucket of the map has to fit (ENOSPC): there are as many
/// buckets as entries have room, and no flow's hash can be foretold.
const BATCH: usize = 4096;

/// The batch commands' part of `union bpf_attr`.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Calls `each` with every value of a hash map; `K` is its key. What changes meanwhile may be seen or
/// not.
///
/// # Errors
/// Those of `bpf`: `EINVAL` for a map of another type or before Linux 5.6.
pub(super) fn for_each_value<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&V),
) -> io::Result<()> {
    let mut keys = Box::<[K]>::new_uninit_slice(BATCH);
    let mut values = Box::<[V]>::new_uninit_slice(BATCH);
    // Where to go on: for hash maps the number of the next bucket.
    let (mut from, mut next) = (0_u32, 0_u32);
    let mut first = true;
    loop {
        let mut attributes = Attributes {
            in_batch: if first { 0 } else { address(&raw mut from) },
            out_batch: address(&raw mut next),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: BATCH as u32,
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are of the kernel's layout and size; the buffers have room for `count`
        // keys and values of the map's sizes, which the caller names by their types.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Attributes>(),
            )
        };
        let error = io::Error::last_os_error();
        // ENOENT: these were the last ones.
        let last = result != 0 && error.raw_os_error() == Some(libc::ENOENT);
        if result != 0 && !last {
            return Err(error);
        }
        for value in values.iter().take(attributes.count as usize) {
            // SAFETY: the kernel has written the first `count` values, of a type for which any bytes do.
            each(unsafe { MaybeUninit::assume_init_ref(value) });
        }
        if last {
            return Ok(());
        }
        (from, first) = (next, false);
    }
}

fn address<T>(pointer: *mut T) -> u64 {
    pointer.expose_provenance() as u64
}
