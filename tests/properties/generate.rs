//! Policies, requests and states of the world made from bytes, so that the property tests (random bytes) and the
//! fuzzers (bytes that reach new code) make the same ones. Fewer and smaller bytes make simpler ones.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::policy::model::Rule;
use kontor_core::policy::{
    ASSIGNEE_COLLECTIONS, DutyKey, DutyState, FactValue, Facts, Request, Standing, TARGET_COLLECTIONS, World, parse,
};
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Value, json};

/// Bytes, taken one after the other; all further ones are zero.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    /// A number below `count`, which is at most 256.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.byte() % count.max(1)
    }

    /// One of several.
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Yes once in `count` times.
    pub(crate) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn some<T>(&mut self, count_max: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(count_max + 1);
        (0..count).map(|_| make(self)).collect()
    }
}

/// The parties, assets and times of generated policies are few, so that they often meet.
pub(crate) const PARTIES: [&str; 3] = ["urn:me", "urn:other", "urn:third"];
/// Assets.
pub(crate) const ASSETS: [&str; 2] = ["urn:data:1", "urn:data:2"];
/// Actions, each with all that include it, itself first.
pub(crate) const ACTIONS: [(&str, &[&str]); 9] = [
    ("use", &["use"]),
    ("read", &["read", "use"]),
    ("print", &["print", "use"]),
    ("reproduce", &["reproduce", "use"]),
    ("extract", &["extract", "reproduce", "use"]),
    ("transfer", &["transfer"]),
    ("sell", &["sell", "transfer"]),
    ("write", &["modify", "use"]),
    ("copy", &["reproduce", "use"]),
];
/// What durations are made of: seconds, and units without a fixed length.
pub(crate) const DURATIONS: [&str; 8] = ["PT0S", "PT3S", "PT7S", "PT10S", "P1D", "P1M", "P1Y2M3DT4H5M6S", "P2W"];

/// Purposes and events.
pub(crate) const NAMES: [&str; 3] = ["urn:name:1", "urn:name:2", "urn:name:3"];
/// Collections of parties and of assets.
pub(crate) const COLLECTIONS: [&str; 2] = ["urn:collection:1", "urn:collection:2"];
/// The security profiles of the IDS, the lowest first.
pub(crate) const LEVELS: [&str; 3] =
    ["idsc:BASE_SECURITY_PROFILE", "idsc:TRUST_SECURITY_PROFILE", "idsc:TRUST_PLUS_SECURITY_PROFILE"];

/// Instants of generated policies are a few seconds apart.
pub(crate) fn instant(second: usize) -> Timestamp {
    Timestamp::from_second(1_900_000_000 + second as i64).unwrap_or_default()
}

/// A policy, what is asked of it, and the state of the world.
pub(crate) fn case(bytes: &[u8]) -> (Value, Request, World) {
    let mut choices = Choices(bytes);
    let keys: Vec<DutyKey> = keys().values().cloned().collect();
    (policy(&mut choices), request(&mut choices), world(&mut choices, &keys))
}

/// The keys of the duties that are generated, by their actions, and of obligations by `obligation to` an action: the engine's, because states are kept by them.
pub(crate) fn keys() -> &'static BTreeMap<String, DutyKey> {
    static KEYS: LazyLock<BTreeMap<String, DutyKey>> = LazyLock::new(|| {
        #[expect(clippy::unwrap_used, reason = "the duties are below")]
        let key = |action: &&str| {
            let policy =
                json!({"permission": [{"action": "use", "duty": [duty(action)]}], "obligation": [duty(action)]});
            let policy = parse(&PolicyDocument::from_value(policy).unwrap()).unwrap();
            let [duty, obligation] = [&policy.rules[0].duties[0], &policy.rules[1]];
            let key = |rule: &Rule| rule.term.clone().unwrap().key;
            [((*action).to_owned(), key(duty)), (format!("obligation to {action}"), key(obligation))]
        };
        DUTIES.iter().flat_map(key).collect()
    });
    &KEYS
}

