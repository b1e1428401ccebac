//! What a group gets of each resource: lines such as `L3:0=7f0;1=1f` and `MB:0=20;1=70`.

use std::collections::BTreeMap;

/// The lines to write, in the order that the specification wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schemata(Vec<String>);

impl Schemata {
    /// A line for memory bandwidth in the place of the cache's gives way to the one that is meant for it.
    pub fn of(cache: Option<&str>, bandwidth: Option<&str>, others: &[String]) -> Schemata {
        let given = |line: Option<&str>| {
            line.map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
        };
        let bandwidth = given(bandwidth);
        let cache = given(cache).filter(|line| bandwidth.is_none() || !line.starts_with("MB:"));
        let others = others.iter().filter_map(|line| given(Some(line)));
        Schemata(cache.into_iter().chain(bandwidth).chain(others).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the file wants it.
    pub fn text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The first thing in which a group with these `current` lines is another one. What isn't mentioned may be
    /// anything. `granularity` says in which steps the kernel has rounded a resource's numbers up.
    pub fn differs(
        &self,
        current: &str,
        granularity: impl Fn(&str) -> Option<u64>,
    ) -> Option<String> {
        let current = table(current.lines());
        let wanted = table(self.0.iter().map(String::as_str));
        for ((resource, domain), wanted) in wanted {
            let said = format!("{resource}:{domain}={wanted}");
            let Some(found) = current.get(&(resource, domain)) else {
                return Some(format!("it has no {said}"));
            };
            let alike = match (number(resource, wanted), number(resource, found)) {
                (Some(wanted), Some(found)) => {
                    wanted == found
                        || granularity(resource)
                            .and_then(|step| wanted.checked_next_multiple_of(step))
                            == Some(found)
                }
                _ => wanted == *found,
            };
            if !alike {
                return Some(format!("it has {resource}:{domain}={found}, not {wanted}"));
            }
        }
        None
    }
}

/// By resource and domain; a later line wins.
fn table<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<(&'a str, &'a str), &'a str> {
    lines
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(resource, values)| {
            values.split(';').map(move |value| {
                let (domain, value) = value.split_once('=').unwrap_or((value, ""));
                ((resource.trim(), domain.trim()), value.trim())
            })
        })
        .collect()
}

/// Caches have masks in hexadecimal, bandwidths are decimal.
fn number(resource: &str, value: &str) -> Option<u64> {
    match resource.starts_with('L') {
        true => u64::from_str_radix(value.strip_prefix("0x").unwrap_or(value), 16).ok(),
        false => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Schemata {
        let lines: Vec<String> = lines.iter().map(|line| (*line).into()).collect();
        Schemata::of(None, None, &lines)
    }

    #[test]
    fn the_order_is_cache_bandwidth_others() {
        let all = Schemata::of(
            Some("L3:0=f"),
            Some("MB:0=20"),
            &["L2:0=3".into(), "L3:0=ff".into()],
        );
        assert_eq!(all.text(), "L3:0=f\nMB:0=20\nL2:0=3\nL3:0=ff\n");
        assert!(Schemata::of(Some(""), None, &[]).is_empty());
    }

    #[test]
    fn bandwidth_in_the_caches_place_gives_way() {
        let both = Schemata::of(Some("MB:0=70"), Some("MB:0=20"), &[]);
        assert_eq!(both.text(), "MB:0=20\n");
        let alone = Schemata::of(Some("MB:0=70"), None, &[]);
        assert_eq!(alone.text(), "MB:0=70\n");
    }

    #[test]
    fn groups_are_compared_by_what_is_meant() {
        const CURRENT: &str = "    L3:0=007f0;1=0001f\n    MB:0= 20;1= 70\n";
        let step = |resource: &str| (resource == "MB").then_some(10);
        for (wanted, difference) in [
            (&["L3:0=7f0;1=1f"][..], None),
            (&["L3:1=0x1F"], None),
            (&["MB:0=20", "L3:0=7f0"], None),
            (&["MB:0=11"], None),
            (&["L3:0=1", "L3:0=7f0"], None),
            (&["L3:0=7f1"], Some("it has L3:0=007f0, not 7f1")),
            (&["MB:0=9"], Some("it has MB:0=20, not 9")),
            (&["L3:2=f"], Some("it has no L3:2=f")),
            (&["L2:0=f"], Some("it has no L2:0=f")),
            (&["MB:0=many"], Some("it has MB:0=20, not many")),
        ] {
            let found = lines(wanted).differs(CURRENT, step);
            assert_eq!(found.as_deref(), difference, "{wanted:?}");
        }
        assert_eq!(
            lines(&["L3:0=11"]).differs("L3:0=20", |_| None).as_deref(),
            Some("it has L3:0=20, not 11")
        );
    }
}
