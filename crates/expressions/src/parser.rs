//! Reads an expression by recursive descent and expands its macros on the way.

use std::sync::Arc;

use crate::ast::{Call, Entry, Expr, Kind, MAX_DEPTH, MAX_NODES};
use crate::error::Issue;
use crate::lexer::{self, Token, TokenKind};
use crate::value::Value;

/// How long an expression may be, in characters.
const MAX_LENGTH: usize = 100_000;
const PRIMARY: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                       BYTES, IDENTIFIER}";

/// A tree, and where each of its parts stands in the text.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub expr: Expr,
    pub offsets: Vec<usize>,
}

pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    pub offsets: Vec<usize>,
}

pub(crate) type Outcome<T> = Result<T, Issue>;

/// Reads a whole text.
pub(crate) fn parse(text: &str) -> Result<Parsed, Vec<Issue>> {
    let length = text.chars().count();
    if length > MAX_LENGTH {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {MAX_LENGTH}");
        return Err(vec![Issue { offset: 0, message }]);
    }
    let mut parser = Parser { tokens: lexer::tokens(text)?, at: 0, depth: 0, offsets: Vec::new() };
    let expr = parser.expression().map_err(|issue| vec![issue])?;
    if *parser.kind() != TokenKind::End {
        return Err(vec![parser.unexpected("<EOF>")]);
    }
    Ok(Parsed { expr, offsets: parser.offsets })
}

impl Parser {
    fn token(&self) -> &Token {
        // The last token is the end, and nothing moves beyond it.
        &self.tokens[self.at]
    }

    fn kind(&self) -> &TokenKind {
        &self.token().kind
    }

