//! How long things took: counts of durations by bounds, as Prometheus's histograms have them.

/// Durations in microseconds, counted in the first of its bounds that they do not exceed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribution {
    bounds: &'static [u64],
    /// One more than there are bounds: the last is for what exceeds them all.
    counts: Vec<u64>,
    sum_us: u64,
}

impl Distribution {
    pub fn new(bounds: &'static [u64]) -> Distribution {
        Distribution { bounds, counts: vec![0; bounds.len() + 1], sum_us: 0 }
    }

    /// Of counts that were kept elsewhere: one for each bound, and one for what exceeds them.
    pub fn of(bounds: &'static [u64], counts: Vec<u64>, sum_us: u64) -> Distribution {
        debug_assert_eq!(counts.len(), bounds.len() + 1);
        Distribution { bounds, counts, sum_us }
    }

    /// Where a duration is counted.
    #[inline]
    pub fn place(bounds: &[u64], us: u64) -> usize {
        bounds.iter().position(|bound| us <= *bound).unwrap_or(bounds.len())
    }

    pub fn add(&mut self, us: u64) {
        self.counts[Distribution::place(self.bounds, us)] += 1;
        self.sum_us += us;
    }

    /// Takes in those of another with the same bounds.
    pub fn merge(&mut self, other: &Distribution) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum_us += other.sum_us;
    }

    /// What was counted since an earlier look at the same.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then)).collect();
        Distribution { bounds: self.bounds, counts, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// Each bound in microseconds (`None`: what exceeds them all) with how many lie between it and the one before.
    pub fn counts(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts.iter().enumerate().map(|(at, count)| (self.bounds.get(at).copied(), *count))
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The duration that this share of all does not exceed, in microseconds, supposing that they lie evenly between two
    /// bounds, as PromQL's `histogram_quantile` does; the last bound for what exceeds it. `None` when nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let wanted = all as f64 * share;
        let (mut before, mut floor) = (0.0, 0);
        for (bound, count) in self.counts() {
            let Some(bound) = bound else { break };
            if count > 0 && before + count as f64 >= wanted {
                return Some(floor + ((bound - floor) as f64 * (wanted - before) / count as f64) as u64);
            }
            (before, floor) = (before + count as f64, bound);
        }
        self.bounds.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[u64] = &[100, 200, 400];

    #[test]
    fn a_duration_counts_where_it_does_not_exceed_the_bound() {
        let mut some = Distribution::new(BOUNDS);
        [0, 100, 101, 400, 401].into_iter().for_each(|us| some.add(us));
        let counts: Vec<_> = some.counts().collect();
        assert_eq!(counts, [(Some(100), 2), (Some(200), 1), (Some(400), 1), (None, 1)]);
        assert_eq!((some.count(), some.sum_us()), (5, 1002));
    }

    #[test]
    fn quantiles_lie_between_bounds() {
        let mut some = Distribution::new(BOUNDS);
        assert_eq!(some.quantile(0.5), None);
        (0..10).for_each(|_| some.add(150));
        assert_eq!(some.quantile(0.5), Some(150));
        assert_eq!(some.quantile(1.0), Some(200));
        some.add(5000);
        assert_eq!(some.quantile(1.0), Some(400));
        let earlier = some.clone();
        some.add(10);
        assert_eq!(some.since(&earlier).quantile(1.0), Some(100));
    }
}
