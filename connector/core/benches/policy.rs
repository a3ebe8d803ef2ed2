//! How long a decision takes, parsing excluded: `cargo bench -p kontor-core`. It judges nothing: a figure is no test.
//!
//! The corpus is the public ODRL test suite, read where the conformance suite reads it. Where it is absent, samples
//! of the same shapes stand in, and the figures say so.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and the corpus")]

#[expect(dead_code, reason = "the benchmark compares nothing with the expected reports")]
#[path = "../../../tests/conformance/odrl/corpus.rs"]
mod corpus;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::policy::{Policy, Prepared, Request, World, evaluate, parse};
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Value, json};

/// The best figure that is published for a decision on this corpus.
const PUBLISHED_BEST: &str = "published best known: 780 ns";
/// How often each decision is measured; the median counts.
const ROUNDS: usize = 101;
/// How long one round lasts at least, so that the clock's own time does not count.
const ROUND_NANOS_MIN: u128 = 20_000;

/// What is asked of the engine.
struct Sample {
    policy: Policy,
    prepared: Prepared<'static>,
    request: Request,
    world: World,
}

impl Sample {
    fn new(policy: Policy, request: Request, world: World) -> Self {
        Self { prepared: Prepared::new(policy.clone()), policy, request, world }
    }
}

fn main() -> Result<(), String> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/odrl/data");
    let corpus = if data.is_dir() {
        corpus::load(&data)?
            .into_iter()
            .filter_map(|case| Some(Sample::new(case.policy.ok()?, case.request, case.world)))
            .collect()
    } else {
        println!("the ODRL test suite is not at {}: skipped, samples stand in for it", data.display());
        vec![sample(&json!([]))?, sample(&json!([until(2030)]))?, sample(&json!([until(2030), until(2029)]))?]
    };
    let large = sample(&json!([{"or": (0..262).map(office_hours).collect::<Vec<_>>()}]))?;

    println!("{} samples in the corpus; {PUBLISHED_BEST}", corpus.len());
    let prepared = |sample: &Sample| {
        black_box(sample.prepared.decide(black_box(&sample.request), black_box(&sample.world)));
    };
    let whole = |sample: &Sample| {
        black_box(evaluate(black_box(&sample.policy), black_box(&sample.request), black_box(&sample.world)));
    };
    let large = std::slice::from_ref(&large);
    figure("prepared decision", &corpus, prepared);
    figure("prepared decision, 262 branches", large, prepared);
    figure("not prepared, with its reasons", &corpus, whole);
    figure("the same, 262 branches", large, whole);
    Ok(())
}

/// Prints the median over the corpus of the medians, and the slowest.
fn figure(name: &str, corpus: &[Sample], act: impl Fn(&Sample)) {
    let mut medians: Vec<f64> = corpus.iter().map(|sample| median_nanos(|| act(sample))).collect();
    medians.sort_by(f64::total_cmp);
    let at = |rank: usize| medians.get(rank).copied().unwrap_or(f64::NAN);
    println!(
        "  {name:<36} median {:>10.1} ns, slowest {:>10.1} ns",
        at(medians.len() / 2),
        at(medians.len().saturating_sub(1))
    );
}

fn median_nanos(act: impl Fn()) -> f64 {
    let mut times = 1_u32;
    let round = |times: u32| {
        let began = Instant::now();
        (0..times).for_each(|_| act());
        began.elapsed().as_nanos()
    };
    while round(times) < ROUND_NANOS_MIN {
        times *= 2;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(times) as f64 / f64::from(times)).collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
}

fn sample(constraints: &Value) -> Result<Sample, String> {
    let document = json!({"permission": [{"action": "use", "assignee": "urn:me", "constraint": constraints}]});
    let document = PolicyDocument::from_value(document).map_err(|_| "no policy")?;
    let assignee = ParticipantId::parse("urn:me").map_err(|error| error.to_string())?;
    let now = Timestamp::from_second(1_720_000_000).map_err(|error| error.to_string())?;
    Ok(Sample::new(
        parse(&document).map_err(|problems| format!("{problems:?}"))?,
        Request { action: "use".to_owned(), assignee, target: None },
        World { now, ..World::default() },
    ))
}

fn until(year: i16) -> Value {
    json!({"leftOperand": "dateTime", "operator": "lt", "rightOperand": format!("{year}-01-01T00:00:00Z")})
}

/// From nine to five on a day of 2024, as the suite's largest policy says it 262 times.
fn office_hours(day: i64) -> Value {
    let at = |hour: i64| {
        let instant = Timestamp::from_second(1_704_067_200 + day * 86_400 + hour * 3_600).unwrap_or_default();
        json!(instant.to_string())
    };
    json!({"and": [
        {"leftOperand": "dateTime", "operator": "gt", "rightOperand": at(9)},
        {"leftOperand": "dateTime", "operator": "lt", "rightOperand": at(17)},
    ]})
}
