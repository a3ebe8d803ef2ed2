//! Readings: which flows of a transfer are one use of its agreement, and which are another.

use std::collections::HashMap;

use kontor_core::policy::DueDuty;

/// A reading may go back over this many bytes in all, and over no more than it has, before it counts as another use: bytes
/// that were on their way when a connection was cut.
pub const RESUME_SLACK_BYTES: u64 = 64 * 1024 * 1024;

/// The readings of one transfer: of each member the latest, and the flows that run.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    latest: HashMap<Option<String>, Reading>,
    running: HashMap<String, Running>,
}

/// A reading of one member of the dataset, resumed any number of times.
#[derive(Debug)]
struct Reading {
    name: String,
    /// The entity tag of what is read.
    version: String,
    /// The first byte that never left.
    furthest: u64,
    /// How many bytes left more than once.
    repeated: u64,
    /// All that a flow asked for was sent. The end of it may be lost on its way all the same.
    whole: bool,
}

/// A flow that was let through, or is about to be.
#[derive(Debug)]
struct Running {
    member: Option<String>,
    version: String,
    reading: String,
    duties: Vec<DueDuty>,
}

/// A flow that is about to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning<'a> {
    /// Its name.
    pub(crate) flow: &'a str,
    /// For a folder: which member.
    pub(crate) member: Option<&'a str>,
    /// The entity tag of the member.
    pub(crate) version: &'a str,
    /// Its first byte.
    pub(crate) offset: u64,
}

impl Readings {
    /// Notes a flow, and says under which name its use is taken. One use covers a whole reading with its resumptions: a
    /// resumed flow has the name of the reading that it resumes, a further reading has a name of its own. And whether
    /// another flow of the same member still runs, which makes it another reading whatever it asks for.
    pub(crate) fn begin(&mut self, flow: Beginning<'_>, duties: Vec<DueDuty>) -> (String, bool) {
        let member = flow.member.map(str::to_owned);
        let beside = self.running.values().any(|running| running.member == member);
        let reading = match self.latest.get(&member) {
            // The first flow since we started. After a crash a resumption has the same name as the reading that it
            // resumes; a reading from the start is another one only if we remember the first, so the name of the flow
            // is not used here.
            None if !beside => "reading".to_owned(),
            Some(reading) if !beside && reading.is_resumed_by(flow) => reading.name.clone(),
            _ => format!("reading:{}", flow.flow),
        };
        let version = flow.version.to_owned();
        self.running.insert(flow.flow.to_owned(), Running { member, version, reading: reading.clone(), duties });
        (reading, beside)
    }

    /// A flow was not let through after all.
    pub(crate) fn refuse(&mut self, flow: &str) {
        self.running.remove(flow);
    }

    /// A flow ended after so many bytes from `offset`; the duties that it was let through with.
    pub(crate) fn end(&mut self, flow: &str, offset: u64, bytes: u64, whole: bool) -> Vec<DueDuty> {
        let Some(Running { member, version, reading: name, duties }) = self.running.remove(flow) else {
            return Vec::new();
        };
        let end = offset.saturating_add(bytes);
        match self.latest.get_mut(&member).filter(|reading| reading.name == name) {
            Some(reading) => {
                let repeated = end.min(reading.furthest).saturating_sub(offset);
                reading.repeated = reading.repeated.saturating_add(repeated);
                reading.furthest = reading.furthest.max(end);
                reading.whole |= whole;
            }
            None => {
                self.latest.insert(member, Reading { name, version, furthest: end, repeated: 0, whole });
            }
        }
        duties
    }
}

impl Reading {
    fn is_resumed_by(&self, flow: Beginning<'_>) -> bool {
        let back = self.furthest.saturating_sub(flow.offset);
        // Less than a second reading in all, however small the member is.
        let slack = RESUME_SLACK_BYTES.min(self.furthest);
        let near = match flow.offset {
            // Cut before anything left: beginning again is no second reading.
            0 => self.furthest == 0 && !self.whole,
            _ => self.repeated.saturating_add(back) <= slack,
        };
        near && self.version == flow.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn flow(name: &str, offset: u64) -> Beginning<'_> {
        Beginning { flow: name, member: None, version: "v1", offset }
    }

