//! What clients asked for and what they were answered, and whether that is linearizable, register
//! by register. The checker of Wing, Gong and Lowe in `todc-utils` decides.
//!
//! A cluster of tabs can be ended and another one founded. Each incarnation has registers of its
//! own, and a perform takes effect in one of them at most.

use std::collections::BTreeSet;

use conflux::store::Outcome;
use todc_utils::linearizability::history::{Action as Event, History as Events};
use todc_utils::{Specification, WGLChecker};

use crate::machine::{self, Method, OpId, VALUE};

/// How many operations of each register are checked, because the checker's time grows fast. That
/// raises no false alarm: every prefix of a linearizable history is linearizable.
const LONGEST: usize = 80;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A perform.
    Perform(Method),
    /// `read()`, and then the value in the local committed state.
    Read,
}

/// What a client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An action, with the value that it found in the register.
    Action(u32),
    /// Nothing, which means that the register held the expected value.
    Nothing,
    /// A register's value, from a read or in a verdict.
    Value(u32),
    /// The perform never ran and never will.
    Refused,
    /// The perform may have run, or may still run.
    Unknown,
}

/// One perform or read.
#[derive(Clone, Debug)]
pub struct Op {
    /// What was asked for.
    pub asked: Asked,
    /// The process that asked.
    pub process: usize,
    /// The client: each start of a process is another one.
    pub client: u16,
    /// The register.
    pub key: u8,
    /// The value that the client expected there.
    pub expected: u32,
    /// When it was called. Time is counted in calls and answers.
    pub called: u64,
    /// When it was answered, and how.
    pub answered: Option<(u64, Answer)>,
    /// The index of its action, once that is committed, and the value that the action found in the
    /// register.
    pub committed: Option<(u64, u32)>,
}

/// Every perform and read of a run.
#[derive(Debug, Default)]
pub struct History {
    ops: Vec<Op>,
    /// By operation.
    lives: Vec<Lives>,
    clock: u64,
    /// The incarnation of the cluster to which belongs what is recorded next; 0 if there is none
    /// yet, or only one.
    pub incarnation: u64,
}

/// The incarnations to which one operation belongs. 0 means that it is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Lives {
    /// The one of which its client was a part when it called.
    called: u64,
    /// The one in which it took effect.
    effective: u64,
}

impl History {
    /// Records a call. Gives its number.
    pub fn call(&mut self, op: Op) -> OpId {
        self.clock += 1;
        self.ops.push(Op { called: self.clock, ..op });
        self.lives.push(Lives { called: self.incarnation, effective: 0 });
        OpId::try_from(self.ops.len()).expect("runs are short")
    }

    /// All operations, in the order of their numbers, which start at 1.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The operation with this number.
    pub fn op(&self, op: OpId) -> &Op {
        &self.ops[op as usize - 1]
    }

    /// Records an answer. `local` is the value of the register in the process's committed state,
    /// and `applied` is the index of that state.
    ///
    /// # Errors
    /// When the answer cannot be true, or is not the first one.
    pub fn answer(
        &mut self,
        op: OpId,
        outcome: &Outcome,
        local: u32,
        applied: u64,
    ) -> Result<(), String> {
        self.clock += 1;
        let clock = self.clock;
        let record = &mut self.ops[op as usize - 1];
        if let Some((_, before)) = record.answered {
            return Err(format!("op {op} was settled twice: {before:?}, then {outcome:?}"));
        }
        let answer = match (record.asked, outcome) {
            (Asked::Read, Outcome::Nothing) => Answer::Value(local),
            (Asked::Perform(_), Outcome::Nothing) => Answer::Nothing,
            (_, Outcome::Action(bytes)) => {
                let action: machine::Action =
                    postcard::from_bytes(bytes.as_slice()).map_err(|e| e.to_string())?;
                if action.op != op {
                    return Err(format!("op {op} was settled with the action of op {}", action.op));
                }
                match record.committed {
                    None => return Err(format!("op {op} was acknowledged but is not committed")),
                    Some((index, _)) if index > applied => {
                        return Err(format!("op {op} was acknowledged before it was applied"));
                    }
                    Some(_) => Answer::Action(action.old),
                }
            }
            (_, Outcome::Failed(failure)) => match failure.code.as_str() {
                VALUE => Answer::Value(failure.message.parse().expect("a value")),
                "TIMEOUT" | "CLOSED" | "OUTCOME_UNKNOWN" => Answer::Unknown,
                "DIVERGED" | "MIGRATION_FAILED" => Answer::Unknown,
                "DESTROYED" | "STORAGE_LOST" => Answer::Unknown,
                "BUSY" | "TOO_LARGE" | "REDUCER_FAILED" | "OUTDATED" => Answer::Refused,
                "CLUSTER_FULL" | "AMNESIA" | "NOT_A_MEMBER" => Answer::Refused,
                code => return Err(format!("op {op} failed with the unknown code {code}")),
            },
        };
        record.answered = Some((clock, answer));
        if !matches!(answer, Answer::Unknown | Answer::Refused) {
            self.takes_effect(op)?;
        }
        self.check_never_ran(op)
    }

