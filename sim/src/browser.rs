//! The storage and the locks that a browser offers its tabs, and no more than it promises. In each
//! database, transactions happen completely or not at all, one after the other. A lock is released
//! when its tab dies.
//!
//! What needs several databases is done in several transactions, in the order of
//! `www/package/tabs.js`. Between two of them other pages have their turn, and the page may die.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use conflux::elastic::{self, Effect, Record, Registry, StopReason};
use conflux::host::types::Effect as HostEffect;
use conflux::host::types::Input;
use conflux::mistakes::{Mistake, made};
use conflux::raft::NodeId;
use conflux::storage::{Fence, admit};

use crate::disk::{Disk, Write};
use crate::machine::State;

/// A page: the number of its tab, and which of the tab's pages it is, counted from 1.
pub type Page = (usize, u32);

/// The id of the node whose database it is, or 0 for the registry.
pub type Database = NodeId;

/// What a request does, in one transaction.
#[derive(Debug)]
pub enum Task {
    /// What the page's host has asked for, or the first step of it.
    Effect(HostEffect),
    /// Deletes the database.
    Remove,
    /// Takes a node, whose record is deleted, off the registry.
    TakeOff(NodeId),
    /// A record is missing. If the registry is missing, too, all storage of the cluster was
    /// deleted; if not, this is the answer.
    Confirm(elastic::Input),
}

/// A request of a page to storage.
#[derive(Debug)]
pub struct Request {
    /// The page that made it.
    pub page: Page,
    /// The generation of the page's host.
    pub generation: u32,
    /// What it does.
    pub task: Task,
    /// Whether it has begun. Then it may become durable even if the page dies, and no other request
    /// of its database runs before it has ended.
    pub begun: bool,
}

/// A node's database.
#[derive(Debug)]
pub struct Stored {
    /// The incarnation of the cluster to which the node belongs.
    pub incarnation: u64,
    /// Raised by every host that takes the node over.
    pub epoch: u64,
    /// What is durable.
    pub disk: Disk,
}

#[derive(Debug, Default)]
struct Lock {
    holder: Option<(Page, u32)>,
    queue: VecDeque<(Page, u32)>,
}

/// An answer to a page.
#[derive(Debug)]
pub struct Answer {
    /// The page.
    pub page: Page,
    /// The input for the page's host.
    pub input: Input<State>,
}

/// One browser.
#[derive(Debug, Default)]
pub struct Browser {
    /// The registry.
    pub registry: Option<Registry>,
    /// The databases of the nodes.
    pub nodes: BTreeMap<NodeId, Stored>,
    /// The requests to each database, in order.
    pub queues: BTreeMap<Database, VecDeque<Request>>,
    locks: BTreeMap<NodeId, Lock>,
    /// Answers about locks that have not been delivered yet.
    pub answers: Vec<Answer>,
    /// The pages that have a connection to a database. While one of them stands still, the
    /// database cannot be deleted.
    pub connections: BTreeSet<(Database, Page)>,
    /// The mark of the registry while it is empty: another one after each deletion. Each page
    /// knows the mark that it has read.
    mark: u32,
    marks: BTreeMap<Page, u32>,
    /// Every node that was ever in the registry.
    pub registered: BTreeSet<NodeId>,
    /// Whether other pages have their turn between the transactions of one operation.
    pub stepwise: bool,
}

fn elastic_input(generation: u32, input: elastic::Input) -> Input<State> {
    Input::Elastic { generation, input }
}

impl Browser {
    /// Takes a request of a page to storage or locks. Gives the database in whose queue it waits,
    /// if there is one.
    pub fn ask(&mut self, page: Page, effect: HostEffect) -> Option<Database> {
        let (generation, database) = match &effect {
            HostEffect::Write { generation, node, .. } => (*generation, *node),
            HostEffect::Elastic { generation, effect } => match effect {
                Effect::ReadRegistry | Effect::Found(_) | Effect::Register { .. } => {
                    (*generation, 0)
                }
                Effect::DeleteAll => (*generation, 0),
                Effect::Load(node) | Effect::Delete(node) | Effect::Create { node, .. } => {
                    (*generation, *node)
                }
                lock => {
                    self.lock(page, *generation, lock);
                    return None;
                }
            },
            HostEffect::Listen(_) | HostEffect::Unlisten(_) | HostEffect::Record { .. } => {
                return None;
            }
        };
        self.queue(
            database,
            Request { page, generation, task: Task::Effect(effect), begun: false },
        );
        Some(database)
    }

    /// Puts a request in the queue of a database.
    pub fn queue(&mut self, database: Database, request: Request) {
        self.queues.entry(database).or_default().push_back(request);
    }

