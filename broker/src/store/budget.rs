//! What a query may make and hold while it runs. The evaluator bounds neither, so the parsed query is changed before it
//! runs: what makes text is measured, and rows are counted where an operator holds them all before it gives out any.
//!
//! Past a budget the query is told to end and has no answer; nothing in it grows from then on. The evaluator looks whether
//! it should end only when it reads a triple, so that is asked with every row that comes from anywhere else, too.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use oxigraph::model::vocab::xsd;
use oxigraph::model::{Literal, NamedNode, Term};
use oxigraph::sparql::{CancellationToken, SparqlEvaluator, Variable};
use spargebra::Query;
use spargebra::algebra::{
    AggregateExpression, AggregateFunction, Expression, Function, GraphPattern, OrderExpression, PropertyPathExpression,
};

use spargebra::term::{NamedNodePattern, TermPattern};

use super::graph::QueryError;

/// Longest text that a function may make.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Longest text that `REPLACE` may look through. Its answer can be as long as the product of text and replacement.
const REPLACE_TEXT_BYTES_MAX: usize = 64 << 10;
/// Longest replacement of `REPLACE`.
const REPLACEMENT_BYTES_MAX: usize = 1 << 10;

const JOIN_TEXTS: &str = "urn:kontor:sparql:join-texts";
const SHORT: &str = "urn:kontor:sparql:short";
const REPLACED: &str = "urn:kontor:sparql:replaced";
const REPLACEMENT: &str = "urn:kontor:sparql:replacement";
const KEEP: &str = "urn:kontor:sparql:keep";
const HOLD: &str = "urn:kontor:sparql:hold";
const GO_ON: &str = "urn:kontor:sparql:go-on";
/// A variable that no query can name: a filter that asks for it stays above the join that it was put on.
const NO_VARIABLE: &str = "held row";

/// The budgets of one query, and how far they are spent.
pub(super) struct Budget {
    made_bytes_max: usize,
    held_values_max: usize,
    made_bytes: AtomicUsize,
    held_values: AtomicUsize,
    broken: AtomicU8,
    end: CancellationToken,
}

const LONG_TEXT: u8 = 1;
const LONG_REPLACE: u8 = 2;
const MUCH_TEXT: u8 = 3;
const MANY_VALUES: u8 = 4;

