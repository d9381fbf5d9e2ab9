//! The host's part of an elastic cluster: its own node and the nodes that it has adopted. What
//! storage and locks must do goes out as effects.

use super::cluster::{Action, Admission, Cluster, Event, Route};
use super::transport::{Address, Message};
use super::types::{Effect, Status};
use crate::elastic::{self, Body, Elastic, StopReason, View};
use crate::node::Packet;
use crate::raft::{HardState, Members, NodeId, Persist, Raft, Time};
use crate::store::Failure;
use crate::wire::Header;

/// The digits of ids, without letters that are easily confused.
const DIGITS: &str = "0123456789abcdefghjkmnpqrstvwxyz";

/// The id of a node, as users and channels see it: 8 digits of 5 bits.
pub fn name(node: NodeId) -> String {
    let digit = |place: u32| char::from(DIGITS.as_bytes()[(node >> (5 * place)) as usize % 32]);
    (0..8).rev().map(digit).collect()
}

/// The number of a node, from its id. `None` when the id has another digit.
pub fn number(id: &str) -> Option<NodeId> {
    id.chars().try_fold(0, |number, digit| Some(number << 5 | DIGITS.find(digit)? as NodeId))
}

/// The elastic cluster of one host.
#[derive(Debug)]
pub(super) struct ElasticCluster(Elastic);

impl ElasticCluster {
    /// The cluster of a host that has not started and runs this version of the application. `seed`
    /// determines every random choice.
    pub(super) fn new(
        max_voters: usize,
        version: u32,
        visible: bool,
        now: Time,
        seed: u64,
    ) -> Self {
        Self(Elastic::new(max_voters, visible, now, seed).with_version(version))
    }

    fn take(&mut self, effect: elastic::Effect, actions: &mut Vec<Action>) {
        match effect {
            elastic::Effect::Run { node, epoch, saved, own } => {
                actions.push(Action::Effect(Effect::Listen(name(node))));
                let (members, first_election) = (Members::default(), None);
                actions.push(Action::Run { node, epoch, own, members, saved, first_election });
            }
            elastic::Effect::Stop(node) => {
                actions.push(Action::Effect(Effect::Unlisten(name(node))));
                actions.push(Action::Stop(node));
            }
            elastic::Effect::Change { node, change } => actions.push(Action::Change(node, change)),
            elastic::Effect::Transfer { node, to } => actions.push(Action::Transfer(node, to)),
            elastic::Effect::PeerDown(node) => actions.push(Action::PeerDown(node)),
            elastic::Effect::Wake(node) => actions.push(Action::Wake(node)),
            elastic::Effect::Broadcast(body) => actions.push(self.broadcast(body)),
            elastic::Effect::Stopped(reason) => actions.push(Action::Refuse(describe(reason))),
            effect => actions.push(Action::Ask(effect)),
        }
    }

    fn broadcast(&mut self, body: Body) -> Action {
        let message = self.0.message_of(body);
        let (from, set) = (self.0.own().unwrap_or(0), self.0.incarnation());
        Action::Send(Address { id: None, to: 0, from, set }, Message::Elastic(message))
    }
}

fn describe(reason: StopReason) -> Failure {
    match reason {
        StopReason::StorageLost => Failure::new(
            "STORAGE_LOST",
            "the storage of this cluster was deleted while the page was open: reload the page",
        ),
        StopReason::StorageFailed(why) => Failure::new(
            "STORAGE_FAILED",
            format!(
                "storage does not take what must be written ({why}): make room for this site \
                 and reload the page"
            ),
        ),
        StopReason::Destroyed => Failure::new(
            "DESTROYED",
            "the cluster was ended, and what it had stored deleted: reload the page to begin \
             a new one",
        ),
    }
}

impl Cluster for ElasticCluster {
    fn handle(&mut self, now: Time, event: Event, nodes: &dyn View) -> Vec<Action> {
        let input = match event {
            Event::Start => elastic::Input::Start,
            Event::Tick => elastic::Input::Tick,
            Event::Message(Message::Elastic(message)) => elastic::Input::Message(message),
            Event::Foreign => elastic::Input::Foreign,
            Event::Changed => elastic::Input::Changed,
            Event::Elastic(input) => input,
            Event::Visible(visible) => elastic::Input::Visible(visible),
            Event::Suspend | Event::Close => elastic::Input::Suspend,
            Event::Destroy => elastic::Input::Destroy,
            Event::Message(_) | Event::Restored(_) | Event::Failed(_) => return Vec::new(),
        };
        let mut actions = Vec::new();
        for effect in self.0.handle(now, input, nodes) {
            self.take(effect, &mut actions);
        }
        actions
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn wants_review(&self, _now: Time, nodes: &dyn View) -> bool {
        self.0.is_review_due(nodes)
    }

    fn admit(&self, header: &Header) -> Admission {
        match header.set == self.0.incarnation() {
            true => Admission::Taken,
            false => Admission::Foreign,
        }
    }

    fn route(&mut self, header: &Header, _: &Packet, _: &dyn View) -> (Option<Route>, Vec<Action>) {
        let route = Route { to: header.to, from: header.from };
        (Some(route).filter(|route| route.to != 0), Vec::new())
    }

    fn address(&self, from: NodeId, to: NodeId, _own: Option<&Raft>) -> Address {
        Address { id: Some(name(to)), to, from, set: self.0.incarnation() }
    }

    fn write(
        &mut self,
        node: NodeId,
        epoch: u64,
        generation: u32,
        persist: Persist,
        _hard: HardState,
    ) -> Effect {
        Effect::Write { generation, node, epoch, persist }
    }

    fn incarnation(&self) -> u64 {
        self.0.incarnation()
    }

    fn id(&self) -> String {
        self.0.own().map(name).unwrap_or_default()
    }

    fn name(&self, node: NodeId, _own: Option<&Raft>) -> Option<String> {
        Some(name(node))
    }

    fn label(&self, node: NodeId) -> String {
        format!("node {}", name(node))
    }

    fn present(&self) -> usize {
        self.0.hosts()
    }

    fn is_last(&self) -> bool {
        false
    }

    fn complete(&self, status: &mut Status, own: Option<&Raft>) {
        let members = || own.map(Raft::members).into_iter().flat_map(Members::iter);
        let those = |is: &dyn Fn(NodeId) -> bool| -> Vec<String> {
            members().map(|(id, _)| id).filter(|id| is(*id)).map(name).collect()
        };
        status.adopted = those(&|id| self.0.is_adopted(id));
        status.hidden = those(&|id| self.0.is_visible(id) == Some(false));
        let others = self.0.running().filter(|id| self.0.own() != Some(*id));
        status.running = others.map(name).collect();
        status.size = members().count();
    }

    fn elastic(&self) -> Option<&Elastic> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_node_can_be_read_from_its_id() {
        for node in [1, 31, 32, 123_456_789, (1 << 40) - 1] {
            let id = name(node);
            assert_eq!((id.len(), number(&id)), (8, Some(node)), "{id}");
        }
        assert_eq!(name(1), "00000001");
        assert_eq!(number("0000000o"), None, "`o` is no digit");
        assert_eq!(number(""), Some(0), "no node");
    }
}