    fn lock(&mut self, page: Page, generation: u32, effect: &Effect) {
        match effect {
            Effect::TryLock(node) => {
                let lock = self.locks.entry(*node).or_default();
                let granted = lock.holder.is_none() && lock.queue.is_empty();
                if granted {
                    lock.holder = Some((page, generation));
                }
                let input =
                    elastic_input(generation, elastic::Input::Lock { node: *node, granted });
                self.answers.push(Answer { page, input });
            }
            Effect::AwaitLock(node) => {
                self.locks.entry(*node).or_default().queue.push_back((page, generation));
                self.grant(*node);
            }
            Effect::StealLock(node) => {
                let lock = self.locks.entry(*node).or_default();
                if lock.holder.is_some_and(|(holder, _)| holder == page) {
                    return;
                }
                lock.queue.retain(|(waiter, _)| *waiter != page);
                if let Some((holder, generation)) = lock.holder.replace((page, generation)) {
                    let input = elastic_input(generation, elastic::Input::Lost(*node));
                    self.answers.push(Answer { page: holder, input });
                }
                let granted = elastic::Input::Lock { node: *node, granted: true };
                self.answers.push(Answer { page, input: elastic_input(generation, granted) });
            }
            Effect::Unlock(node) => self.release(*node, page),
            Effect::UnlockAll => {
                self.disconnect(page);
                self.release_all(page);
            }
            _ => unreachable!("not about a lock: {effect:?}"),
        }
    }

    fn release(&mut self, node: NodeId, page: Page) {
        let lock = self.locks.entry(node).or_default();
        lock.queue.retain(|(waiter, _)| *waiter != page);
        if lock.holder.is_some_and(|(holder, _)| holder == page) {
            lock.holder = None;
            self.grant(node);
        }
    }

    /// Releases all locks of a page, and takes the page out of all queues.
    pub fn release_all(&mut self, page: Page) {
        for node in self.locks.keys().copied().collect::<Vec<_>>() {
            self.release(node, page);
        }
    }

    fn grant(&mut self, node: NodeId) {
        let lock = self.locks.entry(node).or_default();
        if lock.holder.is_some() {
            return;
        }
        if let Some((page, generation)) = lock.queue.pop_front() {
            lock.holder = Some((page, generation));
            let input = elastic_input(generation, elastic::Input::Lock { node, granted: true });
            self.answers.push(Answer { page, input });
        }
    }

    /// Takes a lock from its holder without telling the holder, and grants it to the next page in
    /// the queue. Gives the node. `nth` selects one of the locks for which a page waits.
    pub fn drop_lock(&mut self, nth: usize) -> Option<NodeId> {
        let held = |lock: &Lock| lock.holder.is_some() && !lock.queue.is_empty();
        let held = self.locks.iter().filter(|(_, lock)| held(lock)).map(|(node, _)| *node);
        let held: Vec<_> = held.collect();
        let node = *held.get(nth.checked_rem(held.len())?)?;
        self.locks.get_mut(&node)?.holder = None;
        self.grant(node);
        Some(node)
    }

    /// Whether this page holds the lock of this node.
    pub fn holds(&self, page: Page, node: NodeId) -> bool {
        let holder = self.locks.get(&node).and_then(|lock| lock.holder);
        holder.is_some_and(|(holder, _)| holder == page)
    }

    /// A page closes its connections, or is gone.
    pub fn disconnect(&mut self, page: Page) {
        self.connections.retain(|(_, other)| *other != page);
    }

    /// The site's data are deleted. All connections are lost.
    pub fn clear(&mut self) {
        self.registry = None;
        self.mark += 1;
        self.nodes.clear();
        self.connections.clear();
    }

    /// Carries out a request to this database, in one transaction. Gives the answer, if there is
    /// one already, and the requests that follow if the page still lives.
    pub fn carry_out(
        &mut self,
        database: Database,
        request: Request,
    ) -> (Option<Answer>, Vec<(Database, Request)>) {
        let Request { page, generation, task, .. } = request;
        let (input, next) = self.step(database, page, generation, task);
        let mut answer = input.map(|input| Answer { page, input });
        let request =
            |(database, task)| (database, Request { page, generation, task, begun: false });
        let next: Vec<_> = next.into_iter().map(request).collect();
        if self.stepwise {
            return (answer, next);
        }
        for (database, request) in next {
            let (answered, _) = self.carry_out(database, request);
            answer = answer.or(answered);
        }
        (answer, Vec::new())
    }

