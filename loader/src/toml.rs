//! The few values that a manifest or an order holds, out of a TOML document.
//!
//! [`toml_parser`] knows the grammar; here its events become pairs of a path and a value. The crate `toml`, which builds
//! trees for `serde` above the same parser, would add 100 KiB to every image: floating-point numbers, dates, and a table
//! type that nothing here asks for.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use toml_parser::decoder::ScalarKind;
use toml_parser::parser::{EventKind, RecursionGuard, ValidateWhitespace, parse_document};
use toml_parser::{ParseError, Source};

/// How deep arrays and inline tables may nest: the parser recurses.
const MAX_DEPTH: u32 = 16;

/// A document. Values of other types, and what is inside arrays, can only be skipped.
pub struct Document<'a> {
    values: Vec<(Vec<Cow<'a, str>>, Value<'a>)>,
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Other,
}

/// Why a value could not be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TomlError {
    /// Not UTF-8.
    #[error("it is not text")]
    Encoding,
    /// Not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The key is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The key is there more than once.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// The value has another type, or does not fit.
    #[error("`{0}` is not {1}")]
    Type(&'static str, &'static str),
}

impl<'a> Document<'a> {
    /// Reads a document. That a table is opened twice, as TOML forbids, is not noticed; see [`TomlError::Twice`] for keys.
    ///
    /// # Errors
    /// [`TomlError::Encoding`], [`TomlError::Syntax`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TomlError> {
        let text = str::from_utf8(bytes).map_err(|_| TomlError::Encoding)?;
        let source = Source::new(text);
        let mut error = None;
        let mut events = Vec::new();
        let mut checked = ValidateWhitespace::new(&mut events, source);
        let mut guarded = RecursionGuard::new(&mut checked, MAX_DEPTH);
        parse_document(&source.lex().into_vec(), &mut guarded, &mut error);

        let mut values = Vec::new();
        // The path of the value to come; all of it up to `table` stays for the next one. `outer`: the same of the tables
        // around an inline table.
        let (mut path, mut table, mut outer) = (Vec::new(), 0, Vec::new());
        let (mut arrays, mut in_array_table) = (0_u32, false);
        for event in &events {
            let Some(raw) = source.get(event) else { continue };
            match event.kind() {
                opens @ (EventKind::StdTableOpen | EventKind::ArrayTableOpen) => {
                    path.clear();
                    in_array_table = matches!(opens, EventKind::ArrayTableOpen);
                }
                EventKind::StdTableClose | EventKind::ArrayTableClose => table = path.len(),
                EventKind::SimpleKey => {
                    let mut key = Cow::Borrowed("");
                    raw.decode_key(&mut key, &mut error);
                    path.push(key);
                }
                EventKind::Scalar => {
                    let mut decoded = Cow::Borrowed("");
                    let value = match raw.decode_scalar(&mut decoded, &mut error) {
                        ScalarKind::String => Value::Text(decoded),
                        ScalarKind::Integer(radix) => {
                            u64::from_str_radix(&decoded, radix.value()).map_or(Value::Other, Value::Number)
                        }
                        _ => Value::Other,
                    };
                    if arrays == 0 && !in_array_table {
                        values.push((path.clone(), value));
                    }
                    path.truncate(table);
                }
                EventKind::InlineTableOpen => {
                    outer.push(table);
                    table = path.len();
                }
                EventKind::InlineTableClose => {
                    table = outer.pop().unwrap_or(0);
                    path.truncate(table);
                }
                EventKind::ArrayOpen => arrays += 1,
                EventKind::ArrayClose => {
                    arrays = arrays.saturating_sub(1);
                    path.truncate(table);
                }
                _ => {}
            }
        }
        match error {
            None => Ok(Self { values }),
            Some(error) => Err(syntax(text, &error)),
        }
    }

    /// The text at `path`, keys separated by dots.
    ///
    /// # Errors
    /// [`TomlError::Missing`], [`TomlError::Twice`], [`TomlError::Type`].
    pub fn text(&self, path: &'static str) -> Result<&str, TomlError> {
        match self.get(path)? {
            Value::Text(text) => Ok(text),
            _ => Err(TomlError::Type(path, "a text")),
        }
    }

    /// The number at `path`, keys separated by dots.
    ///
    /// # Errors
    /// [`TomlError::Missing`], [`TomlError::Twice`]; [`TomlError::Type`] also if it is too large or negative.
    pub fn number<N: TryFrom<u64>>(&self, path: &'static str) -> Result<N, TomlError> {
        match self.get(path)? {
            Value::Number(number) => N::try_from(*number).ok(),
            _ => None,
        }
        .ok_or(TomlError::Type(path, "a number that fits"))
    }

    /// The texts in the table `name` with their keys; none if there is no such table.
    ///
    /// # Errors
    /// [`TomlError::Type`] if it is no table, or one of its values is something else than a text.
    pub fn texts(&self, name: &'static str) -> Result<Vec<(&str, &str)>, TomlError> {
        let mut texts = Vec::new();
        for (keys, value) in &self.values {
            match (&keys[..], value) {
                ([first, key], Value::Text(text)) if first == name => texts.push((&**key, &**text)),
                ([first, ..], _) if first == name => return Err(TomlError::Type(name, "a table of texts")),
                _ => {}
            }
        }
        Ok(texts)
    }

    fn get(&self, path: &'static str) -> Result<&Value<'a>, TomlError> {
        let mut found = self
            .values
            .iter()
            .filter(|(keys, _)| keys.iter().eq(path.split('.')));
        let (_, value) = found.next().ok_or(TomlError::Missing(path))?;
        match found.next() {
            None => Ok(value),
            Some(_) => Err(TomlError::Twice(path)),
        }
    }
}

