//! Selectors: which messages a subscription wants, as JMS defines it out of SQL-92.
//!
//! ```text
//! selector   = term *( OR term )                 term      = factor *( AND factor )
//! factor     = NOT factor / predicate
//! predicate  = sum [ ( "=" / "<>" / "<" / "<=" / ">" / ">=" ) sum
//!                  / [NOT] BETWEEN sum AND sum
//!                  / [NOT] IN "(" string *( "," string ) ")"       after an identifier
//!                  / [NOT] LIKE string [ ESCAPE string ]           after an identifier
//!                  / IS [NOT] NULL ]                               after an identifier
//! sum        = product *( ( "+" / "-" ) product )
//! product    = sign *( ( "*" / "/" ) sign )      sign      = *( "+" / "-" ) primary
//! primary    = identifier / number / string / TRUE / FALSE / "(" selector ")"
//! ```
//!
//! Words are case-insensitive, identifiers are not. Identifiers and numbers are Java's. An identifier that Java
//! would not allow stands in double quotes, as in SQL (`"content-type"`); JMS has no such thing.
//!
//! Logic has three values: what is compared to a property that is not there is unknown, and a message is
//! selected only when the whole is true. Nothing is converted: two values of different types are not equal,
//! nor in any order, which is false and not unknown. The headers of STOMP are strings, hence `age > 18` selects
//! nothing; `convert_string_expressions:age > 18` does. It is ActiveMQ's way to say that strings which look like
//! numbers, or like `true` and `false`, are to be read as such where they meet one.
//!
//! Limits: [`BYTES_MAX`], [`NODES_MAX`], [`DEPTH_MAX`] and [`LIKE_LENGTH_MAX`] for what is parsed,
//! [`STEPS_MAX`] for each evaluation. One that takes longer is unknown.

mod expression;
mod lexer;
mod like;
mod parser;

use std::fmt;

use self::expression::{Evaluation, Expression};

/// The length of a selector.
pub const BYTES_MAX: usize = 4096;

/// How many operators, identifiers and literals a selector may have.
pub const NODES_MAX: usize = 256;

/// How deep parentheses, NOT and signs may be nested.
pub const DEPTH_MAX: usize = 32;

/// The characters of a pattern of LIKE that are not `%`: so that it is matched in one pass.
pub const LIKE_LENGTH_MAX: usize = 127;

/// What one evaluation may cost: a step for each node, and for each character that is looked at.
pub const STEPS_MAX: usize = 16_384;

/// What a selector begins with that reads strings as numbers where they meet one.
const CONVERTING: &str = "convert_string_expressions:";

/// A selector.
#[derive(Clone, Debug)]
pub struct Selector {
    root: Expression,
    converts: bool,
}

/// What a property of a message is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A string.
    Text(&'a str),
    /// A number that is exact.
    Integer(i64),
    /// A number that is not.
    Float(f64),
    /// True or false.
    Boolean(bool),
}

/// Where a selector finds the properties of a message.
pub trait Properties {
    /// The property of that name, if there is one.
    fn get(&self, name: &str) -> Option<Value<'_>>;
}

/// What came of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: unknown.
    pub truth: Option<bool>,
    /// What it cost; no more than [`STEPS_MAX`].
    pub steps: usize,
}

/// What is wrong with a selector, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSelector {
    /// The character that is the first not to fit, counted from 1.
    pub position: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for InvalidSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.position, self.problem)
    }
}

impl std::error::Error for InvalidSelector {}

