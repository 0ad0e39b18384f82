//! What a selector says, as a tree, and what comes of it for a message.
//!
//! Chains of AND, OR, + and the like are one node with many parts, so that a tree is no deeper than its
//! parentheses.

use std::borrow::Cow;

use crate::stomp::selector::like::Like;
use crate::stomp::selector::{Properties, Value};

#[derive(Clone, Debug)]
pub(super) enum Expression {
    Property(Box<str>),
    Text(Box<str>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// The first, and what is done with each further one.
    Arithmetic(Box<Expression>, Vec<(Operator, Expression)>),
    Negative(Box<Expression>),
    Comparison(Comparison, Box<[Expression; 2]>),
    /// `a BETWEEN b AND c`.
    Between(Box<[Expression; 3]>),
    In(Box<str>, Vec<Box<str>>),
    Like(Box<str>, Box<Like>),
    IsNull(Box<str>),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What can be known of the type of an expression without a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// That of a property.
    Any,
    Text,
    Number,
    Boolean,
}

impl Expression {
    pub(super) fn kind(&self) -> Type {
        match self {
            Expression::Property(_) => Type::Any,
            Expression::Text(_) => Type::Text,
            Expression::Integer(_)
            | Expression::Float(_)
            | Expression::Arithmetic(..)
            | Expression::Negative(_) => Type::Number,
            Expression::Boolean(_)
            | Expression::Comparison(..)
            | Expression::Between(_)
            | Expression::In(..)
            | Expression::Like(..)
            | Expression::IsNull(_)
            | Expression::Not(_)
            | Expression::And(_)
            | Expression::Or(_) => Type::Boolean,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Exact(i64),
    Approximate(f64),
}

impl Number {
    fn approximate(self) -> f64 {
        match self {
            Number::Exact(integer) => integer as f64,
            Number::Approximate(float) => float,
        }
    }

    fn of(value: Value<'_>) -> Option<Number> {
        match value {
            Value::Integer(integer) => Some(Number::Exact(integer)),
            Value::Float(float) => Some(Number::Approximate(float)),
            Value::Text(_) | Value::Boolean(_) => None,
        }
    }

    fn value(self) -> Value<'static> {
        match self {
            Number::Exact(integer) => Value::Integer(integer),
            Number::Approximate(float) => Value::Float(float),
        }
    }
}

/// An evaluation under way.
pub(super) struct Evaluation<'a> {
    properties: &'a dyn Properties,
    converts: bool,
    steps_max: usize,
    steps: usize,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(properties: &'a dyn Properties, converts: bool, steps_max: usize) -> Evaluation<'a> {
        Evaluation { properties, converts, steps_max, steps: 0 }
    }

    /// What it cost so far.
    pub(super) fn steps(&self) -> usize {
        self.steps.min(self.steps_max)
    }

    /// Pays for something; `None` when there is not enough left, from then on for everything.
    fn pay(&mut self, steps: usize) -> Option<()> {
        self.steps = self.steps.saturating_add(steps);
        (self.steps <= self.steps_max).then_some(())
    }

    /// `None` is unknown.
    pub(super) fn truth(&mut self, expression: &'a Expression) -> Option<bool> {
        self.pay(1)?;
        match expression {
            Expression::Comparison(comparison, sides) => {
                let (left, right) = (self.value(&sides[0]), self.value(&sides[1]));
                self.compare(*comparison, left?, right?)
            }
            Expression::Between(parts) => {
                let [value, low, high] = [&parts[0], &parts[1], &parts[2]].map(|part| self.value(part));
                let above = self.compare_if_known(Comparison::GreaterOrEqual, value, low);
                let below = self.compare_if_known(Comparison::LessOrEqual, value, high);
                and(above, below)
            }
            Expression::In(name, list) => {
                let text = self.text(name)?;
                self.pay(list.len())?;
                Some(text.is_some_and(|text| list.iter().any(|known| **known == *text)))
            }
            Expression::Like(name, like) => match self.text(name)? {
                Some(text) => {
                    self.pay(text.len())?;
                    Some(like.matches(text))
                }
                None => Some(false),
            },
            Expression::IsNull(name) => Some(self.properties.get(name).is_none()),
            Expression::Not(inner) => self.truth(inner).map(|truth| !truth),
            Expression::And(parts) => {
                let mut all = Some(true);
                for part in parts {
                    all = and(all, self.truth(part));
                    if all == Some(false) {
                        break;
                    }
                }
                all
            }
            Expression::Or(parts) => {
                let mut any = Some(false);
                for part in parts {
                    // Or is the negation of And of the negations.
                    any = and(any.map(|truth| !truth), self.truth(part).map(|truth| !truth))
                        .map(|truth| !truth);
                    if any == Some(true) {
                        break;
                    }
                }
                any
            }
            Expression::Property(_)
            | Expression::Boolean(_)
            | Expression::Text(_)
            | Expression::Integer(_)
            | Expression::Float(_)
            | Expression::Arithmetic(..)
            | Expression::Negative(_) => match self.value(expression)? {
                Value::Boolean(truth) => Some(truth),
                Value::Text(text) if self.converts => boolean(text),
                // What is neither true nor false.
                Value::Text(_) | Value::Integer(_) | Value::Float(_) => None,
            },
        }
    }

    /// `None` is NULL.
    fn value(&mut self, expression: &'a Expression) -> Option<Value<'a>> {
        self.pay(1)?;
        match expression {
            Expression::Property(name) => self.properties.get(name),
            Expression::Text(text) => Some(Value::Text(text)),
            Expression::Integer(integer) => Some(Value::Integer(*integer)),
            Expression::Float(float) => Some(Value::Float(*float)),
            Expression::Boolean(truth) => Some(Value::Boolean(*truth)),
            Expression::Arithmetic(first, rest) => {
                let mut result = self.number(first);
                for (operator, operand) in rest {
                    let operand = self.number(operand);
                    result = calculate(*operator, result?, operand?);
                }
                result.map(Number::value)
            }
            Expression::Negative(inner) => match self.number(inner)? {
                Number::Exact(integer) => integer.checked_neg().map(Value::Integer),
                Number::Approximate(float) => Some(Value::Float(-float)),
            },
            Expression::Comparison(..)
            | Expression::Between(_)
            | Expression::In(..)
            | Expression::Like(..)
            | Expression::IsNull(_)
            | Expression::Not(_)
            | Expression::And(_)
            | Expression::Or(_) => self.truth(expression).map(Value::Boolean),
        }
    }

    fn number(&mut self, expression: &'a Expression) -> Option<Number> {
        match self.value(expression)? {
            Value::Text(text) if self.converts => parse_number(text),
            value => Number::of(value),
        }
    }

    /// Unknown if the property is not there; `None` in it if it is no string.
    fn text(&mut self, name: &str) -> Option<Option<&'a str>> {
        match self.properties.get(name)? {
            Value::Text(text) => Some(Some(text)),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(None),
        }
    }

    fn compare_if_known(
        &mut self,
        comparison: Comparison,
        left: Option<Value<'_>>,
        right: Option<Value<'_>>,
    ) -> Option<bool> {
        self.compare(comparison, left?, right?)
    }

    /// What is of another type is false, whatever is asked.
    fn compare(&mut self, comparison: Comparison, left: Value<'_>, right: Value<'_>) -> Option<bool> {
        let (left, right) =
            if self.converts { (convert(left, right), convert(right, left)) } else { (left, right) };
        let equal = match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                self.pay(left.len().min(right.len()))?;
                left == right
            }
            (Value::Boolean(left), Value::Boolean(right)) => left == right,
            _ => match (Number::of(left), Number::of(right)) {
                (Some(left), Some(right)) => return Some(compare_numbers(comparison, left, right)),
                _ => return Some(false),
            },
        };
        Some(match comparison {
            Comparison::Equal => equal,
            Comparison::NotEqual => !equal,
            // JMS orders neither strings nor booleans.
            Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual => {
                false
            }
        })
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// A string as what it is compared with, if it looks like one.
fn convert<'a>(value: Value<'a>, other: Value<'_>) -> Value<'a> {
    let Value::Text(text) = value else { return value };
    let converted = match other {
        Value::Integer(_) | Value::Float(_) => parse_number(text).map(Number::value),
        Value::Boolean(_) => boolean(text).map(Value::Boolean),
        Value::Text(_) => None,
    };
    converted.unwrap_or(value)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// No number of a sensible header is longer; and parsing a longer one would not be a step.
const NUMBER_BYTES_MAX: usize = 64;

fn parse_number(text: &str) -> Option<Number> {
    let text: Cow<'_, str> = text.trim().into();
    let digits = |octet: u8| matches!(octet, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    if text.len() > NUMBER_BYTES_MAX || !text.bytes().all(digits) {
        return None;
    }
    let exact = text.parse().map(Number::Exact);
    exact.or_else(|_| text.parse().map(Number::Approximate)).ok()
}

fn compare_numbers(comparison: Comparison, left: Number, right: Number) -> bool {
    let order = match (left, right) {
        (Number::Exact(left), Number::Exact(right)) => Some(left.cmp(&right)),
        _ => left.approximate().partial_cmp(&right.approximate()),
    };
    match comparison {
        Comparison::Equal => order.is_some_and(|order| order.is_eq()),
        Comparison::NotEqual => order.is_none_or(|order| order.is_ne()),
        Comparison::Less => order.is_some_and(|order| order.is_lt()),
        Comparison::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Comparison::Greater => order.is_some_and(|order| order.is_gt()),
        Comparison::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
    }
}

/// `None` if there is no such number.
fn calculate(operator: Operator, left: Number, right: Number) -> Option<Number> {
    if let (Number::Exact(left), Number::Exact(right)) = (left, right) {
        return match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
        }
        .map(Number::Exact);
    }
    let (left, right) = (left.approximate(), right.approximate());
    Some(Number::Approximate(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
    }))
}