    fn offset(&self) -> usize {
        self.token().offset
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.kind(), TokenKind::Symbol(found) if *found == symbol)
    }

    fn take(&mut self, symbol: &str) -> Option<usize> {
        self.is(symbol).then(|| self.advance().offset)
    }

    fn expect(&mut self, symbol: &str) -> Outcome<usize> {
        self.take(symbol).ok_or_else(|| self.unexpected(&format!("'{symbol}'")))
    }

    fn unexpected(&self, expected: &str) -> Issue {
        let found = self.kind().shown();
        let message = format!("Syntax error: mismatched input '{found}' expecting {expected}");
        Issue { offset: self.offset(), message }
    }

    /// A new node at a place of the text.
    pub fn node(&mut self, offset: usize, kind: Kind) -> Outcome<Expr> {
        let id = self.offsets.len();
        self.offsets.push(offset);
        let mut expr = Expr { id, depth: 0, nodes: 0, kind };
        let (mut deepest, mut nodes) = (0, 0);
        expr.children(&mut |child| {
            deepest = deepest.max(child.depth);
            nodes += child.nodes;
        });
        (expr.depth, expr.nodes) = (deepest + 1, nodes + 1);
        if expr.depth > MAX_DEPTH {
            return Err(too_deep(offset));
        }
        if expr.nodes > MAX_NODES {
            return Err(Issue { offset, message: format!("expression node limit exceeded: {MAX_NODES}") });
        }
        Ok(expr)
    }

    /// A call of a function or operator by its name.
    pub fn call(&mut self, offset: usize, function: &str, args: Vec<Expr>) -> Outcome<Expr> {
        let call = Call { function: function.into(), target: None, args, bound: None };
        self.node(offset, Kind::Call(Box::new(call)))
    }

    fn expression(&mut self) -> Outcome<Expr> {
        self.depth += 1;
        // A level of brackets passes a few functions here, so that half the depth of the tree is the same stack.
        if self.depth > MAX_DEPTH / 2 {
            return Err(too_deep(self.offset()));
        }
        let condition = self.logical("||", "_||_")?;
        let expr = match self.take("?") {
            None => condition,
            Some(offset) => {
                let truthy = self.logical("||", "_||_")?;
                self.expect(":")?;
                let falsy = self.expression()?;
                self.call(offset, "_?_:_", vec![condition, truthy, falsy])?
            }
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Chains of `||` and `&&` become balanced trees, so that long ones are not deep.
    fn logical(&mut self, symbol: &str, function: &str) -> Outcome<Expr> {
        let mut terms = Vec::new();
        let mut offsets = Vec::new();
        loop {
            terms.push(if symbol == "||" { self.logical("&&", "_&&_")? } else { self.relation()? });
            match self.take(symbol) {
                Some(offset) => offsets.push(offset),
                None => return self.balanced(function, terms, &offsets),
            }
        }
    }

    fn balanced(&mut self, function: &str, mut terms: Vec<Expr>, offsets: &[usize]) -> Outcome<Expr> {
        if terms.len() == 1
            && let Some(only) = terms.pop()
        {
            return Ok(only);
        }
        let middle = (terms.len() - 1).div_ceil(2);
        let right = terms.split_off(middle);
        let left = self.balanced(function, terms, &offsets[..middle - 1])?;
        let right = self.balanced(function, right, &offsets[middle..])?;
        self.call(offsets[middle - 1], function, vec![left, right])
    }

    fn relation(&mut self) -> Outcome<Expr> {
        let mut left = self.sum()?;
        loop {
            let function = match self.kind() {
                TokenKind::Symbol("==") => "_==_",
                TokenKind::Symbol("!=") => "_!=_",
                TokenKind::Symbol("<") => "_<_",
                TokenKind::Symbol("<=") => "_<=_",
                TokenKind::Symbol(">") => "_>_",
                TokenKind::Symbol(">=") => "_>=_",
                TokenKind::Symbol("in") => "@in",
                _ => return Ok(left),
            };
            let offset = self.advance().offset;
            let right = self.sum()?;
            left = self.call(offset, function, vec![left, right])?;
        }
    }

    fn sum(&mut self) -> Outcome<Expr> {
        let mut left = self.product()?;
        loop {
            let function = match self.kind() {
                TokenKind::Symbol("+") => "_+_",
                TokenKind::Symbol("-") => "_-_",
                _ => return Ok(left),
            };
            let offset = self.advance().offset;
            let right = self.product()?;
            left = self.call(offset, function, vec![left, right])?;
        }
    }

    fn product(&mut self) -> Outcome<Expr> {
        let mut left = self.unary()?;
        loop {
            let function = match self.kind() {
                TokenKind::Symbol("*") => "_*_",
                TokenKind::Symbol("/") => "_/_",
                TokenKind::Symbol("%") => "_%_",
                _ => return Ok(left),
            };
            let offset = self.advance().offset;
            let right = self.unary()?;
            left = self.call(offset, function, vec![left, right])?;
        }
    }

    /// An even number of the same sign cancels out, as in cel-go.
    fn unary(&mut self) -> Outcome<Expr> {
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            let offset = self.offset();
            let mut count = 0;
            while self.is(symbol) && !(symbol == "-" && self.is_negative_number()) {
                self.advance();
                count += 1;
            }
            if count > 0 {
                let operand = self.member()?;
                return if count % 2 == 0 { Ok(operand) } else { self.call(offset, function, vec![operand]) };
            }
        }
        self.member()
    }

    fn is_negative_number(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|token| &token.kind);
        self.is("-") && matches!(next, Some(TokenKind::Int(_) | TokenKind::Double(_)))
    }

    fn member(&mut self) -> Outcome<Expr> {
        let mut expr = self.primary()?;
        loop {
            if let Some(dot) = self.take(".") {
                let optional = self.take("?");
                let (_, name) = self.identifier()?;
                if let Some(optional) = optional {
                    let name = self.node(optional, Kind::Literal(Value::from(name.as_str()).into_owned()))?;
                    expr = self.call(dot, "_?._", vec![expr, name])?;
                } else if self.is("(") {
                    let (open, args) = self.arguments()?;
                    expr = self.method(open, &name, expr, args)?;
                } else {
                    let field = name.into();
                    expr = self.node(dot, Kind::Select { operand: Box::new(expr), field, test: false })?;
                }
            } else if let Some(open) = self.take("[") {
                let function = if self.take("?").is_some() { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                expr = self.call(open, function, vec![expr, index])?;
            } else if self.is("{")
                && let Some(name) = expr.qualified_name()
            {
                let offset = self.advance().offset;
                let entries = self.entries(true)?;
                expr = self.node(offset, Kind::Message { name: name.into(), entries })?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn method(&mut self, open: usize, name: &str, target: Expr, args: Vec<Expr>) -> Outcome<Expr> {
        if let Some(expanded) = self.expand_method(open, name, &target, &args)? {
            return Ok(expanded);
        }
        let call = Call { function: name.into(), target: Some(target), args, bound: None };
        self.node(open, Kind::Call(Box::new(call)))
    }

    fn identifier(&mut self) -> Outcome<(usize, String)> {
        match self.kind() {
            TokenKind::Identifier(_) => {
                let Token { offset, kind } = self.advance();
                Ok((offset, kind.shown()))
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn arguments(&mut self) -> Outcome<(usize, Vec<Expr>)> {
        let open = self.expect("(")?;
        let mut args = Vec::new();
        while !self.is(")") {
            args.push(self.expression()?);
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect(")")?;
        Ok((open, args))
    }

    /// The entries of a map up to the closing brace; those of a message have names for keys.
    fn entries(&mut self, message: bool) -> Outcome<Vec<Entry>> {
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?").is_some();
            let key = if message {
                let (offset, name) = self.identifier()?;
                self.node(offset, Kind::Literal(Value::from(name.as_str()).into_owned()))?
            } else {
                self.expression()?
            };
            self.expect(":")?;
            let value = self.expression()?;
            entries.push(Entry { key, value, optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(entries)
    }

    fn primary(&mut self) -> Outcome<Expr> {
        let offset = self.offset();
        if self.is_negative_number() {
            self.advance();
            let kind = self.advance().kind;
            return self.literal(offset, "-", &kind);
        }
        match self.kind().clone() {
            TokenKind::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("[") => {
                self.advance();
                let (mut elements, mut optional) = (Vec::new(), Vec::new());
                while !self.is("]") {
                    optional.push(self.take("?").is_some());
                    elements.push(self.expression()?);
                    if self.take(",").is_none() {
                        break;
                    }
                }
                self.expect("]")?;
                self.node(offset, Kind::List { elements, optional })
            }
            TokenKind::Symbol("{") => {
                self.advance();
                let entries = self.entries(false)?;
                self.node(offset, Kind::Map(entries))
            }
            TokenKind::Symbol(".") => {
                self.advance();
                let (offset, name) = self.identifier()?;
                self.name(offset, &name)
            }
            TokenKind::Symbol(word @ ("true" | "false")) => {
                self.advance();
                self.node(offset, Kind::Literal(Value::Bool(word == "true")))
            }
            TokenKind::Symbol("null") => {
                self.advance();
                self.node(offset, Kind::Literal(Value::Null))
            }
            TokenKind::Identifier(name) => {
                self.advance();
                self.name(offset, &name)
            }
            TokenKind::Symbol(_) | TokenKind::End => Err(self.unexpected(PRIMARY)),
            kind => {
                self.advance();
                self.literal(offset, "", &kind)
            }
        }
    }

    fn name(&mut self, offset: usize, name: &str) -> Outcome<Expr> {
        if !self.is("(") {
            if lexer::RESERVED.contains(&name) {
                return Err(Issue { offset, message: format!("reserved identifier: {name}") });
            }
            return self.node(offset, Kind::Ident(name.into()));
        }
        let (open, args) = self.arguments()?;
        if let Some(expanded) = self.expand_function(open, name, &args)? {
            return Ok(expanded);
        }
        self.call(open, name, args)
    }

    fn literal(&mut self, offset: usize, sign: &str, kind: &TokenKind) -> Outcome<Expr> {
        let invalid = |what: &str| Issue { offset, message: format!("invalid {what} literal") };
        let signed = |text: &str| format!("{sign}{text}");
        let value = match kind {
            TokenKind::Int(text) => Value::Int(
                match text.strip_prefix("0x") {
                    Some(digits) => i64::from_str_radix(&signed(digits), 16),
                    None => signed(text).parse(),
                }
                .map_err(|_| invalid("int"))?,
            ),
            TokenKind::Uint(text) => Value::Uint(
                match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => text.parse(),
                }
                .map_err(|_| invalid("uint"))?,
            ),
            TokenKind::Double(text) => {
                let value: f64 = signed(text).parse().map_err(|_| invalid("double"))?;
                if value.is_infinite() {
                    return Err(invalid("double"));
                }
                Value::Double(value)
            }
            TokenKind::Text(text) => Value::from(text.as_str()).into_owned(),
            TokenKind::Bytes(bytes) => Value::Bytes(Arc::from(bytes.as_slice())),
            TokenKind::Identifier(_) | TokenKind::Symbol(_) | TokenKind::End => return Err(self.unexpected(PRIMARY)),
        };
        self.node(offset, Kind::Literal(value))
    }
}

fn too_deep(offset: usize) -> Issue {
    Issue { offset, message: format!("expression recursion limit exceeded: {MAX_DEPTH}") }
}