impl Selector {
    /// Reads a selector.
    ///
    /// ```
    /// use tandem_protocols::stomp::selector::Selector;
    ///
    /// assert!(Selector::parse("colour IN ('red', 'blue') AND region LIKE 'eu-%'").is_ok());
    /// assert_eq!(Selector::parse("colour = ").unwrap_err().position, 10);
    /// ```
    pub fn parse(text: &str) -> Result<Selector, InvalidSelector> {
        if text.len() > BYTES_MAX {
            let problem = format!("a selector may have no more than {BYTES_MAX} bytes");
            return Err(InvalidSelector { position: BYTES_MAX, problem });
        }
        let (converts, expression) = match text.strip_prefix(CONVERTING) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let root = parser::parse(expression).map_err(|(offset, problem)| {
            let before = &text[..text.len() - expression.len() + offset];
            InvalidSelector { position: before.chars().count() + 1, problem }
        })?;
        Ok(Selector { root, converts })
    }

    /// Whether it selects a message with these properties.
    pub fn selects(&self, properties: &dyn Properties) -> bool {
        self.evaluate(properties).truth == Some(true)
    }

    /// The same, with what it cost.
    pub fn evaluate(&self, properties: &dyn Properties) -> Verdict {
        let mut evaluation = Evaluation::new(properties, self.converts, STEPS_MAX);
        let truth = evaluation.truth(&self.root);
        Verdict { truth, steps: evaluation.steps() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    struct Message(HashMap<&'static str, Value<'static>>);

    impl Properties for Message {
        fn get(&self, name: &str) -> Option<Value<'_>> {
            self.0.get(name).copied()
        }
    }

    fn message() -> Message {
        Message(HashMap::from([
            ("country", Value::Text("UK")),
            ("phone", Value::Text("12993")),
            ("word", Value::Text("lose")),
            ("underscored", Value::Text("_foo")),
            ("percent", Value::Text("100%")),
            ("age", Value::Integer(17)),
            ("weight", Value::Float(2.5)),
            ("old", Value::Boolean(false)),
            ("digits", Value::Text("21")),
            ("yes", Value::Text("true")),
            ("content-type", Value::Text("text/plain")),
            ("quote", Value::Text("it's")),
        ]))
    }

    fn truth(selector: &str) -> Option<bool> {
        let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
        parsed.evaluate(&message()).truth
    }

    #[track_caller]
    fn check(table: &[(&str, Option<bool>)]) {
        for (selector, expected) in table {
            assert_eq!(truth(selector), *expected, "{selector}");
        }
    }

    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);
    const UNKNOWN: Option<bool> = None;

    #[test]
    fn the_examples_of_jms_hold() {
        check(&[
            ("age BETWEEN 15 AND 19", YES),
            ("age NOT BETWEEN 15 AND 19", NO),
            ("age >= 15 AND age <= 19", YES),
            ("country IN ('UK', 'US', 'France')", YES),
            ("country NOT IN ('UK', 'US')", NO),
            ("country in ('Peru')", NO),
            ("phone LIKE '12%3'", YES),
            ("phone NOT LIKE '12%3'", NO),
            ("word LIKE 'l_se'", YES),
            ("underscored LIKE '\\_%' ESCAPE '\\'", YES),
            ("word LIKE '\\_%' ESCAPE '\\'", NO),
            ("percent LIKE '%!%' ESCAPE '!'", YES),
            ("percent LIKE '100!%' ESCAPE '!'", YES),
            ("missing IS NULL", YES),
            ("country IS NOT NULL", YES),
            ("missing IS NOT NULL", NO),
            ("old = FALSE", YES),
            ("NOT old", YES),
            ("quote = 'it''s'", YES),
            ("weight > 2500 OR country <> 'US'", YES),
        ]);
    }

    #[test]
    fn logic_has_three_values() {
        let values = [("age = 17", YES), ("age = 18", NO), ("missing = 1", UNKNOWN)];
        for (left, a) in values {
            assert_eq!(truth(&format!("NOT {left}")), a.map(|a| !a));
            for (right, b) in values {
                let and = if a == NO || b == NO { NO } else { a.and(b) };
                let or = if a == YES || b == YES { YES } else { a.and(b) };
                assert_eq!(truth(&format!("{left} AND {right}")), and, "{left} AND {right}");
                assert_eq!(truth(&format!("{left} OR {right}")), or, "{left} OR {right}");
            }
        }
        check(&[
            ("missing LIKE '%'", UNKNOWN),
            ("missing NOT LIKE '%'", UNKNOWN),
            ("missing IN ('a')", UNKNOWN),
            ("missing NOT IN ('a')", UNKNOWN),
            ("missing BETWEEN 1 AND 2", UNKNOWN),
            ("age BETWEEN missing AND 2", NO),
            ("age BETWEEN missing AND 20", UNKNOWN),
            ("missing + 1 = 2", UNKNOWN),
            ("missing <> 1", UNKNOWN),
            ("missing", UNKNOWN),
        ]);
    }