fn syntax(text: &str, error: &ParseError) -> TomlError {
    let at = error
        .unexpected()
        .or(error.context())
        .map_or(0, |span| span.start());
    TomlError::Syntax {
        line: 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count(),
        message: error.description().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(document: &str, path: &'static str) -> Result<String, TomlError> {
        Document::parse(document.as_bytes())?.text(path).map(String::from)
    }

    fn number(document: &str, path: &'static str) -> Result<u32, TomlError> {
        Document::parse(document.as_bytes())?.number(path)
    }

    #[test]
    fn every_way_to_write_a_path() {
        for document in [
            "[a.b]\nc = 'x'",
            "[a]\nb.c = \"x\"",
            "a.b.c = 'x'",
            "a = { b.c = 'x', d = 1 }",
            "a = { b = { d = [{c = 1}, 2], c = '''x''' } }",
            "y = 1\n[z]\nc = 'no'\n['a'.\"\\u0062\"] # c\nc = \"\\u0078\"\n[b]\nc = 1",
        ] {
            assert_eq!(text(document, "a.b.c").as_deref(), Ok("x"), "{document}");
        }
    }

    #[test]
    fn a_table_of_texts() {
        let pair = |key: &str, text: &str| (String::from(key), String::from(text));
        let texts = |document: &str| {
            let document = Document::parse(document.as_bytes()).expect("TOML");
            let texts = document.texts("t");
            texts.map(|texts| {
                let owned = texts.into_iter().map(|(key, text)| pair(key, text));
                owned.collect::<Vec<_>>()
            })
        };
        assert_eq!(
            texts("a = 1\n[t]\nB = 'x'\n'e.f' = ''\n[u]\ng = 'z'"),
            Ok([pair("B", "x"), pair("e.f", "")].into())
        );
        assert_eq!(texts("a = 1\n[u]\nt = 'x'"), Ok([].into()));
        for wrong in ["[t]\na = 1", "t = 'x'", "[t]\na.b = 'x'"] {
            assert_eq!(
                texts(wrong),
                Err(TomlError::Type("t", "a table of texts")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_elsewhere_is_missing() {
        for document in [
            "'a.b' = 'x'",
            "b = 'x'",
            "a = 'x'",
            "[a.c]\nb = 'x'",
            "a = [{ b = 'x' }]",
            "[[a]]\nb = 'x'",
            "[a]\nc = {d = 1}\n[x]\nb = 'x'",
            "",
        ] {
            assert_eq!(
                text(document, "a.b"),
                Err(TomlError::Missing("a.b")),
                "{document}"
            );
        }
    }

    #[test]
    fn numbers_fit_or_are_refused() {
        for (written, value) in [
            ("7", 7),
            ("+7", 7),
            ("0x1f", 31),
            ("1_000", 1000),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(
                number(&std::format!("n = {written}"), "n"),
                Ok(value),
                "{written}"
            );
        }
        for written in [
            "-1",
            "4294967296",
            "1.0",
            "'1'",
            "[1]",
            "true",
            "1979-05-27",
            "99999999999999999999",
        ] {
            assert!(number(&std::format!("n = {written}"), "n").is_err(), "{written}");
        }
    }

    #[test]
    fn not_toml() {
        assert_eq!(text("a = 'x'\na = 'x'", "a"), Err(TomlError::Twice("a")));
        assert_eq!(Document::parse(b"\xff").err(), Some(TomlError::Encoding));
        for (document, at) in [
            ("a = 'x'\nb =", 2),
            ("a", 1),
            ("a = \"\\q\"", 1),
            ("\n\n[", 3),
            ("a = 1__0", 1),
        ] {
            match Document::parse(document.as_bytes()).err() {
                Some(TomlError::Syntax { line, .. }) => assert_eq!(line, at, "{document:?}"),
                other => panic!("{document:?}: {other:?}"),
            }
        }
        let deep = std::format!("a = {}{}", "[".repeat(2000), "]".repeat(2000));
        assert!(matches!(
            Document::parse(deep.as_bytes()),
            Err(TomlError::Syntax { .. })
        ));
    }

    // The same parser below, another reader above.
    proptest! {
        #[test]
        fn agrees_with_the_crate_toml(document in "([ab]( )?=( )?(1|'x'|\\{b=1\\}|\\[1\\])\n|\\[[ab]\\]\n|[ab]\\.b=2\n|\\[\\[c\\]\\]\n){0,6}") {
            if let Ok(table) = document.parse::<::toml::Table>() {
                let theirs = table.get("a").and_then(|a| a.get("b")).and_then(::toml::Value::as_integer);
                prop_assert_eq!(number(&document, "a.b").ok().map(i64::from), theirs);
                let theirs = table.get("b").and_then(::toml::Value::as_str);
                prop_assert_eq!(text(&document, "b").ok(), theirs.map(String::from));
            }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Document::parse(&bytes);
        }
    }
}