impl Budget {
    pub(super) fn new(made_bytes_max: usize, held_values_max: usize, end: CancellationToken) -> Arc<Self> {
        let (made_bytes, held_values, broken) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU8::new(0));
        Arc::new(Self { made_bytes_max, held_values_max, made_bytes, held_values, broken, end })
    }

    /// The budget that was passed, if one was: then whatever came out is not the answer.
    pub(super) fn broken(&self) -> Option<QueryError> {
        match self.broken.load(Ordering::Relaxed) {
            LONG_TEXT => Some(QueryError::LongText(self.text_max())),
            LONG_REPLACE => Some(QueryError::LongReplace(REPLACE_TEXT_BYTES_MAX, REPLACEMENT_BYTES_MAX)),
            MUCH_TEXT => Some(QueryError::TooMuchText(self.made_bytes_max)),
            MANY_VALUES => Some(QueryError::TooManyHeld(self.held_values_max)),
            _ => None,
        }
    }

    fn text_max(&self) -> usize {
        TEXT_BYTES_MAX.min(self.made_bytes_max)
    }

    fn passed(&self, what: u8) {
        let _ = self.broken.compare_exchange(0, what, Ordering::Relaxed, Ordering::Relaxed);
        self.end.cancel();
    }

    /// The value, if it is within the limit and nothing was passed before.
    fn within(&self, value: &[Term], max: usize, what: u8) -> Option<Term> {
        let [value] = value else { return None };
        if bytes(value) > max {
            self.passed(what);
        }
        (self.broken.load(Ordering::Relaxed) == 0).then(|| value.clone())
    }

    fn join_texts(&self, parts: &[Term]) -> Option<Term> {
        let [Term::Literal(left), Term::Literal(right)] = parts else { return None };
        if left.value().len() + right.value().len() > self.text_max() {
            self.passed(LONG_TEXT);
        }
        // SPARQL 1.1, 17.4.3.12: only strings, and the language only where it is the same.
        let is_string = |part: &Literal| part.language().is_some() || part.datatype() == xsd::STRING;
        if self.broken.load(Ordering::Relaxed) != 0 || !is_string(left) || !is_string(right) {
            return None;
        }
        let text = format!("{}{}", left.value(), right.value());
        match (left.language(), right.language()) {
            (Some(one), Some(other)) if one == other => {
                Literal::new_language_tagged_literal(text, one).ok().map(Term::from)
            }
            _ => Some(Literal::new_simple_literal(text).into()),
        }
    }

    /// The first value, counted with what is kept beside it.
    fn keep(&self, values: &[Term]) -> Option<Term> {
        let bytes: usize = values.iter().map(bytes).sum();
        if self.made_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.made_bytes_max {
            self.passed(MUCH_TEXT);
        }
        values.first().filter(|_| self.broken.load(Ordering::Relaxed) == 0).cloned()
    }

    /// Ends the evaluation, if it was told to. An error in an expression would only drop the row.
    fn go_on(&self) -> Option<Term> {
        if self.end.is_cancelled() {
            std::panic::resume_unwind(Box::new(Ended));
        }
        Some(Literal::from(true).into())
    }

    fn hold(&self, width: usize) -> Option<Term> {
        if self.held_values.fetch_add(width, Ordering::Relaxed).saturating_add(width) > self.held_values_max {
            self.passed(MANY_VALUES);
        }
        self.go_on()
    }

    /// An evaluator that knows the functions which [`bound`] puts into a query.
    pub(super) fn evaluator(self: &Arc<Self>, query: &Query) -> SparqlEvaluator {
        // A row is as wide as the query has variables.
        let text = query.to_string();
        let name = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
        let names: BTreeSet<String> = text.split(['?', '$']).skip(1).filter_map(name).collect();
        let width = names.len().max(1);
        let with = |evaluator: SparqlEvaluator, name: &str, work: fn(&Self, &[Term], usize) -> Option<Term>| {
            let budget = Arc::clone(self);
            evaluator.with_custom_function(NamedNode::new_unchecked(name), move |values| work(&budget, values, width))
        };
        let evaluator = SparqlEvaluator::new().with_cancellation_token(self.end.clone());
        let evaluator = with(evaluator, JOIN_TEXTS, |budget, values, _| budget.join_texts(values));
        let evaluator = with(evaluator, SHORT, |budget, values, _| budget.within(values, budget.text_max(), LONG_TEXT));
        let evaluator =
            with(evaluator, REPLACED, |budget, values, _| budget.within(values, REPLACE_TEXT_BYTES_MAX, LONG_REPLACE));
        let evaluator = with(evaluator, REPLACEMENT, |budget, values, _| {
            budget.within(values, REPLACEMENT_BYTES_MAX, LONG_REPLACE)
        });
        let evaluator = with(evaluator, KEEP, |budget, values, _| budget.keep(values));
        let evaluator = with(evaluator, GO_ON, |budget, _, _| budget.go_on());
        with(evaluator, HOLD, |budget, _, width| budget.hold(width))
    }
}

/// What unwinds from an evaluation that ends on the way. It is no panic: no hook runs and nothing is printed.
struct Ended;