/// A policy document in compact form, sometimes with what its rules have in common said once.
pub(crate) fn policy(choices: &mut Choices<'_>) -> Value {
    let mut policy = json!({"@type": "Offer"});
    for (member, counts) in [("permission", &[1, 1, 2, 3, 0]), ("prohibition", &[0, 0, 0, 1, 2])] {
        let mut rules: Vec<Value> = (0..choices.one(counts)).map(|_| rule(choices)).collect();
        for rule in rules.iter_mut().filter(|_| member == "permission") {
            if choices.once_in(5) {
                rule["duty"] = json!([choices.one(&DUTIES.map(duty))]);
            }
        }
        if !rules.is_empty() {
            policy[member] = json!(rules);
        }
    }
    if policy.get("permission").is_none() && policy.get("prohibition").is_none() {
        policy["permission"] = json!([{"action": "use"}]);
    }
    if choices.once_in(8) {
        let mut obligation = choices.one(&DUTIES.map(duty));
        if choices.once_in(2) {
            obligation["assignee"] = match choices.below(3) {
                0 => json!({"@type": "PartyCollection", "@id": choices.one(&COLLECTIONS)}),
                _ => json!(choices.one(&PARTIES)),
            };
        }
        if choices.once_in(3) {
            obligation["target"] = json!(choices.one(&ASSETS));
        }
        policy["obligation"] = json!([obligation]);
    }
    if choices.once_in(4) {
        policy["conflict"] = json!(choices.one(&["perm", "prohibit"]));
    }
    if choices.once_in(6) {
        policy["target"] = json!(choices.one(&ASSETS));
    }
    if choices.once_in(6) {
        policy["assignee"] = json!(choices.one(&PARTIES));
    }
    policy
}

/// The duties of generated permissions: to be done before the use, or after it.
pub(crate) const DUTIES: [&str; 3] = ["compensate", "obtainConsent", "delete"];

/// A duty by its action.
pub(crate) fn duty(action: &str) -> Value {
    json!({"action": action})
}

/// A permission or prohibition.
pub(crate) fn rule(choices: &mut Choices<'_>) -> Value {
    let mut action = vec![if choices.once_in(4) { choices.one(&ACTIONS).0 } else { "use" }];
    if choices.once_in(8) {
        action.push(choices.one(&ACTIONS).0);
    }
    let mut rule = json!({"action": action});
    if choices.once_in(4) {
        rule["assignee"] = json!(choices.one(&PARTIES));
    }
    if choices.once_in(6) {
        rule["target"] = match choices.below(4) {
            0 => json!(ASSETS),
            1 => json!({"@type": "AssetCollection", "@id": choices.one(&COLLECTIONS)}),
            _ => json!(choices.one(&ASSETS)),
        };
    }
    if choices.once_in(8) {
        rule["assignee"] = json!({"@type": "PartyCollection", "@id": choices.one(&COLLECTIONS)});
    }
    let constraints: Vec<Value> = (0..choices.one(&[0, 1, 1, 1, 2, 2, 3])).map(|_| constraint(choices, 3)).collect();
    if !constraints.is_empty() {
        rule["constraint"] = json!(constraints);
    }
    rule
}

