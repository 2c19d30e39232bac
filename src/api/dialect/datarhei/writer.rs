//! A JSON writer that puts the bytes where Core's encoder puts them.

use crate::api::dialect::datarhei::number;

/// Writes one JSON value.
pub struct Writer {
    out: Vec<u8>,
    pretty: bool,
    depth: usize,
    /// Nothing stands in the open object or list yet.
    empty: bool,
}

impl Writer {
    /// Indented by two blanks if `pretty`.
    #[must_use]
    pub fn new(pretty: bool) -> Self {
        Self { out: Vec::new(), pretty, depth: 0, empty: true }
    }

    /// The bytes, with the one newline at the end.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'\n');
        self.out
    }

    /// An object; `members` writes each as [`key`](Self::key) and a value.
    pub fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.nested(b'{', b'}', members);
    }

    /// A list; `items` writes each as [`item`](Self::item) and a value.
    pub fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.nested(b'[', b']', items);
    }

    /// Begins a member.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.key_bytes(name.as_bytes())
    }

    /// Begins a member whose name is whatever bytes.
    pub fn key_bytes(&mut self, name: &[u8]) -> &mut Self {
        self.item();
        self.bytes(name);
        self.out.extend_from_slice(if self.pretty { b": " } else { b":" });
        self
    }

    /// Begins an item.
    pub fn item(&mut self) -> &mut Self {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.line();
        self
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A whole number.
    pub fn whole(&mut self, number: u64) {
        self.out.extend_from_slice(number.to_string().as_bytes());
    }

    /// A number in Core's format.
    pub fn number(&mut self, number: f64) {
        number::write(&mut self.out, number);
    }

    fn nested(&mut self, open: u8, close: u8, inside: impl FnOnce(&mut Self)) {
        self.out.push(open);
        self.depth += 1;
        self.empty = true;
        inside(self);
        self.depth -= 1;
        if !self.empty {
            self.line();
        }
        self.empty = false;
        self.out.push(close);
    }

    fn line(&mut self) {
        if self.pretty {
            self.out.push(b'\n');
            self.out.extend(std::iter::repeat_n(b' ', self.depth * 2));
        }
    }

    /// A text with Go's escapes: those that HTML needs too, and each byte that is not UTF-8 as `\ufffd`.
    fn bytes(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' => self.out.extend_from_slice(b"\\\""),
                    '\\' => self.out.extend_from_slice(b"\\\\"),
                    '\n' => self.out.extend_from_slice(b"\\n"),
                    '\r' => self.out.extend_from_slice(b"\\r"),
                    '\t' => self.out.extend_from_slice(b"\\t"),
                    '\u{8}' => self.out.extend_from_slice(b"\\b"),
                    '\u{c}' => self.out.extend_from_slice(b"\\f"),
                    '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                        self.out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                    }
                    _ => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for _ in chunk.invalid() {
                self.out.extend_from_slice(b"\\ufffd");
            }
        }
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pretty: bool, write: impl FnOnce(&mut Writer)) -> String {
        let mut out = Writer::new(pretty);
        write(&mut out);
        String::from_utf8(out.finish()).unwrap()
    }

    #[test]
    fn check_09_escapes_are_those_of_the_original() {
        let text = written(false, |out| out.text("a&b<c>\"\\\u{2028}\u{1}\n\u{7f}ü"));
        assert_eq!(text, "\"a\\u0026b\\u003cc\\u003e\\\"\\\\\\u2028\\u0001\\n\u{7f}ü\"\n");
        assert_eq!(written(false, |out| out.bytes(b"a\xff\xc3b")), "\"a\\ufffd\\ufffdb\"\n");
    }

    #[test]
    fn check_11_pretty_is_two_blanks_and_nothing_in_what_is_empty() {
        let write = |out: &mut Writer| {
            out.object(|out| {
                out.key("a").list(|_| {});
                out.key("b").object(|out| {
                    out.key("c").list(|out| {
                        out.item().whole(1);
                        out.item().object(|_| {});
                    });
                });
            });
        };
        let pretty = "{\n  \"a\": [],\n  \"b\": {\n    \"c\": [\n      1,\n      {}\n    ]\n  }\n}\n";
        assert_eq!(written(true, write), pretty);
        assert_eq!(written(false, write), "{\"a\":[],\"b\":{\"c\":[1,{}]}}\n");
    }
}
