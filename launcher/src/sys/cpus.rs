//! stand-in
/// x
#[derive(Debug)]
pub struct Machine {
    /// x
    pub cpus: Vec<(u32, u32, u32)>,
    /// x
    pub quota: Option<Quota>,
}
/// x
#[derive(Debug)]
pub struct Quota {
    /// x
    pub cpus: f64,
}
impl Machine {
    /// x
    pub fn read(_: &std::path::Path) -> Self { Self { cpus: vec![(0,0,0),(1,0,1)], quota: None } }
}