/// A condition, logical ones at most `depth` deep.
pub(crate) fn constraint(choices: &mut Choices<'_>, depth: usize) -> Value {
    if depth > 0 && choices.once_in(3) {
        let operand = choices.one(&["and", "or", "xone", "and", "or", "xone", "andSequence"]);
        let mut of = vec![constraint(choices, depth - 1)];
        of.extend(choices.some(3, |choices| constraint(choices, depth - 1)));
        return json!({operand: of});
    }
    let comparison = choices.one(&["lteq", "lt", "gteq", "gt", "eq", "neq"]);
    let atom = |left: &str, operator: &str, right: Value| json!({"leftOperand": left, "operator": operator, "rightOperand": right});
    match choices.below(13) {
        8 | 9 => {
            let operator = choices.one(&["eq", "neq", "isAnyOf", "isNoneOf", "isAllOf", "isPartOf", "hasPart"]);
            let mut names = vec![choices.one(&NAMES)];
            if !matches!(operator, "eq" | "neq") && choices.once_in(2) {
                names.push(choices.one(&NAMES));
            }
            atom(choices.one(&["purpose", "event"]), operator, json!(names))
        }
        10 => atom("idsc:SECURITY_LEVEL", comparison, json!(choices.one(&LEVELS))),
        11 => {
            let constraint = atom("idsc:QUANTITY", comparison, json!(choices.below(5)));
            with_unit(constraint, choices.one(&["By", "{record}"]))
        }
        0..=2 => atom("dateTime", comparison, json!(instant(choices.below(12)).to_string())),
        3 => atom("elapsedTime", comparison, json!(choices.one(&DURATIONS))),
        4 | 5 => atom("count", comparison, json!(choices.below(5))),
        6 => match choices.below(4) {
            0 => atom("recipient", "eq", json!(choices.one(&PARTIES))),
            1 => atom("recipient", "neq", json!(choices.one(&PARTIES))),
            2 => atom("recipient", "isAnyOf", json!([choices.one(&PARTIES), choices.one(&PARTIES)])),
            _ => atom("recipient", "isNoneOf", json!([choices.one(&PARTIES), choices.one(&PARTIES)])),
        },
        _ => atom("absolutePosition", comparison, json!("1")),
    }
}

fn with_unit(mut constraint: Value, unit: &str) -> Value {
    constraint["unit"] = json!(unit);
    constraint
}

/// What is asked.
pub(crate) fn request(choices: &mut Choices<'_>) -> Request {
    let action = if choices.once_in(6) { choices.one(&ACTIONS).0 } else { "use" };
    let assignee = if choices.once_in(4) { choices.one(&PARTIES) } else { PARTIES[0] };
    let target = (!choices.once_in(3)).then(|| choices.one(&ASSETS).to_owned());
    #[expect(clippy::unwrap_used, reason = "the parties are above")]
    Request { action: action.to_owned(), assignee: ParticipantId::parse(assignee).unwrap(), target }
}

/// What is known. The keys of the duties are the engine's, because only their states are facts.
pub(crate) fn world(choices: &mut Choices<'_>, keys: &[DutyKey]) -> World {
    let mut world = World {
        now: instant(choices.below(9)),
        agreed_at: (!choices.once_in(4)).then(|| instant(choices.below(8))),
        uses: (!choices.once_in(4)).then(|| 1 + choices.below(5) as u64),
        bytes: (!choices.once_in(4)).then(|| choices.below(5) as u64),
        records: (!choices.once_in(4)).then(|| choices.below(5) as u64),
        facts: Facts::default(),
        ..World::default()
    };
    for (operand, names) in [
        ("purpose", &NAMES[..]),
        ("event", &NAMES[..]),
        (ASSIGNEE_COLLECTIONS, &COLLECTIONS[..]),
        (TARGET_COLLECTIONS, &COLLECTIONS[..]),
    ] {
        let value = FactValue::names(choices.some(2, |choices| choices.one(names)));
        know(&mut world, operand, value, choices);
    }
    let level = FactValue::Level(choices.one(&LEVELS).to_owned());
    know(&mut world, "idsc:SECURITY_LEVEL", level, choices);
    for key in keys {
        let states = [DutyState::Fulfilled, DutyState::Pending, DutyState::Violated, DutyState::Late];
        let until = choices.once_in(3).then(|| instant(choices.below(12)));
        world.duties.insert(key.clone(), Standing { state: choices.one(&states), until });
    }
    world
}

fn know(world: &mut World, operand: &str, value: FactValue, choices: &mut Choices<'_>) {
    match choices.below(6) {
        0 => {}
        1 => world.facts.insert_until(operand, value, instant(choices.below(12))),
        2 => {
            let until = choices.once_in(2).then(|| instant(choices.below(12)));
            world.facts.insert_since(operand, value, instant(choices.below(9)), until);
        }
        _ => world.facts.insert(operand, value),
    }
}
