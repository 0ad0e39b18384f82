//! From tokens to a tree. What can be seen to make no sense for any message is refused here.

use crate::stomp::selector::expression::{Comparison, Expression, Operator, Type};
use crate::stomp::selector::lexer::{Token, Word, Wrong, tokens};
use crate::stomp::selector::like::Like;
use crate::stomp::selector::{DEPTH_MAX, NODES_MAX};

/// Reads a whole selector.
pub(super) fn parse(text: &str) -> Result<Expression, Wrong> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, nodes: 0 };
    let root = parser.disjunction()?;
    parser.must_be(0, &root, Type::Boolean, "a selector is a condition")?;
    match parser.peek() {
        Token::End => Ok(root),
        _ => Err(parser.wrong("here the selector should end")),
    }
}

struct Parser {
    /// The last is the end.
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    nodes: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn wrong(&self, problem: impl Into<String>) -> Wrong {
        (self.at(), problem.into())
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn take_if(&mut self, token: &Token) -> bool {
        let is = self.peek() == token;
        self.next += usize::from(is);
        is
    }

    fn word(&mut self, word: Word) -> bool {
        self.take_if(&Token::Word(word))
    }

    fn symbol(&mut self, symbol: &'static str) -> bool {
        self.take_if(&Token::Symbol(symbol))
    }

    fn one_of<T: Copy>(&mut self, symbols: &[(&'static str, T)]) -> Option<T> {
        symbols.iter().find(|(symbol, _)| self.symbol(symbol)).map(|(_, meaning)| *meaning)
    }

    fn count(&mut self) -> Result<(), Wrong> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.wrong(format!("a selector may have no more than {NODES_MAX} parts")));
        }
        Ok(())
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Parser) -> Result<T, Wrong>) -> Result<T, Wrong> {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong(format!("a selector may be nested no deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn must_be(&self, at: usize, expression: &Expression, kind: Type, problem: &str) -> Result<(), Wrong> {
        match expression.kind() {
            Type::Any => Ok(()),
            known if known == kind => Ok(()),
            _ => Err((at, problem.to_owned())),
        }
    }

    fn disjunction(&mut self) -> Result<Expression, Wrong> {
        self.chain(Word::Or, Parser::conjunction, Expression::Or)
    }

    fn conjunction(&mut self) -> Result<Expression, Wrong> {
        self.chain(Word::And, Parser::negation, Expression::And)
    }

    fn chain(
        &mut self,
        word: Word,
        part: fn(&mut Parser) -> Result<Expression, Wrong>,
        make: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, Wrong> {
        let at = self.at();
        let first = part(self)?;
        if *self.peek() != Token::Word(word) {
            return Ok(first);
        }
        let problem = "what is joined by AND and OR are conditions";
        self.must_be(at, &first, Type::Boolean, problem)?;
        let mut parts = vec![first];
        while self.word(word) {
            self.count()?;
            let at = self.at();
            let next = part(self)?;
            self.must_be(at, &next, Type::Boolean, problem)?;
            parts.push(next);
        }
        Ok(make(parts))
    }

    fn negation(&mut self) -> Result<Expression, Wrong> {
        if !self.word(Word::Not) {
            return self.predicate();
        }
        self.count()?;
        let at = self.at();
        let inner = self.deeper(Parser::negation)?;
        self.must_be(at, &inner, Type::Boolean, "what follows NOT is a condition")?;
        Ok(Expression::Not(Box::new(inner)))
    }

    fn predicate(&mut self) -> Result<Expression, Wrong> {
        let at = self.at();
        let left = self.sum()?;
        let comparisons = [
            ("=", Comparison::Equal),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        if let Some(comparison) = self.one_of(&comparisons) {
            return self.comparison(at, comparison, left);
        }
        let negated = self.word(Word::Not);
        let problem = "only an identifier can stand before IN, LIKE and IS";
        let name = match &left {
            Expression::Property(name) => Ok(name.clone()),
            _ => Err((at, problem.to_owned())),
        };
        let found = if self.word(Word::Between) {
            self.between(at, left)?
        } else if self.word(Word::In) {
            self.list(name?)?
        } else if self.word(Word::Like) {
            self.like(name?)?
        } else if negated {
            return Err(self.wrong("BETWEEN, IN or LIKE should follow NOT here"));
        } else if self.word(Word::Is) {
            let negated = self.word(Word::Not);
            if !self.word(Word::Null) {
                return Err(self.wrong("NULL should follow IS"));
            }
            self.count()?;
            return Ok(negate_if(negated, Expression::IsNull(name?)));
        } else {
            return Ok(left);
        };
        self.count()?;
        Ok(negate_if(negated, found))
    }

    fn comparison(
        &mut self,
        at: usize,
        comparison: Comparison,
        left: Expression,
    ) -> Result<Expression, Wrong> {
        self.count()?;
        let right_at = self.at();
        let right = self.sum()?;
        if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            let problem = "only numbers have an order; strings and booleans are compared with = and <>";
            self.must_be(at, &left, Type::Number, problem)?;
            self.must_be(right_at, &right, Type::Number, problem)?;
        }
        if left.kind() != Type::Any {
            self.must_be(
                right_at,
                &right,
                left.kind(),
                "the two sides can never be equal: their types differ",
            )?;
        }
        Ok(Expression::Comparison(comparison, Box::new([left, right])))
    }

    fn between(&mut self, at: usize, value: Expression) -> Result<Expression, Wrong> {
        let problem = "BETWEEN is about numbers";
        self.must_be(at, &value, Type::Number, problem)?;
        let at = self.at();
        let low = self.sum()?;
        self.must_be(at, &low, Type::Number, problem)?;
        if !self.word(Word::And) {
            return Err(self.wrong("AND should follow the lower bound of BETWEEN"));
        }
        let at = self.at();
        let high = self.sum()?;
        self.must_be(at, &high, Type::Number, problem)?;
        Ok(Expression::Between(Box::new([value, low, high])))
    }

    fn list(&mut self, name: Box<str>) -> Result<Expression, Wrong> {
        if !self.symbol("(") {
            return Err(self.wrong("a list in parentheses should follow IN"));
        }
        let mut list = Vec::new();
        loop {
            self.count()?;
            list.push(self.text("IN lists strings")?);
            if self.symbol(")") {
                return Ok(Expression::In(name, list));
            }
            if !self.symbol(",") {
                return Err(self.wrong("a comma or the end of the list should follow"));
            }
        }
    }

    fn like(&mut self, name: Box<str>) -> Result<Expression, Wrong> {
        let at = self.at();
        let pattern = self.text("a string should follow LIKE")?;
        let mut escape = None;
        if self.word(Word::Escape) {
            let at = self.at();
            let text = self.text("a string should follow ESCAPE")?;
            let mut characters = text.chars();
            escape = characters.next();
            if escape.is_none() || characters.next().is_some() {
                return Err((at, "ESCAPE takes one character".to_owned()));
            }
        }
        let like = Like::parse(&pattern, escape).map_err(|problem| (at, problem))?;
        Ok(Expression::Like(name, Box::new(like)))
    }

    fn text(&mut self, problem: &str) -> Result<Box<str>, Wrong> {
        match self.peek() {
            Token::Text(text) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.wrong(problem)),
        }
    }

    fn sum(&mut self) -> Result<Expression, Wrong> {
        self.arithmetic(&[("+", Operator::Add), ("-", Operator::Subtract)], Parser::product)
    }

    fn product(&mut self) -> Result<Expression, Wrong> {
        self.arithmetic(&[("*", Operator::Multiply), ("/", Operator::Divide)], Parser::sign)
    }

    fn arithmetic(
        &mut self,
        operators: &[(&'static str, Operator)],
        part: fn(&mut Parser) -> Result<Expression, Wrong>,
    ) -> Result<Expression, Wrong> {
        let at = self.at();
        let first = part(self)?;
        let problem = "only numbers can be calculated with";
        let mut rest = Vec::new();
        while let Some(operator) = self.one_of(operators) {
            self.count()?;
            let at = self.at();
            let operand = part(self)?;
            self.must_be(at, &operand, Type::Number, problem)?;
            rest.push((operator, operand));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        self.must_be(at, &first, Type::Number, problem)?;
        Ok(Expression::Arithmetic(Box::new(first), rest))
    }

    fn sign(&mut self) -> Result<Expression, Wrong> {
        let Some(negative) = self.one_of(&[("-", true), ("+", false)]) else { return self.primary() };
        self.count()?;
        let at = self.at();
        let inner = self.deeper(Parser::sign)?;
        self.must_be(at, &inner, Type::Number, "only a number has a sign")?;
        Ok(match inner {
            inner if !negative => Expression::Arithmetic(Box::new(inner), Vec::new()),
            Expression::Integer(integer) => Expression::Integer(-integer),
            Expression::Float(float) => Expression::Float(-float),
            inner => Expression::Negative(Box::new(inner)),
        })
    }

    fn primary(&mut self) -> Result<Expression, Wrong> {
        self.count()?;
        let at = self.at();
        match self.take() {
            Token::Identifier(name) if name.is_empty() => Err((at, "an identifier is not empty".to_owned())),
            Token::Identifier(name) => Ok(Expression::Property(name)),
            Token::Text(text) => Ok(Expression::Text(text)),
            Token::Integer(integer) => Ok(Expression::Integer(integer)),
            Token::Float(float) => Ok(Expression::Float(float)),
            Token::Word(Word::True) => Ok(Expression::Boolean(true)),
            Token::Word(Word::False) => Ok(Expression::Boolean(false)),
            Token::Symbol("(") => {
                let inner = self.deeper(Parser::disjunction)?;
                if !self.symbol(")") {
                    return Err(self.wrong("a closing parenthesis is missing"));
                }
                Ok(inner)
            }
            Token::End => Err((at, "the selector ends too early".to_owned())),
            Token::Symbol(_) | Token::Word(_) => Err((at, "a value should stand here".to_owned())),
        }
    }
}

fn negate_if(negated: bool, expression: Expression) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}
