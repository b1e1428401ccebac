//! The known word that a misspelt one was probably meant to be.

/// The nearest of `known` within two typing errors (one for short words).
pub fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = if word.len() < 5 { 1 } else { 2 };
    known
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= limit)
        .map(|candidate| (errors(word.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(errors, _)| *errors <= limit)
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, substitutions and swapped neighbours.
fn errors(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for j in 0..b.len() {
            let mut cost = (above[j] + usize::from(a[i] != b[j]))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn finds_the_word_that_was_meant() {
        let known = ["read", "readv", "reboot", "personality", "unshare"];
        for (word, expected) in [
            ("raed", Some("read")),
            ("personalty", Some("personality")),
            ("unshaer", Some("unshare")),
            ("fork", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known.into_iter()), expected, "{word}");
        }
    }
}