    /// Runs a flow of so many bytes, and gives the name of its reading.
    fn run(readings: &mut Readings, flow: Beginning<'_>, bytes: u64, whole: bool) -> String {
        let (name, _) = readings.begin(flow, Vec::new());
        readings.end(flow.flow, flow.offset, bytes, whole);
        name
    }

    #[test]
    fn a_reading_is_resumed_where_it_was_cut() {
        let mut readings = Readings::default();
        assert_eq!(run(&mut readings, flow("a", 0), 0, false), "reading");
        assert_eq!(run(&mut readings, flow("b", 0), 900 * MIB, false), "reading", "nothing had left");
        assert_eq!(run(&mut readings, flow("c", 890 * MIB), 50 * MIB, false), "reading");
        assert_eq!(run(&mut readings, flow("d", 940 * MIB), 60 * MIB, true), "reading");
        assert_eq!(run(&mut readings, flow("e", 990 * MIB), 10 * MIB, true), "reading", "its end was lost on its way");
        assert_eq!(run(&mut readings, flow("f", 0), MIB, false), "reading:f", "from the start");
        assert_eq!(run(&mut readings, flow("g", MIB), MIB, true), "reading:f");
    }

    #[test]
    fn what_is_small_is_not_read_again_and_again_but_for_its_first_byte() {
        let mut readings = Readings::default();
        run(&mut readings, flow("a", 0), 1000, true);
        let names: Vec<String> = (0..4).map(|n| run(&mut readings, flow(&format!("again{n}"), 1), 999, true)).collect();
        assert_eq!(names, ["reading", "reading:again1", "reading:again1", "reading:again3"]);
        // Nothing of an empty one can be lost.
        let mut readings = Readings::default();
        run(&mut readings, flow("a", 0), 0, true);
        assert_eq!(run(&mut readings, flow("b", 0), 0, true), "reading:b");
    }

    #[test]
    fn hanging_up_early_buys_no_second_reading() {
        let mut readings = Readings::default();
        run(&mut readings, flow("a", 0), 100 * MIB, false);
        assert_eq!(run(&mut readings, flow("b", 1), MIB, false), "reading:b", "all of it again");
        // Back by little steps, each with a cut of its own.
        let mut readings = Readings::default();
        run(&mut readings, flow("a", 0), 1000 * MIB, false);
        let mut names = Vec::new();
        for step in 1..=30_u64 {
            let name = format!("f{step}");
            names.push(run(&mut readings, flow(&name, (1000 - 60 * step.min(16)) * MIB), 60 * MIB, false));
        }
        assert_eq!(names.iter().filter(|name| *name == "reading").count(), 1, "{names:?}");
    }

    #[test]
    fn another_version_and_a_flow_beside_are_other_readings() {
        let mut readings = Readings::default();
        run(&mut readings, flow("a", 0), 10, false);
        assert_eq!(run(&mut readings, Beginning { version: "v2", ..flow("b", 10) }, 5, false), "reading:b");
        assert_eq!(run(&mut readings, Beginning { member: Some("m"), ..flow("c", 0) }, 5, false), "reading");

        let mut readings = Readings::default();
        assert_eq!(readings.begin(flow("a", 0), Vec::new()), ("reading".to_owned(), false));
        let beside = ("reading:b".to_owned(), true);
        assert_eq!(readings.begin(flow("b", 0), Vec::new()), beside, "at once, for the price of one");
        readings.refuse("b");
        readings.end("a", 0, 10, false);
        assert_eq!(readings.begin(flow("d", 10), Vec::new()), ("reading".to_owned(), false));
    }

    #[test]
    fn what_is_over_is_not_remembered() {
        let mut readings = Readings::default();
        for number in 0..1000 {
            let name = number.to_string();
            run(&mut readings, flow(&name, 0), 1, true);
        }
        assert_eq!((readings.latest.len(), readings.running.len()), (1, 0));
    }
}
