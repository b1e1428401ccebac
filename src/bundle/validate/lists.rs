//! Lists of CPUs and memory nodes, as `0-3,7`.

use std::ops::RangeInclusive;

use super::quote;

/// The kernel's greatest NR_CPUS, less one.
pub const MAX_CPU: u32 = 8191;
/// The kernel's greatest MAX_NUMNODES, less one.
pub const MAX_NODE: u32 = 1023;

/// Comma-separated numbers and ranges up to `max`, spaces ignored; empty text is the empty list.
/// The error is a reason.
pub fn number_list(text: &str, max: u32) -> Result<Vec<RangeInclusive<u32>>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (number(first, max)?, number(last, max)?);
            match first <= last {
                true => Ok(first..=last),
                false => Err(format!("the range {} runs backwards", quote(item.trim()))),
            }
        })
        .collect()
}

fn number(text: &str, max: u32) -> Result<u32, String> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{} is no number", quote(text)));
    }
    match text.parse() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!("{text} is too large, the kernel has at most {max}")),
    }
}

/// What a cpuset file takes besides: `0-63:2/4`, `N` for the last, `all`, empty items
/// (bitmap_parselist).
pub fn cpuset_list(text: &str, max: u32) -> Result<(), String> {
    for item in text.split([',', ' ', '\n']).filter(|item| !item.is_empty()) {
        let (range, stride) = item.split_once(':').unwrap_or((item, "1/1"));
        if range != "all" {
            number_list(&range.replace('N', &max.to_string()), max)?;
        }
        let (used, group) = stride.split_once('/').unwrap_or((stride, ""));
        number(used, max)?;
        number(group, max)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_lists() {
        for (text, expected) in [
            ("", Ok(vec![])),
            ("0", Ok(vec![0..=0])),
            ("0-3,7", Ok(vec![0..=3, 7..=7])),
            (" 0 - 3 , 7", Ok(vec![0..=3, 7..=7])),
            ("0-9876543210", Err("too large")),
            ("3-1", Err("backwards")),
            ("a", Err("no number")),
            ("1,,2", Err("no number")),
            ("-1", Err("no number")),
            ("+1", Err("no number")),
        ] {
            match (number_list(text, MAX_NODE), expected) {
                (Ok(list), Ok(expected)) => assert_eq!(list, expected, "{text}"),
                (Err(reason), Err(words)) => assert!(reason.contains(words), "{text}: {reason}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn cpuset_lists() {
        for text in ["", "0-3,7", "0-63:2/4", "all", "2-N", "0,,1", "0-1 3\n"] {
            assert_eq!(cpuset_list(text, MAX_CPU), Ok(()), "{text}");
        }
        for text in ["x", "1-", "3-1", "0-3:2", "0-3:x/4", "9999"] {
            assert!(cpuset_list(text, MAX_CPU).is_err(), "{text}");
        }
    }
}
