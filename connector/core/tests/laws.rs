//! The laws of both machines, over random inputs and over a network that loses, repeats and
//! reorders. Small case counts: the whole file runs in seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{Event, Machine, Network, World, message_id, participant, pid};
use kontor_core::effect::{Effect, StopReason};
use kontor_core::negotiation::{Negotiation, Role, State};
use kontor_core::refusal::Fault;
use kontor_core::transfer::{self, Transfer};
use proptest::collection::vec;
use proptest::prelude::*;

/// What may happen to the network, as three small numbers.
type Op = (u8, usize, bool);

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec((0_u8..16, 0_usize..64, any::<bool>()), 0..90)
}

fn role(provider: bool) -> Role {
    if provider { Role::Provider } else { Role::Consumer }
}

/// Runs the operations; both machines live through decisions, losses, repetitions, reordering.
fn run<T: Machine>(ops: &[Op], may_deny: bool) -> Network<T> {
    let mut network = Network::<T>::new();
    for (op, pick, provider) in ops {
        let at = usize::from(!*provider);
        match op {
            // A decision may be refused; nothing else follows from that.
            0..=4 => drop(network.decide(at, T::command(*pick))),
            5..=8 => network.transmit(at, *pick),
            9..=13 => network.arrive(*pick),
            14 => network.lose(*pick),
            // What time takes away it does not give back.
            _ => {
                network.allowed &= !(may_deny && *pick < 16);
                drop(network.step(at, Event::Due));
            }
        }
    }
    network.drain();
    network
}

/// Whether both sides tell the same story. A side that refused the opening message has none.
fn agree<T: Machine>(network: &Network<T>) -> bool {
    let [provider, consumer] = [0, 1].map(|at| network.sides[at].machine.name());
    provider == consumer || matches!((provider, consumer), ("INITIAL", "TERMINATED") | ("TERMINATED", "INITIAL"))
}

/// Any input at all, sensible or not.
fn event<T: Machine>(machine: &T, (op, pick, flag): Op) -> Event<T::Message, T::Command> {
    let known = machine.pending().cloned().filter(|_| flag).unwrap_or_else(|| message_id("urn:message:unknown"));
    match op {
        0..=5 => Event::Received {
            from: participant(if pick == 63 { machine.role() } else { machine.role().other() }),
            peer_pid: pid(if pick == 62 { machine.role() } else { machine.role().other() }),
            digest: format!("digest {}", pick % 24),
            message: T::message(pick),
        },
        6..=11 => Event::Decided(T::command(pick)),
        12 | 13 => Event::Delivered { id: known, peer_pid: flag.then(|| pid(machine.role().other())) },
        14 => Event::Undelivered { id: known, refused: pick % 2 == 0 },
        _ => Event::Due,
    }
}