/// Runs an evaluation whose functions may end it.
pub(super) fn ending<T>(evaluate: impl FnOnce() -> Result<T, QueryError>) -> Result<T, QueryError> {
    // What it touches is its own, and dropped on the way out; the store is read through a snapshot.
    match std::panic::catch_unwind(AssertUnwindSafe(evaluate)) {
        Ok(answer) => answer,
        Err(payload) if payload.is::<Ended>() => Err(QueryError::Cancelled),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Bytes of a term, with its type or language.
pub(super) fn bytes(term: &Term) -> usize {
    match term {
        Term::NamedNode(node) => node.as_str().len(),
        Term::BlankNode(node) => node.as_str().len(),
        Term::Literal(literal) => {
            let about = literal.language().map_or(literal.datatype().as_str().len(), str::len);
            literal.value().len() + about
        }
    }
}

/// The query with its budgets in it.
pub(super) fn bound(query: Query) -> Result<Query, QueryError> {
    let bounds = Bounds::default();
    let pattern = |inner| bounds.pattern(inner);
    let query = match query {
        Query::Select { dataset, pattern: inner, base_iri } => {
            Query::Select { dataset, pattern: pattern(inner), base_iri }
        }
        Query::Construct { template, dataset, pattern: inner, base_iri } => {
            Query::Construct { template, dataset, pattern: pattern(inner), base_iri }
        }
        Query::Describe { dataset, pattern: inner, base_iri } => {
            Query::Describe { dataset, pattern: pattern(inner), base_iri }
        }
        Query::Ask { dataset, pattern: inner, base_iri } => Query::Ask { dataset, pattern: pattern(inner), base_iri },
    };
    match bounds.open_path.into_inner() {
        Some(path) => Err(QueryError::OpenPath(path)),
        None => Ok(query),
    }
}

/// Puts the budgets into a query.
#[derive(Default)]
struct Bounds {
    /// The first path that was found without a place to start from, and cannot be counted.
    open_path: RefCell<Option<String>>,
}

impl Bounds {
    #[expect(clippy::boxed_local, reason = "the algebra is made of boxes")]
    fn boxed(&self, inner: Box<GraphPattern>) -> Box<GraphPattern> {
        Box::new(self.pattern(*inner))
    }

    fn pattern(&self, it: GraphPattern) -> GraphPattern {
        use GraphPattern as P;
        match it {
            // Its rows come from the query, and joining them reads nothing.
            P::Values { .. } => P::Filter { expr: call(GO_ON, Vec::new()), inner: Box::new(it) },
            P::Bgp { .. } | P::Path { .. } | P::Join { .. } => self.join(it),
            P::LeftJoin { left, right, expression: filter } => P::LeftJoin {
                left: self.boxed(left),
                right: held(self.pattern(*right)),
                expression: filter.map(|it| self.expression(it)),
            },
            P::Lateral { left, right } => P::Lateral { left: self.boxed(left), right: self.boxed(right) },
            P::Filter { expr, inner } => P::Filter { expr: self.expression(expr), inner: self.boxed(inner) },
            P::Union { left, right } => P::Union { left: self.boxed(left), right: self.boxed(right) },
            P::Graph { name, inner } => P::Graph { name, inner: self.boxed(inner) },
            P::Extend { inner, variable, expression: value } => {
                P::Extend { inner: self.boxed(inner), variable, expression: self.kept(value) }
            }
            P::Minus { left, right } => P::Minus { left: self.boxed(left), right: held(self.pattern(*right)) },
            P::OrderBy { inner, expression: keys } => {
                let keys = keys.into_iter().map(|key| match key {
                    OrderExpression::Asc(key) => OrderExpression::Asc(self.kept(key)),
                    OrderExpression::Desc(key) => OrderExpression::Desc(self.kept(key)),
                });
                P::OrderBy { expression: keys.collect(), inner: held(self.pattern(*inner)) }
            }
            P::Project { inner, variables } => P::Project { inner: self.boxed(inner), variables },
            P::Distinct { inner } => P::Distinct { inner: held(self.pattern(*inner)) },
            // The evaluator tells rows apart for it, as for `DISTINCT`.
            P::Reduced { inner } => P::Reduced { inner: held(self.pattern(*inner)) },
            P::Slice { inner, start, length } => P::Slice { inner: self.boxed(inner), start, length },
            P::Group { inner, variables, aggregates } => {
                let inner = self.pattern(*inner);
                // Without keys and without sets, an aggregate holds one value, however many rows there are.
                let holds = !variables.is_empty() || aggregates.iter().any(|(_, it)| is_distinct(it));
                let aggregates = aggregates.into_iter().map(|(name, it)| (name, self.aggregate(it))).collect();
                P::Group { inner: if holds { held(inner) } else { Box::new(inner) }, variables, aggregates }
            }
            P::Service { name, inner, silent } => P::Service { name, inner: self.boxed(inner), silent },
        }
    }

    /// Patterns that are joined, taken apart into those that share variables. What shares none is multiplied, row by row, and
    /// one side of it is held: there rows are counted, and nothing is lost, since no order of joins makes a product smaller.
    fn join(&self, it: GraphPattern) -> GraphPattern {
        let mut parts = Vec::new();
        flatten(it, &mut parts);
        let several = parts.len() > 1;
        let mut groups: Vec<(HashSet<String>, Vec<Part>)> = Vec::new();
        for part in parts {
            let mut names = certain(&part);
            let (is_plain, part) = match part {
                GraphPattern::Bgp { .. } | GraphPattern::Path { .. } => (true, part),
                // Patterns in a graph are joined with those outside of it in whichever order is best.
                GraphPattern::Graph { .. } | GraphPattern::Values { .. } => (true, self.pattern(part)),
                part if several => (false, *held(self.pattern(part))),
                part => (false, self.pattern(part)),
            };
            // A triple without variables is there or not: it multiplies nothing.
            let is_ground = names.is_empty() && matches!(part, GraphPattern::Bgp { .. });
            let part = Part { names: names.clone(), is_plain, pattern: part };
            let mut joined = Vec::new();
            let mut apart = Vec::new();
            for (others, patterns) in groups {
                if (is_ground && joined.is_empty()) || !others.is_disjoint(&names) {
                    names.extend(others);
                    joined.extend(patterns);
                } else {
                    apart.push((others, patterns));
                }
            }
            joined.push(part);
            apart.push((names, joined));
            groups = apart;
        }
        let mut groups = groups.into_iter().map(|(_, parts)| self.together(parts));
        let Some(first) = groups.next() else { return GraphPattern::Bgp { patterns: Vec::new() } };
        let (mut product, mut rest) = (first, groups.peekable());
        if rest.peek().is_some() {
            product = *held(product);
        }
        for group in rest {
            product = *held(GraphPattern::Join { left: Box::new(product), right: held(group) });
        }
        product
    }

    /// The parts as one join, with triples beside each other in one basic pattern. Parts that hold rows and share variables are
    /// joined first, and what comes out is counted: the evaluator holds it to join it with the next.
    fn together(&self, parts: Vec<Part>) -> GraphPattern {
        let (paths, parts): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| is_open(&part.pattern));
        let names = parts.iter().flat_map(|part| part.names.clone()).collect();
        let (mut plain, others): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| part.is_plain);
        let mut holding: Vec<Part> = Vec::new();
        for mut part in others {
            let (sharing, apart): (Vec<Part>, Vec<Part>) =
                holding.into_iter().partition(|other| !other.names.is_disjoint(&part.names));
            for other in sharing {
                let join = GraphPattern::Join { left: Box::new(other.pattern), right: Box::new(part.pattern) };
                part.names.extend(other.names);
                part.pattern = *held(join);
            }
            holding = apart;
            holding.push(part);
        }
        plain.extend(holding);
        let mut parts = plain.into_iter().map(|part| part.pattern);
        let mut whole = parts.next().unwrap_or_else(|| GraphPattern::Bgp { patterns: Vec::new() });
        for part in parts {
            whole = match (whole, part) {
                (GraphPattern::Bgp { patterns: mut all }, GraphPattern::Bgp { patterns }) => {
                    all.extend(patterns);
                    GraphPattern::Bgp { patterns: all }
                }
                (left, right) => GraphPattern::Join { left: Box::new(left), right: Box::new(right) },
            };
        }
        self.along(whole, names, paths)
    }

    /// Follows paths from what a pattern has bound, one after the other, each for every row: what a path holds then is what
    /// one node reaches.
    fn along(&self, mut whole: GraphPattern, mut names: HashSet<String>, mut paths: Vec<Part>) -> GraphPattern {
        while let Some(at) = paths.iter().position(|path| !path.names.is_disjoint(&names)) {
            let path = paths.swap_remove(at);
            names.extend(path.names);
            whole = GraphPattern::Lateral { left: Box::new(whole), right: Box::new(path.pattern) };
        }
        if let Some(GraphPattern::Path { path, .. }) = paths.first().map(|path| &path.pattern) {
            self.open_path.borrow_mut().get_or_insert_with(|| path.to_string());
        }
        whole
    }

    fn aggregate(&self, it: AggregateExpression) -> AggregateExpression {
        match it {
            AggregateExpression::FunctionCall {
                name: AggregateFunction::GroupConcat { separator },
                expr,
                distinct,
            } => {
                // What it makes is all of its values, whatever they are, and as many separators.
                let between = Literal::from(separator.as_deref().unwrap_or(" "));
                let expr = call(KEEP, vec![self.expression(expr), between.into()]);
                AggregateExpression::FunctionCall { name: AggregateFunction::GroupConcat { separator }, expr, distinct }
            }
            AggregateExpression::FunctionCall { name, expr, distinct } => {
                AggregateExpression::FunctionCall { name, expr: self.kept(expr), distinct }
            }
            other @ AggregateExpression::CountSolutions { .. } => other,
        }
    }

    /// An expression whose values stay in a row.
    fn kept(&self, it: Expression) -> Expression {
        let made = !matches!(
            it,
            Expression::Variable(_) | Expression::Literal(_) | Expression::NamedNode(_) | Expression::Bound(_)
        );
        let it = self.expression(it);
        if made { call(KEEP, vec![it]) } else { it }
    }

    fn expression(&self, it: Expression) -> Expression {
        use Expression as E;
        let one = |it: Box<Expression>| Box::new(self.expression(*it));
        let all = |them: Vec<E>| them.into_iter().map(|it| self.expression(it)).collect::<Vec<_>>();
        match it {
            E::NamedNode(_) | E::Literal(_) | E::Variable(_) | E::Bound(_) => it,
            E::Or(a, b) => E::Or(one(a), one(b)),
            E::And(a, b) => E::And(one(a), one(b)),
            E::Equal(a, b) => E::Equal(one(a), one(b)),
            E::SameTerm(a, b) => E::SameTerm(one(a), one(b)),
            E::Greater(a, b) => E::Greater(one(a), one(b)),
            E::GreaterOrEqual(a, b) => E::GreaterOrEqual(one(a), one(b)),
            E::Less(a, b) => E::Less(one(a), one(b)),
            E::LessOrEqual(a, b) => E::LessOrEqual(one(a), one(b)),
            E::In(a, them) => E::In(one(a), all(them)),
            E::Add(a, b) => E::Add(one(a), one(b)),
            E::Subtract(a, b) => E::Subtract(one(a), one(b)),
            E::Multiply(a, b) => E::Multiply(one(a), one(b)),
            E::Divide(a, b) => E::Divide(one(a), one(b)),
            E::UnaryPlus(a) => E::UnaryPlus(one(a)),
            E::UnaryMinus(a) => E::UnaryMinus(one(a)),
            E::Not(a) => E::Not(one(a)),
            E::Exists(inner) => E::Exists(self.boxed(inner)),
            E::If(a, b, c) => E::If(one(a), one(b), one(c)),
            E::Coalesce(them) => E::Coalesce(all(them)),
            E::FunctionCall(function, values) => function_call(function, all(values)),
        }
    }
}