    /// An operation takes effect in the present incarnation. A perform must not do that in a later
    /// one than that of its call. A read may, because its answer is what it finds.
    fn takes_effect(&mut self, op: OpId) -> Result<(), String> {
        let (now, asked) = (self.incarnation, self.op(op).asked);
        let Lives { called, effective } = &mut self.lives[op as usize - 1];
        let before = std::mem::replace(effective, now);
        let other = [before, if asked == Asked::Read { 0 } else { *called }];
        match other.into_iter().find(|other| *other != 0 && *other != now) {
            None => Ok(()),
            Some(other) => Err(format!(
                "op {op} belongs to incarnation {other:x}, but takes effect in {now:x}"
            )),
        }
    }

    /// Records that the action of a perform is committed.
    ///
    /// # Errors
    /// When the perform was reported as never run, or has run before.
    pub fn committed(&mut self, action: &machine::Action, index: u64) -> Result<(), String> {
        let op = action.op;
        let record = &mut self.ops[op as usize - 1];
        if let Some((before, _)) = record.committed.replace((index, action.old)) {
            return Err(format!("op {op} ran twice: at {before} and at {index}"));
        }
        self.takes_effect(op)?;
        self.check_never_ran(op)
    }

    fn check_never_ran(&self, op: OpId) -> Result<(), String> {
        let record = self.op(op);
        match (record.committed, record.answered) {
            (Some((index, _)), Some((_, answer)))
                if !matches!(answer, Answer::Action(_) | Answer::Unknown) =>
            {
                Err(format!("op {op} was settled with {answer:?} but is committed at {index}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks every register's history.
    ///
    /// # Errors
    /// When a history is not linearizable: names the first such register and lists its history.
    pub fn check(&self) -> Result<(), String> {
        let incarnations: BTreeSet<u64> = self.lives.iter().map(|lives| lives.effective).collect();
        incarnations.into_iter().try_for_each(|incarnation| {
            (0..machine::KEYS as u8).try_for_each(|key| self.check_key(incarnation, key))
        })
    }

    fn check_key(&self, incarnation: u64, key: u8) -> Result<(), String> {
        let ops = (1..).zip(&self.ops).zip(&self.lives);
        let ops = ops.filter(|((_, op), lives)| op.key == key && lives.effective == incarnation);
        let ops: Vec<(OpId, &Op)> = ops.map(|(op, _)| op).take(LONGEST).collect();
        // An answer that came after the last checked call is ignored: at that time, the operation
        // was still running.
        let Some(end) = ops.last().map(|(_, op)| op.called) else { return Ok(()) };
        let mut steps = Vec::new();
        for (id, op) in &ops {
            let answered =
                op.answered.filter(|(at, answer)| *at <= end && *answer != Answer::Unknown);
            let at = answered.map_or(u64::MAX, |(at, _)| at);
            let step = Step::new(*id, op, answered.map(|(_, answer)| answer));
            steps.extend(step.map(|step| (op.called, at, step)));
        }
        // An unanswered operation may have taken effect after an operation that is not checked.
        // Then it found a value that no checked operation has written, and is left out. Its own
        // value may be one that others found, so this is repeated until nothing more is left out.
        loop {
            let written: BTreeSet<u32> =
                steps.iter().filter_map(|(.., s)| s.write).chain([0]).collect();
            let before = steps.len();
            steps.retain(|(_, at, step)| *at < u64::MAX || written.contains(&step.found));
            if steps.len() == before {
                break;
            }
        }
        let mut events = Vec::new();
        for (process, (called, at, step)) in steps.into_iter().enumerate() {
            events.push((called, process, Event::Call(step)));
            events.push((at, process, Event::Response(step)));
        }
        if events.is_empty() {
            return Ok(());
        }
        events.sort_by_key(|(at, process, _)| (*at, *process));
        // Calls without an answer between them are concurrent, so their order means nothing. The
        // checker is faster when it sees those first that write nothing.
        let is_call = |event: &Event<Step>| matches!(event, Event::Call(_));
        for calls in events.chunk_by_mut(|a, b| is_call(&a.2) && is_call(&b.2)) {
            calls.sort_by_key(|(_, _, event)| match event {
                Event::Call(step) | Event::Response(step) => step.write.is_some(),
            });
        }
        let lines = || events.iter().map(|(at, _, event)| format!("  {at} {event:?}"));
        let actions = events.iter().map(|(_, process, event)| (*process, event.clone()));
        if WGLChecker::<Register>::is_linearizable(Events::from_actions(actions.collect())) {
            return Ok(());
        }
        let lines: Vec<_> = lines().collect();
        Err(format!("register {key} is not linearizable:\n{}", lines.join("\n")))
    }
}

/// What one operation does to a register, and what it found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// The value that the operation found. The register must hold it.
    found: u32,
    /// The value that a compare-and-set expected. The register must hold it, too.
    only_if: Option<u32>,
    /// The value that the operation writes, if it writes one.
    write: Option<u32>,
}

impl Step {
    /// `None` for an operation that never ran, and for an unanswered one without a committed
    /// action: no client can observe whether it ran. If an unanswered operation has a committed
    /// action, the log says what it found, and the checker finds out when it took effect.
    fn new(id: OpId, op: &Op, answer: Option<Answer>) -> Option<Self> {
        let nothing = Self { found: 0, write: None, only_if: None };
        let only_if = (op.asked == Asked::Perform(Method::Cas)).then_some(op.expected);
        match answer.or(op.committed.map(|(_, old)| Answer::Action(old)))? {
            Answer::Action(found) => Some(Self { found, write: Some(id), only_if }),
            Answer::Value(found) => Some(Self { found, ..nothing }),
            Answer::Nothing => Some(Self { found: op.expected, ..nothing }),
            Answer::Refused | Answer::Unknown => None,
        }
    }
}

/// The sequential specification of a register.
struct Register;

impl Specification for Register {
    type State = u32;
    type Operation = Step;

    fn init() -> u32 {
        0
    }

    fn apply(step: &Step, state: &u32) -> (bool, u32) {
        let fits = step.found == *state && step.only_if.is_none_or(|only| only == *state);
        (fits, step.write.unwrap_or(*state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(method: Method) -> Op {
        Op {
            asked: Asked::Perform(method),
            process: 0,
            client: 0,
            key: 0,
            expected: 0,
            called: 0,
            answered: None,
            committed: None,
        }
    }

    fn answer(history: &mut History, op: OpId, answer: Answer) {
        history.clock += 1;
        history.ops[op as usize - 1].answered = Some((history.clock, answer));
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut history = History::default();
        let one = history.call(op(Method::Set));
        answer(&mut history, one, Answer::Action(0));
        let two = history.call(op(Method::Set));
        answer(&mut history, two, Answer::Action(one));
        let read = history.call(op(Method::Get));
        answer(&mut history, read, Answer::Value(one));
        history.call(op(Method::Get));
        let error = history.check().expect_err("the last read is stale");
        assert!(error.contains("register 0"), "{error}");
    }

    #[test]
    fn a_read_may_or_may_not_see_a_concurrent_write() {
        for seen in [true, false] {
            let mut history = History::default();
            let write = history.call(op(Method::Set));
            let read = history.call(op(Method::Get));
            answer(&mut history, read, Answer::Value(if seen { write } else { 0 }));
            answer(&mut history, write, Answer::Action(0));
            history.call(op(Method::Get));
            history.check().expect("one of the two orders explains the history");
        }
    }

    #[test]
    fn a_write_that_timed_out_may_take_effect_late_but_is_not_undone() {
        for (last, fits) in [(1, true), (0, false)] {
            let mut history = History::default();
            let write = history.call(op(Method::Set));
            answer(&mut history, write, Answer::Unknown);
            history.ops[0].committed = Some((1, 0));
            for value in [0, 1, last] {
                let read = history.call(op(Method::Get));
                answer(&mut history, read, Answer::Value(value));
            }
            history.call(op(Method::Get));
            assert_eq!(history.check().is_ok(), fits);
        }
    }

    #[test]
    fn a_swap_must_find_the_value_before_it() {
        let mut history = History::default();
        let one = history.call(op(Method::Set));
        answer(&mut history, one, Answer::Action(0));
        let two = history.call(op(Method::Swap));
        answer(&mut history, two, Answer::Action(0));
        history.call(op(Method::Get));
        assert!(history.check().is_err(), "it should have found 1");
    }
}
