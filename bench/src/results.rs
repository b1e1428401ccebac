//! Samples by measure and runtime, and what is said of them.

use std::collections::BTreeMap;

use crate::gap::Gap;
use crate::runtime::Runtime;
use crate::traces::Trace;

/// Samples of one measure: by the runtime's name.
pub type Samples = BTreeMap<String, Vec<f64>>;

pub struct Results {
    pub runtimes: Vec<Runtime>,
    pub fifo: bool,
    pub seconds: f64,
    /// By the measure's name: milliseconds, but where the name says otherwise.
    pub measures: BTreeMap<String, Samples>,
    /// The floor's value that was measured beside a runtime's: by measure and runtime.
    beside: BTreeMap<(String, String), f64>,
    /// Calls by runtime, command, and the call's name.
    pub counts: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Steps of husk's.
    pub traces: Vec<Trace>,
    /// What husk has more than the floor.
    pub gaps: Vec<Gap>,
    /// How long the config with Docker's profile is.
    pub docker_lines: usize,
    failed: Vec<String>,
}

impl Results {
    pub fn new(runtimes: &[Runtime], fifo: bool) -> Self {
        Results {
            runtimes: runtimes.to_vec(),
            fifo,
            seconds: 0.0,
            measures: BTreeMap::new(),
            beside: BTreeMap::new(),
            counts: BTreeMap::new(),
            traces: Vec::new(),
            gaps: Vec::new(),
            docker_lines: 0,
            failed: Vec::new(),
        }
    }

    pub fn add(&mut self, measure: &str, runtime: &Runtime, value: f64) {
        let samples = self.measures.entry(measure.to_owned()).or_default();
        samples.entry(runtime.name.clone()).or_default().push(value);
    }

    /// The floor's value to compare this runtime's with, where each has its own.
    pub fn pair(&mut self, measure: &str, runtime: &Runtime, floor: f64) {
        let key = (measure.to_owned(), runtime.name.clone());
        self.beside.insert(key, floor);
    }

    /// Says an error once; the runtime stays out of what it can't do.
    pub fn fail(&mut self, measure: &str, runtime: &Runtime, error: &str) {
        let key = format!("{measure} {}", runtime.name);
        if !self.failed.contains(&key) {
            eprintln!("bench: {measure}: {error}");
            self.failed.push(key);
        }
    }

    pub fn has_failed(&self, measure: &str, runtime: &Runtime) -> bool {
        self.failed.contains(&format!("{measure} {}", runtime.name))
    }

    fn samples(&self, measure: &str, runtime: &str) -> Option<Vec<f64>> {
        let mut samples = self.measures.get(measure)?.get(runtime)?.clone();
        samples.sort_by(f64::total_cmp);
        (!samples.is_empty()).then_some(samples)
    }

    pub fn median(&self, measure: &str, runtime: &str) -> Option<f64> {
        self.share(measure, runtime, 0.5)
    }

    /// The value that this share of the samples is not above.
    pub fn share(&self, measure: &str, runtime: &str, share: f64) -> Option<f64> {
        let samples = self.samples(measure, runtime)?;
        let index = (samples.len() as f64 * share) as usize;
        if share == 0.5 && samples.len().is_multiple_of(2) {
            return Some((samples[index - 1] + samples[index]) / 2.0);
        }
        samples.get(index.min(samples.len() - 1)).copied()
    }

    /// How many times the floor's median it is, or what the floor took beside it.
    pub fn ratio(&self, measure: &str, runtime: &str) -> Option<f64> {
        let beside = self.beside.get(&(measure.to_owned(), runtime.to_owned()));
        let floor = beside.copied().or_else(|| self.median(measure, "floor"));
        Some(self.median(measure, runtime)? / floor?)
    }
}
