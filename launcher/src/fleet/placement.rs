//! Stand-in until the policy branch is merged.
use std::str::FromStr;

/// Stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per CPU.
    Auto,
    /// This many.
    Count(u32),
}

impl FromStr for Workers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count @ 1..=256) => Ok(Self::Count(count)),
            _ => Err("allowed: auto, or a number from 1 to 256".into()),
        }
    }
}

/// Stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Not pinned.
    None,
    /// Slot i on the i-th CPU.
    Auto,
    /// These CPUs.
    List(Vec<u32>),
}

impl FromStr for Pinning {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            list => list
                .split(',')
                .map(|cpu| {
                    cpu.parse()
                        .map_err(|_| "allowed: none, auto, or a CPU list".into())
                })
                .collect::<Result<_, _>>()
                .map(Self::List),
        }
    }
}
/// x
pub struct Cpu { /// x
 pub id: u32, /// x
 pub core: (u32,u32) }
/// x
pub fn spread(cpus: &[Cpu]) -> Vec<u32> { cpus.iter().map(|c| c.id).collect() }
/// x
pub fn auto_count(a: u32, _q: Option<f64>) -> (u32, String) { (a, format!("affinity {a}")) }
/// x
pub fn format_cpu_list(c: &[u32]) -> String { format!("{c:?}") }
impl Pinning { /// x
 pub fn cpus_for(&self, _slot: u32, _order: &[u32]) -> Option<Vec<u32>> { None } }
