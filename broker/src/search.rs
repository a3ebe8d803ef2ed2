//! Plain text search: words in, an FTS5 expression out that no input can turn into operators.

/// Words of a search that are used; more narrow nothing.
const WORDS_MAX: usize = 16;

/// The expression that finds entries with every word, the last one as a prefix; `None` where there is no word.
#[must_use]
pub fn expression(text: &str) -> Option<String> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(WORDS_MAX).collect();
    let (last, others) = words.split_last()?;
    // Letters and digits in double quotes are an FTS5 string: `OR`, `NEAR`, `*` and `:` have no power in it.
    let mut all: String = others.iter().map(|word| format!("\"{word}\" ")).collect();
    all.push_str(&format!("\"{last}\"*"));
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn operators_and_quotes_are_only_words() {
        assert_eq!(
            expression("grain OR \"x\" NEAR(y) title:z").as_deref(),
            Some(r#""grain" "OR" "x" "NEAR" "y" "title" "z"*"#)
        );
        assert_eq!(expression("\"*():^"), None);
        assert_eq!(expression("Käse").as_deref(), Some(r#""Käse"*"#));
    }
}