/// A pattern of a join.
struct Part {
    /// The variables that it binds in every row, and the blank nodes, which are variables without a name: other parts are
    /// joined by these. What is bound in some rows only does not keep the evaluator from multiplying.
    names: HashSet<String>,
    /// Whether it can be evaluated for each row of another part, by reading; what else there is holds rows.
    is_plain: bool,
    pattern: GraphPattern,
}

fn flatten(it: GraphPattern, parts: &mut Vec<GraphPattern>) {
    match it {
        GraphPattern::Join { left, right } => {
            flatten(*left, parts);
            flatten(*right, parts);
        }
        GraphPattern::Bgp { patterns } => {
            parts.extend(patterns.into_iter().map(|one| GraphPattern::Bgp { patterns: vec![one] }));
        }
        other => parts.push(other),
    }
}

/// Whether a pattern is a path that the evaluator would hold all pairs of, where nothing says from where to follow it.
fn is_open(it: &GraphPattern) -> bool {
    let GraphPattern::Path { subject, path, object } = it else { return false };
    let is_bound = |end: &TermPattern| !matches!(end, TermPattern::Variable(_) | TermPattern::BlankNode(_));
    !is_bound(subject) && !is_bound(object) && holds_pairs(path)
}

/// Whether there may be more pairs than triples and they are told apart, which takes all of them at once.
fn holds_pairs(path: &PropertyPathExpression) -> bool {
    use PropertyPathExpression as P;
    match path {
        P::NamedNode(_) | P::NegatedPropertySet(_) => false,
        P::Reverse(inner) => holds_pairs(inner),
        P::Sequence(left, right) => holds_pairs(left) || holds_pairs(right),
        P::ZeroOrMore(_) | P::OneOrMore(_) => true,
        P::ZeroOrOne(inner) => holds_pairs(inner) || multiplies(inner),
        P::Alternative(left, right) => [left, right].into_iter().any(|part| holds_pairs(part) || multiplies(part)),
    }
}

