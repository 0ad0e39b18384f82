//! From characters to tokens: JMS's literals and identifiers, which are Java's and SQL's.

use std::iter::Peekable;
use std::str::CharIndices;

/// What is wrong, and at which byte.
pub(super) type Wrong = (usize, String);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Identifier(Box<str>),
    Text(Box<str>),
    Integer(i64),
    Float(f64),
    Word(Word),
    /// `=` and so on: one or two characters.
    Symbol(&'static str),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

const WORDS: [(&str, Word); 11] = [
    ("AND", Word::And),
    ("BETWEEN", Word::Between),
    ("ESCAPE", Word::Escape),
    ("FALSE", Word::False),
    ("IN", Word::In),
    ("IS", Word::Is),
    ("LIKE", Word::Like),
    ("NOT", Word::Not),
    ("NULL", Word::Null),
    ("OR", Word::Or),
    ("TRUE", Word::True),
];

/// Longer ones first.
const SYMBOLS: [&str; 13] = ["<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "(", ")", ","];

/// All tokens of a text with their places, and the end.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Wrong> {
    let mut tokens = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some(&(at, first)) = rest.peek() {
        let token = match first {
            _ if first.is_whitespace() => {
                rest.next();
                continue;
            }
            '\'' => Token::Text(quoted(&mut rest, at, "a string")?),
            '"' => Token::Identifier(quoted(&mut rest, at, "an identifier")?),
            _ if starts_identifier(first) => {
                word_or_identifier(take_while(text, &mut rest, continues_identifier))
            }
            _ if first.is_ascii_digit() || first == '.' => number(text, at, &mut rest)?,
            _ => symbol(text, at, &mut rest)?,
        };
        tokens.push((at, token));
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn starts_identifier(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

fn continues_identifier(c: char) -> bool {
    starts_identifier(c) || c.is_numeric()
}

fn take_while<'a>(text: &'a str, rest: &mut Peekable<CharIndices<'_>>, is: impl Fn(char) -> bool) -> &'a str {
    let start = rest.peek().map_or(text.len(), |(at, _)| *at);
    while rest.next_if(|(_, c)| is(*c)).is_some() {}
    let end = rest.peek().map_or(text.len(), |(at, _)| *at);
    &text[start..end]
}

fn word_or_identifier(text: &str) -> Token {
    let word = WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(text));
    word.map_or_else(|| Token::Identifier(text.into()), |(_, word)| Token::Word(*word))
}

/// What stands between two quotes; a quote in it is doubled.
fn quoted(rest: &mut Peekable<CharIndices<'_>>, at: usize, what: &str) -> Result<Box<str>, Wrong> {
    let Some((_, quote)) = rest.next() else { return Err((at, format!("{what} does not begin"))) };
    let mut value = String::new();
    while let Some((_, c)) = rest.next() {
        if c != quote || rest.next_if(|(_, next)| *next == quote).is_some() {
            value.push(c);
            continue;
        }
        return Ok(value.into());
    }
    Err((at, format!("{what} is not closed")))
}

fn symbol(text: &str, at: usize, rest: &mut Peekable<CharIndices<'_>>) -> Result<Token, Wrong> {
    let known = SYMBOLS.iter().find(|symbol| text[at..].starts_with(**symbol));
    let known = known.ok_or_else(|| (at, "this character has no meaning here".to_owned()))?;
    known.chars().for_each(|_| {
        rest.next();
    });
    Ok(Token::Symbol(known))
}

/// Java's literals: `0x1F`, `017`, `15L`; `7.`, `.5`, `-5.7E2`, `1d`.
fn number(text: &str, at: usize, rest: &mut Peekable<CharIndices<'_>>) -> Result<Token, Wrong> {
    let mut literal = take_while(text, rest, |c| c.is_ascii_alphanumeric() || c == '.').to_owned();
    let is_hex = literal.starts_with("0x") || literal.starts_with("0X");
    if !is_hex && literal.ends_with(['e', 'E']) && matches!(rest.peek(), Some((_, '+' | '-'))) {
        literal.extend(rest.next().map(|(_, sign)| sign));
        literal.push_str(take_while(text, rest, |c| c.is_ascii_alphanumeric()));
    }
    let wrong = || (at, format!("'{literal}' is not a number, or too large"));
    if !is_hex && literal.contains(['.', 'e', 'E', 'f', 'F', 'd', 'D']) {
        let digits = literal.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(&literal);
        let plain =
            digits.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
        let float = digits.parse::<f64>().ok().filter(|float| plain && float.is_finite());
        return float.map(Token::Float).ok_or_else(wrong);
    }
    let digits = literal.strip_suffix(['l', 'L']).unwrap_or(&literal);
    let integer = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => i64::from_str_radix(&digits[2..], 16),
        [b'0', _, ..] => i64::from_str_radix(&digits[1..], 8),
        _ => digits.parse(),
    };
    integer.map(Token::Integer).map_err(|_| wrong())
}
