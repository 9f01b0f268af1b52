//! How many workers there are, and which CPUs each of them runs on.
//!
//! Pure: what the machine has is read by `sys::cpus` and handed in.

#[cfg(test)]
mod tests;

use std::{fmt, num::IntErrorKind, str::FromStr};

/// How many workers a fleet can have.
pub const WORKERS_MAX: u32 = 256;

// In a reload a slot has two workers, and each of them may have two sockets in a group.
const _: () = assert!(WORKERS_MAX as usize * 2 * 2 <= launcher_common::MEMBERS_MAX);

/// The numbers a CPU can have are below this: what the kernel can be built for (`NR_CPUS`).
pub const CPUS_MAX: u32 = 8192;

/// How many workers are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// What [`auto_count`] says.
    #[default]
    Auto,
    /// So many: `1..=WORKERS_MAX`.
    Count(u32),
}

impl FromStr for Workers {
    type Err = WorkersError;

    fn from_str(text: &str) -> Result<Self, WorkersError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse::<u32>() {
            Ok(0) => Err(WorkersError::Zero),
            Ok(count) if count <= WORKERS_MAX => Ok(Self::Count(count)),
            Ok(_) => Err(WorkersError::TooMany),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(WorkersError::TooMany),
            Err(_) => Err(WorkersError::NotANumber),
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Why a number of workers was refused. The texts say what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkersError {
    /// 0.
    Zero,
    /// More than [`WORKERS_MAX`].
    TooMany,
    /// Neither a whole number nor `auto`.
    NotANumber,
}

impl fmt::Display for WorkersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "without workers nothing would serve",
            Self::TooMany => "more than a fleet can have",
            Self::NotANumber => "not a whole number",
        })?;
        write!(f, "; allowed: auto, or 1 to {WORKERS_MAX}")
    }
}

impl std::error::Error for WorkersError {}

/// The number of workers for `auto`, and its explanation for the startup line:
/// `affinity 16, cpu.max 7.5 → 8`.
///
/// `affinity` is the number of CPUs the launcher may run on, `quota` the CPU time its cgroups
/// allow, in CPUs. The number is the smaller of them, a started CPU counting as one, and within
/// `1..=WORKERS_MAX`. Cgroup weights don't count: they limit nothing while a CPU is idle.
#[must_use]
pub fn auto_count(affinity: u32, quota: Option<f64>) -> (u32, String) {
    // The conversion saturates, so that no quota is too odd for it.
    let allowed = quota.map_or(affinity, |quota| affinity.min(quota.ceil() as u32));
    let count = allowed.clamp(1, WORKERS_MAX);

    let mut why = match affinity {
        0 => "affinity unknown".to_owned(),
        _ => format!("affinity {affinity}"),
    };
    if let Some(quota) = quota {
        // A quota is at least 1 ms in at most 1 s, so none is shown as 0.
        why += &format!(", cpu.max {}", (quota * 1000.0).round() / 1000.0);
    }
    if allowed > WORKERS_MAX {
        why += &format!(", at most {WORKERS_MAX}");
    }
    if quota.is_some() || count != affinity {
        why += &format!(" → {count}");
    }
    (count, why)
}

/// A CPU and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number, as in an affinity mask.
    pub id: u32,
    /// The package and, within it, the physical core: CPUs that share both are SMT siblings.
    pub core: (u32, u32),
}

/// The order in which slots are placed on `cpus`: one CPU of each physical core, then their second
/// SMT siblings, and so on; ascending within each of these rounds.
#[must_use]
pub fn spread(cpus: &[Cpu]) -> Vec<u32> {
    let mut order: Vec<(usize, u32)> = cpus
        .iter()
        .map(|cpu| {
            let earlier = |other: &&Cpu| other.core == cpu.core && other.id < cpu.id;
            (cpus.iter().filter(earlier).count(), cpu.id)
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, id)| id).collect()
}

/// Which CPU a worker is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// None: the kernel's scheduler decides.
    #[default]
    None,
    /// Slot i to the i-th CPU of the order that [`spread`] gives.
    Auto,
    /// Slot i to the i-th CPU of this list, which isn't empty.
    List(Vec<u32>),
}

impl Pinning {
    /// The CPUs that the worker in `slot` is bound to, if it is bound; `order` is what [`spread`]
    /// gives. Where there are more slots than CPUs, the slots start over.
    #[must_use]
    pub fn cpus_for(&self, slot: u32, order: &[u32]) -> Option<Vec<u32>> {
        let cpus = match self {
            Self::None => return None,
            Self::Auto => order,
            Self::List(list) => list,
        };
        let index = (slot as usize).checked_rem(cpus.len())?;
        Some(vec![cpus[index]])
    }
}

impl FromStr for Pinning {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            // Only lists that the kernel writes can be empty.
            _ if text.trim().is_empty() => Err(CpuListError::NotACpu(String::new())),
            _ => parse_cpu_list(text).map(Self::List),
        }
    }
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::List(cpus) => f.write_str(&format_cpu_list(cpus)),
        }
    }
}

/// Why a list of CPUs was refused. The texts say what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuListError {
    /// An element is neither the number of a CPU nor a range of them.
    NotACpu(String),
    /// A range ends before it starts.
    Backwards(String),
    /// A CPU's number is [`CPUS_MAX`] or more.
    TooHigh(String),
}

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotACpu(part) => write!(f, "`{part}` is no CPU")?,
            Self::Backwards(part) => write!(f, "`{part}` ends before it starts")?,
            Self::TooHigh(part) => write!(f, "`{part}` is above {}", CPUS_MAX - 1)?,
        }
        f.write_str("; allowed: none, auto, or a list of CPUs like 0-3,6")
    }
}

impl std::error::Error for CpuListError {}

/// Parses the kernel's list format, `0-3,6`, in the order it is written; an empty list is allowed.
///
/// # Errors
/// Where an element isn't a CPU's number below [`CPUS_MAX`] or an ascending range of them.
pub fn parse_cpu_list(text: &str) -> Result<Vec<u32>, CpuListError> {
    let text = text.trim();
    let mut cpus = Vec::new();
    if text.is_empty() {
        return Ok(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_cpu(first)?, parse_cpu(last)?);
        if last < first {
            return Err(CpuListError::Backwards(part.to_owned()));
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

fn parse_cpu(text: &str) -> Result<u32, CpuListError> {
    let too_high = || CpuListError::TooHigh(text.to_owned());
    match text.parse() {
        Ok(cpu) if cpu < CPUS_MAX => Ok(cpu),
        Ok(_) => Err(too_high()),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(too_high()),
        Err(_) => Err(CpuListError::NotACpu(text.to_owned())),
    }
}

/// Writes a list that [`parse_cpu_list`] reads as the same CPUs in the same order.
#[must_use]
pub fn format_cpu_list(cpus: &[u32]) -> String {
    cpus.chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run[0].to_string(),
        })
        .collect::<Vec<_>>()
        .join(",")
}
