//! Numbers of `linux.resources`, whose scales are those of cgroup v1, in the scales of v2.

/// `cpu.shares` (2 to 262144, default 1024) as `cpu.weight` (1 to 10000, default 100); 0 is unset.
///
/// The curve through (2, 1), (1024, 100) and (262144, 10000) that runc, crun and youki agreed upon
/// in 2025; a straight line had given a container with the default shares a third of its due.
pub fn weight_of_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let log = (shares as f64).log2();
            let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
            // Where it is exactly an integer, the last digit of the power mustn't decide.
            Some((weight - 1e-9).ceil() as u64)
        }
    }
}

/// `blkio.weight` (10 to 1000) as `io.weight` (1 to 10000).
pub fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

/// A limit where -1 stands for none. `None` for other negative numbers.
pub fn limit(value: i64) -> Option<String> {
    match value {
        -1 => Some("max".into()),
        _ => u64::try_from(value).ok().map(|value| value.to_string()),
    }
}

/// `memory.swap.max`, which is swap alone, from v1's memory and swap together; `Ok(None)` leaves it
/// as it is. 0 is unset in both.
pub fn swap(memory: Option<i64>, both: Option<i64>) -> Result<Option<String>, String> {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    match (set(memory), set(both)) {
        // No limit on memory was meant to be none on swap (runc does so in `update --memory -1`).
        (Some(-1), None) => Ok(Some("max".into())),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some("max".into())),
        (_, Some(both)) if both < 0 => Err(format!("{both} is neither a size nor -1")),
        (Some(-1), Some(both)) => Ok(Some(both.to_string())),
        (None, Some(_)) => {
            Err("memory and swap together can only be limited with a memory limit".into())
        }
        (Some(memory), Some(both)) if both < memory => Err(format!(
            "memory and swap together ({both}) are less than memory alone ({memory})"
        )),
        (Some(memory), Some(both)) => Ok(Some((both - memory).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (shares, weight) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(2)),
            (4, Some(2)),
            (10, Some(4)),
            (100, Some(17)),
            (256, Some(35)),
            (512, Some(59)),
            (1000, Some(99)),
            (1024, Some(100)),
            (2048, Some(174)),
            (4096, Some(303)),
            (10_000, Some(627)),
            (100_000, Some(4340)),
            (262_143, Some(10_000)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let mut last = 0;
        for shares in 1..=262_144 {
            let weight = weight_of_shares(shares).unwrap();
            assert!((last..=10_000).contains(&weight), "{shares}");
            last = weight;
        }
    }

    #[test]
    fn io_weights() {
        for (weight, io) in [(10, 1), (11, 11), (100, 910), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), io);
        }
    }

    #[test]
    fn limits() {
        for (value, text) in [
            (-1, Some("max")),
            (0, Some("0")),
            (4096, Some("4096")),
            (-2, None),
            (i64::MIN, None),
        ] {
            assert_eq!(limit(value).as_deref(), text);
        }
    }

    #[test]
    fn swaps() {
        let ok = |text: &str| Ok(Some(text.to_owned()));
        for (memory, both, expected) in [
            (None, None, Ok(None)),
            (Some(1000), None, Ok(None)),
            (Some(1000), Some(0), Ok(None)),
            (None, Some(0), Ok(None)),
            (Some(-1), None, ok("max")),
            (Some(-1), Some(0), ok("max")),
            (Some(-1), Some(-1), ok("max")),
            (Some(1000), Some(-1), ok("max")),
            (None, Some(-1), ok("max")),
            (Some(-1), Some(500), ok("500")),
            (Some(1000), Some(1000), ok("0")),
            (Some(1000), Some(1500), ok("500")),
            (Some(1), Some(i64::MAX), ok("9223372036854775806")),
        ] {
            assert_eq!(swap(memory, both), expected, "{memory:?} {both:?}");
        }
        for (memory, both) in [
            (None, Some(500)),
            (Some(0), Some(500)),
            (Some(1000), Some(999)),
            (Some(1000), Some(-2)),
            (None, Some(i64::MIN)),
        ] {
            assert!(swap(memory, both).is_err(), "{memory:?} {both:?}");
        }
    }
}
