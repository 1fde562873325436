//! Splits an expression's text into tokens.

use crate::error::Issue;

/// Words kept for languages that expressions may be translated to.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a word cannot be a name: it means something, or it is kept.
pub fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || RESERVED.contains(&word)
}

/// One token and where it starts, in characters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub offset: usize,
    pub kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenKind {
    Identifier(String),
    /// `in`, `true`, `false` and `null`, an operator or a bracket.
    Symbol(&'static str),
    Int(String),
    Uint(String),
    Double(String),
    Text(String),
    Bytes(Vec<u8>),
    End,
}

impl TokenKind {
    /// The token as messages show it.
    pub fn shown(&self) -> String {
        match self {
            Self::Identifier(text) | Self::Int(text) | Self::Uint(text) | Self::Double(text) => text.clone(),
            Self::Symbol(text) => (*text).to_owned(),
            Self::Text(text) => format!("{text:?}"),
            Self::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
            Self::End => "<EOF>".to_owned(),
        }
    }
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%",
    "<", ">", "=",
];
const KEYWORDS: [&str; 4] = ["in", "true", "false", "null"];

struct Lexer<'t> {
    chars: &'t [char],
    at: usize,
}

/// All tokens of a text; the last is [`TokenKind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, Vec<Issue>> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let mut tokens = Vec::new();
    let mut issues = Vec::new();
    loop {
        lexer.skip_blank();
        let offset = lexer.at;
        match lexer.token() {
            Ok(kind) => {
                let end = kind == TokenKind::End;
                tokens.push(Token { offset, kind });
                if end {
                    break;
                }
            }
            Err(message) => {
                issues.push(Issue { offset, message });
                lexer.at = lexer.at.max(offset + 1);
            }
        }
    }
    if issues.is_empty() { Ok(tokens) } else { Err(issues) }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(n, c)| self.peek(n) == Some(c))
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek(0) {
            if self.starts_with("//") {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn token(&mut self) -> Result<TokenKind, String> {
        let Some(c) = self.peek(0) else { return Ok(TokenKind::End) };
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return Ok(self.number());
        }
        if let Some(prefix) = self.quote_prefix() {
            return self.quoted(prefix);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            let keyword = KEYWORDS.iter().find(|keyword| **keyword == word);
            return Ok(keyword.map_or(TokenKind::Identifier(word), |keyword| TokenKind::Symbol(keyword)));
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| self.starts_with(symbol))
            && *symbol != "="
        {
            self.at += symbol.len();
            return Ok(TokenKind::Symbol(symbol));
        }
        self.at += 1;
        Err(format!("Syntax error: token recognition error at: '{c}'"))
    }

    fn digits(&mut self) {
        while self.peek(0).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> TokenKind {
        let start = self.at;
        let mut double = false;
        if self.starts_with("0x") && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit()) {
            self.at += 2;
            while self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                self.at += 1;
            }
        } else {
            self.digits();
            if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                double = true;
                self.at += 1;
                self.digits();
            }
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                double = true;
                self.at += 1 + sign;
                self.digits();
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if double {
            return TokenKind::Double(text);
        }
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return TokenKind::Uint(text);
        }
        TokenKind::Int(text)
    }

    /// The letters before a quote: whether the literal is raw, whether it is bytes, and how long they are.
    fn quote_prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes, mut length) = (false, false, 0);
        loop {
            match self.peek(length)? {
                '"' | '\'' => return Some((raw, bytes, length)),
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes && !raw => bytes = true,
                _ => return None,
            }
            length += 1;
        }
    }

    fn quoted(&mut self, (raw, bytes, length): (bool, bool, usize)) -> Result<TokenKind, String> {
        self.at += length;
        let quote = self.peek(0).unwrap_or('"');
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let mut literal = Vec::new();
        loop {
            let Some(c) = self.peek(0) else {
                return Err(format!("Syntax error: token recognition error at: '{quote}'"));
            };
            if (0..width).all(|n| self.peek(n) == Some(quote)) {
                self.at += width;
                break;
            }
            if !triple && matches!(c, '\n' | '\r') {
                return Err(format!("Syntax error: token recognition error at: '{quote}'"));
            }
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(bytes, &mut literal)?;
            } else if c == '\\' && self.peek(0) == Some(quote) {
                // In a raw literal the backslash stays, yet the quote after it does not end the literal.
                literal.extend([b'\\', quote as u8]);
                self.at += 1;
            } else {
                literal.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok(TokenKind::Bytes(literal));
        }
        String::from_utf8(literal).map(TokenKind::Text).map_err(|_| "Syntax error: invalid text literal".to_owned())
    }

    fn escape(&mut self, bytes: bool, literal: &mut Vec<u8>) -> Result<(), String> {
        let unable = || "Syntax error: unable to unescape string".to_owned();
        let c = self.peek(0).ok_or_else(unable)?;
        self.at += 1;
        let simple = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => c as u8,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (radix, count) = match c {
                    'x' | 'X' => (16, 2),
                    'u' => (16, 4),
                    'U' => (16, 8),
                    _ => (8, 3),
                };
                if radix == 8 {
                    self.at -= 1;
                }
                let mut code = 0;
                for _ in 0..count {
                    let digit = self.peek(0).and_then(|c| c.to_digit(radix)).ok_or_else(unable)?;
                    code = code * radix + digit;
                    self.at += 1;
                }
                if !bytes {
                    let c = char::from_u32(code).ok_or_else(unable)?;
                    literal.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                    return Ok(());
                }
                if matches!(c, 'u' | 'U') {
                    return Err(unable());
                }
                u8::try_from(code).map_err(|_| unable())?
            }
            _ => return Err(unable()),
        };
        literal.push(simple);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<TokenKind> {
        tokens(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn numbers_quotes_and_escapes_are_read() {
        assert_eq!(
            kinds(r#"1 0x1F 2u 1.5e3 .5 'a\n' r"\d" b"\xff" '''x'y'''"#),
            [
                TokenKind::Int("1".into()),
                TokenKind::Int("0x1F".into()),
                TokenKind::Uint("2".into()),
                TokenKind::Double("1.5e3".into()),
                TokenKind::Double(".5".into()),
                TokenKind::Text("a\n".into()),
                TokenKind::Text("\\d".into()),
                TokenKind::Bytes(vec![255]),
                TokenKind::Text("x'y".into()),
                TokenKind::End,
            ]
        );
    }

    #[test]
    fn an_unknown_character_is_named() {
        let issues = tokens("a & b").unwrap_err();
        assert_eq!(issues[0].message, "Syntax error: token recognition error at: '&'");
        assert_eq!(issues[0].offset, 2);
    }
}