/// Steps through anything and checks what holds of every single step.
fn walk<T: Machine>(provider: bool, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut machine = T::begin(role(provider));
    for (number, op) in ops.iter().enumerate() {
        let event = event(&machine, *op);
        let world = World { fresh: message_id(&format!("urn:message:{number}")), allowed: op.1 % 5 != 0 };
        // A refusal consumes a copy: the machine stays as it was, whatever the step had begun.
        let Ok(stepped) = machine.clone().step_on(event.clone(), &world) else { continue };
        if machine.is_terminal() {
            prop_assert_eq!(stepped.next.name(), machine.name(), "terminal stays terminal");
            prop_assert!(stepped.next.pending().is_none());
            prop_assert!(!stepped.changed && stepped.effects.is_empty(), "nothing follows the end");
        }
        if !stepped.changed {
            prop_assert_eq!(&stepped.next, &machine);
            prop_assert!(stepped.effects.is_empty());
        }
        if let Event::Received { .. } = &event {
            let again = stepped.next.clone().step_on(event, &world);
            let again = again.map_err(|refusal| TestCaseError::fail(format!("a repetition was refused: {refusal}")))?;
            prop_assert!(!again.changed, "a repeated message changes nothing");
            prop_assert!(again.effects.is_empty());
            prop_assert_eq!(&again.next, &stepped.next);
        }
        machine = stepped.next;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_of_a_negotiation_keeps_the_laws(provider: bool, ops in ops()) {
        walk::<Negotiation>(provider, &ops)?;
    }

    #[test]
    fn every_step_of_a_transfer_keeps_the_laws(provider: bool, ops in ops()) {
        walk::<Transfer>(provider, &ops)?;
    }

    #[test]
    fn two_negotiations_over_a_bad_network_agree(ops in ops()) {
        let network = run::<Negotiation>(&ops, false);
        let [provider, consumer] = &network.sides;
        let log = network.log.join("\n");
        prop_assert!(agree(&network), "{}", log);
        prop_assert_eq!(provider.machine.agreement(), consumer.machine.agreement(), "{}", log);
        prop_assert!(provider.machine.pending.is_none() && consumer.machine.pending.is_none(), "{}", log);
    }

    #[test]
    fn two_transfers_over_a_bad_network_agree(ops in ops()) {
        let network = run::<Transfer>(&ops, true);
        let [provider, consumer] = &network.sides;
        let log = network.log.join("\n");
        prop_assert!(agree(&network), "{}", log);
        prop_assert!(provider.machine.pending.is_none() && consumer.machine.pending.is_none(), "{}", log);
        if let (transfer::State::Suspended { by: ours, .. }, transfer::State::Suspended { by: theirs, .. }) =
            (&provider.machine.state, &consumer.machine.state)
        {
            prop_assert_eq!(ours.by, theirs.by, "{}", log);
        }
    }

    #[test]
    fn a_flow_runs_only_while_started_and_allowed(ops in ops()) {
        let mut network = Network::<Transfer>::new();
        for (op, pick, provider) in &ops {
            let at = usize::from(!*provider);
            let seen = network.sides[at].effects.len();
            match op {
                0..=6 => drop(network.decide(at, Transfer::command(*pick))),
                7..=9 => network.transmit(at, *pick),
                10..=14 => network.arrive(*pick),
                _ => {
                    network.allowed = pick % 4 != 0;
                    drop(network.step(at, Event::Due));
                }
            }
            let new = &network.sides[at].effects[seen.min(network.sides[at].effects.len())..];
            if !network.allowed {
                prop_assert!(!new.contains(&Effect::StartFlow), "no permission, no bytes");
            }
            for side in &network.sides {
                // The last word on the flow, as the data plane heard it.
                let flowing = side.effects.iter().rev().find_map(|effect| match effect {
                    Effect::StartFlow => Some(true),
                    Effect::StopFlow(StopReason::Suspended | StopReason::Terminated | StopReason::Completed) => {
                        Some(false)
                    }
                    Effect::Send(_) | Effect::Cancel(_) | Effect::Arrived(_) | Effect::StoreAgreement(_)
                    | Effect::WakeAt(_) | Effect::Record(_) => None,
                });
                prop_assert_eq!(flowing.unwrap_or(false), side.machine.may_flow(), "{}", network.log.join("\n"));
            }
        }
    }
}

#[test]
fn the_network_reaches_every_state() {
    // The laws above would hold of machines that never move: this says that the runs get somewhere.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        let ops = ops().new_tree(&mut runner).unwrap().current();
        let network = run::<Negotiation>(&ops, false);
        reached.insert(network.sides[0].machine.name());
        let network = run::<Transfer>(&ops, true);
        reached.insert(network.sides[0].machine.name());
    }
    for name in ["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "TERMINATED", "STARTED", "SUSPENDED", "COMPLETED"] {
        assert!(reached.contains(name), "no run came to rest in {name}: {reached:?}");
    }
}

#[test]
fn a_faithful_pair_finalizes_over_a_bad_network() {
    let mut network = Network::<Negotiation>::new();
    // Every message is sent twice; the first answer is lost.
    for (at, pick) in [(1, 0), (0, 1), (1, 2), (0, 3), (1, 4), (0, 5)] {
        network.decide(at, Negotiation::command(pick)).unwrap();
        network.transmit(at, 0);
        network.arrive(0);
        network.lose(0);
        network.drain();
    }
    let [provider, consumer] = &network.sides;
    assert!(matches!(provider.machine.state, State::Finalized { .. }), "{}", network.log.join("\n"));
    assert_eq!(provider.machine.agreement(), consumer.machine.agreement());
}

#[test]
fn a_crossing_asks_to_wait_instead_of_refusing_for_good() {
    let mut network = Network::<Transfer>::new();
    for (at, pick) in [(1, 0), (0, 1)] {
        network.decide(at, Transfer::command(pick)).unwrap();
        network.drain();
    }
    // Both complete and suspend at once.
    network.decide(0, Transfer::command(2)).unwrap();
    network.decide(1, Transfer::command(3)).unwrap();
    let refusal = network
        .step(
            0,
            Event::Received {
                from: participant(Role::Consumer),
                peer_pid: pid(Role::Consumer),
                digest: "the suspension".to_owned(),
                message: Transfer::message(3),
            },
        )
        .unwrap_err();
    assert_eq!(refusal.fault, Fault::Unavailable);
    network.drain();
    assert_eq!(network.sides[0].machine.name(), "COMPLETED");
    assert_eq!(network.sides[1].machine.name(), "COMPLETED");
}