    #[test]
    fn nothing_is_converted_unless_that_is_asked_for() {
        check(&[
            ("digits = 21", NO),
            ("NOT digits = 21", YES),
            ("digits <> 21", NO),
            ("digits > 18", NO),
            ("digits = '21'", YES),
            ("age = '17'", NO),
            ("digits + 1 = 22", UNKNOWN),
            ("digits BETWEEN 1 AND 30", NO),
            ("yes = TRUE", NO),
            ("yes", UNKNOWN),
            ("age LIKE '1%'", NO),
            ("age = weight", NO),
            ("age > weight", YES),
            ("country < phone", NO),
            ("convert_string_expressions:digits > 18", YES),
            ("convert_string_expressions:digits + 1 = 22", YES),
            ("convert_string_expressions:digits BETWEEN 1 AND 30", YES),
            ("convert_string_expressions:digits = '21'", YES),
            ("convert_string_expressions:digits = '021'", NO),
            ("convert_string_expressions:country > 18", NO),
            ("convert_string_expressions:yes = TRUE AND yes", YES),
        ]);
    }

    #[test]
    fn arithmetic_binds_as_it_should() {
        check(&[
            ("1 + 2 * 3 = 7", YES),
            ("(1 + 2) * 3 = 9", YES),
            ("10 - 4 - 3 = 3", YES),
            ("-age = -17", YES),
            ("- - age = +17", YES),
            ("7 / 2 = 3", YES),
            ("7 / 2. = 3.5", YES),
            ("1 / 0 = 1", UNKNOWN),
            ("1 / 0.0 > 1", YES),
            ("0.0 / 0.0 <> 1", YES),
            ("9223372036854775807 + 1 > 0", UNKNOWN),
            ("0x1F = 31 AND 017 = 15 AND 5L = 5", YES),
            ("7E3 = 7000 AND -57.9E2 < 0 AND .5 = 5e-1 AND 6d = 6", YES),
            ("age = 17 OR age = 18 AND age = 19", YES),
            ("NOT age = 18 AND age = 17", YES),
            ("\"content-type\" = 'text/plain'", YES),
            ("(age = 17) = TRUE", YES),
        ]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (selector, position) in [
            ("", 1),
            ("age", 0),
            ("age =", 6),
            ("age = 1 1", 9),
            ("age + 1", 1),
            ("'a'", 1),
            ("a = 'b", 5),
            ("a = \"b", 5),
            ("a == 1", 4),
            ("é = #", 5),
            ("a < 'x'", 5),
            ("1 = 'x'", 5),
            ("a + 'x' = 1", 5),
            ("a AND 1", 7),
            ("NOT 1", 5),
            ("-'a' = 1", 2),
            ("'a' LIKE 'b'", 1),
            ("a LIKE b", 8),
            ("a LIKE 'b' ESCAPE 'xy'", 19),
            ("a LIKE 'b!' ESCAPE '!'", 8),
            ("a IN ()", 7),
            ("a IN ('x' 'y')", 11),
            ("a IN (1)", 7),
            ("a NOT = 1", 7),
            ("a IS 1", 6),
            ("a BETWEEN 1 OR 2", 13),
            ("(a = 1", 7),
            ("a = 08", 5),
            ("a = 1x", 5),
            ("a = 99999999999999999999", 5),
            ("a = 1e999", 5),
            ("\"\" = 1", 1),
            ("convert_string_expressions:a =", 31),
        ] {
            match Selector::parse(selector) {
                Err(error) => assert_eq!(error.position, position, "{selector}: {error}"),
                Ok(_) => assert_eq!(position, 0, "{selector}"),
            }
        }
    }

    #[test]
    fn each_limit_is_reached() {
        let wrong = |selector: String| Selector::parse(&selector).unwrap_err().problem;
        assert!(wrong(format!("a = '{}'", "x".repeat(BYTES_MAX))).contains("4096"));
        let chain = |parts: usize| vec!["a"; parts].join(" OR ");
        assert!(Selector::parse(&chain(NODES_MAX / 2)).is_ok());
        assert!(wrong(chain(NODES_MAX / 2 + 1)).contains("256"));
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(Selector::parse(&nested(DEPTH_MAX)).is_ok());
        assert!(wrong(nested(DEPTH_MAX + 1)).contains("32"));
        assert!(wrong(format!("{}a", "NOT ".repeat(DEPTH_MAX + 1))).contains("32"));
        assert!(wrong(format!("{}a = 1", "-".repeat(DEPTH_MAX + 1))).contains("32"));
        let like =
            |length: usize| format!("a LIKE '%{}%'", "x_".repeat(length / 2) + &"y".repeat(length % 2));
        assert!(Selector::parse(&like(LIKE_LENGTH_MAX)).is_ok());
        assert!(wrong(like(LIKE_LENGTH_MAX + 1)).contains("127"));
    }

    #[test]
    fn an_evaluation_that_takes_too_long_is_unknown() {
        let long: &'static str = "a".repeat(STEPS_MAX / 2).leak();
        let message = Message(HashMap::from([("a", Value::Text(long))]));
        let once = Selector::parse("a LIKE '%a%a%a%b'").unwrap();
        assert_eq!(once.evaluate(&message).truth, NO);
        let thrice = Selector::parse("a LIKE '%b' OR a LIKE '%b' OR a LIKE '%a'").unwrap();
        assert_eq!(thrice.evaluate(&message), Verdict { truth: UNKNOWN, steps: STEPS_MAX });
    }

    /// LIKE by the book.
    fn like(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|skipped| like(rest, &text[skipped..])),
            [c, rest @ ..] => {
                text.first().is_some_and(|first| *c == '_' || c == first) && like(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_or_the_evaluation_panic(text in any::<String>()) {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert!(selector.evaluate(&message()).steps <= STEPS_MAX);
            }
        }

        #[test]
        fn nor_does_anything_made_of_tokens(words in prop::collection::vec(prop::sample::select(vec![
            "age", "digits", "country", "missing", "old", "'x'", "'1%_'", "1", "2.5", "0x7fffffffffffffff", "TRUE",
            "AND", "OR", "NOT", "BETWEEN", "IN", "LIKE", "ESCAPE", "IS", "NULL", "=", "<>", "<", ">=", "+", "-", "*",
            "/", "(", ")", ",", "convert_string_expressions:",
        ]), 0..24)) {
            let text = words.join(" ");
            if let Ok(selector) = Selector::parse(&text) {
                let verdict = selector.evaluate(&message());
                prop_assert!(verdict.steps <= STEPS_MAX);
                let negated = Selector::parse(&format!("NOT ({text})"));
                if let Ok(negated) = negated {
                    prop_assert_eq!(negated.evaluate(&message()).truth, verdict.truth.map(|truth| !truth));
                }
            }
        }

        #[test]
        fn like_does_what_the_book_says(pattern in "[ab%_]{0,8}", text in "[ab]{0,10}") {
            let selector = Selector::parse(&format!("a LIKE '{pattern}'")).unwrap();
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = like(&chars(&pattern), &chars(&text));
            let message = Message(HashMap::from([("a", Value::Text(text.leak()))]));
            prop_assert_eq!(selector.evaluate(&message).truth, Some(expected));
        }
    }
}
