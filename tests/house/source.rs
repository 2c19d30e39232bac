//! The house's own files, and Rust text cut into words.

use std::path::{Path, PathBuf};

/// The package's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` whose name ends in `.extension`, as paths relative to the package; none when the
/// folder does not exist.
pub fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|own| extensions.iter().any(|wanted| own == *wanted)) {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// The text of a file named relative to the package.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A word or a sign of Rust, and the line it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// Cuts Rust into identifiers, numbers and single signs (`::` is one). Comments, strings and characters are
/// left out, because what they say is not what the code does.
pub fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let start = at;
        match (get(at), get(at + 1)) {
            ('/', '/') => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (get(at), get(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            ('"', _) => at = after_string(&chars, at),
            // A raw string, whatever stands before the `r` (`b`, `c`).
            ('r', '"' | '#') if raw_hashes(&chars, at + 1).is_some() => at = after_raw_string(&chars, at + 1),
            ('\'', '\\') => at += 3 + chars[at + 3..].iter().take_while(|c| **c != '\'').count() + 1,
            ('\'', _) if get(at + 2) == '\'' => at += 3,
            (c, _) if c.is_alphanumeric() || c == '_' => {
                at += chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                let text: String = chars[start..at].iter().collect();
                // `br"…"` and `cr"…"` begin like a word.
                if matches!(text.as_str(), "br" | "cr") && raw_hashes(&chars, at).is_some() {
                    at = after_raw_string(&chars, at);
                } else {
                    tokens.push(Token { text, line });
                }
            }
            (':', ':') => {
                tokens.push(Token { text: "::".into(), line });
                at += 2;
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.into(), line });
                }
                at += 1;
            }
        }
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The position after the string that begins at `at`.
fn after_string(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// How many `#` stand at `at`, if a quote follows them.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + hashes) == Some(&'"')).then_some(hashes)
}

/// The position after the raw string whose hashes or quote begin at `at`.
fn after_raw_string(chars: &[char], at: usize) -> usize {
    let hashes = raw_hashes(chars, at).unwrap_or(0);
    let mut at = at + hashes + 1;
    while at < chars.len() {
        let closes = chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        at += 1;
        if closes {
            break;
        }
    }
    at + hashes
}

/// The same tokens without the items that only tests see.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        let words: Vec<&str> = rest.iter().take(7).map(|token| token.text.as_str()).collect();
        if words == ["#", "[", "cfg", "(", "test", ")", "]"] {
            rest = &rest[7 + item_len(&rest[7..])..];
        } else {
            kept.push(first.clone());
            rest = &rest[1..];
        }
    }
    kept
}

/// How many tokens the item at the beginning has: to its `;`, or to the end of its block.
fn item_len(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    // The braces of a `use` end before its semicolon.
                    return at + 1 + usize::from(tokens.get(at + 1).is_some_and(|next| next.text == ";"));
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_texts_are_not_code() {
        let source = "a // b \"\n/* c /* d */ e */ \"f \\\" g\" r#\"h \" i\"# br\"j\" 'k' '\\'' '\\u{7f}' l<'m> r#n";
        assert_eq!(words(source), ["a", "l", "<", "'", "m", ">", "r", "#", "n"]);
    }

    #[test]
    fn lines_are_counted_through_texts_and_comments() {
        let found = tokens("\"1\n2\" /* 2\n3 */ here\nthere");
        assert_eq!(found, [Token { text: "here".into(), line: 3 }, Token { text: "there".into(), line: 4 }]);
    }

    #[test]
    fn items_for_tests_are_left_out_and_nothing_else() {
        let source = "a #[cfg(test)] mod tests { fn f() { g(); } } b #[cfg(test)] use c::{d, e}; f \
                      #[cfg(not(test))] h #[cfg(test)] #[derive(X)] struct S([u8; 4]); i";
        let kept: Vec<String> = without_tests(&tokens(source)).into_iter().map(|token| token.text).collect();
        assert_eq!(kept.join(" "), "a b f # [ cfg ( not ( test ) ) ] h i");
    }
}