    fn step(
        &mut self,
        database: Database,
        page: Page,
        generation: u32,
        task: Task,
    ) -> (Option<Input<State>>, Vec<(Database, Task)>) {
        let answer = |input| (Some(elastic_input(generation, input)), Vec::new());
        self.connections.insert((database, page));
        match task {
            Task::Effect(HostEffect::Write { node, epoch, persist, .. }) => {
                let stored = self.nodes.get_mut(&node);
                match (admit(stored.as_ref().map(|s| s.epoch), epoch), stored) {
                    (Ok(()), Some(stored)) => {
                        let seq = persist.seq;
                        stored.disk.start(Write::Raft(persist));
                        stored.disk.finish();
                        (Some(Input::Persisted { generation, node, seq }), Vec::new())
                    }
                    (Err(Fence::NoRecord), _) => {
                        (None, vec![(0, Task::Confirm(elastic::Input::Lost(node)))])
                    }
                    _ => answer(elastic::Input::Lost(node)),
                }
            }
            Task::Effect(HostEffect::Elastic { effect, .. }) => {
                self.elastic(page, generation, effect)
            }
            Task::Effect(_) => (None, Vec::new()),
            Task::Remove => {
                if database == 0 {
                    self.registry = None;
                }
                self.nodes.remove(&database);
                self.connections.retain(|(other, _)| *other != database);
                (None, Vec::new())
            }
            Task::TakeOff(node) => {
                if let Some(registry) = &mut self.registry {
                    registry.nodes.retain(|other| *other != node);
                }
                answer(elastic::Input::Deleted(node))
            }
            Task::Confirm(_) if self.registry.is_none() => {
                answer(elastic::Input::Failed(StopReason::StorageLost))
            }
            Task::Confirm(input) => answer(input),
        }
    }

    fn elastic(
        &mut self,
        page: Page,
        generation: u32,
        effect: Effect,
    ) -> (Option<Input<State>>, Vec<(Database, Task)>) {
        let answer = |input| (Some(elastic_input(generation, input)), Vec::new());
        match effect {
            Effect::ReadRegistry => {
                self.marks.insert(page, self.mark);
                answer(elastic::Input::Registry(self.registry.clone()))
            }
            Effect::Found(_)
                if self.registry.is_none()
                    && self.marks.get(&page) != Some(&self.mark)
                    && !made(Mistake::FoundedWithoutNode) =>
            {
                answer(elastic::Input::Registry(None))
            }
            Effect::Found(registry) => {
                let registry = self.registry.get_or_insert(registry).clone();
                self.registered.extend(&registry.nodes);
                answer(elastic::Input::Registry(Some(registry)))
            }
            Effect::Register { node, incarnation } => match &mut self.registry {
                Some(registry)
                    if registry.incarnation == incarnation
                        || made(Mistake::RegisteredInNextCluster) =>
                {
                    registry.nodes.push(node);
                    self.registered.insert(node);
                    answer(elastic::Input::Registered(node))
                }
                registry => {
                    let lost = match registry {
                        Some(_) => elastic::Input::Lost(node),
                        None => elastic::Input::Failed(StopReason::StorageLost),
                    };
                    (Some(elastic_input(generation, lost)), vec![(node, Task::Remove)])
                }
            },
            Effect::Load(node) => match self.nodes.get_mut(&node) {
                Some(stored) => {
                    stored.epoch += 1;
                    let (incarnation, epoch) = (stored.incarnation, stored.epoch);
                    let record = Some(Record { incarnation, epoch, saved: stored.disk.load() });
                    answer(elastic::Input::Loaded { node, record })
                }
                None => {
                    let loaded = elastic::Input::Loaded { node, record: None };
                    (None, vec![(0, Task::Confirm(loaded))])
                }
            },
            Effect::Create { node, incarnation, saved } => {
                let stored = Stored { incarnation, epoch: 1, disk: Disk::with(saved) };
                self.nodes.insert(node, stored);
                answer(elastic::Input::Created(node))
            }
            // The record is cleared, which fences off its owners, before the database is deleted.
            Effect::Delete(node) => {
                self.nodes.remove(&node);
                (None, vec![(0, Task::TakeOff(node))])
            }
            Effect::DeleteAll => {
                let nodes = self.registry.iter().flat_map(|registry| &registry.nodes);
                let mut next: Vec<_> = nodes.map(|node| (*node, Task::Remove)).collect();
                if made(Mistake::RegistryDeletedLate) || made(Mistake::NodesDeletedFirst) {
                    next.push((0, Task::Remove));
                }
                if !made(Mistake::NodesDeletedFirst) {
                    self.mark += 1;
                    self.registry = None;
                }
                (None, next)
            }
            effect => unreachable!("not about storage: {effect:?}"),
        }
    }
}