fn multiplies(path: &PropertyPathExpression) -> bool {
    use PropertyPathExpression as P;
    match path {
        P::NamedNode(_) | P::NegatedPropertySet(_) => false,
        P::Sequence(..) => true,
        P::Reverse(inner) | P::ZeroOrMore(inner) | P::OneOrMore(inner) | P::ZeroOrOne(inner) => multiplies(inner),
        P::Alternative(left, right) => multiplies(left) || multiplies(right),
    }
}

/// What a pattern binds in every one of its rows.
fn certain(it: &GraphPattern) -> HashSet<String> {
    use GraphPattern as P;
    let term = |term: &TermPattern| match term {
        TermPattern::Variable(variable) => Some(variable.to_string()),
        TermPattern::BlankNode(node) => Some(node.to_string()),
        _ => None,
    };
    let of_name = |name: &NamedNodePattern| match name {
        NamedNodePattern::Variable(variable) => Some(variable.to_string()),
        NamedNodePattern::NamedNode(_) => None,
    };
    let only = |inner: &GraphPattern, variables: &[Variable]| {
        let names: HashSet<String> = variables.iter().map(Variable::to_string).collect();
        certain(inner).intersection(&names).cloned().collect()
    };
    match it {
        P::Bgp { patterns } => patterns
            .iter()
            .flat_map(|triple| [term(&triple.subject), of_name(&triple.predicate), term(&triple.object)])
            .flatten()
            .collect(),
        P::Path { subject, object, .. } => [term(subject), term(object)].into_iter().flatten().collect(),
        P::Join { left, right } | P::Lateral { left, right } => &certain(left) | &certain(right),
        P::Union { left, right } => &certain(left) & &certain(right),
        P::LeftJoin { left: inner, .. }
        | P::Minus { left: inner, .. }
        | P::Filter { inner, .. }
        | P::Extend { inner, .. }
        | P::OrderBy { inner, .. }
        | P::Distinct { inner }
        | P::Reduced { inner }
        | P::Slice { inner, .. } => certain(inner),
        P::Graph { name, inner } => certain(inner).into_iter().chain(of_name(name)).collect(),
        P::Values { variables, bindings } => {
            let bound = |column: usize| bindings.iter().all(|row| row.get(column).is_some_and(Option::is_some));
            let columns = variables.iter().enumerate().filter(|(column, _)| bound(*column));
            columns.map(|(_, variable)| variable.to_string()).collect()
        }
        P::Project { inner, variables } | P::Group { inner, variables, .. } => only(inner, variables),
        P::Service { .. } => HashSet::new(),
    }
}

fn call(name: &str, values: Vec<Expression>) -> Expression {
    Expression::FunctionCall(Function::Custom(NamedNode::new_unchecked(name)), values)
}

/// Counts the rows of a pattern.
fn held(inner: GraphPattern) -> Box<GraphPattern> {
    let nothing = Expression::Variable(Variable::new_unchecked(NO_VARIABLE));
    let expr = call(HOLD, vec![Expression::Coalesce(vec![nothing, Literal::from(true).into()])]);
    Box::new(GraphPattern::Filter { expr, inner: Box::new(inner) })
}

fn is_distinct(it: &AggregateExpression) -> bool {
    match it {
        AggregateExpression::CountSolutions { distinct } | AggregateExpression::FunctionCall { distinct, .. } => {
            *distinct
        }
    }
}

fn function_call(function: Function, mut values: Vec<Expression>) -> Expression {
    match function {
        Function::Concat if values.len() > 1 => {
            // Two and two, so that no step holds more than two texts, and the steps are few.
            while values.len() > 1 {
                let mut rest = values.into_iter();
                let mut joined = Vec::new();
                while let Some(left) = rest.next() {
                    joined.push(match rest.next() {
                        Some(right) => call(JOIN_TEXTS, vec![left, right]),
                        None => left,
                    });
                }
                values = joined;
            }
            values.pop().unwrap_or_else(|| Literal::from("").into())
        }
        Function::Replace => {
            let bounds = [Some(REPLACED), None, Some(REPLACEMENT), None];
            let values = values.into_iter().zip(bounds).map(|(value, bound)| match bound {
                Some(name) => call(name, vec![value]),
                None => value,
            });
            call(SHORT, vec![Expression::FunctionCall(Function::Replace, values.collect())])
        }
        Function::UCase
        | Function::LCase
        | Function::EncodeForUri
        | Function::Iri
        | Function::StrDt
        | Function::StrLang => call(SHORT, vec![Expression::FunctionCall(function, values)]),
        _ => Expression::FunctionCall(function, values),
    }
}
